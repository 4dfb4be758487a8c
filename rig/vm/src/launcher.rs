//! From what was built to a guest that runs: the accelerator is chosen here,
//! once for each kernel image, the host asked for room, and the machine put
//! together.
//!
//! Several threads of a run use one lab.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::outcome::Result;

use crate::accel::{self, Accel, AccelChoice, AccelMode, PROBE_LIMIT, ProbeFailure, Subject};
use crate::budget::{Budget, Held};
use crate::confine::{Confinement, Layer, Missing};
use crate::guest::{Boot, CONSOLE_FILE, Guest, QEMU_LOG_FILE};
use crate::outcome::{FaultDomain, Verdict, VmFailure};
use crate::qemu::{self, Machine, Qemu};
use crate::share::{self, Access, Folder};
use nix::sys::signal::Signal;
use nlrig_build::kernel::Kernel;
use nlrig_build::{Arch, Built};
use nlrig_host::cache::Cache;
use nlrig_host::scratch::Scratch;
use nlrig_host::ui;
use nlrig_init::protocol::SKIP_MODULES;

/// How long a boot may take, and an end, before the accelerator's slowdown. A
/// kernel boots in less than a second under KVM; a busy host may take many times
/// that.
const BOOT_LIMIT: Duration = Duration::from_secs(30);
const END_LIMIT: Duration = Duration::from_secs(7);
/// The machine with which KVM is tried: small, so that it starts fast.
const PROBE_MEMORY_BYTES: u64 = 256 << 20;

/// Starts guests.
#[derive(Debug)]
pub struct VmLauncher {
    cache: Cache,
    mode: AccelMode,
    budget: Budget,
    /// By the hash of the kernel image.
    chosen: Mutex<BTreeMap<String, AccelChoice>>,
    /// Held by who tries KVM, which takes a machine and so may have to wait.
    trying: Mutex<()>,
    /// The user's own words for the kernels of all guests, but not of the one
    /// that proves KVM: its verdict holds for the kernel image.
    pub kernel_args: Vec<String>,
    qemus: Mutex<BTreeMap<Arch, Qemu>>,
    /// By the kind of process; that of the machine that was started last.
    confinement: Mutex<BTreeMap<String, Confinement>>,
}

/// The machine that a job spec.
#[derive(Clone, Debug, Default)]
pub struct VmSpec {
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// What it sees of the host, beside its own image.
    pub folders: Vec<Folder>,
    /// Further words for its kernel.
    pub command_line: String,
}

impl VmLauncher {
    /// A launcher that shares memory and cores with all who use this cache.
    ///
    /// # Errors
    /// Nobody knows how much memory this host has.
    pub fn new(cache: Cache, mode: AccelMode) -> Result<VmLauncher> {
        let budget = Budget::of_host(&cache)?;
        share::check_limits()?;
        let (chosen, trying, kernel_args, qemus, confinement) = Default::default();
        Ok(VmLauncher { cache, mode, budget, chosen, trying, kernel_args, qemus, confinement })
    }

    /// The QEMU for an architecture.
    ///
    /// # Errors
    /// See [`qemu::find`].
    pub fn qemu(&self, arch: Arch) -> Result<Qemu> {
        let mut qemus = self.qemus.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(qemu) = qemus.get(&arch) {
            return Ok(qemu.clone());
        }
        let qemu = qemu::find(arch)?;
        for Missing { layer, reason } in &qemu.program.confinement().missing {
            ui::status(&format!("QEMU runs without {}: {reason}", layer.name()));
        }
        qemus.insert(arch, qemu.clone());
        Ok(qemu)
    }

