//! Tests of the rig on other hosts: as an ordinary user, on a full disk, with too
//! little memory, in a checkout whose path has blanks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::common::{can_mount, mounted};
use crate::exec::{Outcome, check, says};

pub fn tests() -> Vec<Trial> {
    let test = |name: &str, body: fn() -> Outcome| Trial::test(format!("host/{name}"), body);
    vec![
        test("ordinary-user", ordinary_user),
        test("no-namespaces", || no_namespaces(CONTAINER, "chroot")),
        test("no-capabilities", || no_namespaces("-all", "landlock")),
        test("open-files-limited", open_files_limited),
        test("long-tmpdir", long_tmpdir),
        test("report-to-a-full-device", report_to_a_full_device),
        test("report-on-a-full-disk", report_on_a_full_disk),
        test("doctor", doctor),
        test("memory-short", memory_short),
        test("two-machines-at-once", two_at_once),
        // Ignored: compiles the rig twice.
        test("two-clones-one-with-blanks", two_clones).with_ignored_flag(true),
    ]
}

fn nlrig(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nlrig"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The rig works without capabilities and with a user id other than 0.
fn ordinary_user() -> Outcome {
    let inside = ["--user", "--map-user=1000", "--map-group=1000"];
    if !Command::new("unshare").args(inside).arg("true").status()?.success() {
        eprintln!("not tested: this host does not permit user namespaces");
        return Ok(());
    }
    let plain = nlrig(&["exec", "--writable", "--", "sh", "-c", "echo $(uname -m) > file"]);
    let dir = tempfile::tempdir()?;
    let output = Command::new("unshare")
        .args(inside)
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(dir.path())
        .env("TMPDIR", dir.path())
        .stdin(Stdio::null())
        .output()?;
    check("it works", output.status.success(), &output)?;
    check("it writes", fs::read(dir.path().join("file"))? == b"x86_64\n", &output)?;
    check("it leaves no other file", fs::read_dir(dir.path())?.count() == 1, &output)
}

/// What root has in a container of Docker's, as far as a daemon needs it.
const CONTAINER: &str =
    "-all,+sys_chroot,+setuid,+setgid,+chown,+dac_override,+fowner,+fsetid,+setfcap";

/// A host that lets nobody have namespaces: a run works with the layers that are
/// left, and both it and the doctor name the one that is missing.
fn no_namespaces(capabilities: &str, root: &str) -> Outcome {
    const INSIDE: &str = "echo 0 > /proc/sys/user/max_user_namespaces
        exec setpriv --inh-caps=-all --bounding-set=\"$0\" \"$@\"";
    let inside = |command: &[&str]| {
        let mut all = Command::new("unshare");
        all.args(["--user", "--map-root-user", "sh", "-ec", INSIDE, capabilities]);
        all.args(command).stdin(Stdio::null());
        all
    };
    if !inside(&["true"]).status()?.success() {
        eprintln!("not tested: this machine lets nobody make user namespaces");
        return Ok(());
    }
    let rig = env!("CARGO_BIN_EXE_nlrig");
    let dir = tempfile::tempdir()?;
    let script = "echo fine > file; mkdir folder; mv file folder; cat folder/file";
    let output = inside(&[rig, "exec", "--writable", "--", "sh", "-c", script])
        .current_dir(dir.path())
        .output()?;
    check("it works", output.status.success() && output.stdout == b"fine\n", &output)?;
    says(&output, "share daemons run without namespaces: namespaces take the capability")?;
    says(&output, "QEMU runs without network-namespace")?;
    let output = inside(&[rig, "doctor"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("share daemons")).unwrap_or_default();
    let named = line.contains(root) && line.contains("without namespaces: ");
    check("the doctor names what is missing", named, &output)
}

/// A limit that no daemon could live with is named before anything is built.
fn open_files_limited() -> Outcome {
    // Root may raise it, but in a container without that capability.
    const CAP_SYS_RESOURCE: u32 = 24;
    if nlrig::procfs::is_capable(CAP_SYS_RESOURCE) {
        eprintln!("not tested: this user may raise the limit");
        return Ok(());
    }
    let plain = nlrig(&["exec", "--kernel-source", "/nonexistent", "--", "true"]);
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 40; exec \"$@\"", "sh"])
        .arg(plain.get_program())
        .args(plain.get_args())
        .stdin(Stdio::null())
        .output()?;
    check("it is the rig's trouble", output.status.code() == Some(125), &output)?;
    says(&output, "RLIMIT_NOFILE")?;
    says(&output, "40")
}

/// No socket's path is too long: there is none.
fn long_tmpdir() -> Outcome {
    let dir = tempfile::tempdir()?;
    let long = dir.path().join("t".repeat(150));
    fs::create_dir(&long)?;
    let output = nlrig(&["exec", "--", "echo", "fine"]).env("TMPDIR", &long).output()?;
    check("it works", output.status.success() && output.stdout == b"fine\n", &output)
}

