//! The yardstick: a workload again in C, built only for who compares the two.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nlrig_build::environment;

use crate::abi::Arch;
use crate::cache::{Cache, Key};
use crate::process::run_logged;
use crate::{data, kernel, say};

/// One file; a busy machine may take long all the same.
const BUILD_LIMIT: Duration = Duration::from_secs(5 * 60);

/// How it is built: part of every key. Static, like the workload.
const FLAGS: [&str; 7] =
    ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-static", "-pthread"];
/// The file in the folder that [`build`] gives back.
pub const PROGRAM: &str = "threads";

/// Finds or builds the yardstick for programs of this architecture; gives back
/// the folder that holds [`PROGRAM`].
///
/// # Errors
/// There is no gcc, or the build failed; the message has the first line that
/// says what is wrong.
pub fn build(cache: &Cache, arch: Arch) -> Result<PathBuf> {
    let source = data::yardstick();
    let headers = data::uapi().context("the rig carries no UAPI header")?;
    let key = Key::new()
        .add("flags", FLAGS.join(" "))
        .add("arch", arch.name())
        .add("compiler", kernel::compiler()?);
    let key = headers.add_to(source.add_to(key, "source")?, "headers")?;
    let entry = cache.entry("yardstick", key, |dir| {
        say::status(&format!("yardstick for {arch}: compiling"));
        source.write_to(&dir.join("src"))?;
        headers.write_to(&dir.join("include"))?;
        compile(&dir.join("src/threads.c"), &dir.join("include"), arch, dir)
    })?;
    Ok(entry.dir)
}

fn compile(source: &Path, headers: &Path, arch: Arch, dir: &Path) -> nlrig_host::Result<()> {
    let width = match arch {
        Arch::I386 => "-m32",
        Arch::X86_64 => "-m64",
    };
    let mut command = environment::command("gcc");
    command
        .args(FLAGS)
        .arg(width)
        .arg("-I")
        .arg(headers)
        .arg("-o")
        .arg(dir.join(PROGRAM))
        .arg(source);
    let what = format!("yardstick for {arch}");
    run_logged(command, &what, &dir.join("build.log"), BUILD_LIMIT, |_| {})
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::bench::job::Yardstick;
    use crate::process::capture;

    /// This kernel has no such protocol, and the program must say so.
    #[test]
    fn it_builds_for_both_word_sizes_and_names_the_call_that_fails() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path()).unwrap();
        for arch in Arch::ALL {
            let folder = build(&cache, arch).unwrap();
            // Few descriptors, should this kernel have the protocol after all.
            let mut command = Command::new("sh");
            command.args(["-c", "ulimit -n 16; exec \"$0\" 3>&1"]).arg(folder.join(PROGRAM));
            let said = capture(command, Duration::from_secs(60)).unwrap();
            let said = Yardstick::parse(&serde_json::from_str(&said).unwrap()).unwrap();
            assert_eq!(said.failed_call, "socket", "{said:?}");
            assert!(said.threads < 16, "{said:?}");
            assert_eq!(build(&cache, arch).unwrap(), folder);
        }
    }
}