    /// What holds QEMU and the share daemons back, by the kind of process; empty
    /// before the first machine.
    pub fn confinement(&self) -> BTreeMap<String, Confinement> {
        self.confinement.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The accelerator for guests of this kernel. Who holds a machine asks only
    /// for its own kernel's, which is known and not waited for.
    ///
    /// # Errors
    /// KVM was asked for and does not work; there is no QEMU.
    pub fn accel(&self, built: &Built) -> Result<AccelChoice> {
        self.choice_for(&built.kernel, || self.probe(built))
    }

    fn choice_for(
        &self,
        kernel: &Kernel,
        probe: impl FnOnce() -> Result<accel::Probe>,
    ) -> Result<AccelChoice> {
        if let Some(choice) = self.known_accel(kernel) {
            return Ok(choice);
        }
        let _trying = self.trying.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have tried it meanwhile.
        if let Some(choice) = self.known_accel(kernel) {
            return Ok(choice);
        }
        let (arch, image_sha256) = (kernel.arch, kernel.image_sha256.clone());
        let subject = Subject { arch, image_sha256, qemu: self.qemu(arch)?.version };
        let choice = accel::choose(self.mode, &self.cache, &subject, probe)?;
        ui::detail(&format!(
            "{arch} guests of Linux {} ({}) run under {}: {}",
            kernel.version,
            kernel.flavour,
            choice.used.name(),
            choice.reason
        ));
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        chosen.insert(subject.image_sha256, choice.clone());
        Ok(choice)
    }

    /// The accelerator for guests of this kernel, if one was chosen.
    pub fn known_accel(&self, kernel: &Kernel) -> Option<AccelChoice> {
        let chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        chosen.get(&kernel.image_sha256).cloned()
    }

    /// Boots this kernel under KVM until it is ready. It lacks folders that the
    /// trial's own image mounts; that is no fault of KVM's. Nor is what a module
    /// of the user's does: none is loaded.
    fn probe(&self, built: &Built) -> Result<accel::Probe> {
        let dir = Scratch::new()?;
        let spec = VmSpec {
            cpus: 2,
            memory_bytes: PROBE_MEMORY_BYTES,
            command_line: format!("{SKIP_MODULES}=1"),
            ..VmSpec::default()
        };
        let room = self.room_for(Accel::Kvm, &spec)?;
        let guest = self.start(built, Accel::Kvm, spec, room, dir.path(), PROBE_LIMIT);
        probed(guest.and_then(Guest::end), dir.path())
    }

    /// How many machines like this one the host holds at once.
    ///
    /// # Errors
    /// See [`VmLauncher::accel`].
    pub fn at_once(&self, built: &Built, cpus: u32, memory_bytes: u64) -> Result<usize> {
        let accel = self.accel(built)?.used;
        Ok(self.budget.at_once(&self.budget.claim(accel, cpus, memory_bytes)))
    }

    /// Waits until the host has room for such a machine.
    ///
    /// # Errors
    /// See [`VmLauncher::accel`]; a [`VmFailure`] if the host can never hold it, or did not
    /// have the room in time.
    pub fn room(&self, built: &Built, spec: &VmSpec) -> Result<Held> {
        self.room_for(self.accel(built)?.used, spec)
    }

    fn room_for(&self, accel: Accel, spec: &VmSpec) -> Result<Held> {
        let claim = self.budget.claim(accel, spec.cpus, spec.memory_bytes);
        let lost =
            |verdict, reason| VmFailure::caused_by(verdict, reason, FaultDomain::Host).into();
        if let Some(lack) = self.budget.lacks(&claim) {
            return Err(lost(Verdict::Skip, lack));
        }
        let waiting = || {
            ui::status("waiting for memory and cores that other machines of the rig hold");
        };
        match self.budget.take(&claim, waiting) {
            Err(err) if err.is_interruption() => Err(err.into()),
            Err(err) => Err(lost(Verdict::Infra, format!("{err:#}"))),
            Ok(held) => Ok(held),
        }
    }

    /// Boots a guest in the room it was given; its console and the rest are
    /// kept in `dir`.
    ///
    /// # Errors
    /// See [`Guest::boot`] and [`VmLauncher::accel`]; a [`VmFailure`] if the guest came up
    /// with faults, or its kernel refused a module.
    pub fn boot(&self, built: &Built, mut spec: VmSpec, room: Held, dir: &Path) -> Result<Guest> {
        let accel = self.accel(built)?.used;
        let own = Some(spec.command_line.as_str()).filter(|words| !words.is_empty());
        let words: Vec<_> =
            own.into_iter().chain(self.kernel_args.iter().map(String::as_str)).collect();
        spec.command_line = words.join(" ");
        let mut guest = self.start(built, accel, spec, room, dir, BOOT_LIMIT * accel.slowdown())?;
        if !guest.ready.faults.is_empty() {
            let faults = guest.ready.faults.join("; ");
            let reason = format!("the guest came up with faults: {faults}");
            return Err(VmFailure::caused_by(Verdict::Infra, reason, FaultDomain::Host).into());
        }
        match guest.refused_module()? {
            Some(loss) => Err(loss.into()),
            None => Ok(guest),
        }
    }

    fn start(
        &self,
        built: &Built,
        accel: Accel,
        spec: VmSpec,
        held: Held,
        dir: &Path,
        limit: Duration,
    ) -> Result<Guest> {
        let mut command_line = built.image.command_line.clone();
        if accel == Accel::Tcg {
            let khz = accel::tsc_khz().to_string();
            command_line.push(' ');
            command_line.push_str(&built.image.tcg_command_line.replace("{tsc_khz}", &khz));
        }
        if !spec.command_line.is_empty() {
            command_line.push(' ');
            command_line.push_str(&spec.command_line);
        }
        let mut folders = vec![Folder {
            tag: "guest".to_string(),
            path: built.image.share(),
            access: Access::Unchanging,
        }];
        folders.extend(spec.folders);
        let qemu = self.qemu(built.kernel.arch)?.program;
        let guest = Guest::boot(Boot {
            qemu: &qemu,
            machine: Machine {
                arch: built.kernel.arch,
                accel,
                cpus: spec.cpus,
                memory_bytes: spec.memory_bytes,
                kernel: built.kernel.image(),
                initramfs: built.image.initramfs(),
                command_line,
                sandbox: qemu.has(Layer::QemuSandbox),
                shares: Vec::new(),
                console: -1,
                monitor: -1,
                ports: Vec::new(),
            },
            folders,
            dir,
            symbols: built.kernel.symbols(),
            limit,
            end_limit: END_LIMIT * accel.slowdown(),
            held,
        })?;
        *self.confinement.lock().unwrap_or_else(PoisonError::into_inner) =
            guest.confinement.clone();
        Ok(guest)
    }
}

/// Only what the machine itself did counts: an interruption, a full disk or a
/// dead share daemon says nothing of KVM, and nor does a kernel that warns.
fn probed(booted: Result<()>, dir: &Path) -> Result<accel::Probe> {
    match booted {
        Ok(()) => Ok(Ok(())),
        Err(err) => match err.into_vm_failure() {
            Ok(loss) if loss.fault_domain == FaultDomain::Host => Err(loss.into()),
            Ok(loss) if matches!(loss.verdict, Verdict::Warning | Verdict::Oops) => Ok(Ok(())),
            Ok(loss) => Ok(Err(probe_failure(loss, dir))),
            Err(err) => Err(err),
        },
    }
}

/// A signal names itself; QEMU's own last line says more than any other end of it.
fn probe_failure(loss: VmFailure, dir: &Path) -> ProbeFailure {
    let signal = loss.qemu_status.and_then(|status| status.signal());
    let signal = signal.and_then(|number| Signal::try_from(number).ok());
    let reason = match signal {
        Some(Signal::SIGABRT) => "QEMU aborted (SIGABRT) while booting the guest kernel".into(),
        Some(signal) => format!("QEMU was killed ({signal}) while booting the guest kernel"),
        None => loss.reason.clone(),
    };
    let read = |name: &str| fs::read(dir.join(name)).unwrap_or_default();
    let said = [read(QEMU_LOG_FILE), read(CONSOLE_FILE)].concat();
    let log = format!("{}\n{}", loss.reason, String::from_utf8_lossy(&said));
    ProbeFailure { reason, log }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn only_the_machines_own_failure_is_a_verdict_on_kvm() {
        let nowhere = Path::new("/nonexistent");
        let lost =
            |fault_domain| Err(VmFailure::caused_by(Verdict::LostVm, "why", fault_domain).into());
        assert_eq!(probed(Ok(()), nowhere).unwrap(), Ok(()));
        for fault_domain in [FaultDomain::Guest, FaultDomain::Qemu, FaultDomain::Unknown] {
            let failure = probed(lost(fault_domain), nowhere).unwrap().unwrap_err();
            assert_eq!(failure.reason, "why");
        }
        assert!(probed(lost(FaultDomain::Host), nowhere).is_err());
        let warned = Err(VmFailure::new(Verdict::Warning, "why").into());
        assert_eq!(probed(warned, nowhere).unwrap(), Ok(()));
        let err = probed(Err(nlrig_host::interrupt::Interrupted.into()), nowhere).unwrap_err();
        assert!(err.is_interruption());
    }

    #[test]
    fn an_assertion_of_qemus_goes_to_the_log_and_not_into_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(QEMU_LOG_FILE), "kvm.c:3183: Assertion failed\n").unwrap();
        let mut loss = VmFailure::caused_by(Verdict::LostVm, "all of it", FaultDomain::Qemu);
        loss.qemu_status = Some(ExitStatus::from_raw(6));
        let failure = probe_failure(loss, dir.path());
        assert_eq!(failure.reason, "QEMU aborted (SIGABRT) while booting the guest kernel");
        assert!(failure.log.contains("Assertion failed"), "{}", failure.log);
    }

    fn kernel(image_sha256: &str) -> Kernel {
        Kernel {
            version: "6.1.1".to_string(),
            arch: Arch::X86_64,
            flavour: image_sha256.to_string(),
            source_sha256: String::new(),
            config_sha256: String::new(),
            image_sha256: image_sha256.to_string(),
            compiler: String::new(),
            objects: 1,
            dir: PathBuf::new(),
            from_cache: true,
        }
    }

    /// Two kernels of one architecture: each is tried, and tried once.
    #[test]
    fn two_kernels_of_one_architecture_are_each_tried() {
        let root = tempfile::tempdir().unwrap();
        let launcher = VmLauncher::new(Cache::at(root.path()).unwrap(), AccelMode::Auto).unwrap();
        let (good, bad) = (kernel("good"), kernel("bad"));
        let fails = || {
            let reason = "QEMU aborted".to_string();
            Ok(Err(ProbeFailure { reason, log: String::new() }))
        };
        let first = launcher.choice_for(&good, || Ok(Ok(()))).unwrap();
        let second = launcher.choice_for(&bad, fails).unwrap();
        if accel::device_trouble(Path::new("/dev/kvm")).is_none() {
            assert_eq!((first.used, second.used), (Accel::Kvm, Accel::Tcg));
        }
        let again = |kernel| launcher.choice_for(kernel, || panic!("tried again")).unwrap();
        assert_eq!((again(&good), again(&bad)), (first.clone(), second.clone()));
        assert_eq!(launcher.known_accel(&good), Some(first));
        assert_eq!(launcher.known_accel(&bad), Some(second));
        assert_eq!(launcher.known_accel(&kernel("other")), None);
    }
}
