//! The subcommands, a file each.

pub mod bench;
pub mod build;
pub mod clean;
pub mod doctor;
pub mod exec;
pub mod list;
pub mod run;

use anyhow::Result;

use crate::abi::Abi;
use crate::artifact::Workshop;
use crate::cache::Cache;
use crate::kernel::{self, Builder};
use crate::lab::Lab;
use crate::options::GuestOptions;
use crate::project::Project;
use crate::usage;

/// The kernels that these options ask for.
///
/// # Errors
/// An unknown kernel or flavour; no place for the cache.
pub fn kernels(options: &GuestOptions) -> Result<Builder> {
    let project = Project::find()?;
    let known = kernel::find(&project, &options.kernel)?;
    let fragment = project.kernel_config().join(format!("flavour-{}.config", options.flavour));
    // A fragment with a dot is one architecture's part of a flavour.
    if options.flavour.contains(['/', '.']) || !fragment.is_file() {
        return Err(usage!(
            "no flavour \"{}\": there is no {}",
            options.flavour,
            fragment.display()
        ));
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Builder {
        cache: Cache::open()?,
        known,
        source: options.kernel_source.clone(),
        source_sha256: options.kernel_sha256.clone(),
        flavour: options.flavour.clone(),
        jobs: options.jobs.map_or(processors, |jobs| jobs as usize),
        project,
    })
}

/// A workshop and a lab as these options ask for.
///
/// # Errors
/// See [`kernels`].
pub fn prepare(options: &GuestOptions) -> Result<(Workshop, Lab)> {
    if let Some(module) = options.module.as_ref().filter(|dir| !dir.join("Kbuild").is_file()) {
        return Err(usage!("--module {}: no module is built there: no Kbuild", module.display()));
    }
    let kernels = kernels(options)?;
    kernels.cache.sweep();
    // Not its path: that may name a newer build by the time a daemon starts.
    let lab = Lab::new("/proc/self/exe".into(), kernels.cache.clone(), options.accel)?;
    let mut workshop = Workshop::new(kernels);
    if let Some(module) = &options.module {
        workshop.module = module.clone();
    }
    Ok((workshop, lab))
}

/// The ABIs that these options ask for; all of them if none is named.
pub fn abis(options: &GuestOptions) -> Vec<Abi> {
    if options.abi.is_empty() {
        return Abi::ALL.to_vec();
    }
    let mut abis = Vec::new();
    for &abi in &options.abi {
        if !abis.contains(&abi) {
            abis.push(abi);
        }
    }
    abis
}
