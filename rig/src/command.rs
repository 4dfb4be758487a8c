//! The subcommands, a file each.

pub mod bench;
pub mod build;
pub mod classify;
pub mod clean;
pub mod doctor;
pub mod exec;
pub mod list;
pub mod run;

use anyhow::Result;

use crate::abi::Abi;
use crate::cache::Cache;
use crate::data;
use crate::kernel::{self, Builder};
use crate::launcher::VmLauncher;
use crate::options::GuestOptions;
use crate::usage;
use nlrig_build::BuildContext;
use nlrig_build::module::ModuleSource;
use nlrig_build::sources::Tree;

/// The kernels that these options ask for.
///
/// # Errors
/// An unknown kernel or flavour; no place for the cache.
pub fn kernels(options: &GuestOptions) -> Result<Builder> {
    let known = kernel::find(&options.kernel)?;
    if !kernel::config::is_flavour(&options.flavour) {
        return Err(usage!(
            "no flavour \"{0}\": there is no kernel-config/flavour-{0}.config",
            options.flavour
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
    })
}

/// A workshop and a lab as these options ask for.
///
/// # Errors
/// See [`kernels`].
pub fn prepare(options: &GuestOptions) -> Result<(BuildContext, VmLauncher)> {
    if let Some(module) = options.module.as_ref().filter(|dir| !dir.join("Kbuild").is_file()) {
        return Err(usage!("--module {}: no module is built there: no Kbuild", module.display()));
    }
    let kernels = kernels(options)?;
    kernels.cache.gc();
    let mut lab = VmLauncher::new(kernels.cache.clone(), options.accel)?;
    lab.kernel_args = options.kernel_arg.clone();
    let mut workshop = BuildContext::new(kernels);
    workshop.workloads = Some(data::workloads()?);
    workshop.modules = vec![match &options.module {
        Some(folder) => ModuleSource { tree: Tree::Folder(folder.clone()), ..data::module() },
        None => data::module(),
    }];
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
