//! Tests of `nlrig exec`.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use crate::common::{is_alive, soon};

pub type Outcome = Result<(), Failed>;

pub fn tests() -> Vec<Trial> {
    let test = |name: &str, body: fn() -> Outcome| Trial::test(format!("exec/{name}"), body);
    vec![
        test("x86_64/uname", || prints(&["--", "uname", "-m"], "x86_64\n")),
        test("i386/uname", || prints(&["--abi", "i386", "--", "uname", "-m"], "i686\n")),
        test("i386/wait", || {
            ends(&["--abi", "i386", "--timeout", "60s", "--", "sh", "-c", "sleep 1 & wait"], 0)
        }),
        test("x86_64/grandchild-is-not-waited-for", || {
            ends(&["--timeout", "60s", "--", "sh", "-c", "yes >/dev/null & sleep 9999 & exit 3"], 3)
        }),
        test("x86_64/flood-of-a-grandchild", flood_of_a_grandchild),
        test("x86_64/reader-gone", reader_gone),
        // Ignored: takes longer than the time limit for a guest's answer.
        test("x86_64/slow-reader", slow_reader).with_ignored_flag(true),
        test("i386/program-of-the-current-directory", program_of_the_current_directory),
        test("x86_64/bytes", bytes),
        test("x86_64/streams-apart", streams_apart),
        test("x86_64/limits-and-user", limits_and_user),
        test("x86_64/environment", environment),
        test("i386/kernel-argument", kernel_argument),
        test("x86_64/no-input", no_input),
        test("x86_64/record-of-a-success", record_of_a_success),
        test("x86_64/record-of-an-oops", record_of_an_oops),
        test("x86_64/clock", || clock("x86_64")),
        test("i386/clock", || clock("i386")),
        test("x86_64/current-directory-is-read-only", read_only),
        test("i386/writable", writable),
        test("x86_64/words-in-the-kernels-log", || words_in_the_kernels_log("x86_64")),
        test("i386/words-in-the-kernels-log", || words_in_the_kernels_log("i386")),
        test("x86_64/interrupted", || stopped("INT")),
        test("x86_64/terminated", || stopped("TERM")),
        test("x86_64/killed", killed),
        test("x86_64/qemu-killed", || loses("qemu-system", "QEMU ended (signal: 9")),
        test("x86_64/share-daemon-killed", || loses("share-daemon", "daemon of the share")),
    ]
}

pub fn nlrig() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nlrig"));
    command.arg("exec").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Result<Output, Failed> {
    Ok(nlrig().args(arguments).output()?)
}

