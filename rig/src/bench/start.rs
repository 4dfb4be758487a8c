//! Measures the time from the start of a user's command to that of its first VM.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{capture, find};
use crate::project::Project;
use crate::report::Report;
use crate::scratch::Scratch;
use crate::ui;

/// The time limit of the first run, which may build the rig and a kernel.
const FIRST_LIMIT: Duration = Duration::from_secs(60 * 60);
/// The time limit with everything built: a boot and an echo.
const LIMIT: Duration = Duration::from_secs(5 * 60);
/// The arguments of the timed run, the shortest that boots a VM.
const RUN: [&str; 4] = ["run", "smoke", "--abi", "x86_64"];

/// A command that runs the rig.
#[derive(Clone, Debug)]
pub struct Starter {
    program: OsString,
    arguments: &'static [&'static str],
    /// The command line, for messages.
    pub shown: String,
}

impl Starter {
    /// Finds `cargo xtask rig`, or this program if there is no cargo.
    pub fn find() -> Starter {
        // Prefer PATH to $CARGO. Inside of cargo, $CARGO is the toolchain that
        // rustup has chosen, and the choice is part of a user's time.
        let cargo = find("cargo").map(OsString::from).or_else(|| std::env::var_os("CARGO"));
        let run = RUN.join(" ");
        match cargo {
            Some(program) => Starter {
                program,
                arguments: &["xtask", "rig"],
                shown: format!("cargo xtask rig {run}"),
            },
            None => Starter {
                program: "/proc/self/exe".into(),
                arguments: &[],
                shown: format!("nlrig {run}"),
            },
        }
    }

    /// Runs the command once to build everything, then `rounds` times; returns
    /// the times to the first VM, in seconds.
    ///
    /// # Errors
    /// A run failed, or its report does not parse.
    pub fn rounds(&self, rounds: u32) -> Result<Vec<f64>> {
        let project = Project::find()
            .context("bench needs the checkout; run `cargo xtask rig bench` there")?;
        let project = &project;
        ui::status(&format!("{}: building what is out of date", self.shown));
        self.once(project, FIRST_LIMIT)?;
        let mut measured = Vec::new();
        for round in 1..=rounds {
            let first_vm_s = self.once(project, LIMIT)?;
            ui::status(&format!("start to first VM: round {round}/{rounds}: {first_vm_s:.2} s"));
            measured.push(first_vm_s);
        }
        Ok(measured)
    }

    fn once(&self, project: &Project, limit: Duration) -> Result<f64> {
        // The folder has all results, so they are removed even if the run is
        // killed, and the user's `latest` does not change.
        let dir = Scratch::new()?;
        let text = capture(self.command(project, dir.path()), limit)
            .with_context(|| self.shown.clone())?;
        let report: Report = serde_json::from_str(&text)
            .with_context(|| format!("{}: cannot parse its report", self.shown))?;
        report.first_vm_s.with_context(|| format!("{}: no VM was started", self.shown))
    }

    fn command(&self, project: &Project, dir: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(self.arguments)
            .args(RUN)
            .args(["--quiet", "--json", "-", "--out"])
            .arg(dir.join("results"))
            .env("TMPDIR", dir)
            .current_dir(project.root());
        command
    }
}
