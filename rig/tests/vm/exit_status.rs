//! Tests the cells of the exit status table that need a VM, one test per cell;
//! `tests/host/exit_status.rs` has the rest.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};

use crate::common::script;
use crate::exec::{Outcome, check, says};

/// One cell of the table.
struct Cell {
    /// The column and the situation.
    name: &'static str,
    /// A shell script that replaces QEMU; `$QEMU` is QEMU's path, `$DIR` the test's
    /// folder. Empty for QEMU itself.
    qemu: &'static str,
    /// The source of a module that replaces the rig's; empty for the rig's.
    module: &'static str,
    /// The arguments of the rig.
    arguments: &'static [&'static str],
    /// The expected exit status.
    status: i32,
    /// A part of standard error.
    says: &'static str,
}

/// A VM that its guest resets: QEMU exits 0 at once.
const RESET: &str = "exit 0";
/// A QEMU that fails. Its confinement keeps a script from killing itself, and from
/// writing a file: what it knows of a former attempt is the folder of the trial.
const FAILS: &str = "exit 3";
/// The guest resets the first VM; the second one is lost to QEMU.
const RESET_THEN_FAILS: &str =
    "[ -e $DIR/out/latest/smoke_x86_64_6.1_repetition=2 ] && exit 3; exit 0";
/// QEMU fails once: the folder of the first attempt is set aside for the second.
const FAILS_ONCE: &str =
    "[ -e $DIR/out/latest/smoke_x86_64_6.1.lost ] || exit 3; exec $QEMU \"$@\"";

const SMOKE: &[&str] = &["run", "smoke", "--abi", "x86_64"];
/// An experiment that takes another module of the rig's name.
const RELOAD: &[&str] =
    &["run", "module", "--abi", "x86_64", "--set", "times=1", "--set", "seconds=0"];

const fn cell(
    name: &'static str,
    arguments: &'static [&'static str],
    status: i32,
    says: &'static str,
) -> Cell {
    Cell { name, qemu: "", module: "", arguments, status, says }
}

/// A module that does not compile.
const BROKEN_MODULE: &str = "int broken(void) { return 0 }\n";
/// A module whose init function fails.
const REFUSED_MODULE: &str = "#include <linux/module.h>\n\
    static int __init start(void) { return -EINVAL; }\n\
    module_init(start);\nMODULE_LICENSE(\"GPL\");\n";

const fn with_module(module: &'static str, cell: Cell) -> Cell {
    Cell { module, ..cell }
}

const fn with_qemu(qemu: &'static str, cell: Cell) -> Cell {
    Cell { qemu, ..cell }
}

/// A command in the guest that sets a taint bit.
macro_rules! taint {
    ($mask:literal, $status:literal) => {
        concat!("echo ", $mask, " > /proc/sys/kernel/tainted; exit ", $status)
    };
}

const PANIC: &str = "echo c > /proc/sysrq-trigger; sleep 1000";
const OOPSED: &str = taint!(128, 0);
const WARNED: &str = taint!(512, 3);
const TAINTED: &str = taint!(64, 3);
const HANG: &str = "/run/nlrig/guest/workloads/fault";

