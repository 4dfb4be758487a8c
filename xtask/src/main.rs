//! `cargo xtask rig` and `cargo xtask test`: make this machine ready, build the
//! rig, and become it.
//!
//! It sees what the host lacks, installs it when told to, and otherwise prints
//! the command that would and touches nothing. Then it execs, so that signals
//! and the exit status are the rig's own.

mod packages;
mod target;

use std::env;
use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr, stdin};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The command line asks for something that does not exist.
const USAGE: u8 = 2;
/// The machine is not ready or the rig does not build.
const NOT_READY: u8 = 125;
/// The same under `git bisect run`, which takes 125 for a revision to be skipped.
const BISECT_ABORT: u8 = 128;

/// Tells the rig which checkout it runs from: results go there.
const CHECKOUT: &str = "NLRIG_CHECKOUT";

const HELP: &str = "\
Makes this machine ready, then runs the rig or its tests.

Usage:
  cargo xtask rig [--yes] [ARGS...]    the main job, or any command of the rig
  cargo xtask test [--yes] [ARGS...]   the tests; ARGS go to `cargo test`
  cargo xtask setup [--yes]            only make the machine ready

  --yes (or CI=true)  install missing host packages without asking

`cargo xtask rig --help` shows the rig's own commands.
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
            say(&format!("error: there is no task \"{other}\": rig, test or setup"));
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

/// What went wrong, for a person.
type Result<T> = std::result::Result<T, String>;

fn rig(mut arguments: Vec<String>) -> Result<()> {
    make_ready(&mut arguments)?;
    let mut build = cargo();
    // Wherever this user's cargo builds by default, the rig is built here.
    build
        .args(["build", "--release", "--locked", "--package", "nlrig", "--target-dir"])
        .arg(root().join("target"))
        .env_remove("CARGO_BUILD_TARGET");
    // cargo's own words are only worth reading when there is something to do.
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

/// Looks at what the host lacks, and installs it if that was said.
fn make_ready(arguments: &mut Vec<String>) -> Result<()> {
    let yes = take_yes(arguments) || env::var("CI").is_ok_and(|value| value == "true");
    let list = packages::List::read(&root().join("ci/host-packages.txt"))?;
    packages::ensure(&list.needed, yes)?;
    target::ensure(&list.fallback, yes)
}

/// Whether the rig is asked for `exec --bisect`.
fn is_bisect(arguments: &[String]) -> bool {
    let ours = arguments.split(|word| word == "--").next().unwrap_or_default();
    ["exec", "--bisect"].iter().all(|word| ours.iter().any(|ours| ours == word))
}

/// Takes `--yes` out of what is ours: the words before a `--`.
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

/// Asks on the terminal; no terminal is a no.
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

/// The top of the checkout, whose `xtask/` this is.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{what} failed ({status})")),
        Err(err) => {
            let program = command.get_program().to_string_lossy();
            Err(format!("{what} failed: {program} does not start: {err}"))
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
    fn yes_is_ours_only_before_the_dashes() {
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
