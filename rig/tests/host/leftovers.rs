//! Tests that a stopped build leaves no processes and no files.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::is_alive;
use crate::fake::{FakeHost, LIMIT, succeeds, wait_until};

/// A build that never ends, of two shells and a `sleep`.
const ENDLESS: &str = "echo $$$$ >> $(HOST)/processes; \
    sh -c 'echo $$$$ >> $(HOST)/processes; sleep 1000 & echo $$! >> $(HOST)/processes; wait'";

fn start(host: &FakeHost) -> (Child, Vec<u32>) {
    let source = host.source("linux", ENDLESS);
    let child = host.build(&source).stderr(Stdio::null()).spawn().expect("nlrig starts");
    let processes = || {
        let text = fs::read_to_string(host.path("processes")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<u32>>()
    };
    wait_until("the build runs", LIMIT, || processes().len() == 3);
    (child, processes())
}

fn signal(child: &Child, name: &str) {
    succeeds(Command::new("kill").args(["-s", name, &child.id().to_string()]));
}

fn gone_soon(processes: &[u32]) {
    wait_until("compilers die", Duration::from_secs(5), || !processes.iter().any(is_alive));
}

/// Asserts that nothing is left after a signal.
fn nothing_is_left_after(name: &str) {
    let host = FakeHost::new();
    let (mut child, processes) = start(&host);
    signal(&child, name);
    assert_eq!(child.wait().expect("nlrig ends").code(), Some(130));
    gone_soon(&processes);
    assert!(host.partial().is_empty());
    assert_eq!(fs::read_dir(host.path("tmp")).expect("the folder exists").count(), 0);
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    nothing_is_left_after("INT");
}

#[test]
fn a_terminated_build_leaves_nothing() {
    nothing_is_left_after("TERM");
}

#[test]
fn a_build_whose_terminal_hung_up_leaves_nothing() {
    nothing_is_left_after("HUP");
}

#[test]
fn the_compilers_of_a_killed_rig_die_and_the_next_run_removes_the_rest() {
    let host = FakeHost::new();
    let (mut child, processes) = start(&host);
    signal(&child, "KILL");
    child.wait().expect("nlrig ends");
    gone_soon(&processes);
    assert_eq!(host.partial().len(), 1);
    succeeds(&mut host.build(&host.source("another", "@:")));
    assert!(host.partial().is_empty());
}
