//! From what was built to a guest that runs: the accelerator is chosen here,
//! once an architecture, the host asked for room, and the machine put together.
//!
//! Several threads of a run use one lab.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::outcome::Result;

use crate::accel::{self, Accel, AccelMode, Choice, PROBE_LIMIT};
use crate::budget::{Budget, Held};
use crate::guest::{Boot, Guest};
use crate::outcome::{FaultDomain, Verdict, VmFailure};
use crate::qemu::{self, Machine};
use crate::share::{Access, Folder};
use nlrig_build::Arch;
use nlrig_build::Built;
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
    chosen: Mutex<BTreeMap<Arch, Choice>>,
    /// Held by who tries KVM, which takes a machine and so may have to wait.
    trying: Mutex<()>,
    /// The user's own words for the kernels of all guests, but not of the one
    /// that proves KVM: its verdict holds for the kernel image.
    pub kernel_args: Vec<String>,
    versions: Mutex<BTreeMap<Arch, String>>,
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
        let (chosen, trying, kernel_args, versions) = Default::default();
        Ok(VmLauncher { cache, mode, budget, chosen, trying, kernel_args, versions })
    }

    /// QEMU's version for an architecture.
    ///
    /// # Errors
    /// See [`qemu::version`].
    pub fn qemu(&self, arch: Arch) -> Result<String> {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(version) = versions.get(&arch) {
            return Ok(version.clone());
        }
        let version = qemu::version(arch)?;
        versions.insert(arch, version.clone());
        Ok(version)
    }

    /// The accelerator for guests of this kernel. Who holds a machine asks only
    /// for its own kernel's, which is known and not waited for.
    ///
    /// # Errors
    /// KVM was asked for and does not work; there is no QEMU.
    pub fn accel(&self, built: &Built) -> Result<Choice> {
        let arch = built.kernel.arch;
        if let Some(choice) = self.known_accel(arch) {
            return Ok(choice);
        }
        let _trying = self.trying.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have tried it meanwhile.
        if let Some(choice) = self.known_accel(arch) {
            return Ok(choice);
        }
        let holds_for = accel::holds_for(&self.qemu(arch)?, &built.kernel.image_sha256);
        let choice = accel::choose(self.mode, &self.cache, arch, &holds_for, || self.probe(built))?;
        ui::detail(&format!("{arch} guests run under {}: {}", choice.used.name(), choice.reason));
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner).insert(arch, choice.clone());
        Ok(choice)
    }

    /// The accelerator of this architecture's guests, if one was chosen.
    pub fn known_accel(&self, arch: Arch) -> Option<Choice> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner).get(&arch).cloned()
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
        probed(guest.and_then(Guest::end))
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
        Guest::boot(Boot {
            machine: Machine {
                arch: built.kernel.arch,
                accel,
                cpus: spec.cpus,
                memory_bytes: spec.memory_bytes,
                kernel: built.kernel.image(),
                initramfs: built.image.initramfs(),
                command_line,
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
        })
    }
}

/// Only what the machine itself did counts: an interruption, a full disk or a
/// dead share daemon says nothing of KVM, and nor does a kernel that warns.
fn probed(booted: Result<()>) -> Result<accel::Probe> {
    match booted {
        Ok(()) => Ok(Ok(())),
        Err(err) => match err.into_vm_failure() {
            Ok(loss) if loss.fault_domain == FaultDomain::Host => Err(loss.into()),
            Ok(loss) if matches!(loss.verdict, Verdict::Warning | Verdict::Oops) => Ok(Ok(())),
            Ok(loss) => Ok(Err(loss.reason)),
            Err(err) => Err(err),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_machines_own_failure_is_a_verdict_on_kvm() {
        let lost =
            |fault_domain| Err(VmFailure::caused_by(Verdict::LostVm, "why", fault_domain).into());
        assert_eq!(probed(Ok(())).unwrap(), Ok(()));
        for fault_domain in [FaultDomain::Guest, FaultDomain::Qemu, FaultDomain::Unknown] {
            assert_eq!(probed(lost(fault_domain)).unwrap(), Err("why".to_string()));
        }
        assert!(probed(lost(FaultDomain::Host)).is_err());
        assert_eq!(probed(Err(VmFailure::new(Verdict::Warning, "why").into())).unwrap(), Ok(()));
        let err = probed(Err(nlrig_host::interrupt::Interrupted.into())).unwrap_err();
        assert!(err.is_interruption());
    }
}