pub fn check(what: &str, holds: bool, output: &Output) -> Outcome {
    if holds {
        return Ok(());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    Err(format!("{what}: {}\nstdout: {stdout}\nstderr: {stderr}", output.status).into())
}

fn prints(arguments: &[&str], stdout: &str) -> Outcome {
    let output = run(arguments)?;
    check("it succeeds", output.status.success(), &output)?;
    check("the output is the expected one", output.stdout == stdout.as_bytes(), &output)
}

fn ends(arguments: &[&str], status: i32) -> Outcome {
    let output = run(arguments)?;
    check("the status is the command's", output.status.code() == Some(status), &output)?;
    check("nothing is printed", output.stdout.is_empty(), &output)
}

pub fn says(output: &Output, word: &str) -> Outcome {
    let found = String::from_utf8_lossy(&output.stderr).contains(word);
    check(&format!("standard error has \"{word}\""), found, output)
}

/// A line that a program writes to /dev/kmsg is not a kernel report; a real report
/// between such lines is.
fn words_in_the_kernels_log(abi: &str) -> Outcome {
    const WRITE: &str = "echo 'BUG: KASAN: use-after-free in demo' >/dev/kmsg; \
         echo 'DEBUG: x' >/dev/kmsg; echo 'general protection fault: 0000 [#1]' >/dev/kmsg";
    let output = run(&["--abi", abi, "--", "sh", "-c", WRITE])?;
    check("it succeeds", output.status.success(), &output)?;
    let silent = !String::from_utf8_lossy(&output.stderr).contains("guest kernel");
    check("the kernel is not blamed", silent, &output)?;
    let and_warn = format!("{WRITE}; /run/nlrig/guest/workloads/fault warn");
    let output = run(&["--abi", abi, "--module", "rig", "--", "sh", "-c", &and_warn])?;
    says(&output, "WARNING: CPU: ")
}

fn program_of_the_current_directory() -> Outcome {
    let dir = tempfile::tempdir()?;
    fs::write(
        dir.path().join("a.c"),
        "#include <stdio.h>\nint main(void) { printf(\"%zu bytes\\n\", sizeof(void *)); return 7; }\n",
    )?;
    let compiled =
        Command::new("gcc").args(["-m32", "-static", "a.c"]).current_dir(dir.path()).status()?;
    assert!(compiled.success());
    let output =
        nlrig().args(["--abi", "i386", "--", "./a.out"]).current_dir(dir.path()).output()?;
    check("the program's status", output.status.code() == Some(7), &output)?;
    check("the program's output", output.stdout == b"4 bytes\n", &output)
}

/// Every byte value passes unchanged in both directions, beyond the size of any
/// buffer.
fn bytes() -> Outcome {
    let sent: Vec<u8> =
        (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut child = nlrig()
        .args(["--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let mut stdin = child.stdin.take().expect("it was made a pipe");
    let to_send = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&to_send));
    let mut got = Vec::new();
    child.stdout.take().expect("it was made a pipe").read_to_end(&mut got)?;
    writer.join().expect("the writer does not panic")?;
    assert!(child.wait()?.success());
    if got == sent { Ok(()) } else { Err(format!("{} of {} bytes", got.len(), sent.len()).into()) }
}

fn streams_apart() -> Outcome {
    let output = run(&["-q", "--", "sh", "-c", "printf out; printf err >&2; exit 3"])?;
    check("the status", output.status.code() == Some(3), &output)?;
    check("output", output.stdout == b"out", &output)?;
    check("error output", output.stderr == b"err", &output)
}

fn flood_of_a_grandchild() -> Outcome {
    let output = run(&["--timeout", "60s", "--", "sh", "-c", "yes & sleep 1; exit 3"])?;
    check(
        "the command's status",
        output.status.code() == Some(3),
        &Output { stdout: Vec::new(), ..output },
    )
}

fn reader_gone() -> Outcome {
    let mut child = nlrig().args(["-q", "--", "yes"]).stdout(Stdio::piped()).spawn()?;
    let mut word = [0; 2];
    child.stdout.take().expect("it was made a pipe").read_exact(&mut word)?;
    let status = child.wait()?;
    if status.code() == Some(141) { Ok(()) } else { Err(format!("{status}").into()) }
}

/// While PID 1 waits for a reader of its output it does not answer; the rig must not
/// report a hang.
fn slow_reader() -> Outcome {
    let mut child = nlrig().args(["-q", "--", "yes"]).stdout(Stdio::piped()).spawn()?;
    std::thread::sleep(Duration::from_secs(90));
    let mut word = [0; 2];
    child.stdout.take().expect("it was made a pipe").read_exact(&mut word)?;
    let status = child.wait()?;
    if status.code() == Some(141) { Ok(()) } else { Err(format!("{status}").into()) }
}

fn limits_and_user() -> Outcome {
    let script = "ulimit -n; id -u; cat /proc/sys/kernel/pid_max";
    let limits = ["--rlimit", "nofile=77", "--user", "1000", "--sysctl", "pid_max=4000"];
    prints(&[&limits[..], &["--", "sh", "-c", script]].concat(), "77\n1000\n4000\n")
}

fn environment() -> Outcome {
    let script = "echo $GIVEN,$TAKEN,$HOSTS";
    let output = nlrig()
        .args(["-q", "--env", "GIVEN=a b=c", "--env", "TAKEN", "--", "sh", "-c", script])
        .env("TAKEN", "taken")
        .env("HOSTS", "not to be inherited")
        .output()?;
    check("only the given variables are set", output.stdout == b"a b=c,taken,\n", &output)
}

fn kernel_argument() -> Outcome {
    let words = ["--kernel-arg", "nokaslr", "--kernel-arg", "slub_debug=FZ"];
    let output = run(&[&["--abi", "i386"], &words[..], &["--", "cat", "/proc/cmdline"]].concat())?;
    let text = String::from_utf8_lossy(&output.stdout);
    // QEMU appends its virtio devices.
    check("both words are there", text.contains(" nokaslr slub_debug=FZ "), &output)
}

/// In a `while read` loop a command without `-n` would consume the rest of the input.
fn no_input() -> Outcome {
    let text =
        "printf '%s\\n' one two | while read -r word; do \"$0\" exec -q -n -- echo \"$word\"; done";
    let output = Command::new("sh").args(["-c", text, env!("CARGO_BIN_EXE_nlrig")]).output()?;
    check("it runs twice", output.stdout == b"one\ntwo\n", &output)?;
    let mut child = nlrig().args(["-n", "--", "cat"]).stdin(Stdio::piped()).spawn()?;
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("cat without input: {status}").into()) }
}