const CELLS: &[Cell] = &[
    // The command's own status.
    cell("exec/succeeds", &["exec", "--", "true"], 0, ""),
    cell("exec/i386/fails", &["exec", "--abi", "i386", "--", "sh", "-c", "exit 42"], 42, ""),
    cell("exec/looks-like-a-fault", &["exec", "--", "sh", "-c", "exit 99"], 99, ""),
    cell("exec/not-a-program", &["exec", "--", "/etc/modules"], 126, "/etc/modules"),
    cell("exec/not-found", &["exec", "--", "no-such-program"], 127, "no-such-program"),
    cell("bisect/succeeds", &["exec", "--bisect", "--", "true"], 0, ""),
    cell("bisect/fails", &["exec", "--bisect", "--", "sh", "-c", "exit 125"], 1, ""),
    cell("bisect/not-found", &["exec", "--bisect", "--", "no-such-program"], 1, "not found"),
    // Killed by a signal.
    cell("exec/ia32/signal", &["exec", "--abi", "ia32", "--", "sh", "-c", "kill -9 $$"], 137, ""),
    cell("exec/real-time-signal", &["exec", "--", "sh", "-c", "kill -40 $$"], 168, ""),
    cell("bisect/signal", &["exec", "--bisect", "--", "sh", "-c", "kill -9 $$"], 1, ""),
    // A timeout while the guest still answers.
    cell("exec/timeout", &["exec", "--timeout", "2s", "--", "sleep", "1000"], 124, "timed out"),
    cell(
        "bisect/timeout",
        &["exec", "--bisect", "--timeout", "2s", "--", "sleep", "1000"],
        1,
        "timed out",
    ),
    cell(
        "run/timeout",
        &["run", "threads", "--abi", "x86_64", "--stack", "2M", "--timeout", "1s"],
        1,
        "the program was not done after",
    ),
    // Faults of the guest kernel.
    cell("exec/panic", &["exec", "--", "sh", "-c", PANIC], 99, "the guest kernel panicked"),
    cell("bisect/panic", &["exec", "--bisect", "--", "sh", "-c", PANIC], 1, "panicked"),
    cell(
        "exec/panic-at-boot",
        &["exec", "--kernel-arg", "rdinit=/nowhere", "--", "true"],
        99,
        "the guest kernel panicked",
    ),
    cell("exec/oops", &["exec", "--", "sh", "-c", OOPSED], 99, "the guest kernel oopsed"),
    cell("exec/warning", &["exec", "--", "sh", "-c", WARNED], 99, "the guest kernel warned"),
    cell("bisect/warning", &["exec", "--bisect", "--", "sh", "-c", WARNED], 1, "warned"),
    cell("exec/taint", &["exec", "--", "sh", "-c", TAINTED], 99, "the guest kernel was tainted"),
    cell(
        "exec/module-taint",
        &["exec", "--", "sh", "-c", "echo 1025 > /proc/sys/kernel/tainted"],
        0,
        "",
    ),
    cell(
        "exec/hang",
        &["exec", "--module", "rig", "--timeout", "4s", "--", HANG, "livelock"],
        99,
        "the guest hung",
    ),
    cell("exec/reset", &["exec", "--", "reboot", "-f"], 99, "the guest reset itself"),
    with_qemu(RESET, cell("bisect/reset", &["exec", "--bisect", "--", "true"], 1, "reset itself")),
    with_qemu(RESET, cell("run/reset", SMOKE, 1, "rebooted or triple-faulted")),
    // Faults with `--allow`.
    cell("exec/allowed-oops", &["exec", "--allow", "oops", "--", "sh", "-c", OOPSED], 0, ""),
    cell("exec/allowed-warning", &["exec", "--allow", "warning", "--", "sh", "-c", WARNED], 3, ""),
    cell(
        "exec/allowed-taint",
        &["exec", "--allow", "warning,taint", "--", "sh", "-c", TAINTED],
        3,
        "",
    ),
    cell(
        "exec/another-kind-allowed",
        &["exec", "--allow", "oops,taint", "--", "sh", "-c", WARNED],
        99,
        "the guest kernel warned",
    ),
    cell(
        "bisect/allowed-warning",
        &["exec", "--bisect", "--allow", "warning", "--", "sh", "-c", taint!(512, 0)],
        0,
        "",
    ),
    // The rig could not do its work.
    with_qemu(FAILS, cell("exec/qemu-failed", &["exec", "--", "true"], 125, "exit status: 3")),
    with_qemu(
        FAILS,
        cell("bisect/qemu-failed", &["exec", "--bisect", "--", "true"], 128, "exit status: 3"),
    ),
    with_qemu(FAILS, cell("run/qemu-failed", SMOKE, 125, "exit status: 3")),
    with_qemu(
        RESET_THEN_FAILS,
        cell(
            "run/reset-beside-qemu-failed",
            &["run", "smoke", "--abi", "x86_64", "--repeat", "2", "--vms", "1"],
            1,
            "exit status: 3",
        ),
    ),
    cell("exec/no-such-sysctl", &["exec", "--sysctl", "no.such=1", "--", "true"], 125, "no.such"),
    cell(
        "bisect/no-such-sysctl",
        &["exec", "--bisect", "--sysctl", "no.such=1", "--", "true"],
        128,
        "no.such",
    ),
    cell("exec/memory-short", &["exec", "--memory", "1T", "--", "true"], 125, "this host can give"),
    // A second attempt.
    with_qemu(FAILS_ONCE, cell("run/flaky", SMOKE, 0, "tried once more")),
    with_qemu(
        FAILS_ONCE,
        cell(
            "run/no-flaky",
            &["run", "smoke", "--abi", "x86_64", "--no-flaky"],
            1,
            "tried once more",
        ),
    ),
    // Skipped trials.
    cell(
        "run/skipped",
        &["run", "smoke", "--abi", "x86_64", "--memory", "1T"],
        1,
        "--allow-skip permits it",
    ),
    cell(
        "run/skip-allowed",
        &["run", "smoke", "--abi", "x86_64", "--memory", "1T", "--allow-skip"],
        0,
        "skip",
    ),
    // A module that does not compile or does not load.
    with_module(BROKEN_MODULE, cell("exec/module-broken", &["exec", "--", "true"], 125, "error:")),
    with_module(
        BROKEN_MODULE,
        cell("bisect/module-broken", &["exec", "--bisect", "--", "true"], 128, "error:"),
    ),
    with_module(BROKEN_MODULE, cell("run/module-broken", RELOAD, 125, "error:")),
    with_module(
        REFUSED_MODULE,
        cell("exec/module-refused", &["exec", "--", "true"], 99, "refused to load the module"),
    ),
    with_module(
        REFUSED_MODULE,
        cell("bisect/module-refused", &["exec", "--bisect", "--", "true"], 1, "refused"),
    ),
    with_module(REFUSED_MODULE, cell("run/module-refused", RELOAD, 1, "Invalid argument")),
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
        if !cell.module.is_empty() {
            let module = dir.path().join("module");
            fs::create_dir(&module)?;
            fs::write(module.join("Kbuild"), "obj-m := nlrig.o\n")?;
            fs::write(module.join("nlrig.c"), cell.module)?;
            command.arg("--module").arg(module);
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

/// Creates a script that replaces QEMU; returns a PATH that has it first.
fn stand_in(dir: &Path, body: &str) -> Result<String, Failed> {
    const NAME: &str = "qemu-system-x86_64";
    let path = std::env::var("PATH")?;
    let real = std::env::split_paths(&path).map(|folder| folder.join(NAME));
    let real = real.into_iter().find(|file| file.is_file()).ok_or("QEMU is installed")?;
    let bin = dir.join("bin");
    fs::create_dir(&bin)?;
    let (qemu, dir) = (real.display(), dir.display());
    let text = format!(
        "QEMU={qemu} DIR={dir}\ncase \" $* \" in *-version\" \"*) exec $QEMU \"$@\";; esac\n{body}"
    );
    script(&bin.join(NAME), &text);
    Ok(format!("{}:{path}", bin.display()))
}
