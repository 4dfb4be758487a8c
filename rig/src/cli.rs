//! The command line: parses it and runs the subcommand.

use std::ffi::OsString;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::options::{
    BenchOptions, BuildOptions, ClassifyOptions, DoctorOptions, ExecOptions, ListOptions,
    RunOptions,
};
use crate::{command, error, interrupt, scratch, ui, usage};

/// Boots minimal kernels under QEMU, runs netlink experiments in them, and checks
/// each result against a prediction made beforehand.
///
/// Without a subcommand, builds what is out of date and runs the default
/// experiments.
#[derive(Parser, Debug)]
#[command(name = "nlrig", version, after_help = HELP)]
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
    /// Print only results and errors
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    quiet: u8,
    /// Print more messages
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Install missing host packages without asking (only with `cargo xtask`)
    #[arg(long, global = true)]
    yes: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run experiments and report their results
    #[command(after_help = RUN_HELP)]
    Run {
        /// Experiments, as `list` shows them [default: the default experiments]
        experiments: Vec<String>,
        #[command(flatten)]
        options: RunOptions,
    },
    /// List experiments and kernels
    List(ListOptions),
    /// Build kernel, module, guest programs and image without running anything
    Build(BuildOptions),
    /// Check whether this host can run the rig, and report what is missing
    Doctor(DoctorOptions),
    /// Run one command in a guest and exit with its status
    #[command(after_help = EXEC_HELP)]
    Exec(ExecOptions),
    /// Print the verdict, the deciding line and the call trace of a console log
    Classify(ClassifyOptions),
    /// Measure the rig's own cost and compare it with its bounds
    Bench(BenchOptions),
    /// Remove results
    Clean {
        /// Also remove the build cache with its kernels
        #[arg(long)]
        cache: bool,
    },
}

/// Returns clap's definition of the command line, for completions and tests.
pub fn definition() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// The end of `nlrig --help`.
const HELP: &str = "\
Examples:
  nlrig                                run the default experiments
  nlrig run threads --abi i386         run one experiment on one ABI
  nlrig exec -- uname -a               run a command in a guest
  nlrig doctor                         check this host

`nlrig SUBCOMMAND --help` has the options and exit statuses of a subcommand.";

/// The end of `nlrig run --help`.
const RUN_HELP: &str = "\
Exit status: 0 if all trials passed; 1 if a trial failed, its guest kernel reported
a fault, hung or reset itself, or all trials that were named were skipped; 125 if
the rig could not do its work; 130 if interrupted; 2 for a usage error.

Examples:
  nlrig run smoke
  nlrig run threads --abi i386,ia32 --stack 2M,8M
  nlrig run threads --abi x86_64 --stack 2M --sysctl kernel.pid_max=2000
  nlrig run claims --set id=A9 --json - | jq '.trials[].verdict'
  nlrig run smoke --kernel-source ~/linux --repeat 10 --no-flaky";

/// The end of `nlrig exec --help`.
const EXEC_HELP: &str = "\
Exit status: the command's own (128+N if signal N killed it); 99 if the guest
kernel reported a fault, hung or reset itself; 124 if the command exceeded
--timeout; 125 if the rig could not run the command; 130 if interrupted; 2 for a
usage error. With --bisect: 0, 1, 125 and 128, as `git bisect run` expects.

Examples:
  nlrig exec -- uname -a
  nlrig exec --abi i386 --timeout 1m -- ./test_program
  nlrig exec --kernel-arg slub_debug=FZ --env RUST_BACKTRACE=1 -- ./test_program
  nlrig exec --allow warning --json result.json -- ./test_program
  while read -r test; do nlrig exec -n -- sh -c \"$test\"; done <tests.txt
  git bisect run nlrig exec --bisect --kernel-source . -- ./reproducer";

/// Parses the command line, runs the subcommand, and returns the exit status.
///
/// # Errors
/// The subcommand failed; [`error::status`] maps the error to an exit status.
/// With `exec --bisect` errors are printed here and returned as a status.
pub fn run() -> Result<u8> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) => {
            err.print()?;
            let is_help = matches!(err.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return Ok(match is_bisect(std::env::args_os()) {
                _ if is_help => error::OK,
                true => error::BISECT_ABORT,
                false => error::USAGE,
            });
        }
    };
    let bisect = matches!(&cli.command, Some(Command::Exec(options)) if options.bisect);
    match dispatch(cli) {
        Err(err) if bisect => {
            ui::error(&format!("{err:#}"));
            Ok(error::bisect_status(&err))
        }
        ended => ended,
    }
}

/// Whether arguments that clap rejects are those of `exec --bisect`.
fn is_bisect(arguments: impl Iterator<Item = OsString>) -> bool {
    let ours: Vec<_> = arguments.take_while(|word| word != "--").collect();
    ["exec", "--bisect"].iter().all(|word| ours.iter().any(|ours| ours == word))
}

fn dispatch(cli: Cli) -> Result<u8> {
    if cli.command.is_some() && cli.run != RunOptions::default() {
        return Err(usage!("options of a run must follow the subcommand"));
    }
    ui::set_level(cli.volume.verbose as i8 - cli.volume.quiet as i8);
    interrupt::install();
    scratch::gc();
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
    fn claps_own_checks_of_the_definition_pass() {
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
    fn exec_bisect_is_recognised_in_rejected_arguments() {
        let is = |line: &str| is_bisect(line.split(' ').map(OsString::from));
        assert!(is("nlrig -q exec --bisect --no-such -- true"));
        assert!(!is("nlrig exec --no-such -- git --bisect"));
        assert!(!is("nlrig run --bisect"));
    }

    #[test]
    fn options_of_exec_are_parsed() {
        let line = "nlrig exec -n --env A=1 --env B= --kernel-arg nokaslr --allow warning,taint \
                    --bisect --json f -- true --bisect";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Some(Command::Exec(options)) = cli.command else { panic!("the subcommand is exec") };
        assert!(options.no_stdin && options.bisect);
        assert_eq!(options.guest.env.len(), 2);
        assert_eq!(options.guest.kernel_arg, ["nokaslr"]);
        assert_eq!(options.allow.len(), 2);
        assert_eq!(options.command, ["true", "--bisect"]);
    }
}
