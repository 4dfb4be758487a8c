//! The table of exit statuses, as far as a cell needs a machine or a kernel that
//! was built; `tests/host/exit_status.rs` has the rest. A test for each cell.

use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};

use crate::common::script;
use crate::exec::{Outcome, check, says};

/// One cell of the table.
struct Cell {
    /// The situation, and whose column it is.
    name: &'static str,
    /// What stands in for QEMU: a script, with QEMU itself in `$QEMU` and a
    /// folder of the test's own in `$DIR`. Empty if QEMU itself runs.
    qemu: &'static str,
    /// The command line.
    arguments: &'static [&'static str],
    /// The exit status.
    status: i32,
    /// Part of what standard error says.
    says: &'static str,
}

/// A machine that ends as one does that its guest resets: at once, successfully.
const RESET: &str = "exit 0";
/// A QEMU that is killed.
const KILLED: &str = "kill -9 $$";
/// The first machine is reset by its guest, the others are lost to QEMU.
const RESET_THEN_KILLED: &str = "mkdir $DIR/seen 2>/dev/null && exit 0; kill -9 $$";
/// QEMU is killed once.
const KILLED_ONCE: &str = "mkdir $DIR/seen 2>/dev/null && kill -9 $$; exec $QEMU \"$@\"";

const SMOKE: &[&str] = &["run", "smoke", "--abi", "x86_64"];

const fn cell(
    name: &'static str,
    arguments: &'static [&'static str],
    status: i32,
    says: &'static str,
) -> Cell {
    Cell { name, qemu: "", arguments, status, says }
}

const fn with_qemu(qemu: &'static str, cell: Cell) -> Cell {
    Cell { qemu, ..cell }
}

const CELLS: &[Cell] = &[
    // The command's own.
    cell("exec/succeeds", &["exec", "--", "true"], 0, ""),
    cell("exec/i386/fails", &["exec", "--abi", "i386", "--", "sh", "-c", "exit 42"], 42, ""),
    cell("exec/not-a-program", &["exec", "--", "/etc/modules"], 126, "/etc/modules"),
    cell("exec/not-found", &["exec", "--", "no-such-program"], 127, "no-such-program"),
    // Killed by a signal.
    cell("exec/ia32/signal", &["exec", "--abi", "ia32", "--", "sh", "-c", "kill -9 $$"], 137, ""),
    cell("exec/real-time-signal", &["exec", "--", "sh", "-c", "kill -40 $$"], 168, ""),
    // Late, and the guest still answers.
    cell(
        "exec/timeout",
        &["exec", "--timeout", "2s", "--", "sleep", "1000"],
        125,
        "the program was not done after",
    ),
    cell(
        "run/timeout",
        &["run", "threads", "--abi", "x86_64", "--stack", "2M", "--timeout", "1s"],
        1,
        "the program was not done after",
    ),
    // The guest's kernel.
    cell(
        "exec/panic",
        &["exec", "--", "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 1000"],
        125,
        "panicked",
    ),
    cell(
        "exec/oops",
        &["exec", "--", "sh", "-c", "echo 128 > /proc/sys/kernel/tainted"],
        0,
        "oops",
    ),
    cell(
        "exec/warning",
        &["exec", "--", "sh", "-c", "echo 512 > /proc/sys/kernel/tainted"],
        0,
        "warned",
    ),
    cell(
        "exec/taint",
        &["exec", "--", "sh", "-c", "echo 64 > /proc/sys/kernel/tainted; exit 3"],
        3,
        "tainted",
    ),
    cell(
        "exec/hang",
        &["exec", "--timeout", "4s", "--", "/run/nlrig/guest/workloads/fault", "livelock"],
        125,
        "hung",
    ),
    cell("exec/reset", &["exec", "--", "reboot", "-f"], 125, "last event"),
    with_qemu(RESET, cell("run/reset", SMOKE, 1, "last event")),
    // The rig.
    with_qemu(KILLED, cell("exec/qemu-killed", &["exec", "--", "true"], 125, "signal: 9")),
    with_qemu(KILLED, cell("run/qemu-killed", SMOKE, 125, "signal: 9")),
    with_qemu(
        RESET_THEN_KILLED,
        cell(
            "run/reset-beside-qemu-killed",
            &["run", "smoke", "--abi", "x86_64", "--repeat", "2", "--vms", "1"],
            125,
            "last event",
        ),
    ),
    // A second try.
    with_qemu(KILLED_ONCE, cell("run/flaky", SMOKE, 0, "signal: 9")),
    // Nothing is run.
    cell("run/skipped", &["run", "smoke", "--abi", "x86_64", "--memory", "1T"], 0, "skip"),
];

pub fn tests() -> Vec<Trial> {
    CELLS.iter().map(|cell| Trial::test(format!("status/{}", cell.name), || holds(cell))).collect()
}

fn holds(cell: &Cell) -> Outcome {
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_nlrig"));
    command.stdin(Stdio::null());
    if let Some((name, rest)) = cell.arguments.split_first() {
        command.arg(name);
        if *name == "run" {
            command.arg("--out").arg(dir.path().join("out"));
        }
        command.args(rest);
    }
    if !cell.qemu.is_empty() {
        command.env("PATH", stand_in(dir.path(), cell.qemu)?);
    }
    let output = command.output()?;
    check("the status", output.status.code() == Some(cell.status), &output)?;
    says(&output, cell.says)
}

/// Makes a program that stands in for QEMU; gives back a PATH that finds it
/// first.
fn stand_in(dir: &Path, body: &str) -> Result<String, Failed> {
    const NAME: &str = "qemu-system-x86_64";
    let path = std::env::var("PATH")?;
    let real = std::env::split_paths(&path).map(|folder| folder.join(NAME));
    let real = real.into_iter().find(|file| file.is_file()).ok_or("QEMU is installed")?;
    let bin = dir.join("bin");
    std::fs::create_dir(&bin)?;
    let (qemu, dir) = (real.display(), dir.display());
    let text = format!(
        "QEMU={qemu} DIR={dir}\ncase \"$1\" in *-version) exec $QEMU \"$@\";; esac\n{body}"
    );
    script(&bin.join(NAME), &text);
    Ok(format!("{}:{path}", bin.display()))
}