/// Runs a command with `--json`; returns its output and the record.
fn recorded(arguments: &[&str]) -> Result<(Output, Value), Failed> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("record.json");
    let output = nlrig().arg("--json").arg(&file).args(arguments).output()?;
    Ok((output, serde_json::from_slice(&fs::read(&file)?)?))
}

fn record_of_a_success() -> Outcome {
    let (output, record) = recorded(&["--", "echo", "words"])?;
    check("the output is the command's alone", output.stdout == b"words\n", &output)?;
    assert_eq!(record["command"], json!(["echo", "words"]));
    assert_eq!((&record["verdict"], &record["abi"]), (&json!("pass"), &json!("x86_64")));
    assert_eq!((&record["exit_code"], &record["exit_status"]), (&json!(0), &json!(0)));
    assert_eq!((&record["fault_domain"], &record["reason"]), (&json!(null), &json!(null)));
    Ok(())
}

fn record_of_an_oops() -> Outcome {
    let (output, record) =
        recorded(&["--module", "rig", "--", "/run/nlrig/guest/workloads/fault", "null"])?;
    check("a fault of the kernel", output.status.code() == Some(99), &output)?;
    says(&output, "the guest kernel oopsed: BUG: kernel NULL pointer dereference")?;
    says(&output, "call trace:\n    nlrig_null_dereference+")?;
    let text = |key: &str| record[key].as_str().unwrap_or_default().to_string();
    check("the verdict", text("verdict") == "oops" && record["exit_status"] == 99, &output)?;
    check("the fault domain", text("fault_domain") == "guest", &output)?;
    check("the deciding line", text("line").starts_with("BUG: kernel NULL pointer"), &output)?;
    let innermost = record["trace"][0].as_str().unwrap_or_default();
    check("the call trace", innermost.starts_with("nlrig_null_dereference+"), &output)
}

/// The guest's date is the host's, within two seconds: the kernel reads it from
/// the clock chip at boot.
fn clock(abi: &str) -> Outcome {
    let output = run(&["-q", "--abi", abi, "--", "date", "+%s"])?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
    let guest: f64 = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    // Half a second for the VM's end, half for the rounding to seconds.
    check(&format!("the date {guest} is near {now}"), (guest - now).abs() <= 3.0, &output)
}

fn read_only() -> Outcome {
    let dir = tempfile::tempdir()?;
    let output = nlrig().args(["--", "touch", "file"]).current_dir(dir.path()).output()?;
    check("it fails", output.status.code() == Some(1), &output)?;
    says(&output, "Read-only")?;
    check("no file is created", fs::read_dir(dir.path())?.count() == 0, &output)
}

