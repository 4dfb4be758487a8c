//! `cargo xtask rig` and `cargo xtask test`: prepare the host, build the rig, and
//! exec it or its tests.
//!
//! Missing host packages are installed with `--yes`. Otherwise xtask prints the
//! command that installs them and changes nothing. exec() makes signals and the
//! exit status those of the rig.

mod packages;
mod target;

use std::env;
use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr, stdin};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The exit status of a usage error.
const USAGE: u8 = 2;
/// The exit status if the host is not ready or the rig does not build.
const NOT_READY: u8 = 125;
/// The same under `git bisect run`, which skips a revision on 125.
const BISECT_ABORT: u8 = 128;

/// The environment variable with the checkout's path; results go below it.
const CHECKOUT: &str = "NLRIG_CHECKOUT";

const HELP: &str = "\
Installs missing host packages, then runs the rig or its tests.

Usage:
  cargo xtask rig [--yes] [ARGS...]    run the rig; without ARGS, the default experiments
  cargo xtask test [--yes] [ARGS...]   run the tests; ARGS are passed to `cargo test`
  cargo xtask setup [--yes]            only install missing host packages

Options:
  --yes (or CI=true)  install missing host packages without asking

`cargo xtask rig --help` shows the subcommands of the rig.
";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = env::args().skip(1).collect();
    let task = if arguments.is_empty() { String::new() } else { arguments.remove(0) };
    let not_ready = if is_bisect(&arguments) { BISECT_ABORT } else { NOT_READY };
    let outcome = match task.as_str() {
        "rig" => rig(arguments),
        "test" => test(arguments),
        "setup" => make_ready(&mut arguments),
        "" | "help" | "-h" | "--help" => {
            print!("{HELP}");
            Ok(())
        }
        other => {
            say(&format!("error: unknown task \"{other}\"; use rig, test or setup"));
            return ExitCode::from(USAGE);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            say(&format!("error: {err}"));
            ExitCode::from(not_ready)
        }
    }
}

/// A result whose error is a message for the user.
type Result<T> = std::result::Result<T, String>;

fn rig(mut arguments: Vec<String>) -> Result<()> {
    make_ready(&mut arguments)?;
    let mut build = cargo();
    // Ignore the user's default target folder and target: the rig is started from
    // target/release below.
    build
        .args(["build", "--release", "--locked", "--package", "nlrig", "--target-dir"])
        .arg(root().join("target"))
        .env_remove("CARGO_BUILD_TARGET");
    // The first build takes minutes, so show cargo's progress.
    let program = root().join("target/release/nlrig");
    if program.is_file() {
        build.arg("--quiet");
    } else {
        say("building the rig");
    }
    run(&mut build, "building the rig")?;
    Err(failed("start the rig", Command::new(program).args(arguments).env(CHECKOUT, root()).exec()))
}

fn test(mut arguments: Vec<String>) -> Result<()> {
    make_ready(&mut arguments)?;
    let mut tests = cargo();
    tests.args(["test", "--release", "--locked", "--workspace"]).args(arguments);
    tests.env(CHECKOUT, root());
    Err(failed("start cargo test", tests.exec()))
}

/// Checks the host packages and the 32-bit Rust target; installs missing ones with
/// `--yes`, with `CI=true` or if the user agrees.
fn make_ready(arguments: &mut Vec<String>) -> Result<()> {
    let yes = take_yes(arguments) || env::var("CI").is_ok_and(|value| value == "true");
    let list = packages::List::read(&root().join("ci/host-packages.txt"))?;
    packages::ensure(&list.needed, yes)?;
    target::ensure(&list.fallback, yes)
}

/// Whether the arguments are those of `exec --bisect`.
fn is_bisect(arguments: &[String]) -> bool {
    let ours = arguments.split(|word| word == "--").next().unwrap_or_default();
    ["exec", "--bisect"].iter().all(|word| ours.iter().any(|ours| ours == word))
}

/// Removes `--yes` from the words before `--`, which are xtask's; returns whether
/// it was there.
fn take_yes(arguments: &mut Vec<String>) -> bool {
    let ours = arguments.iter().position(|word| word == "--").unwrap_or(arguments.len());
    match arguments[..ours].iter().position(|word| word == "--yes") {
        Some(at) => {
            arguments.remove(at);
            true
        }
        None => false,
    }
}

/// Asks a question on the terminal; returns false if there is no terminal.
fn agreed(question: &str) -> bool {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return false;
    }
    let _ = write!(stderr(), "xtask: {question} [y/N] ");
    let mut answer = String::new();
    stdin().read_line(&mut answer).is_ok() && answer.trim().eq_ignore_ascii_case("y")
}

fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The top folder of the checkout.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{what} failed ({status})")),
        Err(err) => {
            let program = command.get_program().to_string_lossy();
            Err(format!("{what} failed: cannot start {program}: {err}"))
        }
    }
}

fn failed(what: &str, err: impl Display) -> String {
    format!("cannot {what}: {err}")
}

fn say(text: &str) {
    let _ = writeln!(stderr(), "xtask: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_is_xtasks_only_before_the_dashes() {
        let words = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
        let mut ours = words("run --yes threads");
        assert!(take_yes(&mut ours));
        assert_eq!(ours, words("run threads"));
        assert!(is_bisect(&words("exec --bisect -- true")));
        assert!(!is_bisect(&words("exec -- git --bisect")));
        let mut theirs = words("exec -- apt-get --yes");
        assert!(!take_yes(&mut theirs));
        assert_eq!(theirs.len(), 4);
    }
}
