//! From what was built to a guest that runs: the accelerator is chosen here,
//! once an architecture, and the machine put together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::abi::Arch;
use crate::accel::{self, Accel, Choice, PROBE_LIMIT, Wish};
use crate::artifact::Built;
use crate::cache::Cache;
use crate::guest::{Boot, Guest, Loss};
use crate::qemu::{self, Machine};
use crate::report::Verdict;
use crate::say;
use crate::scratch::Scratch;
use crate::share::{Access, Folder};

/// A kernel boots in two seconds under TCG on an idle host; a busy one may take
/// many times that.
const BOOT_LIMIT_TCG: Duration = Duration::from_secs(90);
/// Under KVM in less than one.
const BOOT_LIMIT_KVM: Duration = Duration::from_secs(30);
/// The machine with which KVM is tried: small, so that it starts fast.
const PROBE_MEMORY_BYTES: u64 = 256 << 20;

/// Starts guests.
#[derive(Debug)]
pub struct Lab {
    program: PathBuf,
    cache: Cache,
    wish: Wish,
    chosen: BTreeMap<Arch, Choice>,
    versions: BTreeMap<Arch, String>,
}

/// The machine that a job needs.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// What it sees of the host, beside its own image.
    pub folders: Vec<Folder>,
}

impl Lab {
    /// A lab whose share daemons are this `program`, a built `nlrig`.
    pub fn new(program: PathBuf, cache: Cache, wish: Wish) -> Lab {
        Lab { program, cache, wish, chosen: BTreeMap::new(), versions: BTreeMap::new() }
    }

    /// QEMU's version for an architecture.
    ///
    /// # Errors
    /// See [`qemu::version`].
    pub fn qemu(&mut self, arch: Arch) -> Result<String> {
        if let Some(version) = self.versions.get(&arch) {
            return Ok(version.clone());
        }
        let version = qemu::version(arch)?;
        self.versions.insert(arch, version.clone());
        Ok(version)
    }

    /// The accelerator for guests of this kernel.
    ///
    /// # Errors
    /// KVM was asked for and does not work; there is no QEMU.
    pub fn accel(&mut self, built: &Built) -> Result<Choice> {
        let arch = built.kernel.arch;
        if let Some(choice) = self.chosen.get(&arch) {
            return Ok(choice.clone());
        }
        let holds_for = accel::holds_for(&self.qemu(arch)?, &built.kernel.image_sha256);
        let choice = accel::choose(self.wish, &self.cache, arch, &holds_for, || self.probe(built))?;
        say::detail(&format!("{arch} guests run under {}: {}", choice.used.name(), choice.reason));
        self.chosen.insert(arch, choice.clone());
        Ok(choice)
    }

    /// Boots this kernel under KVM until it is ready. It lacks folders that the
    /// trial's own image mounts; that is no fault of KVM's.
    fn probe(&self, built: &Built) -> Result<accel::Probe> {
        let dir = Scratch::new()?;
        let needs = Needs { cpus: 2, memory_bytes: PROBE_MEMORY_BYTES, folders: Vec::new() };
        let guest = self.start(built, Accel::Kvm, needs, dir.path(), PROBE_LIMIT);
        probed(guest.and_then(Guest::end).map(|_| ()))
    }

    /// Boots a guest; its console and the rest are kept in `dir`.
    ///
    /// # Errors
    /// See [`Guest::boot`] and [`Lab::accel`]; a [`Loss`] if the guest came up
    /// with faults.
    pub fn boot(&mut self, built: &Built, needs: Needs, dir: &Path) -> Result<Guest> {
        let accel = self.accel(built)?.used;
        let limit = match accel {
            Accel::Kvm => BOOT_LIMIT_KVM,
            Accel::Tcg => BOOT_LIMIT_TCG,
        };
        let guest = self.start(built, accel, needs, dir, limit)?;
        if guest.ready.faults.is_empty() {
            return Ok(guest);
        }
        let faults = guest.ready.faults.join("; ");
        let reason = format!("the guest came up with faults: {faults}");
        Err(Loss { verdict: Verdict::Infra, reason }.into())
    }

    fn start(
        &self,
        built: &Built,
        accel: Accel,
        needs: Needs,
        dir: &Path,
        limit: Duration,
    ) -> Result<Guest> {
        let mut command_line = built.image.command_line.clone();
        if accel == Accel::Tcg {
            let khz = accel::tsc_khz().to_string();
            command_line.push(' ');
            command_line.push_str(&built.image.tcg_command_line.replace("{tsc_khz}", &khz));
        }
        let mut folders = vec![Folder {
            tag: "guest".to_string(),
            path: built.image.share(),
            access: Access::ReadOnly,
        }];
        folders.extend(needs.folders);
        Guest::boot(Boot {
            program: &self.program,
            machine: Machine {
                arch: built.kernel.arch,
                accel,
                cpus: needs.cpus,
                memory_bytes: needs.memory_bytes,
                kernel: built.kernel.image(),
                initramfs: built.image.initramfs(),
                command_line,
                shares: Vec::new(),
                ports: Vec::new(),
            },
            folders,
            dir,
            limit,
        })
    }
}

/// Only what the machine itself did counts: an interruption, a full disk or a
/// dead share daemon says nothing of KVM.
fn probed(booted: Result<()>) -> Result<accel::Probe> {
    match booted {
        Ok(()) => Ok(Ok(())),
        Err(err) => match err.downcast::<Loss>() {
            Ok(loss) if loss.verdict != Verdict::Infra => Ok(Err(loss.reason)),
            Ok(loss) => Err(loss.into()),
            Err(err) => Err(err),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Interrupted;

    #[test]
    fn only_the_machines_own_failure_is_a_verdict_on_kvm() {
        let lost = |verdict| Err(Loss { verdict, reason: "why".to_string() }.into());
        assert_eq!(probed(Ok(())).unwrap(), Ok(()));
        assert_eq!(probed(lost(Verdict::GuestHang)).unwrap(), Err("why".to_string()));
        assert!(probed(lost(Verdict::Infra)).is_err());
        let err = probed(Err(Interrupted.into())).unwrap_err();
        assert!(err.is::<Interrupted>());
    }
}
