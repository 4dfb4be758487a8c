//! The command line: its subcommands, and what each leads to.

use std::ffi::OsString;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::options::{
    BenchOptions, BuildOptions, ClassifyOptions, DoctorOptions, ExecOptions, ListOptions,
    RunOptions,
};
use crate::{command, error, interrupt, say, scratch, usage};

/// Builds minimal i386 and x86_64 Linux kernels and a netlink module, boots
/// them under QEMU, and tries published claims on them. Without a subcommand:
/// everything, from stale parts to tables.
#[derive(Parser, Debug)]
#[command(name = "nlrig", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunOptions,
    #[command(flatten)]
    volume: Volume,
}

#[derive(Args, Debug)]
struct Volume {
    /// Say less: only results and errors
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    quiet: u8,
    /// Say more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Do not ask before installing host packages (`cargo xtask` acts on it)
    #[arg(long, global = true)]
    yes: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run experiments: those that are named, or all that run by default
    Run {
        /// Names, as `list` shows them
        experiments: Vec<String>,
        #[command(flatten)]
        options: RunOptions,
    },
    /// Show experiments and kernels
    List(ListOptions),
    /// Only build: kernel, module, userspace, image; everything if none is named
    Build(BuildOptions),
    /// Say whether a run would work here, and why not
    Doctor(DoctorOptions),
    /// Run one command in a guest and exit with its status
    #[command(after_help = EXEC_HELP)]
    Exec(ExecOptions),
    /// Read a console log: verdict, deciding line and call trace
    Classify(ClassifyOptions),
    /// Time the rig's own stages and hold the times against their bounds
    Bench(BenchOptions),
    /// Remove what was built and reported
    Clean {
        /// The build cache too, kernels and all
        #[arg(long)]
        cache: bool,
    },
}

/// The command line's definition: for completions, pages and tests.
pub fn definition() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// What `exec --help` shows below the options.
const EXEC_HELP: &str = "\
Exit status: the command's own (128+N if signal N killed it); 99 if the guest
kernel reported a fault, hung or reset itself; 124 if the command exceeded
--timeout; 125 if the rig could not run it; 130 if interrupted; 2 for a usage
error. With --bisect: 0, 1, 125 and 128 as `git bisect run` expects.

Examples:
  nlrig exec -- uname -a
  nlrig exec --abi i386 --timeout 1m -- ./test_program
  nlrig exec --kernel-arg slub_debug=FZ --env RUST_BACKTRACE=1 -- ./test_program
  nlrig exec --allow warning --json result.json -- ./test_program
  while read -r test; do nlrig exec -n -- sh -c \"$test\"; done <tests.txt
  git bisect run nlrig exec --bisect --kernel-source . -- ./reproducer";

/// Reads the command line and does what it asks for; returns the exit status.
///
/// # Errors
/// Whatever ended it; [`error::status`] has the exit status of each. With `exec
/// --bisect` only what is no matter of the command line's is an error.
pub fn run() -> Result<u8> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) => {
            err.print()?;
            let asked = matches!(err.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return Ok(match is_bisect(std::env::args_os()) {
                _ if asked => error::OK,
                true => error::BISECT_ABORT,
                false => error::USAGE,
            });
        }
    };
    let bisect = matches!(&cli.command, Some(Command::Exec(options)) if options.bisect);
    match dispatch(cli) {
        Err(err) if bisect => {
            say::error(&format!("{err:#}"));
            Ok(error::bisect_status(&err))
        }
        ended => ended,
    }
}

/// Whether arguments that clap refuses were meant for `exec --bisect`.
fn is_bisect(arguments: impl Iterator<Item = OsString>) -> bool {
    let ours: Vec<_> = arguments.take_while(|word| word != "--").collect();
    ["exec", "--bisect"].iter().all(|word| ours.iter().any(|ours| ours == word))
}

fn dispatch(cli: Cli) -> Result<u8> {
    if cli.command.is_some() && cli.run != RunOptions::default() {
        return Err(usage!("options of a run stand behind the subcommand, not before it"));
    }
    say::set_level(cli.volume.verbose as i8 - cli.volume.quiet as i8);
    interrupt::install();
    scratch::sweep();
    match cli.command {
        None => command::run::run(&[], &cli.run),
        Some(Command::Run { experiments, options }) => command::run::run(&experiments, &options),
        Some(Command::List(options)) => command::list::list(&options),
        Some(Command::Build(options)) => command::build::build(&options),
        Some(Command::Doctor(options)) => command::doctor::doctor(&options),
        Some(Command::Exec(options)) => command::exec::exec(&options),
        Some(Command::Classify(options)) => command::classify::classify(&options),
        Some(Command::Bench(options)) => command::bench::bench(&options),
        Some(Command::Clean { cache }) => command::clean::clean(cache),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_error_names_the_thing() {
        for (arguments, words) in [
            (&["run", "--abi", "arm"][..], &["arm", "--abi", "x86_64"][..]),
            (&["run", "--stack", "2X"], &["2X", "--stack"]),
            (&["run", "--stack", "0"], &["\"0\"", "is zero"]),
            (&["run", "--sysctl", "pid_max"], &["pid_max", "key=value"]),
            (&["run", "--sysctl", "../x=1"], &["../x"]),
            (&["run", "--rlimit", "speed=1"], &["speed", "nofile"]),
            (&["run", "--memory", "1M"], &["1M", "64M"]),
            (&["run", "--env", "=1"], &["=1", "no name"]),
            (&["run", "--kernel-arg", "a b"], &["a b", "one word"]),
            (&["bench", "--rounds", "0"], &["--rounds", "0"]),
            (&["exec"], &["CMD", "Usage:"]),
            (&["exec", "--allow", "panic", "--", "true"], &["panic", "oops", "warning", "taint"]),
            (&["exec", "--time-out", "1m", "--", "true"], &["--time-out", "--timeout"]),
            (&["no-such-command"], &["no-such-command"]),
        ] {
            let all = ["nlrig"].iter().chain(arguments);
            let text = Cli::try_parse_from(all).unwrap_err().render().to_string();
            for word in words {
                assert!(text.contains(word), "{arguments:?}: {text}");
            }
        }
    }

    #[test]
    fn a_bisection_is_recognised_in_arguments_that_are_refused() {
        let is = |line: &str| is_bisect(line.split(' ').map(OsString::from));
        assert!(is("nlrig -q exec --bisect --no-such -- true"));
        assert!(!is("nlrig exec --no-such -- git --bisect"));
        assert!(!is("nlrig run --bisect"));
    }

    #[test]
    fn variables_words_and_no_input_are_taken() {
        let line = "nlrig exec -n --env A=1 --env B= --kernel-arg nokaslr --allow warning,taint \
                    --bisect --json f -- true --bisect";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Some(Command::Exec(options)) = cli.command else { panic!("it is exec") };
        assert!(options.no_stdin && options.bisect);
        assert_eq!(options.guest.env.len(), 2);
        assert_eq!(options.guest.kernel_arg, ["nokaslr"]);
        assert_eq!(options.allow.len(), 2);
        assert_eq!(options.command, ["true", "--bisect"]);
    }
}
