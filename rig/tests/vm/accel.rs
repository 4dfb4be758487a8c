//! Tests of accelerators that are missing, forbidden, failing, hanging or working.
//! All are simulated, because no host has all of them.
//!
//! Mounts in the test's own namespace hide or replace the device. A script replaces
//! QEMU: for KVM it does what the test needs, otherwise it execs QEMU. If the host
//! has no working device, the rig must report that, whatever the script does.
//! `rig/vm/src/{accel,launcher}.rs` test without a device how a verdict is
//! remembered for each kernel image.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use nlrig::accel::device_trouble;
use nlrig::cache::{Cache, KINDS};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{can_mount, mounted, script};

type Outcome = Result<(), Failed>;

pub fn tests() -> Vec<Trial> {
    let test = |name: &str, body: fn() -> Outcome| Trial::test(format!("accel/{name}"), body);
    vec![
        test("missing", || device(MISSING, "there is no /dev/kvm")),
        test("forbidden", || device(FORBIDDEN, "/dev/kvm may not be opened by this user")),
        test("failing-device", || device(FAILING, "/dev/kvm does not answer")),
        test("failing", || behind("echo 'kvm: no such thing' >&2; exit 1", "no such thing")),
        test("hanging", || behind("exec sleep 1000", "the guest said nothing within 10 s")),
        test("each-architecture-has-its-own", each_has_its_own),
        test("tried-again-for-another-qemu", tried_again),
    ]
}

/// Mounts a /dev with the devices that QEMU needs, and without kvm.
const MISSING: &str = "dev=$(mktemp -d)
mount -t tmpfs none $dev
for name in null zero full random urandom; do
    touch $dev/$name; mount --bind /dev/$name $dev/$name
done
ln -s /proc/self/fd $dev/fd
mount --move $dev /dev
rmdir $dev";

/// Mounts /dev/kvm with `nodev`, so that even root cannot open it.
const FORBIDDEN: &str = "touch /dev/kvm
mount --bind /dev/null /dev/kvm
mount -o remount,bind,nodev /dev/kvm";

/// Replaces /dev/kvm by /dev/null, which opens but fails each ioctl().
const FAILING: &str = "touch /dev/kvm; mount --bind /dev/null /dev/kvm";

/// A host with its own programs, and a cache without a verdict on KVM.
struct Host {
    dir: TempDir,
}

impl Host {
    fn new() -> Result<Host, Failed> {
        let dir = tempfile::tempdir()?;
        fs::create_dir(dir.path().join("cache"))?;
        let cache = Cache::open()?;
        // Share the entries of the user's cache, with their locks.
        for kind in KINDS.into_iter().chain(["lock"]) {
            fs::create_dir_all(cache.root().join(kind))?;
            symlink(cache.root().join(kind), dir.path().join("cache").join(kind))?;
        }
        Ok(Host { dir })
    }

    /// Creates a script in place of QEMU that runs `for_kvm` for `-accel kvm`.
    fn qemu(&self, program: &str, for_kvm: &str) -> Outcome {
        let bin = self.dir.path().join("bin");
        fs::create_dir_all(&bin)?;
        let real = nlrig::process::find(program).ok_or("QEMU is installed")?;
        let text = format!(
            "case \"$*\" in\n*'-accel kvm'*) {for_kvm};;\nesac\nexec {} \"$@\"",
            real.display()
        );
        script(&bin.join(program), &text);
        Ok(())
    }

    fn smoke(&self, arguments: &[&str]) -> Result<Command, Failed> {
        let path = std::env::var("PATH")?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_nlrig"));
        command
            .args(["run", "smoke", "--json", "-", "--out"])
            .arg(self.dir.path().join("out"))
            .args(arguments)
            .env("PATH", format!("{}:{path}", self.dir.path().join("bin").display()))
            .env("NLRIG_CACHE", self.dir.path().join("cache"))
            .stdin(Stdio::null());
        Ok(command)
    }
}

/// Runs a command; returns its standard error and the report's `accel` object.
fn report(command: &mut Command) -> Result<(String, Value), Failed> {
    let output = command.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(format!("{}: {stderr}", output.status).into());
    }
    let mut report: Value = serde_json::from_slice(&output.stdout)?;
    Ok((stderr, report["environment"]["accel"].take()))
}

