//! The record of one command in a guest, for `exec --json`.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use nlrig_guest::protocol::Exit;
use serde::Serialize;

use super::outcome::Outcome;
use crate::abi::Abi;
use crate::artifact::Built;
use crate::options::ExecOptions;
use crate::outcome::KernelReport;
use crate::report::{self, FaultDomain, Verdict, seconds};

/// The name of this form of record.
const SCHEMA: &str = "nlrig.exec/1";

/// One command in a guest. Keys that a trial of a report has too mean the same.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    schema: &'static str,
    /// Program and arguments.
    command: Vec<String>,
    abi: Abi,
    /// The kernel's release; none if it was not built.
    kernel: Option<String>,
    flavour: String,
    /// `kvm` or `tcg`; none if no guest was started.
    accel: Option<&'static str>,
    verdict: Verdict,
    reason: Option<String>,
    fault_domain: Option<FaultDomain>,
    /// The line on the guest's console that decided the verdict.
    line: Option<String>,
    /// The call trace behind that line, innermost function first.
    trace: Vec<String>,
    /// The command's own exit status, if it ended by itself.
    exit_code: Option<i32>,
    /// The signal that killed the command.
    signal: Option<i32>,
    /// The rig's exit status.
    exit_status: u8,
    duration_s: f64,
}

impl Record {
    /// A record of a command whose guest has not been made yet.
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

    /// What the guest is made of.
    pub fn built(&mut self, built: &Built, accel: &'static str) {
        self.kernel = Some(built.kernel.version.clone());
        self.accel = Some(accel);
    }

    /// What came of the command.
    pub fn ended(&mut self, outcome: &Outcome) {
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

    /// What kept the rig from running the command.
    pub fn failed(&mut self, err: &anyhow::Error) {
        self.reason = Some(format!("{err:#}"));
    }

    /// Writes it, with the exit status of the rig.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, path: &Path, exit_status: u8, duration: Duration) -> Result<()> {
        self.exit_status = exit_status;
        self.duration_s = seconds(duration);
        report::write_whole(path, &(serde_json::to_string_pretty(self)? + "\n"))
    }
}