fn writable() -> Outcome {
    let dir = tempfile::tempdir()?;
    let script = "echo hello > file; ln -s /etc/passwd link; cat link 2>/dev/null; cat ../../file";
    let output = nlrig()
        .args(["--abi", "i386", "--writable", "--", "sh", "-c", script])
        .current_dir(dir.path())
        .output()?;
    check("the file is there", fs::read(dir.path().join("file"))? == b"hello\n", &output)?;
    check("files of the host are not readable", output.stdout.is_empty(), &output)
}

/// A running rig that is killed on drop. After a failed test its VM would hold
/// memory and cores, and all later tests would wait.
pub struct Running(Option<Child>);

impl Running {
    pub fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("the child is taken only at the end")
    }

    fn into_child(mut self) -> Child {
        self.0.take().expect("the child is taken only once")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts a command that sleeps, and waits until it runs; returns the rig and its
/// children.
pub fn start_sleeping(dir: &Path) -> Result<(Running, Vec<u32>), Failed> {
    let child = nlrig()
        .args(["--", "sh", "-c", "echo running; sleep 1000"])
        .env("TMPDIR", dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut rig = Running(Some(child));
    let mut word = [0; 8];
    rig.child().stdout.as_mut().expect("standard output is a pipe").read_exact(&mut word)?;
    let children = children_of(rig.child().id());
    assert!(children.len() >= 3, "QEMU and two share daemons: {children:?}");
    // What serves a share may be the child of a process outside of its namespaces.
    let grandchildren = children.iter().flat_map(|child| children_of(*child));
    Ok((rig, children.iter().copied().chain(grandchildren).collect()))
}

pub fn children_of(parent: u32) -> Vec<u32> {
    fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect()
}

fn gone_soon(processes: &[u32]) -> Outcome {
    if soon(Duration::from_secs(5), || !processes.iter().any(is_alive)) {
        return Ok(());
    }
    Err(format!("still alive after 5 s: {processes:?}").into())
}

fn signal(child: &Child, name: &str) -> Outcome {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status()?;
    if status.success() { Ok(()) } else { Err("kill failed".into()) }
}

fn stopped(by: &str) -> Outcome {
    let dir = tempfile::tempdir()?;
    let (mut rig, children) = start_sleeping(dir.path())?;
    signal(rig.child(), by)?;
    let status = rig.child().wait()?;
    gone_soon(&children)?;
    assert_eq!(status.code(), Some(130));
    assert_eq!(fs::read_dir(dir.path())?.count(), 0, "no temporary folder is left");
    Ok(())
}

fn killed() -> Outcome {
    let dir = tempfile::tempdir()?;
    let (mut rig, children) = start_sleeping(dir.path())?;
    signal(rig.child(), "KILL")?;
    rig.child().wait()?;
    gone_soon(&children)?;
    assert!(fs::read_dir(dir.path())?.count() > 0, "the killed rig left no folder");
    let next =
        Command::new(env!("CARGO_BIN_EXE_nlrig")).arg("list").env("TMPDIR", dir.path()).output()?;
    check("the next run works", next.status.success(), &next)?;
    check("it removes the folders", fs::read_dir(dir.path())?.count() == 0, &next)
}

/// Kills a child of the rig and asserts that the rig reports it and leaves nothing.
fn loses(program: &str, words: &str) -> Outcome {
    let dir = tempfile::tempdir()?;
    let (rig, children) = start_sleeping(dir.path())?;
    let is = |id: &&u32| {
        fs::read(format!("/proc/{id}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(program))
    };
    let id = children.iter().find(is).expect("the program runs").to_string();
    let start = Instant::now();
    Command::new("kill").args(["-s", "KILL", &id]).status()?;
    let output = rig.into_child().wait_with_output()?;
    check("the status is 125", output.status.code() == Some(125), &output)?;
    says(&output, words)?;
    check("it is noticed at once", start.elapsed() < Duration::from_secs(15), &output)?;
    gone_soon(&children)?;
    check("no temporary folder is left", fs::read_dir(dir.path())?.count() == 0, &output)
}
