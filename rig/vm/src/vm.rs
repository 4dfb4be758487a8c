//! The short way: one machine, one command, and how it ended.

use std::fs;
use std::time::Duration;

use nlrig_build::kernel::{self, Builder};
use nlrig_build::{Abi, BuildContext, Built};
use nlrig_host::cache::Cache;
use nlrig_host::scratch::Scratch;
use nlrig_init::protocol::{Exit, Job};

use crate::accel::AccelMode;
use crate::guest::{Guest, Limits};
use crate::launcher::{VmLauncher, VmSpec};
use crate::outcome::{Error, Result, VmFailure};

/// The kernel that is booted unless another one is named.
pub const DEFAULT_KERNEL: &str = "6.1";
/// The flavour of that kernel.
pub const DEFAULT_FLAVOUR: &str = "default";
/// How long a command may take unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(60 * 60);
const MEMORY_BYTES: u64 = 512 << 20;

/// A virtual machine, to be booted for one command.
#[derive(Clone, Debug)]
pub struct Vm {
    abi: Abi,
    kernel: String,
    flavour: String,
    accel: AccelMode,
    spec: VmSpec,
    timeout: Duration,
}

/// What came of a command.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub ended: Ended,
    /// What it wrote to its standard output, 16 MiB at most.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error, 16 MiB at most.
    pub stderr: Vec<u8>,
}

/// How a command ended, or the machine that it ran in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// It was not started: no such program in the guest, say.
    NotStarted(String),
    /// The machine failed: the kernel panicked, oopsed or warned, the command
    /// was late, or QEMU died.
    Failed(VmFailure),
}

impl Vm {
    /// A machine with two processors and 512 MiB of memory for programs of this
    /// kind.
    pub fn new(abi: Abi) -> Vm {
        Vm {
            abi,
            kernel: DEFAULT_KERNEL.to_string(),
            flavour: DEFAULT_FLAVOUR.to_string(),
            accel: AccelMode::Auto,
            spec: VmSpec { cpus: 2, memory_bytes: MEMORY_BYTES, ..VmSpec::default() },
            timeout: TIMEOUT,
        }
    }

    /// The version of its kernel; an entry of `kernel-config/kernels.toml`.
    pub fn kernel(mut self, version: impl Into<String>) -> Vm {
        self.kernel = version.into();
        self
    }

    /// The flavour of its kernel: a fragment `kernel-config/flavour-NAME.config`.
    pub fn flavour(mut self, name: impl Into<String>) -> Vm {
        self.flavour = name.into();
        self
    }

    /// What runs its instructions.
    pub fn accel(mut self, mode: AccelMode) -> Vm {
        self.accel = mode;
        self
    }

    /// How many processors it has.
    pub fn cpus(mut self, cpus: u32) -> Vm {
        self.spec.cpus = cpus;
        self
    }

    /// How much memory it has, in bytes.
    pub fn memory(mut self, bytes: u64) -> Vm {
        self.spec.memory_bytes = bytes;
        self
    }

    /// How long the command may take.
    pub fn timeout(mut self, timeout: Duration) -> Vm {
        self.timeout = timeout;
        self
    }

    /// Builds what is out of date, boots the machine, runs a command, and ends
    /// the machine.
    ///
    /// # Errors
    /// Something cannot be built, or the host lacks what it takes; whatever
    /// happens to the machine is an [`Outcome`].
    pub fn run(&self, argv: impl IntoIterator<Item = impl Into<String>>) -> Result<Outcome> {
        let cache = Cache::open()?;
        let built = self.build(&cache)?;
        let launcher = VmLauncher::new(cache, self.accel)?;
        let dir = Scratch::new()?;
        let job = Job { argv: argv.into_iter().map(Into::into).collect(), ..Job::default() };
        let permit = launcher.room(&built, &self.spec)?;
        let slowdown = launcher.accel(&built)?.used.slowdown();
        let limits = Limits::fixed(self.timeout, slowdown);
        let ended = launcher
            .boot(&built, self.spec.clone(), permit, dir.path())
            .and_then(|guest| run_job(guest, &job, limits));
        let ended = match ended {
            Ok(Exit::Code(status)) => Ended::Exited(status),
            Ok(Exit::Signal(signal)) => Ended::Signalled(signal),
            Ok(Exit::NotStarted { reason, .. }) => Ended::NotStarted(reason),
            Err(Error::Vm(failure)) => Ended::Failed(failure),
            Err(err) => return Err(err),
        };
        let output = |name| fs::read(dir.path().join(name)).unwrap_or_default();
        Ok(Outcome { ended, stdout: output("stdout"), stderr: output("stderr") })
    }

    fn build(&self, cache: &Cache) -> Result<Built> {
        let builder = Builder::new(cache.clone(), kernel::find(&self.kernel)?, &self.flavour);
        Ok(BuildContext::new(builder).build(self.abi, &[])?)
    }
}

/// Runs a job to its end; a kernel that reported a fault is a failure.
fn run_job(mut guest: Guest, job: &Job, limits: Limits) -> Result<Exit> {
    guest.keep_output()?;
    let exit = guest.run(job, limits, |_| Ok::<_, Error>(()))?;
    if let Some(trouble) = guest.trouble() {
        return Err(trouble.into());
    }
    guest.end()?;
    Ok(exit)
}
