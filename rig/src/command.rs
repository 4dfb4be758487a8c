//! The subcommands, a file each.

pub mod bench;
pub mod build;
pub mod classify;
pub mod clean;
pub mod doctor;
pub mod exec;
pub mod list;
pub mod run;

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::abi::Abi;
use crate::cache::Cache;
use crate::data;
use crate::kernel::{self, Builder, flavour};
use crate::launcher::VmLauncher;
use crate::options::GuestOptions;
use crate::usage;
use nlrig_build::BuildContext;
use nlrig_build::module::ModuleSource;

/// The kernels that these options ask for.
///
/// # Errors
/// An unknown kernel or flavour; a flavour that an ABI's kernel does not have; no
/// place for the cache.
pub fn kernels(options: &GuestOptions) -> Result<Builder> {
    let known = kernel::find(&options.kernel)?;
    let flavour = flavour::find(&options.flavour)?;
    if let Some(abi) = options.abi.iter().find(|abi| !flavour.arches.contains(&abi.kernel())) {
        let arches: Vec<_> = flavour.arches.iter().map(|arch| arch.name()).collect();
        return Err(usage!(
            "--flavour {}: there is no such {} kernel for --abi {abi}, only {}",
            flavour.name,
            abi.kernel(),
            arches.join(", ")
        ));
    }
    if let Some(path) = options.kernel_config.iter().find(|path| !path.is_file()) {
        return Err(usage!("--kernel-config {}: no such file", path.display()));
    }
    if let Some(path) = options.kernel_image.as_ref().filter(|path| !path.is_file()) {
        return Err(usage!("--kernel-image {}: no such file", path.display()));
    }
    let mut kernels = Builder::new(Cache::open()?, known, &options.flavour);
    kernels.source = options.kernel_source.clone();
    kernels.source_sha256 = options.kernel_sha256.clone();
    kernels.image = options.kernel_image.clone();
    kernels.fragments = options.kernel_config.clone();
    if let Some(jobs) = options.jobs {
        kernels.jobs = jobs as usize;
    }
    Ok(kernels)
}

/// The modules that these options ask for.
///
/// # Errors
/// A usage error: no module is built there.
fn modules(options: &GuestOptions) -> Result<Vec<ModuleSource>> {
    let module = |path: &PathBuf| match is_rig_module(path) {
        true => Ok(data::module()),
        false => Ok(ModuleSource::at(path, &options.module_make)?),
    };
    options.module.iter().map(module).collect()
}

/// Whether `--module` has this word for the rig's own module. A folder of that
/// name is `./rig`.
pub fn is_rig_module(path: &Path) -> bool {
    path == Path::new("rig")
}

/// As [`prepare`]; the guests load the rig's own module if the options name no
/// other.
///
/// # Errors
/// See [`prepare`].
pub fn prepare_with_rig_module(options: &GuestOptions) -> Result<(BuildContext, VmLauncher)> {
    let (mut workshop, lab) = prepare(options)?;
    if workshop.modules.is_empty() {
        workshop.modules.push(data::module());
    }
    Ok((workshop, lab))
}

/// A build context and a launcher as these options ask for.
///
/// # Errors
/// See [`kernels`]; a usage error if a module's path has no module.
pub fn prepare(options: &GuestOptions) -> Result<(BuildContext, VmLauncher)> {
    let modules = modules(options)?;
    let kernels = kernels(options)?;
    kernels.cache.gc();
    let mut lab = VmLauncher::new(kernels.cache.clone(), options.accel)?;
    lab.kernel_args = options.kernel_arg.clone();
    let mut workshop = BuildContext::new(kernels);
    workshop.workloads = Some(data::workloads()?);
    workshop.modules = modules;
    workshop.module_parameters = options.module_param.clone();
    Ok((workshop, lab))
}

/// The ABIs that these options ask for; all that have the flavour if none is
/// named.
pub fn abis(options: &GuestOptions) -> Vec<Abi> {
    if options.abi.is_empty() {
        let flavour = flavour::find(&options.flavour);
        let has = |abi: &Abi| match &flavour {
            Ok(flavour) => flavour.arches.contains(&abi.kernel()),
            Err(_) => true,
        };
        return Abi::ALL.into_iter().filter(has).collect();
    }
    let mut abis = Vec::new();
    for &abi in &options.abi {
        if !abis.contains(&abi) {
            abis.push(abi);
        }
    }
    abis
}
