//! `cargo xtask` on a host that lacks packages, as an ordinary user: the exact
//! command is printed, and nothing is touched.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder of scripts that stand for a host's programs.
struct Host(PathBuf);

impl Host {
    fn new(name: &str) -> Host {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a folder");
        let host = Host(dir);
        // No package is installed, and the user is an ordinary one.
        host.program("dpkg-query", "exit 1");
        host.program("id", "echo 1000");
        host.program("apt-get", "echo \"apt-get $*\" >> \"${0%/*}/touched\"");
        host
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
    }

    fn xtask(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(arguments)
            .env("PATH", &self.0)
            .env_remove("CI")
            .stdin(Stdio::null())
            .output()
            .expect("it starts")
    }

    /// What apt-get was asked to do.
    fn touched(&self) -> String {
        fs::read_to_string(self.0.join("touched")).unwrap_or_default()
    }
}

/// Holds it to the rig's own status and gives back the last line.
fn refused(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    stderr.lines().last().unwrap_or_default().to_string()
}

#[test]
fn what_is_missing_is_printed_as_a_command_and_nothing_is_touched() {
    let host = Host::new("missing");
    for command in ["rig", "test", "setup"] {
        let line = refused(&host.xtask(&[command]));
        for word in ["sudo apt-get install", "qemu-system-x86", "--yes"] {
            assert!(line.contains(word), "no \"{word}\" in: {line}");
        }
    }
    assert_eq!(host.touched(), "");
}

#[test]
fn without_sudo_an_ordinary_user_is_told_what_to_run() {
    let host = Host::new("no-sudo");
    let line = refused(&host.xtask(&["rig", "--yes"]));
    for word in ["sudo does not start", "as root, run `apt-get update && apt-get install"] {
        assert!(line.contains(word), "no \"{word}\" in: {line}");
    }
    assert_eq!(host.touched(), "");
}

#[test]
fn with_sudo_the_missing_packages_are_asked_for() {
    let host = Host::new("sudo");
    host.program("sudo", "\"$@\"");
    host.program("apt-get", "echo \"apt-get $*\" >> \"${0%/*}/touched\"; exit 100");
    let line = refused(&host.xtask(&["setup", "--yes"]));
    assert!(line.contains("installing packages"), "{line}");
    let touched = host.touched();
    assert!(touched.contains("apt-get install --yes") && touched.contains("gcc"), "{touched}");
}
