//! Tests of host programs that are missing, broken or too old.

use std::fs;
use std::process::Command;

use crate::common::script;
use crate::fake::{FakeHost, fails};

/// Returns a run whose kernel source must not be built: the missing program is
/// reported before.
fn smoke(host: &FakeHost) -> Command {
    let mut command = host.nlrig(&["run", "smoke", "--abi", "x86_64", "--kernel-source"]);
    let out = host.path("out");
    command.arg(host.source("linux", "echo built >> $(HOST)/count; exit 1"));
    command.arg("--out").arg(out).env("PATH", host.path("bin"));
    command
}

fn refused(host: &FakeHost, words: &[&str]) {
    fails(&mut smoke(host), words);
    assert!(!host.path("count").exists(), "the build was started");
}

#[test]
fn the_error_of_a_missing_qemu_has_its_package() {
    let host = FakeHost::new();
    host.path_without("qemu-system");
    refused(&host, &["qemu-system-x86_64", "install"]);
}

#[test]
fn the_error_of_an_old_qemu_has_both_versions() {
    let host = FakeHost::new();
    let bin = host.path_without("qemu-system");
    script(&bin.join("qemu-system-x86_64"), "echo QEMU emulator version 6.2.0");
    refused(&host, &["version 6.2", "7.2 or newer"]);
}

#[test]
fn the_error_of_a_broken_qemu_quotes_it() {
    let host = FakeHost::new();
    let bin = host.path_without("qemu-system");
    script(&bin.join("qemu-system-x86_64"), "echo libfoo.so.1: cannot open >&2; exit 127");
    refused(&host, &["qemu-system-x86_64", "libfoo.so.1"]);
}

#[test]
fn the_error_of_a_missing_compiler_has_its_name() {
    let host = FakeHost::new();
    let bin = host.path_without("gcc");
    fails(&mut smoke(&host), &["gcc not found", "--yes"]);
    assert!(fs::symlink_metadata(bin.join("gcc")).is_err());
}

#[test]
fn the_error_of_a_missing_make_has_its_name() {
    let host = FakeHost::new();
    host.path_without("make");
    fails(&mut smoke(&host), &["make not found", "--yes"]);
}
