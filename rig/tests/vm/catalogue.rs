//! Mutation tests of `claims`: after a change to the module or the kernel, exactly
//! the claims about the change fail. And the module passes fuzzing on a debug kernel.
//! The slow tests are ignored by default.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use nlrig::abi::Abi;
use nlrig::experiment::{self, Selection};
use nlrig::options::GuestOptions;
use nlrig::{command, static_check};
use serde_json::Value;

use crate::exec::{Outcome, check};

/// A change: a file, the text before and after, and the claims that must fail.
struct Change {
    file: &'static str,
    from: &'static str,
    to: &'static str,
    red: &'static [&'static str],
}

/// The module does not wake programs that poll a sysfs file.
const MODULE: Change =
    Change { file: "sysfile.c", from: "sysfs_notify(", to: "if (0) sysfs_notify(", red: &["B3.2"] };

/// Netlink accepts a third socket type.
const KERNEL: Change = Change {
    file: "net/netlink/af_netlink.c",
    from: "if (sock->type != SOCK_RAW && sock->type != SOCK_DGRAM)",
    to: "if (sock->type != SOCK_RAW && sock->type != SOCK_DGRAM && sock->type != SOCK_SEQPACKET)",
    red: &["A37.2"],
};

/// The body of a test.
type Body = fn() -> Outcome;

pub fn tests() -> Vec<Trial> {
    let tests: [(&str, Body); 3] = [
        ("claims/changed-module", changed_module),
        ("claims/patched-kernel", patched_kernel),
        ("module/debug", ill_treated),
    ];
    let tests = tests.map(|(name, test)| Trial::test(name, test).with_ignored_flag(true));
    let source = Trial::test("claims/source-lines", source_lines);
    let comments = Trial::test("module/kernel-doc", kernel_doc);
    tests.into_iter().chain([source, comments]).collect()
}

/// scripts/kernel-doc finds no problem in the module.
fn kernel_doc() -> Outcome {
    let kernels = command::kernels(&GuestOptions::default())?;
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../module");
    let mut check = Command::new(kernels.source_tree()?.join("scripts/kernel-doc"));
    check.arg("-none");
    for folder in [module.clone(), module.join("uapi")] {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "c" || extension == "h") {
                check.arg(path);
            }
        }
    }
    let output = check.output()?;
    let warnings = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || !warnings.is_empty() {
        return Err(format!("kernel-doc ({}): {warnings}", output.status).into());
    }
    Ok(())
}

/// The source lines that claims cite exist in the source of the booted kernel.
fn source_lines() -> Outcome {
    let kernels = command::kernels(&GuestOptions::default())?;
    let source = kernels.source_tree()?;
    let selection = Selection::new(&Abi::ALL, &kernels.known.version);
    let (mut cited, mut missing) = (0, Vec::new());
    for experiment in experiment::ALL {
        for trial in experiment.plan(&selection)? {
            for (file, text) in experiment.sources(&trial) {
                cited += 1;
                if static_check::line_of(&source, file, text)?.is_none() {
                    missing.push(format!("{}: {file} has no \"{text}\"", trial.name));
                }
            }
        }
    }
    assert!(cited > 0, "no line is cited");
    // List all of them: an update of the source may have moved several.
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    Ok(())
}

impl Change {
    fn make(&self, folder: &Path) -> Result<(), Failed> {
        let path = folder.join(self.file);
        let text = fs::read_to_string(&path)?;
        if text.matches(self.from).count() != 1 {
            let path = path.display();
            return Err(format!("{path}: \"{}\" does not occur exactly once", self.from).into());
        }
        Ok(fs::write(path, text.replace(self.from, self.to))?)
    }
}

fn copy(from: &Path, to: &Path) -> Outcome {
    let output = Command::new("cp").arg("-a").arg(from).arg(to).output()?;
    check("copied", output.status.success(), &output)
}

fn changed_module() -> Outcome {
    let dir = tempfile::tempdir()?;
    let module = dir.path().join("module");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../module"), &module)?;
    MODULE.make(&module)?;
    run_catalogue(dir.path(), &["--module", &module.display().to_string()], MODULE.red)
}

fn patched_kernel() -> Outcome {
    let dir = tempfile::tempdir()?;
    let kernels = command::kernels(&GuestOptions::default())?;
    let linux = dir.path().join("linux");
    copy(&kernels.source_tree()?, &linux)?;
    KERNEL.make(&linux)?;
    run_catalogue(dir.path(), &["--kernel-source", &linux.display().to_string()], KERNEL.red)
}

/// Runs all claims and compares the failed ones with those that must fail.
fn run_catalogue(dir: &Path, options: &[&str], red: &[&str]) -> Outcome {
    let report = dir.join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_nlrig"))
        .args(["run", "claims", "--abi", "x86_64", "--out"])
        .arg(dir.join("out"))
        .arg("--json")
        .arg(&report)
        .args(options)
        .stdin(Stdio::null())
        .output()?;
    check("a trial failed", output.status.code() == Some(1), &output)?;
    let report: Value = serde_json::from_slice(&fs::read(report)?)?;
    let trials = report["trials"].as_array().ok_or("the report has trials")?;
    let failed: Vec<_> = trials
        .iter()
        .filter(|trial| trial["verdict"] != "pass")
        .filter_map(|trial| trial["params"]["id"].as_str())
        .collect();
    check(&format!("{failed:?} failed, expected {red:?}"), failed == red, &output)
}

/// Fuzzes the module for ten minutes and loads it a thousand times, under KASAN,
/// kmemleak and lockdep.
fn ill_treated() -> Outcome {
    let dir = tempfile::tempdir()?;
    let output = Command::new(env!("CARGO_BIN_EXE_nlrig"))
        .args(["run", "module", "--flavour", "debug", "--abi", "x86_64"])
        .args(["--set", "seconds=600", "--set", "times=1000", "--out"])
        .arg(dir.path())
        .stdin(Stdio::null())
        .output()?;
    check("no fault is found", output.status.success(), &output)
}
