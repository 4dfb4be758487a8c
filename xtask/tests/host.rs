//! Tests `cargo xtask` on a host without the packages, as an ordinary user: it
//! prints the command that installs them and changes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder of scripts that replace the host's programs.
struct Host(PathBuf);

impl Host {
    fn new(name: &str) -> Host {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("the folder can be created");
        let host = Host(dir);
        // No package is installed, and the user is not root.
        host.program("dpkg-query", "exit 1");
        host.program("id", "echo 1000");
        host.program("apt-get", "echo \"apt-get $*\" >> \"${0%/*}/touched\"");
        host
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("the script can be written");
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(path, mode).expect("the script can be made executable");
    }

    fn xtask(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(arguments)
            .env("PATH", &self.0)
            .env_remove("CI")
            .stdin(Stdio::null())
            .output()
            .expect("xtask starts")
    }

    /// The command lines of apt-get so far.
    fn touched(&self) -> String {
        fs::read_to_string(self.0.join("touched")).unwrap_or_default()
    }
}

/// Asserts exit status 125 and returns the last line.
fn refused(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    stderr.lines().last().unwrap_or_default().to_string()
}

#[test]
fn missing_packages_are_printed_as_a_command_and_nothing_is_changed() {
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
fn without_sudo_the_command_for_root_is_printed() {
    let host = Host::new("no-sudo");
    let line = refused(&host.xtask(&["rig", "--yes"]));
    for word in ["cannot start sudo", "as root, run `apt-get update && apt-get install"] {
        assert!(line.contains(word), "no \"{word}\" in: {line}");
    }
    assert_eq!(host.touched(), "");
}

#[test]
fn with_sudo_the_missing_packages_are_installed() {
    let host = Host::new("sudo");
    host.program("sudo", "\"$@\"");
    host.program("apt-get", "echo \"apt-get $*\" >> \"${0%/*}/touched\"; exit 100");
    let line = refused(&host.xtask(&["setup", "--yes"]));
    assert!(line.contains("installing packages"), "{line}");
    let touched = host.touched();
    assert!(touched.contains("apt-get install --yes") && touched.contains("gcc"), "{touched}");
}
