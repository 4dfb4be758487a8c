//! What the user selects on the command line.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use nlrig_guest::protocol::Rlimit;

use super::AnyExperiment;
use crate::abi::Abi;
use crate::usage;

/// The options of a run that experiments plan by.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The ABIs of the guest programs.
    pub abis: Vec<Abi>,
    /// The kernel, as the user calls it.
    pub kernel: String,
    /// Thread stack sizes in bytes; the experiment's own if empty.
    pub stacks: Vec<u64>,
    /// Kernel parameters for the guest.
    pub sysctls: Vec<(String, String)>,
    /// Resource limits for the program.
    pub rlimits: Vec<Rlimit>,
    /// The user the program runs as.
    pub user: Option<u32>,
    /// The experiment's own parameters.
    pub set: BTreeMap<String, String>,
    /// Processors of the guest; the experiment's own if absent.
    pub cpus: Option<u32>,
    /// Memory of the guest in bytes; the experiment's own if absent.
    pub memory_bytes: Option<u64>,
    /// The time limit of a program; the experiment's own if absent.
    pub timeout: Option<Duration>,
    /// Further variables in the environment of every program.
    pub env: Vec<(String, String)>,
}

impl Selection {
    /// The default plan for these ABIs on this kernel.
    pub fn new(abis: &[Abi], kernel: &str) -> Selection {
        Selection {
            abis: abis.to_vec(),
            kernel: kernel.to_string(),
            stacks: Vec::new(),
            sysctls: Vec::new(),
            rlimits: Vec::new(),
            user: None,
            set: BTreeMap::new(),
            cpus: None,
            memory_bytes: None,
            timeout: None,
            env: Vec::new(),
        }
    }

    /// The value of a parameter that has two values; the first is the default.
    ///
    /// # Errors
    /// A usage error: the value is neither.
    pub fn one_of<'a>(&'a self, key: &str, values: [&'a str; 2]) -> Result<&'a str> {
        match self.set.get(key).map(String::as_str) {
            None => Ok(values[0]),
            Some(value) if values.contains(&value) => Ok(value),
            Some(other) => Err(usage!("--set {key}={other}: it is {} or {}", values[0], values[1])),
        }
    }
}

/// Refuses parameters that none of these experiments takes.
///
/// # Errors
/// A usage error that names the parameter.
pub fn check_parameters(
    experiments: &[&dyn AnyExperiment],
    set: &BTreeMap<String, String>,
) -> Result<()> {
    for key in set.keys() {
        let mut all = experiments.iter().flat_map(|experiment| experiment.parameters());
        if !all.any(|(name, _)| name == key) {
            let names: Vec<_> = experiments.iter().map(|experiment| experiment.name()).collect();
            return Err(usage!("--set {key}: {} takes no such parameter", names.join(" or ")));
        }
    }
    Ok(())
}
