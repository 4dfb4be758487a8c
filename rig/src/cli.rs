//! The command line: its subcommands, and what each leads to.

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
    /// Run one command in a guest and give back its exit status
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

/// Reads the command line and does what it says; gives back the exit status.
///
/// # Errors
/// Whatever ended it; [`error::status`] knows the exit status of each.
pub fn run() -> Result<u8> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) if matches!(err.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            err.print()?;
            return Ok(error::OK);
        }
        Err(err) => return Err(usage!("{}", one_line(&err.render().to_string()))),
    };
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

/// clap's error as one line, without the advice around it.
fn one_line(rendered: &str) -> String {
    let lines: Vec<_> = rendered
        .lines()
        .map(|line| line.trim().trim_start_matches("error: "))
        .filter(|line| {
            !line.is_empty()
                && !line.starts_with("For more information")
                && !line.starts_with("Usage:")
        })
        .collect();
    lines.join(" ")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    fn refused(arguments: &[&str]) -> String {
        let all = ["nlrig"].iter().chain(arguments);
        one_line(&Cli::try_parse_from(all).unwrap_err().render().to_string())
    }

    #[test]
    fn an_error_is_one_line_that_names_the_thing() {
        for (arguments, words) in [
            (&["run", "--abi", "arm"][..], &["arm", "--abi", "x86_64"][..]),
            (&["run", "--stack", "2X"], &["2X", "--stack"]),
            (&["run", "--stack", "0"], &["\"0\"", "is zero"]),
            (&["run", "--sysctl", "pid_max"], &["pid_max", "key=value"]),
            (&["run", "--sysctl", "../x=1"], &["../x"]),
            (&["run", "--rlimit", "speed=1"], &["speed", "nofile"]),
            (&["run", "--memory", "1M"], &["1M", "64M"]),
            (&["bench", "--rounds", "0"], &["--rounds", "0"]),
            (&["exec"], &["CMD"]),
            (&["no-such-command"], &["no-such-command"]),
        ] {
            let line = refused(arguments);
            assert_eq!(line.lines().count(), 1, "{line}");
            for word in words {
                assert!(line.contains(word), "{arguments:?}: {line}");
            }
        }
    }
}
