//! Tests of the command line without a VM: rejected arguments, their messages and
//! exit statuses.

use std::process::{Command, Output, Stdio};

fn nlrig(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nlrig"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("nlrig starts")
}

/// Asserts that the arguments are rejected with one line that has all `words`.
fn refused(arguments: &[&str], status: i32, words: &[&str]) {
    let output = nlrig(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("nlrig: error: "), "{arguments:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{arguments:?} does not name {word}: {stderr}");
    }
    assert!(output.stdout.is_empty());
}

/// Asserts that clap rejects the arguments, and that its message refers to --help.
fn misspelt(arguments: &[&str], words: &[&str]) {
    let output = nlrig(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("error: "), "{arguments:?}: {stderr}");
    for word in words.iter().chain(&["--help"]) {
        assert!(stderr.contains(word), "{arguments:?} does not name {word}: {stderr}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn a_misspelt_argument_is_quoted_with_a_hint() {
    misspelt(&["run", "threads", "--abi", "arm"], &["arm", "--abi", "x86_64"]);
    misspelt(&["run", "threads", "--stack", "2X"], &["2X"]);
    misspelt(&["run", "threads", "--stack", "0"], &["\"0\"", "zero"]);
    misspelt(&["run", "threads", "--timeout", "soon"], &["soon"]);
    misspelt(&["run", "--time-out", "1m"], &["tip:", "--timeout", "Usage:"]);
    misspelt(&["--no-such-option"], &["--no-such-option", "Usage:"]);
}

#[test]
fn unknown_names_are_usage_errors() {
    refused(&["run", "nonsense"], 2, &["nonsense", "threads"]);
    refused(&["run", "threads", "--set", "colour=red"], 2, &["colour"]);
    refused(&["run", "threads", "--set", "predict_only=maybe"], 2, &["maybe"]);
    refused(&["run", "threads", "--kernel", "9.9"], 2, &["9.9", "6.1"]);
    refused(&["run", "threads", "--flavour", "vanilla"], 2, &["vanilla"]);
    refused(&["exec", "--abi", "i386,x86_64", "--", "true"], 2, &["one --abi"]);
    refused(&["exec", "--json", "-", "--", "true"], 2, &["--json -", "file"]);
}

#[test]
fn a_missing_kernel_source_is_125() {
    let arguments = ["run", "smoke", "--abi", "i386", "--kernel-source", "/no/such/source"];
    refused(&arguments, 125, &["/no/such/source"]);
}

#[test]
fn a_kernel_source_with_another_hash_is_rejected() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be created");
    let path = file.path().to_str().expect("the path is UTF-8");
    let hash = "0".repeat(64);
    let arguments = ["build", "kernel", "--kernel-source", path, "--kernel-sha256", &hash];
    refused(&arguments, 125, &[path, &hash]);
}

#[test]
fn help_names_every_command() {
    let output = nlrig(&["--help"]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    for command in ["run", "list", "build", "doctor", "exec", "bench", "clean"] {
        assert!(text.contains(command), "{command}");
    }
    assert!(!text.contains("share-daemon"), "an internal subcommand is shown");
}

/// Runs `classify` on a log; returns the exit status and standard output.
fn classified(arguments: &[&str], log: &str) -> (Option<i32>, String) {
    use std::io::Write;

    let mut child = Command::new(env!("CARGO_BIN_EXE_nlrig"))
        .arg("classify")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("nlrig starts");
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    stdin.write_all(log.as_bytes()).expect("nlrig reads all of its input");
    drop(stdin);
    let output = child.wait_with_output().expect("nlrig ends");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_log_is_classified_by_its_worst_report() {
    let log = "[    1.0] BUG: unable to handle page fault for address: f8000000\n\
               [    1.0] EIP: demo_run+0x5/0x10 [demo]\n";
    let (status, page) = classified(&[], log);
    assert_eq!(status, Some(1), "{page}");
    assert!(page.starts_with("oops: ") && page.contains("demo_run+0x5/0x10 [demo]"), "{page}");

    let (status, json) = classified(&["--json", "-"], log);
    let document: serde_json::Value = serde_json::from_str(&json).expect("the output is JSON");
    assert_eq!((status, &document["verdict"]), (Some(1), &"oops".into()), "{json}");

    let (status, page) = classified(&[], "[    1.0] DEBUG: x\n");
    assert_eq!(status, Some(0), "{page}");
}

#[test]
fn an_unreadable_log_is_125() {
    refused(&["classify", "/no/such/log"], 125, &["/no/such/log"]);
    refused(&["classify", "/"], 125, &["cannot read /"]);
    misspelt(&["classify", "a", "b"], &["'b'"]);
}
