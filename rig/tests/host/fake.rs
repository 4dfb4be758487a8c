//! A fake kernel source, and the rig with a private cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::common::soon;

/// The time limit of each wait.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A test's folder: kernel sources, a cache, temporary files.
pub struct FakeHost {
    dir: TempDir,
}

impl FakeHost {
    pub fn new() -> FakeHost {
        FakeHost { dir: tempfile::tempdir().expect("a temporary folder can be created") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Creates a kernel source whose `make vmlinux` runs one line of shell.
    ///
    /// `$(O)` is the build folder, `$(HOST)` the test's folder.
    pub fn source(&self, name: &str, vmlinux: &str) -> PathBuf {
        let source = self.path(name);
        fs::create_dir_all(source.join("net/netlink")).expect("the folder can be created");
        for file in ["Kbuild", "net/netlink/af_netlink.c"] {
            fs::write(source.join(file), "").expect("the file can be written");
        }
        fs::write(source.join("Kconfig"), kconfig()).expect("the file can be written");
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
        fs::write(source.join("Makefile"), makefile).expect("the file can be written");
        source
    }

    /// Returns the command `nlrig build kernel` for a source.
    pub fn build(&self, source: &Path) -> Command {
        let mut command = self.nlrig(&["build", "kernel", "--abi", "x86_64", "--kernel-source"]);
        command.arg(source);
        command
    }

    /// Returns a command of the rig, with its cache and temporary folders below the
    /// test's folder.
    pub fn nlrig(&self, arguments: &[&str]) -> Command {
        let temporary = self.path("tmp");
        fs::create_dir_all(&temporary).expect("the folder can be created");
        let mut command = Command::new(env!("CARGO_BIN_EXE_nlrig"));
        command
            .args(arguments)
            .env("NLRIG_CACHE", self.path("cache"))
            .env("TMPDIR", temporary)
            .stdin(Stdio::null());
        command
    }

    /// Returns the folders of unfinished builds.
    pub fn partial(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path("cache/kernel")) else { return Vec::new() };
        let paths = entries.map(|entry| entry.expect("the folder is readable").path());
        paths.filter(|path| path.extension().is_some_and(|kind| kind == "partial")).collect()
    }

    /// Creates a folder with links to all programs in PATH whose names do not start
    /// with `prefix`.
    pub fn path_without(&self, prefix: &str) -> PathBuf {
        let folder = self.path("bin");
        fs::create_dir(&folder).expect("the folder can be created");
        let path = std::env::var_os("PATH").expect("PATH is set");
        for entry in std::env::split_paths(&path).filter_map(|dir| fs::read_dir(dir).ok()).flatten()
        {
            let program = entry.expect("the folder is readable").path();
            let name =
                program.file_name().expect("a file has a name").to_string_lossy().into_owned();
            if !name.starts_with(prefix) {
                // The first program of a name wins; later links fail.
                let _ = std::os::unix::fs::symlink(&program, folder.join(name));
            }
        }
        folder
    }
}

/// Returns a Kconfig file with all symbols of the rig's fragments.
fn kconfig() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernel-config");
    let files = fs::read_dir(folder).expect("the folder is readable");
    let texts = files.map(|entry| {
        let path = entry.expect("the folder is readable").path();
        fs::read_to_string(path).expect("the fragment is readable")
    });
    let text: String = texts.collect();
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter_map(|word| word.strip_prefix("CONFIG_"))
        .map(|name| format!("config {name}\n\tbool\n"))
        .collect()
}

/// Runs a command and returns its output.
pub fn run(command: &mut Command) -> Output {
    command.output().expect("the command starts")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command and asserts that it succeeds.
pub fn succeeds(command: &mut Command) -> Output {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}", stderr(&output));
    output
}

/// Runs a command and asserts status 125 and a last line that has all `words`.
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

/// Waits until a condition holds; panics after the limit.
pub fn wait_until(what: &str, limit: Duration, holds: impl Fn() -> bool) {
    assert!(soon(limit, holds), "{what}: timed out after {limit:?}");
}
