//! Helpers of the tests with and without VMs, which change the host of the rig.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Creates a script with mode 0755.
pub fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("the script can be written");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(path, mode).expect("the script can be made executable");
}

/// Whether this host permits mounts in a mount namespace; most containers do not.
///
/// Without mounts a test cannot fill a disk or hide a device without a change to
/// the host.
pub fn can_mount() -> bool {
    let can = mounted("mount -t tmpfs none /mnt", &Command::new("true"))
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !can {
        eprintln!("not tested: this host does not permit mounts in a mount namespace");
    }
    can
}

/// Returns a command that runs lines of shell and then `command` in a new mount
/// namespace.
pub fn mounted(lines: &str, command: &Command) -> Command {
    let mut inside = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        inside.args(["--user", "--map-root-user"]);
    }
    inside.args(["--mount", "sh", "-ec", &format!("{lines}\n\"$@\""), "sh"]);
    inside.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            inside.env(name, value);
        }
    }
    inside
}

/// Waits until a condition holds; returns false after the limit.
pub fn soon(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Whether a process exists and is not a zombie.
pub fn is_alive(id: &u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
