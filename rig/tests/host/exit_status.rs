//! The table of exit statuses, as far as a cell needs no machine;
//! `tests/vm/exit_status.rs` has the rest. A test for each row.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::fake::{Host, LIMIT, run, stderr, wait_until};

/// A source that does not compile.
const BROKEN: &str = "@echo 'net/netlink/af_netlink.c:7:1: error: expected expression'; exit 1";
/// A source whose build never ends.
const ENDLESS: &str = "touch $(HOST)/begun; sleep 1000";
/// A source that builds at once.
const FINE: &str = "@:";

fn ends(command: &mut Command, status: i32) {
    let output = run(command);
    assert_eq!(output.status.code(), Some(status), "{command:?}: {}", stderr(&output));
}

/// Each command that takes a kernel's source, with this one.
fn with_source(host: &Host, source: &PathBuf) -> [(&'static str, Command); 3] {
    let made = |head: &[&str], tail: &[&str]| {
        let mut command = host.nlrig(head);
        command.arg("--kernel-source").arg(source).args(tail);
        command
    };
    let out = host.path("out").display().to_string();
    [
        ("run", made(&["run", "smoke", "--abi", "x86_64", "--out", &out], &[])),
        ("build", made(&["build", "kernel", "--abi", "x86_64"], &[])),
        ("exec", made(&["exec"], &["--", "true"])),
    ]
}

#[test]
fn usage_is_2_for_every_command() {
    let host = Host::new();
    for arguments in [
        &["--no-such-option"][..],
        &["no-such-command"],
        &["run", "nonsense"],
        &["run", "smoke", "--abi", "arm"],
        &["run", "smoke", "--kernel", "9.9"],
        &["run", "smoke", "--json", "/no/such/folder/report.json"],
        &["exec"],
        &["exec", "--abi", "i386,x86_64", "--", "true"],
        &["exec", "--flavour", "vanilla", "--", "true"],
        &["list", "--no-such-option"],
        &["build", "everything"],
        &["doctor", "--abi", "arm"],
        &["bench", "--rounds", "0"],
        &["clean", "--no-such-option"],
    ] {
        ends(&mut host.nlrig(arguments), 2);
    }
}

#[test]
fn help_and_lists_are_0() {
    let host = Host::new();
    for arguments in
        [&["--help"][..], &["--version"], &["exec", "--help"], &["list"], &["list", "--json"]]
    {
        ends(&mut host.nlrig(arguments), 0);
    }
}

#[test]
fn a_kernel_that_builds_is_0() {
    let host = Host::new();
    let source = host.source("linux", FINE);
    ends(host.build(&source).arg("--json"), 0);
}

#[test]
fn a_missing_input_is_125() {
    let host = Host::new();
    for (_, mut command) in with_source(&host, &PathBuf::from("/no/such/source")) {
        ends(&mut command, 125);
    }
}

#[test]
fn a_kernel_that_does_not_build_is_125() {
    let host = Host::new();
    let source = host.source("linux", BROKEN);
    for (_, mut command) in with_source(&host, &source) {
        ends(&mut command, 125);
    }
}

#[test]
fn a_host_that_is_not_ready_is_125() {
    let host = Host::new();
    let path = host.path_without("qemu-system");
    ends(host.nlrig(&["doctor"]).env("PATH", &path), 125);
    let out = host.path("out").display().to_string();
    let arguments = ["run", "smoke", "--abi", "x86_64", "--out", &out];
    ends(host.nlrig(&arguments).env("PATH", &path), 125);
}

#[test]
fn an_interruption_is_130() {
    for index in 0..3 {
        let host = Host::new();
        let source = host.source("linux", ENDLESS);
        let [.., (name, mut command)] = {
            let mut all = with_source(&host, &source);
            all.rotate_left(index + 1);
            all
        };
        let mut child = command.stderr(Stdio::null()).spawn().expect("it starts");
        wait_until("the build has begun", LIMIT, || host.path("begun").exists());
        let id = child.id().to_string();
        ends(Command::new("kill").args(["-s", "INT", &id]), 0);
        assert_eq!(child.wait().expect("it ends").code(), Some(130), "{name}");
    }
}
