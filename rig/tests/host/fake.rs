//! A kernel source that is none, and the rig with a cache of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::common::soon;

/// How long anything here may take.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A folder for one test: a source, a cache, and room for more.
pub struct Host {
    dir: TempDir,
}

impl Host {
    pub fn new() -> Host {
        Host { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a source whose `make vmlinux` is this line of shell. `$(O)` is the
    /// folder of the build, `$(HOST)` that of the test.
    pub fn source(&self, name: &str, vmlinux: &str) -> PathBuf {
        let source = self.path(name);
        fs::create_dir_all(source.join("net/netlink")).expect("a folder");
        for file in ["Kbuild", "net/netlink/af_netlink.c"] {
            fs::write(source.join(file), "").expect("a file");
        }
        fs::write(source.join("Kconfig"), kconfig()).expect("a file");
        let host = self.dir.path().display();
        let makefile = format!(
            "HOST = {host}\n\
             allnoconfig:\n\tcp $(KCONFIG_ALLCONFIG) $(O)/.config\n\
             olddefconfig modules:\n\t@:\n\
             vmlinux:\n\
             \tmkdir -p $(O)/include/config\n\
             \techo 6.1.0 > $(O)/include/config/kernel.release\n\
             \t@echo '  CC      kernel/fork.o'\n\
             \t{vmlinux}\n\
             \techo image > $(O)/vmlinux\n"
        );
        fs::write(source.join("Makefile"), makefile).expect("a file");
        source
    }

    /// `nlrig build kernel` of this source.
    pub fn build(&self, source: &Path) -> Command {
        let mut command = self.nlrig(&["build", "kernel", "--abi", "x86_64", "--kernel-source"]);
        command.arg(source);
        command
    }

    /// The rig, with cache and temporary folders below this one.
    pub fn nlrig(&self, arguments: &[&str]) -> Command {
        let temporary = self.path("tmp");
        fs::create_dir_all(&temporary).expect("a folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_nlrig"));
        command
            .args(arguments)
            .env("NLRIG_CACHE", self.path("cache"))
            .env("TMPDIR", temporary)
            .stdin(Stdio::null());
        command
    }

    /// Folders of builds that did not end.
    pub fn partial(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path("cache/kernel")) else { return Vec::new() };
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.filter(|path| path.extension().is_some_and(|kind| kind == "partial")).collect()
    }

    /// A folder of programs: all that PATH finds, but for those that begin like
    /// this.
    pub fn path_without(&self, prefix: &str) -> PathBuf {
        let folder = self.path("bin");
        fs::create_dir(&folder).expect("a folder");
        let path = std::env::var_os("PATH").expect("there is a PATH");
        for entry in std::env::split_paths(&path).filter_map(|dir| fs::read_dir(dir).ok()).flatten()
        {
            let program = entry.expect("an entry").path();
            let name = program.file_name().expect("it has a name").to_string_lossy().into_owned();
            if !name.starts_with(prefix) {
                // The first of a name is the one that counts.
                let _ = std::os::unix::fs::symlink(&program, folder.join(name));
            }
        }
        folder
    }
}

/// A Kconfig file with every symbol of the rig's own fragments.
fn kconfig() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernel-config");
    let files = fs::read_dir(folder).expect("the fragments").map(|entry| entry.expect("an entry"));
    let texts = files.map(|file| fs::read_to_string(file.path()).expect("a fragment"));
    let text: String = texts.collect();
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter_map(|word| word.strip_prefix("CONFIG_"))
        .map(|name| format!("config {name}\n\tbool\n"))
        .collect()
}

/// Runs to the end and gives back what came out.
pub fn run(command: &mut Command) -> Output {
    command.output().expect("it can be started")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Holds it to success.
pub fn succeeds(command: &mut Command) -> Output {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}", stderr(&output));
    output
}

/// Holds it to the rig's own status and to one last line that says all of this.
pub fn fails(command: &mut Command, words: &[&str]) {
    let output = run(command);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(125), "{command:?}: {text}");
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with("nlrig: error: "), "{text}");
    for word in words {
        assert!(last.contains(word), "no \"{word}\" in: {text}");
    }
}

/// Waits until something holds.
pub fn wait_until(what: &str, limit: Duration, holds: impl Fn() -> bool) {
    assert!(soon(limit, holds), "{what}: not within {limit:?}");
}
