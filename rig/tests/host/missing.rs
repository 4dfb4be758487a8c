//! Programs that are not there, or too old.

use std::fs;
use std::process::Command;

use crate::common::script;
use crate::fake::{Host, fails};

/// A run of a source that would never be built: what is missing is found before.
fn smoke(host: &Host) -> Command {
    let mut command = host.nlrig(&["run", "smoke", "--abi", "x86_64", "--kernel-source"]);
    let out = host.path("out");
    command.arg(host.source("linux", "echo built >> $(HOST)/count; exit 1"));
    command.arg("--out").arg(out).env("PATH", host.path("bin"));
    command
}

fn refused(host: &Host, words: &[&str]) {
    fails(&mut smoke(host), words);
    assert!(!host.path("count").exists(), "it was found before the build");
}

#[test]
fn no_qemu_is_an_error_that_names_the_package() {
    let host = Host::new();
    host.path_without("qemu-system");
    refused(&host, &["qemu-system-x86_64", "install"]);
}

#[test]
fn an_old_qemu_is_an_error_that_names_both_versions() {
    let host = Host::new();
    let bin = host.path_without("qemu-system");
    script(&bin.join("qemu-system-x86_64"), "echo QEMU emulator version 6.2.0");
    refused(&host, &["version 6.2", "7.2 or newer"]);
}

#[test]
fn a_qemu_that_does_not_start_is_an_error_with_its_own_words() {
    let host = Host::new();
    let bin = host.path_without("qemu-system");
    script(&bin.join("qemu-system-x86_64"), "echo libfoo.so.1: cannot open >&2; exit 127");
    refused(&host, &["qemu-system-x86_64", "libfoo.so.1"]);
}

#[test]
fn no_compiler_is_an_error_that_names_it() {
    let host = Host::new();
    let bin = host.path_without("gcc");
    fails(&mut smoke(&host), &["gcc not found", "--yes"]);
    assert!(fs::symlink_metadata(bin.join("gcc")).is_err());
}

#[test]
fn no_make_is_an_error_that_names_it() {
    let host = Host::new();
    host.path_without("make");
    fails(&mut smoke(&host), &["make not found", "--yes"]);
}