fn expect(accel: &Value, arch: &str, used: &str, reason: &str) -> Outcome {
    let (was_used, why) = (accel[arch]["used"].as_str(), accel[arch]["reason"].as_str());
    if was_used == Some(used) && why.is_some_and(|why| why.contains(reason)) {
        return Ok(());
    }
    Err(format!("{arch}: not {used} because \"{reason}\", but {accel}").into())
}

/// Asserts that `--accel kvm` fails without a fallback.
fn insists(command: &mut Command, reason: &str) -> Outcome {
    let output = command.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = stderr.lines().last().unwrap_or_default();
    if output.status.code() == Some(125)
        && last.contains("KVM was asked for")
        && last.contains(reason)
    {
        return Ok(());
    }
    Err(format!("--accel kvm: {}: {stderr}", output.status).into())
}

fn device(lines: &str, reason: &str) -> Outcome {
    if !can_mount() {
        return Ok(());
    }
    let host = Host::new()?;
    let run = host.smoke(&["--abi", "x86_64"])?;
    expect(&report(&mut mounted(lines, &run))?.1, "x86_64", "tcg", reason)?;
    insists(&mut mounted(lines, &host.smoke(&["--abi", "x86_64", "--accel", "kvm"])?), reason)
}

/// Returns the expected reason: that of the device if the host's does not work.
fn of_device(reason: &str) -> String {
    device_trouble(Path::new("/dev/kvm")).unwrap_or_else(|| reason.to_string())
}

fn behind(for_kvm: &str, reason: &str) -> Outcome {
    let host = Host::new()?;
    host.qemu("qemu-system-x86_64", for_kvm)?;
    let reason = of_device(reason);
    expect(&report(&mut host.smoke(&["--abi", "x86_64"])?)?.1, "x86_64", "tcg", &reason)?;
    insists(&mut host.smoke(&["--abi", "x86_64", "--accel", "kvm"])?, &reason)
}

/// A QEMU that emulates KVM with TCG. Its CPU model is one that a 32-bit kernel does
/// not warn about.
const WORKING: &str = "for word; do shift
    case $word in
    kvm) set -- \"$@\" tcg,thread=multi;;
    max) set -- \"$@\" max,family=15,model=107,stepping=1;;
    *) set -- \"$@\" \"$word\";;
    esac
done";

fn each_has_its_own() -> Outcome {
    let host = Host::new()?;
    host.qemu("qemu-system-i386", WORKING)?;
    host.qemu("qemu-system-x86_64", "echo 'kvm: no such thing' >&2; exit 1")?;
    let accel = report(&mut host.smoke(&["--abi", "i386,x86_64"])?)?.1;
    expect(&accel, "x86_64", "tcg", &of_device("no such thing"))?;
    match device_trouble(Path::new("/dev/kvm")) {
        None => expect(&accel, "i386", "kvm", "this kernel was ready after"),
        Some(reason) => expect(&accel, "i386", "tcg", &reason),
    }
}

fn tried_again() -> Outcome {
    const TRIED: &str = "x86_64 guests: no KVM, so TCG";
    if device_trouble(Path::new("/dev/kvm")).is_some() {
        // There is nothing to be tried, and so nothing to be remembered.
        return Ok(());
    }
    let host = Host::new()?;
    let run = |for_version: &str| -> Result<bool, Failed> {
        let fails = format!("exit 1;;\n*--version*) {for_version}");
        host.qemu("qemu-system-x86_64", &fails)?;
        Ok(report(&mut host.smoke(&["--abi", "x86_64"])?)?.0.contains(TRIED))
    };
    // Not the shell's own echo: what answers without a second program is confined
    // as a program that needs none, and then QEMU cannot be started behind it.
    const NEWER: &str = "exec /bin/echo QEMU emulator version 8.8.8";
    let tried = [run(":")?, run(":")?, run(NEWER)?];
    if tried == [true, false, true] { Ok(()) } else { Err(format!("tried: {tried:?}").into()) }
}
