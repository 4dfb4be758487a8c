//! Builds that fail, and builds that meet.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{can_mount, mounted};
use crate::fake::{Host, fails, stderr, succeeds};

/// Counts how often it was built.
const COUNTED: &str = "sleep 1; echo built >> $(HOST)/count";

fn count(host: &Host) -> usize {
    fs::read_to_string(host.path("count")).unwrap_or_default().lines().count()
}

fn pack(source: &Path, tarball: &Path) {
    let name = source.file_name().expect("it has a name");
    let mut command = Command::new("tar");
    command.arg("-cJf").arg(tarball).arg("-C").arg(source.parent().expect("a folder")).arg(name);
    succeeds(&mut command);
}

#[test]
fn two_runs_at_once_build_a_kernel_once() {
    let host = Host::new();
    let source = host.source("linux", COUNTED);
    let runs: Vec<_> = (0..2)
        .map(|_| host.build(&source).stderr(Stdio::piped()).spawn().expect("it starts"))
        .collect();
    for run in runs {
        let output = run.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert_eq!(count(&host), 1);
    succeeds(&mut host.build(&source));
    assert_eq!(count(&host), 1, "what was built is not built again");
}

#[test]
fn a_source_that_does_not_build_is_an_error_that_quotes_the_compiler() {
    let host = Host::new();
    let error = "net/netlink/af_netlink.c:7:1: error: expected ';'";
    let bad = host.source("bad", &format!("@echo \"{error}\"; exit 1"));
    fails(&mut host.build(&bad), &["kernel 6.1 x86_64", error, "build.log"]);
    let logs: Vec<_> = host.partial().iter().map(|folder| folder.join("build.log")).collect();
    assert!(logs.len() == 1 && logs[0].is_file(), "its log is kept: {logs:?}");
    succeeds(&mut host.build(&host.source("good", "@:")));
}

/// Variables that Kbuild, make and gcc read.
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

/// What make is given, and where the result is.
fn seen(host: &Host, source: &Path, variables: &[(&str, &str)]) -> (String, String) {
    let _ = fs::remove_dir_all(host.path("cache"));
    let output = succeeds(host.build(source).envs(variables.iter().copied()));
    let seen = fs::read_to_string(host.path("seen")).expect("what make was given");
    (seen, String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn no_variable_of_the_user_reaches_a_kernels_build() {
    let host = Host::new();
    let dump = "echo flags $(filter-out -j% --jobserver%,$(MAKEFLAGS)) $(ARCH) > $(HOST)/seen; \
                env -u MAKEFLAGS -u MFLAGS | sort >> $(HOST)/seen";
    let source = host.source("linux", dump);
    let plain = seen(&host, &source, &[]);
    assert!(plain.0.contains("KBUILD_BUILD_USER=nlrig"), "{}", plain.0);
    for variable in VARIABLES {
        assert_eq!(seen(&host, &source, &[variable]), plain, "{variable:?}");
    }
}

/// Kconfig drops a symbol that it does not know or whose dependencies are off,
/// and says nothing.
#[test]
fn every_symbol_that_is_lost_is_named_at_once() {
    let host = Host::new();
    let source = host.source("linux", "@:");
    let fragment = host.path("my fragment.config");
    fs::write(&fragment, "CONFIG_UNIXX=y\n# CONFIG_INPUTT is not set\nCONFIG_NET=y\n")
        .expect("a file");
    let build = || {
        let mut command = host.build(&source);
        command.arg("--kernel-config").arg(&fragment);
        command
    };
    fails(&mut build(), &["CONFIG_UNIXX=y (no such", "CONFIG_INPUTT=n (no such"]);
    fs::write(&fragment, "CONFIG_SMP=n\nCONFIG_INPUT=y\n").expect("a file");
    let output = succeeds(&mut build());
    let with = String::from_utf8_lossy(&output.stdout).into_owned();
    let output = succeeds(&mut host.build(&source));
    assert_ne!(with, String::from_utf8_lossy(&output.stdout), "it is another kernel");
    fs::write(&fragment, "NET=y\n").expect("a file");
    fails(&mut build(), &["my fragment.config, line 1"]);
}

#[test]
fn a_tarball_that_was_cut_short_is_an_error_that_names_it() {
    let host = Host::new();
    let source = host.source("linux", "@:");
    // Noise, so that half of the archive is not all of it.
    let noise: Vec<u8> =
        (0..1_000_000_u32).map(|n| (n.wrapping_mul(n) >> 16) as u8 ^ n as u8).collect();
    fs::write(source.join("noise"), noise).expect("a file");
    let tarball = host.path("linux.tar.xz");
    pack(&source, &tarball);
    let whole = fs::read(&tarball).expect("the tarball");
    fs::write(&tarball, &whole[..whole.len() / 2]).expect("a shorter one");
    fails(&mut host.build(&tarball), &["linux.tar.xz", "Unexpected end of input"]);
    fs::write(&tarball, &whole).expect("the whole one");
    succeeds(&mut host.build(&tarball));
}

#[test]
fn a_tarball_with_another_hash_is_an_error_that_names_both() {
    let host = Host::new();
    let tarball = host.path("linux.tar.xz");
    pack(&host.source("linux", "@:"), &tarball);
    let zeros = "0".repeat(64);
    let mut command = host.build(&tarball);
    fails(command.args(["--kernel-sha256", &zeros]), &["linux.tar.xz", &zeros, "has the SHA-256"]);
}

#[test]
fn a_full_disk_is_an_error_that_says_so_and_the_next_run_works() {
    if !can_mount() {
        return;
    }
    let host = Host::new();
    let source = host.source("linux", "head -c 4000000 /dev/zero > $(O)/large");
    let cache = host.path("cache");
    fs::create_dir(&cache).expect("a folder");
    let mount = |size: &str| format!("mount -t tmpfs -o size={size} none {}", cache.display());
    let build = host.build(&source);
    fails(&mut mounted(&mount("2m"), &build), &["No space left on device"]);
    // The same disk, once there is room.
    let room = format!(
        "{}\n\"$@\" 2>/dev/null && exit 77\nmount -o remount,size=20m {}",
        mount("2m"),
        cache.display()
    );
    succeeds(&mut mounted(&room, &build));
}

#[test]
fn a_damaged_entry_of_the_cache_is_made_anew() {
    let host = Host::new();
    let source = host.source("linux", COUNTED);
    let output = succeeds(&mut host.build(&source));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let image = text.split_whitespace().last().expect("it prints the path");
    fs::write(image, "im").expect("a shorter image");
    let output = succeeds(&mut host.build(&source));
    assert!(stderr(&output).contains("damaged"), "{}", stderr(&output));
    assert_eq!(count(&host), 2);
    assert_eq!(fs::read(image).expect("the image"), b"image\n");
}

#[test]
fn a_cache_that_cannot_be_written_is_an_error_that_names_the_way_out() {
    if !can_mount() {
        return;
    }
    let host = Host::new();
    let source = host.source("linux", "@:");
    let cache = host.path("cache");
    fs::create_dir(&cache).expect("a folder");
    let lines = format!("mount -t tmpfs -o ro none {}", cache.display());
    let words = [cache.to_str().expect("it is UTF-8"), "NLRIG_CACHE", "Read-only file system"];
    fails(&mut mounted(&lines, &host.build(&source)), &words);
}

#[test]
fn a_cache_where_make_cannot_work_is_an_error() {
    let host = Host::new();
    let source = host.source("linux", "@:");
    let mut command = host.build(&source);
    fails(command.env("NLRIG_CACHE", host.path("my cache")), &["my cache", "NLRIG_CACHE"]);
}

#[test]
fn a_path_with_blanks_and_umlauts_is_none_to_the_source() {
    let host = Host::new();
    let source = host.source("Linux für alle, 6.1", COUNTED);
    succeeds(&mut host.build(&source));
    assert_eq!(count(&host), 1);
}