fn report_to_a_full_device() -> Outcome {
    let output = nlrig(&["run", "smoke", "--abi", "i386", "--json", "/dev/full"]).output()?;
    full(&output, "/dev/full")
}

fn report_on_a_full_disk() -> Outcome {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let out = dir.path().to_str().ok_or("the path is UTF-8")?;
    let run = nlrig(&["run", "smoke", "--abi", "i386", "--out", out]);
    // An older report, and a disk with two free pages.
    let lines = format!(
        "mount -t tmpfs -o size=64k none {out}\n\
         mkdir {out}/run-0\necho old > {out}/run-0/report.json\nln -s run-0 {out}/latest\n\
         head -c 52k /dev/zero > {out}/filler"
    );
    let after =
        format!("{lines}\nset +e; \"$@\"; status=$?; cat {out}/run-0/report.json; exit $status; :");
    let output = mounted(&after, &run).output()?;
    full(&output, out)?;
    check("the older report is unchanged", output.stdout.ends_with(b"old\n"), &output)
}

/// The doctor succeeds on a host where these tests run.
fn doctor() -> Outcome {
    let output = nlrig(&["doctor"]).output()?;
    check("the doctor succeeds", output.status.success(), &output)?;
    let missing = output.stdout.windows(7).any(|word| word == b"MISSING");
    check("nothing is missing", !missing, &output)
}

/// Runs `smoke`, which must succeed; returns its output and its report.
fn smoke(arguments: &[&str]) -> Result<(Output, Value), Failed> {
    let dir = tempfile::tempdir()?;
    let mut run = nlrig(&["run", "smoke", "--json", "-", "--out"]);
    let output = run.arg(dir.path()).args(arguments).output()?;
    check("it succeeds", output.status.success(), &output)?;
    let report = serde_json::from_slice(&output.stdout)?;
    Ok((output, report))
}

/// A trial that needs more memory than the host has is skipped.
fn memory_short() -> Outcome {
    let (output, report) = smoke(&["--abi", "x86_64", "--memory", "1T", "--allow-skip"])?;
    let trial = &report["trials"][0];
    let reason = trial["reason"].as_str().unwrap_or_default();
    check("it is skipped", trial["verdict"] == "skip", &output)?;
    check("the reason has the host's limit", reason.contains("this host can give"), &output)
}

/// VMs beyond the host's default number wait for each other.
fn two_at_once() -> Outcome {
    let (output, report) = smoke(&["--repeat", "2", "--vms", "4"])?;
    let names: Vec<_> = report["trials"]
        .as_array()
        .ok_or("the report has trials")?
        .iter()
        .filter_map(|trial| trial["name"].as_str())
        .collect();
    let planned = ["i386", "ia32", "x86_64"]
        .into_iter()
        .flat_map(|abi| [1, 2].map(|number| format!("smoke/{abi}/6.1/repetition={number}")));
    check("the report has the planned order", planned.eq(names), &output)
}

fn full(output: &Output, path: &str) -> Outcome {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().last().unwrap_or_default();
    check("the status is 125", output.status.code() == Some(125), output)?;
    let reported = last.contains("No space left on device") && last.contains(path);
    check("the error has the reason and the path", reported, output)
}

/// Copies git's files of the checkout.
fn clone(to: &Path) -> Result<(), Failed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the checkout")?;
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()?;
    for name in listed.stdout.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let name = PathBuf::from(String::from_utf8_lossy(name).into_owned());
        let target = to.join(&name);
        fs::create_dir_all(target.parent().ok_or("a folder")?)?;
        if let Ok(link) = fs::read_link(root.join(&name)) {
            std::os::unix::fs::symlink(link, target)?;
        } else {
            fs::copy(root.join(&name), target)?;
        }
    }
    Ok(())
}

fn two_clones() -> Outcome {
    let dir = tempfile::tempdir()?;
    let runs = ["plain", "Netlink für alle, zweiter Klon"].map(|name| {
        let folder = dir.path().join(name);
        clone(&folder)?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let child = Command::new(cargo)
            .args(["xtask", "rig", "run", "smoke", "--abi", "x86_64", "--yes"])
            .current_dir(&folder)
            .env_remove("CARGO_TARGET_DIR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok::<_, Failed>((folder, child))
    });
    for run in runs {
        let (folder, child) = run?;
        let output = child.wait_with_output()?;
        check("it works", output.status.success(), &output)?;
        let report = folder.join("target/rig/latest/report.json");
        check("it reports into its own folder", report.is_file(), &output)?;
    }
    Ok(())
}
