//! Tests the cells of the exit status table that need no VM, one test per row;
//! `tests/vm/exit_status.rs` has the rest.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::fake::{FakeHost, LIMIT, run, stderr, wait_until};

/// A kernel source that does not compile.
const BROKEN: &str = "@echo 'net/netlink/af_netlink.c:7:1: error: expected expression'; exit 1";
/// A kernel source whose build never ends.
const ENDLESS: &str = "touch $(HOST)/begun; sleep 1000";
/// A kernel source that builds at once.
const FINE: &str = "@:";

/// Asserts the exit status of a command.
fn ends(command: &mut Command, status: i32) {
    let output = run(command);
    assert_eq!(output.status.code(), Some(status), "{command:?}: {}", stderr(&output));
}

/// A row of the table: the exit status in each column.
struct Row {
    run: i32,
    exec: i32,
    bisect: i32,
}

/// Returns each command that builds a kernel, with its expected status.
fn with_source(host: &FakeHost, source: &Path, row: Row) -> [(&'static str, Command, i32); 4] {
    let made = |head: &[&str], tail: &[&str]| {
        let mut command = host.nlrig(head);
        command.arg("--kernel-source").arg(source).args(tail);
        command
    };
    let out = host.path("out").display().to_string();
    [
        ("run", made(&["run", "smoke", "--abi", "x86_64", "--out", &out], &[]), row.run),
        ("build", made(&["build", "kernel", "--abi", "x86_64"], &[]), row.run),
        ("exec", made(&["exec"], &["--", "true"]), row.exec),
        ("bisect", made(&["exec", "--bisect"], &["--", "true"]), row.bisect),
    ]
}

#[test]
fn usage_is_2_for_every_command() {
    let host = FakeHost::new();
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
    let host = FakeHost::new();
    for arguments in
        [&["--help"][..], &["--version"], &["exec", "--help"], &["list"], &["list", "--json"]]
    {
        ends(&mut host.nlrig(arguments), 0);
    }
}

#[test]
fn a_kernel_that_builds_is_0() {
    let host = FakeHost::new();
    let source = host.source("linux", FINE);
    ends(host.build(&source).arg("--json"), 0);
}

#[test]
fn usage_is_128_in_a_bisection() {
    let host = FakeHost::new();
    for arguments in [
        &["exec", "--bisect"][..],
        &["exec", "--bisect", "--no-such-option", "--", "true"],
        &["exec", "--bisect", "--allow", "panic", "--", "true"],
        &["exec", "--bisect", "--flavour", "vanilla", "--", "true"],
        &["exec", "--bisect", "--json", "/no/such/folder/file", "--", "true"],
        &["--abi", "i386", "exec", "--bisect", "--", "true"],
    ] {
        ends(&mut host.nlrig(arguments), 128);
    }
}

#[test]
fn a_missing_kernel_source_is_125_and_stops_a_bisection() {
    let host = FakeHost::new();
    let row = Row { run: 125, exec: 125, bisect: 128 };
    for (_, mut command, status) in with_source(&host, Path::new("/no/such/source"), row) {
        ends(&mut command, status);
    }
}

#[test]
fn a_kernel_that_does_not_build_is_125_and_a_bisection_skips_it() {
    let host = FakeHost::new();
    let source = host.source("linux", BROKEN);
    let row = Row { run: 125, exec: 125, bisect: 125 };
    for (_, mut command, status) in with_source(&host, &source, row) {
        ends(&mut command, status);
    }
}

#[test]
fn a_host_that_cannot_build_a_kernel_stops_a_bisection() {
    let host = FakeHost::new();
    for line in ["no-such-program", "@echo 'cc1: No space left on device'; exit 1"] {
        let source = host.source("linux", line);
        let row = Row { run: 125, exec: 125, bisect: 128 };
        for (_, mut command, status) in with_source(&host, &source, row) {
            ends(&mut command, status);
        }
    }
}

#[test]
fn a_bisection_skips_a_kernel_without_a_required_symbol() {
    let host = FakeHost::new();
    let source = host.source("linux", FINE);
    let makefile = source.join("Makefile");
    let text = fs::read_to_string(&makefile).expect("the Makefile is readable");
    let lossy =
        text.replace("cp $(KCONFIG_ALLCONFIG)", "grep -v CONFIG_NET= $(KCONFIG_ALLCONFIG) >");
    assert_ne!(lossy, text);
    fs::write(makefile, lossy).expect("the Makefile can be written");
    let row = Row { run: 125, exec: 125, bisect: 125 };
    for (_, mut command, status) in with_source(&host, &source, row) {
        ends(&mut command, status);
    }
}

#[test]
fn a_host_that_is_not_ready_is_125_and_stops_a_bisection() {
    let host = FakeHost::new();
    let path = host.path_without("qemu-system");
    ends(host.nlrig(&["doctor"]).env("PATH", &path), 125);
    let out = host.path("out").display().to_string();
    let arguments = ["run", "smoke", "--abi", "x86_64", "--out", &out];
    ends(host.nlrig(&arguments).env("PATH", &path), 125);

    let host = FakeHost::new();
    let path = host.path_without("gcc");
    let source = host.source("linux", FINE);
    let row = Row { run: 125, exec: 125, bisect: 128 };
    for (_, mut command, status) in with_source(&host, &source, row) {
        ends(command.env("PATH", &path), status);
    }
}

#[test]
fn an_interruption_is_130() {
    for index in 0..4 {
        let host = FakeHost::new();
        let source = host.source("linux", ENDLESS);
        let row = Row { run: 130, exec: 130, bisect: 130 };
        let (name, mut command, status) =
            with_source(&host, &source, row).into_iter().nth(index).expect("there are four");
        let mut child = command.stderr(Stdio::null()).spawn().expect("nlrig starts");
        wait_until("the build has started", LIMIT, || host.path("begun").exists());
        let id = child.id().to_string();
        ends(Command::new("kill").args(["-s", "INT", &id]), 0);
        assert_eq!(child.wait().expect("nlrig ends").code(), Some(status), "{name}");
    }
}

/// A record is written unless the command line has a usage error.
#[test]
fn a_command_that_could_not_be_run_has_a_record() {
    let host = FakeHost::new();
    let source = host.source("linux", BROKEN);
    let file = host.path("record.json");
    for (bisect, status) in [(&[][..], 125), (&["--bisect"], 125)] {
        let mut command = host.nlrig(&["exec", "--kernel-source"]);
        command.arg(&source).arg("--json").arg(&file).args(bisect).args(["--", "true"]);
        ends(&mut command, status);
        let record: Value =
            serde_json::from_slice(&fs::read(&file).expect("the record is readable"))
                .expect("the record is JSON");
        assert_eq!(record["verdict"], "infra");
        assert_eq!(record["fault_domain"], "host");
        assert_eq!(record["exit_status"], status);
        assert!(record["reason"].as_str().is_some_and(|text| text.contains("expected expression")));
        fs::remove_file(&file).expect("the record can be removed");
    }
    let mut misuse = host.nlrig(&["exec", "--flavour", "vanilla", "--json"]);
    ends(misuse.arg(&file).args(["--", "true"]), 2);
    assert!(!file.exists());
}
