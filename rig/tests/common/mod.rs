//! What tests with and without machines share: a host that is not quite this
//! one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Makes a script that anybody may run.
pub fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

/// Whether this machine lets us mount: most containers do not, and there is no
/// other way to fill a disk or hide a device that leaves the host alone.
pub fn can_mount() -> bool {
    let can = mounted("mount -t tmpfs none /mnt", &Command::new("true"))
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !can {
        eprintln!("not tested: this machine lets nobody mount in a namespace of his own");
    }
    can
}

/// This command in a mount namespace of its own, after these lines of shell:
/// what they mount nobody else sees.
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

/// Whether this comes true before the limit.
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

/// Whether a process is there, and not only waited for.
pub fn is_alive(id: &u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
