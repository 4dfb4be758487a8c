//! Accelerators that are missing, forbidden, failing or hanging, and one that
//! works: stand-ins, because no host has all of them.
//!
//! The device is hidden or changed by mounts in a namespace of the test's own.
//! Behind the device a script takes QEMU's place: what it does for KVM is the
//! test's, everything else is QEMU's own. Where the host has no device that
//! answers, that is the reason the rig has to give, whatever the script does;
//! how a verdict is remembered, a kernel image at a time, is tested without one in
//! `rig/vm/src/accel.rs` and `rig/vm/src/launcher.rs`.

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

/// A /dev with all that QEMU needs, and nothing else.
const MISSING: &str = "dev=$(mktemp -d)
mount -t tmpfs none $dev
for name in null zero full random urandom; do
    touch $dev/$name; mount --bind /dev/$name $dev/$name
done
ln -s /proc/self/fd $dev/fd
mount --move $dev /dev
rmdir $dev";

/// Devices do not open there, not even for root.
const FORBIDDEN: &str = "touch /dev/kvm
mount --bind /dev/null /dev/kvm
mount -o remount,bind,nodev /dev/kvm";

/// Opens, and is none.
const FAILING: &str = "touch /dev/kvm; mount --bind /dev/null /dev/kvm";

/// A host of its own: programs, and a cache in which KVM was never tried.
struct Host {
    dir: TempDir,
}

impl Host {
    fn new() -> Result<Host, Failed> {
        let dir = tempfile::tempdir()?;
        fs::create_dir(dir.path().join("cache"))?;
        let cache = Cache::open()?;
        // With the locks of what is borrowed.
        for kind in KINDS.into_iter().chain(["lock"]) {
            fs::create_dir_all(cache.root().join(kind))?;
            symlink(cache.root().join(kind), dir.path().join("cache").join(kind))?;
        }
        Ok(Host { dir })
    }

    /// Puts a script before QEMU that does this for KVM.
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

/// Runs it; what it said, and of each architecture what was used and why.
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

/// The same under `--accel kvm` is an error and no fallback.
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

/// The reason to expect: that of the device, if this host's is no good.
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

/// A QEMU under which KVM works: that it emulates stays its secret. Its processor
/// is no host's either, but one that a 32-bit kernel does not warn of.
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
