//! How long it takes from a user's command to the start of its first machine.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{capture, find};
use crate::project::Project;
use crate::report::Report;
use crate::say;
use crate::scratch::Scratch;

/// The first one may have to build the rig, or a kernel.
const FIRST_LIMIT: Duration = Duration::from_secs(60 * 60);
/// With everything built: a boot and an echo.
const LIMIT: Duration = Duration::from_secs(5 * 60);
/// The run that is timed: the shortest there is.
const RUN: [&str; 4] = ["run", "smoke", "--abi", "x86_64"];

/// A command that runs the rig.
#[derive(Clone, Debug)]
pub struct Starter {
    program: OsString,
    arguments: &'static [&'static str],
    /// As a person would type it.
    pub shown: String,
}

impl Starter {
    /// `cargo xtask rig`, as users type it; this program itself if there is no
    /// cargo.
    pub fn find() -> Starter {
        // PATH's before $CARGO: inside of cargo, that is what rustup has
        // chosen already, and a user pays for the choice too.
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

    /// Runs it once for everything to be built, and then so many times; gives
    /// back what each took to its first machine, in seconds.
    ///
    /// # Errors
    /// It does not succeed, or its report cannot be understood.
    pub fn rounds(&self, rounds: u32) -> Result<Vec<f64>> {
        let project = Project::find()
            .context("the start is timed from the checkout: run `cargo xtask rig bench` there")?;
        let project = &project;
        say::status(&format!("{}: building what is stale", self.shown));
        self.once(project, FIRST_LIMIT)?;
        let mut measured = Vec::new();
        for round in 1..=rounds {
            let first_vm_s = self.once(project, LIMIT)?;
            say::status(&format!("start to first VM: round {round}/{rounds}: {first_vm_s:.2} s"));
            measured.push(first_vm_s);
        }
        Ok(measured)
    }

    fn once(&self, project: &Project, limit: Duration) -> Result<f64> {
        // All that it leaves goes with this folder, even if it is killed; and
        // the user's `latest` stays what it was.
        let dir = Scratch::new()?;
        let text = capture(self.command(project, dir.path()), limit)
            .with_context(|| self.shown.clone())?;
        let report: Report = serde_json::from_str(&text)
            .with_context(|| format!("{}: its report cannot be understood", self.shown))?;
        report.first_vm_s.with_context(|| format!("{}: no machine was started", self.shown))
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
