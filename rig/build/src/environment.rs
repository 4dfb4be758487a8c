//! The environment of builds: made here, not inherited.
//!
//! Kbuild, make, gcc and cargo read dozens of variables. A kernel that was built
//! with one of them set would be found in the cache by later builds without it,
//! so a build sees only the variables that are listed here.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// Variables of the host that every build keeps: where programs are and where
/// temporary files go. They do not change what is built.
const KEPT: &[&str] = &["HOME", "PATH", "TMPDIR"];

/// Variables of the host that cargo keeps too: which toolchain rustup takes,
/// where crates are, and the way to the registry. The compiler's version is part
/// of each cache key and the lock file has the hash of each crate.
const KEPT_BY_CARGO: &[&str] = &[
    "ALL_PROXY",
    "CARGO_HOME",
    "CARGO_HTTP_CAINFO",
    "CARGO_HTTP_MULTIPLEXING",
    "CARGO_HTTP_PROXY",
    "CARGO_HTTP_TIMEOUT",
    "CARGO_NET_GIT_FETCH_WITH_CLI",
    "CARGO_NET_OFFLINE",
    "CARGO_NET_RETRY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "RUSTUP_AUTO_INSTALL",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// What Kbuild is told by its environment: everything that would make two builds
/// of the same source differ.
///
/// A PVH boot first runs code (arch/x86/platform/pvh/enlighten.c, and memcmp of
/// lib/string.c) before KASAN's shadow memory exists; instrumented, it is a
/// triple fault. Kbuild reads a variable for each object.
pub const KBUILD: &[(&str, &str)] = &[
    ("KASAN_SANITIZE_enlighten.o", "n"),
    ("KASAN_SANITIZE_string.o", "n"),
    ("KBUILD_BUILD_HOST", "nlrig"),
    ("KBUILD_BUILD_TIMESTAMP", "1970-01-01"),
    ("KBUILD_BUILD_USER", "nlrig"),
];

/// A program of a build: gcc, make.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C");
    keep(&mut command, KEPT);
    command
}

/// `make -C DIR` as Kbuild needs it.
pub fn make(dir: &Path) -> Command {
    let mut command = command("make");
    command.envs(KBUILD.iter().copied()).arg("-C").arg(dir);
    command
}

/// cargo, rustc or rustup.
pub fn cargo(program: impl AsRef<OsStr>) -> Command {
    let mut command = command(program);
    keep(&mut command, KEPT_BY_CARGO);
    command
}

/// The text of [`KBUILD`], for cache keys.
pub(crate) fn kbuild_key() -> String {
    KBUILD.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

fn keep(command: &mut Command, names: &[&str]) {
    for name in names {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(command: &Command) -> Vec<String> {
        let set = command.get_envs().filter(|(_, value)| value.is_some());
        set.map(|(name, _)| name.to_string_lossy().into_owned()).collect()
    }

    /// cargo sets CARGO_MANIFEST_DIR for this very test.
    #[test]
    fn a_build_inherits_what_is_listed_and_nothing_else() {
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        let listed = |name: &String| {
            name == "LC_ALL"
                || KEPT.contains(&name.as_str())
                || KBUILD.iter().any(|(kbuild, _)| kbuild == name)
        };
        assert!(names(&make(Path::new("/"))).iter().all(listed));
        assert!(names(&cargo("cargo")).iter().all(|name| {
            name == "LC_ALL"
                || KEPT.contains(&name.as_str())
                || KEPT_BY_CARGO.contains(&name.as_str())
        }));
    }
}
