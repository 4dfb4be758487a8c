//! Tests of builds that fail, and of concurrent builds.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{can_mount, mounted};
use crate::fake::{FakeHost, fails, stderr, succeeds};

/// A build that appends a line to a file, so that builds can be counted.
const COUNTED: &str = "sleep 1; echo built >> $(HOST)/count";

fn count(host: &FakeHost) -> usize {
    fs::read_to_string(host.path("count")).unwrap_or_default().lines().count()
}

fn pack(source: &Path, tarball: &Path) {
    let name = source.file_name().expect("the source has a name");
    let parent = source.parent().expect("the source has a parent folder");
    let mut command = Command::new("tar");
    command.arg("-cJf").arg(tarball).arg("-C").arg(parent).arg(name);
    succeeds(&mut command);
}

#[test]
fn concurrent_runs_build_a_kernel_once() {
    let host = FakeHost::new();
    let source = host.source("linux", COUNTED);
    let runs: Vec<_> = (0..2)
        .map(|_| host.build(&source).stderr(Stdio::piped()).spawn().expect("nlrig starts"))
        .collect();
    for run in runs {
        let output = run.wait_with_output().expect("nlrig ends");
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert_eq!(count(&host), 1);
    succeeds(&mut host.build(&source));
    assert_eq!(count(&host), 1, "the kernel was built again");
}

#[test]
fn a_failed_build_quotes_the_compilers_error() {
    let host = FakeHost::new();
    let error = "net/netlink/af_netlink.c:7:1: error: expected ';'";
    let bad = host.source("bad", &format!("@echo \"{error}\"; exit 1"));
    fails(&mut host.build(&bad), &["kernel 6.1 x86_64", error, "build.log"]);
    let logs: Vec<_> = host.partial().iter().map(|folder| folder.join("build.log")).collect();
    assert!(logs.len() == 1 && logs[0].is_file(), "the log is missing: {logs:?}");
    succeeds(&mut host.build(&host.source("good", "@:")));
}

/// Environment variables that Kbuild, make and gcc read.
const VARIABLES: [(&str, &str); 17] = [
    ("ARCH", "arm64"),
    ("CC", "false"),
    ("CPATH", "/nowhere"),
    ("CROSS_COMPILE", "aarch64-linux-gnu-"),
    ("INSTALL_MOD_PATH", "/nowhere"),
    ("INSTALL_PATH", "/nowhere"),
    ("KBUILD_BUILD_USER", "somebody"),
    ("KBUILD_EXTMOD", "/nowhere"),
    ("KBUILD_OUTPUT", "/nowhere"),
    ("KBUILD_VERBOSE", "1"),
    ("KCFLAGS", "-O3"),
    ("KCONFIG_ALLCONFIG", "/nowhere"),
    ("KCONFIG_CONFIG", "/nowhere/.config"),
    ("LC_ALL", "de_DE.UTF-8"),
    ("LLVM", "1"),
    ("MAKEFLAGS", "k"),
    ("O", "/nowhere"),
];

/// Builds a kernel; returns make's environment and the path of the image.
fn seen(host: &FakeHost, source: &Path, variables: &[(&str, &str)]) -> (String, String) {
    let _ = fs::remove_dir_all(host.path("cache"));
    let output = succeeds(host.build(source).envs(variables.iter().copied()));
    let seen = fs::read_to_string(host.path("seen")).expect("the build has written the file");
    (seen, String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn no_variable_of_the_user_reaches_a_kernels_build() {
    let host = FakeHost::new();
    let dump = "echo flags $(filter-out -j% --jobserver%,$(MAKEFLAGS)) $(ARCH) > $(HOST)/seen; \
                env -u MAKEFLAGS -u MFLAGS | sort >> $(HOST)/seen";
    let source = host.source("linux", dump);
    let plain = seen(&host, &source, &[]);
    assert!(plain.0.contains("KBUILD_BUILD_USER=nlrig"), "{}", plain.0);
    for variable in VARIABLES {
        assert_eq!(seen(&host, &source, &[variable]), plain, "{variable:?}");
    }
}

/// Kconfig silently drops unknown symbols and symbols with unmet dependencies.
#[test]
fn all_lost_symbols_are_in_one_error() {
    let host = FakeHost::new();
    let source = host.source("linux", "@:");
    let fragment = host.path("my fragment.config");
    fs::write(&fragment, "CONFIG_UNIXX=y\n# CONFIG_INPUTT is not set\nCONFIG_NET=y\n")
        .expect("the fragment can be written");
    let build = || {
        let mut command = host.build(&source);
        command.arg("--kernel-config").arg(&fragment);
        command
    };
    fails(&mut build(), &["CONFIG_UNIXX=y (no such", "CONFIG_INPUTT=n (no such"]);
    fs::write(&fragment, "CONFIG_SMP=n\nCONFIG_INPUT=y\n").expect("the fragment can be written");
    let output = succeeds(&mut build());
    let with = String::from_utf8_lossy(&output.stdout).into_owned();
    let output = succeeds(&mut host.build(&source));
    assert_ne!(with, String::from_utf8_lossy(&output.stdout), "the fragment has no effect");
    fs::write(&fragment, "NET=y\n").expect("the fragment can be written");
    fails(&mut build(), &["my fragment.config, line 1"]);
}

#[test]
fn the_error_of_a_truncated_tarball_has_its_name() {
    let host = FakeHost::new();
    let source = host.source("linux", "@:");
    // Incompressible data, so that half of the archive lacks a part of it.
    let noise: Vec<u8> =
        (0..1_000_000_u32).map(|n| (n.wrapping_mul(n) >> 16) as u8 ^ n as u8).collect();
    fs::write(source.join("noise"), noise).expect("the file can be written");
    let tarball = host.path("linux.tar.xz");
    pack(&source, &tarball);
    let whole = fs::read(&tarball).expect("the tarball is readable");
    fs::write(&tarball, &whole[..whole.len() / 2]).expect("the tarball can be written");
    fails(&mut host.build(&tarball), &["linux.tar.xz", "Unexpected end of input"]);
    fs::write(&tarball, &whole).expect("the tarball can be written");
    succeeds(&mut host.build(&tarball));
}

#[test]
fn the_error_of_a_wrong_hash_has_the_file_and_the_hash() {
    let host = FakeHost::new();
    let tarball = host.path("linux.tar.xz");
    pack(&host.source("linux", "@:"), &tarball);
    let zeros = "0".repeat(64);
    let mut command = host.build(&tarball);
    fails(command.args(["--kernel-sha256", &zeros]), &["linux.tar.xz", &zeros, "has the SHA-256"]);
}

#[test]
fn a_full_disk_is_reported_and_the_next_run_works() {
    if !can_mount() {
        return;
    }
    let host = FakeHost::new();
    let source = host.source("linux", "head -c 4000000 /dev/zero > $(O)/large");
    let cache = host.path("cache");
    fs::create_dir(&cache).expect("the folder can be created");
    let mount = |size: &str| format!("mount -t tmpfs -o size={size} none {}", cache.display());
    let build = host.build(&source);
    fails(&mut mounted(&mount("2m"), &build), &["No space left on device"]);
    // The same disk with more space.
    let lines = format!(
        "{}\n\"$@\" 2>/dev/null && exit 77\nmount -o remount,size=20m {}",
        mount("2m"),
        cache.display()
    );
    succeeds(&mut mounted(&lines, &build));
}

#[test]
fn a_damaged_cache_entry_is_rebuilt() {
    let host = FakeHost::new();
    let source = host.source("linux", COUNTED);
    let output = succeeds(&mut host.build(&source));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let image = text.split_whitespace().last().expect("the output has the path");
    fs::write(image, "im").expect("the image can be written");
    let output = succeeds(&mut host.build(&source));
    assert!(stderr(&output).contains("damaged"), "{}", stderr(&output));
    assert_eq!(count(&host), 2);
    assert_eq!(fs::read(image).expect("the image is readable"), b"image\n");
}

#[test]
fn the_error_of_a_read_only_cache_has_the_way_out() {
    if !can_mount() {
        return;
    }
    let host = FakeHost::new();
    let source = host.source("linux", "@:");
    let cache = host.path("cache");
    fs::create_dir(&cache).expect("the folder can be created");
    let lines = format!("mount -t tmpfs -o ro none {}", cache.display());
    let words =
        [cache.to_str().expect("the path is UTF-8"), "NLRIG_CACHE", "Read-only file system"];
    fails(&mut mounted(&lines, &host.build(&source)), &words);
}

#[test]
fn a_cache_with_a_blank_in_its_path_is_rejected() {
    let host = FakeHost::new();
    let source = host.source("linux", "@:");
    let mut command = host.build(&source);
    fails(command.env("NLRIG_CACHE", host.path("my cache")), &["my cache", "NLRIG_CACHE"]);
}

#[test]
fn a_kernel_source_with_blanks_and_umlauts_in_its_path_builds() {
    let host = FakeHost::new();
    let source = host.source("Linux für alle, 6.1", COUNTED);
    succeeds(&mut host.build(&source));
    assert_eq!(count(&host), 1);
}
