//! The record of one command in a guest, for `exec --json`.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use nlrig_guest::protocol::Exit;
use serde::Serialize;

use super::outcome::CommandOutcome;
use crate::abi::Abi;
use crate::artifact::Built;
use crate::options::ExecOptions;
use crate::outcome::KernelReport;
use crate::report::{self, FaultDomain, Verdict, seconds};

/// The schema of a record.
const SCHEMA: &str = "nlrig.exec/1";

/// The record of one command. Keys that a trial of a report also has mean the same.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    schema: &'static str,
    /// The program and its arguments.
    command: Vec<String>,
    abi: Abi,
    /// The kernel's release, if it was built.
    kernel: Option<String>,
    flavour: String,
    /// `kvm` or `tcg`, if a guest was started.
    accel: Option<&'static str>,
    verdict: Verdict,
    reason: Option<String>,
    fault_domain: Option<FaultDomain>,
    /// The console line that decided the verdict.
    line: Option<String>,
    /// The call trace of that report, innermost function first.
    trace: Vec<String>,
    /// The command's exit status, if it exited.
    exit_code: Option<i32>,
    /// The signal that killed the command.
    signal: Option<i32>,
    /// The rig's exit status.
    exit_status: u8,
    duration_s: f64,
}

impl Record {
    /// Makes the record of a command whose guest is not built yet.
    pub fn new(options: &ExecOptions, abi: Abi) -> Record {
        Record {
            schema: SCHEMA,
            command: options.command.clone(),
            abi,
            kernel: None,
            flavour: options.guest.flavour.clone(),
            accel: None,
            verdict: Verdict::Infra,
            reason: None,
            fault_domain: Some(FaultDomain::Host),
            line: None,
            trace: Vec::new(),
            exit_code: None,
            signal: None,
            exit_status: 0,
            duration_s: 0.0,
        }
    }

    /// Adds the kernel and the accelerator.
    pub fn built(&mut self, built: &Built, accel: &'static str) {
        self.kernel = Some(built.kernel.version.clone());
        self.accel = Some(accel);
    }

    /// Adds the outcome of the command.
    pub fn ended(&mut self, outcome: &CommandOutcome) {
        self.verdict = outcome.verdict();
        self.reason = outcome.reason();
        self.fault_domain = outcome.fault_domain();
        let report = outcome.failure.as_ref().and_then(|loss| loss.kernel_report.clone());
        if let Some(KernelReport { line, trace }) = report {
            (self.line, self.trace) = (Some(line), trace);
        }
        match outcome.exit {
            Some(Exit::Code(code)) => self.exit_code = Some(code),
            Some(Exit::Signal(signal)) => self.signal = Some(signal),
            Some(Exit::NotStarted { .. }) | None => {}
        }
    }

    /// Adds the error that kept the rig from running the command.
    pub fn failed(&mut self, err: &anyhow::Error) {
        self.reason = Some(format!("{err:#}"));
    }

    /// Writes the record, with the exit status of the rig.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, path: &Path, exit_status: u8, duration: Duration) -> Result<()> {
        self.exit_status = exit_status;
        self.duration_s = seconds(duration);
        report::write_whole(path, &(serde_json::to_string_pretty(self)? + "\n"))
    }
}
