//! QEMU as this host has it: where it is, and the layers that confine it here.

use std::fs::File;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use nlrig_host::Result;
use nlrig_host::process::Child;

use super::access::{QemuFiles, landlock_version, qemu_ruleset};
use super::stage::{Rights, Secret, Stage};
use super::{Confinement, Layer, Missing, NO_LANDLOCK, filter, why_no_namespaces};

/// The layers of a QEMU that a host may refuse.
const OPTIONAL: [Layer; 4] =
    [Layer::NetworkNamespace, Layer::Landlock, Layer::Seccomp, Layer::QemuSandbox];

/// A program that only runs confined.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    confinement: Confinement,
}

/// What one process of the program may use beside its own files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs<'a> {
    /// Open files that it may open again: kernel and initramfs.
    pub readable: &'a [BorrowedFd<'a>],
    /// Devices that it may use: /dev/kvm.
    pub devices: &'a [&'a Path],
    /// The largest file it may make: the guest's memory is one.
    pub file_bytes: u64,
}

impl Program {
    /// Finds out which layers this host allows: `run` runs the program so that
    /// it does nothing and ends. It runs under all of them, which is all that is
    /// tried where no layer is refused.
    ///
    /// # Errors
    /// `run` failed with no layer at all, or the run was interrupted.
    pub(crate) fn find_layers<T>(
        path: &Path,
        run: impl Fn(&Program) -> Result<T>,
    ) -> Result<(Program, T)> {
        let mut program = Program { path: path.to_path_buf(), confinement: Confinement::default() };
        program.confinement.layers = [Layer::Limits].into_iter().chain(OPTIONAL).collect();
        if landlock_version() == 0 {
            program.leave_out(Layer::Landlock, NO_LANDLOCK.to_string());
        }
        match run(&program) {
            Ok(found) => return Ok((program, found)),
            Err(err) if err.is_interruption() => return Err(err),
            Err(_) => {}
        }
        let candidates = std::mem::take(&mut program.confinement.layers);
        program.confinement.layers.push(Layer::Limits);
        let mut found = run(&program)?;
        for layer in candidates.into_iter().filter(|layer| *layer != Layer::Limits) {
            program.confinement.layers.push(layer);
            match run(&program) {
                Ok(again) => found = again,
                Err(err) if err.is_interruption() => return Err(err),
                Err(err) => program.leave_out(layer, why_not(layer, &format!("{err:#}"))),
            }
        }
        Ok((program, found))
    }

    fn leave_out(&mut self, layer: Layer, reason: String) {
        self.confinement.layers.retain(|other| *other != layer);
        self.confinement.missing.push(Missing { layer, reason });
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What holds it back on this host.
    pub fn confinement(&self) -> &Confinement {
        &self.confinement
    }

    /// Whether a layer is in force.
    pub fn has(&self, layer: Layer) -> bool {
        self.confinement.layers.contains(&layer)
    }

    /// Starts a command of this program under its layers. The command's streams
    /// and arguments count; its environment is made.
    ///
    /// # Errors
    /// It cannot be started; a layer is refused.
    pub(crate) fn spawn(
        &self,
        command: Command,
        pass: Vec<OwnedFd>,
        needs: &Needs<'_>,
    ) -> Result<Child> {
        // Without a filter it is one that starts another program.
        let is_wrapper = !self.has(Layer::Seccomp);
        let landlock = match self.has(Layer::Landlock) {
            true => qemu_ruleset(&QemuFiles {
                program: &self.path,
                is_wrapper,
                readable: needs.readable,
                devices: needs.devices,
            })?,
            false => None,
        };
        let secret = secret()?;
        let filter = match is_wrapper {
            true => filter::wrapper()?,
            false => filter::qemu(secret)?,
        };
        let rights = Rights {
            file_bytes: needs.file_bytes,
            network_namespace: self.has(Layer::NetworkNamespace),
            landlock,
            filter: Some((filter, secret)),
        };
        let stage = Stage::new(&command, rights)?;
        Child::spawn_confined(command, pass, move || stage.enter())
    }
}

fn secret() -> Result<Secret> {
    let mut bytes = [0; size_of::<Secret>()];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut words = [0; 3];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
    }
    Ok(words)
}

/// Why a layer is missing.
fn why_not(layer: Layer, err: &str) -> String {
    match layer {
        Layer::NetworkNamespace => why_no_namespaces(),
        Layer::Seccomp => format!(
            "the program starts other programs, as a script does that wraps QEMU, or cannot run without a system call that is denied ({err})"
        ),
        Layer::QemuSandbox => format!("this QEMU refuses -sandbox ({err})"),
        _ => err.to_string(),
    }
}
