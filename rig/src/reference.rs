//! The reference: the workload `threads` in C, which `bench` measures against.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nlrig_build::environment;

use crate::abi::Arch;
use crate::cache::{Cache, Key};
use crate::process::run_logged;
use crate::{data, kernel, ui};

/// The time limit of the build: one file, on a host that may be busy.
const BUILD_LIMIT: Duration = Duration::from_secs(5 * 60);

/// The compiler's flags, which are part of the cache key. Static, like the
/// workload.
const FLAGS: [&str; 7] =
    ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-static", "-pthread"];
/// The name of the program in the folder that [`build`] returns.
pub const PROGRAM: &str = "threads";

/// Builds the reference for an architecture, unless it is in the cache; returns
/// the folder with [`PROGRAM`].
///
/// # Errors
/// gcc is missing, or the build failed; the message has the first error line.
pub fn build(cache: &Cache, arch: Arch) -> Result<PathBuf> {
    let source = data::reference();
    let headers = data::uapi().context("the rig carries no UAPI header")?;
    let key = Key::new()
        .add("flags", FLAGS.join(" "))
        .add("arch", arch.name())
        .add("compiler", kernel::compiler()?);
    let key = headers.add_to(source.add_to(key, "source")?, "headers")?;
    let entry = cache.entry("reference", key, |dir| {
        ui::status(&format!("reference program for {arch}: compiling"));
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
    let what = format!("reference program for {arch}");
    run_logged(command, &what, &dir.join("build.log"), BUILD_LIMIT, |_| {})
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::bench::job::ReferenceReport;
    use crate::process::capture;

    /// The host has no module with the protocol, so socket() fails.
    #[test]
    fn the_reference_builds_for_both_word_sizes_and_reports_the_call_that_fails() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path()).unwrap();
        for arch in Arch::ALL {
            let folder = build(&cache, arch).unwrap();
            // Few descriptors, in case the host has the module after all.
            let mut command = Command::new("sh");
            command.args(["-c", "ulimit -n 16; exec \"$0\" 3>&1"]).arg(folder.join(PROGRAM));
            let text = capture(command, Duration::from_secs(60)).unwrap();
            let report = ReferenceReport::parse(&serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(report.failed_call, "socket", "{report:?}");
            assert!(report.threads < 16, "{report:?}");
            assert_eq!(build(&cache, arch).unwrap(), folder);
        }
    }
}
