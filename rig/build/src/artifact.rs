//! What has to be built before a guest can boot, and only what is stale.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nlrig_host::{Result, ui};
use serde::Serialize;

use crate::abi::{Abi, Arch};
use crate::busybox;
use crate::image::{Image, ImageParts, Recipe};
use crate::kernel::{Builder, Kernel};
use crate::module::{self, Module, ModuleParameter, ModuleSource};
use crate::programs::{self, GuestCrate, Programs};
use nlrig_host::cache::{self, Cache};

/// The name of the recipe that every guest boots.
const RECIPE: &str = "guest";

/// Builds things, each once.
#[derive(Debug)]
pub struct BuildContext {
    /// Where results are kept.
    pub cache: Cache,
    /// The modules that guests load, in this order.
    pub modules: Vec<ModuleSource>,
    /// Parameters that they are loaded with.
    pub module_parameters: Vec<ModuleParameter>,
    /// The crate whose programs guests find in `/run/nlrig/guest/workloads`.
    pub workloads: Option<GuestCrate>,
    kernels: Builder,
    /// By architecture and flavour, as the modules.
    built_kernels: BTreeMap<(Arch, String), Kernel>,
    built_modules: BTreeMap<(Arch, String), Vec<Module>>,
    /// By package.
    built_programs: BTreeMap<(Arch, &'static str), Programs>,
}

/// Everything that guests of one ABI need.
#[derive(Clone, Debug)]
pub struct Built {
    /// What runs in them.
    pub abi: Abi,
    /// The kernel they boot.
    pub kernel: Kernel,
    /// Its first file system and the share `guest`.
    pub image: Image,
}

/// One thing that was built, for `rig build --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Artifact {
    /// `kernel`, `module`, `userspace` or `image`.
    pub kind: &'static str,
    /// The architecture or ABI.
    pub of: String,
    /// Where it is.
    pub path: PathBuf,
    /// The hash of its content.
    pub sha256: String,
    /// Whether nothing had to be made.
    pub from_cache: bool,
}

impl BuildContext {
    /// A context that builds kernels as `kernels` says; without modules and
    /// workloads.
    pub fn new(kernels: Builder) -> BuildContext {
        BuildContext {
            cache: kernels.cache.clone(),
            modules: Vec::new(),
            module_parameters: Vec::new(),
            workloads: None,
            kernels,
            built_kernels: BTreeMap::new(),
            built_modules: BTreeMap::new(),
            built_programs: BTreeMap::new(),
        }
    }

    /// The kernel for one architecture.
    ///
    /// # Errors
    /// See [`Builder::build`].
    pub fn kernel(&mut self, arch: Arch) -> Result<Kernel> {
        self.kernel_of(&self.kernels.clone(), arch)
    }

    fn kernel_of(&mut self, kernels: &Builder, arch: Arch) -> Result<Kernel> {
        let key = (arch, kernels.flavour.clone());
        if let Some(kernel) = self.built_kernels.get(&key) {
            return Ok(kernel.clone());
        }
        let kernel = kernels.build(arch)?;
        self.built_kernels.insert(key, kernel.clone());
        Ok(kernel)
    }

    /// The modules for one architecture's kernel.
    ///
    /// # Errors
    /// See [`module::build`].
    pub fn modules(&mut self, arch: Arch) -> Result<Vec<Module>> {
        self.modules_of(&self.kernels.clone(), arch)
    }

    fn modules_of(&mut self, kernels: &Builder, arch: Arch) -> Result<Vec<Module>> {
        let key = (arch, kernels.flavour.clone());
        if let Some(modules) = self.built_modules.get(&key) {
            return Ok(modules.clone());
        }
        let modules = if self.modules.is_empty() && self.module_parameters.is_empty() {
            Vec::new()
        } else {
            let kernel = self.kernel_of(kernels, arch)?;
            let BuildContext { cache, modules, module_parameters, .. } = self;
            module::build(cache, &kernel, modules, module_parameters, kernels.jobs)?
        };
        self.built_modules.insert(key, modules.clone());
        Ok(modules)
    }

    /// PID 1 for one architecture.
    ///
    /// # Errors
    /// See [`programs::build`].
    pub fn init(&mut self, arch: Arch) -> Result<Programs> {
        self.programs_of(&programs::init()?, arch)
    }

    /// The workloads for one architecture; none without a crate of them.
    ///
    /// # Errors
    /// See [`programs::build`].
    pub fn programs(&mut self, arch: Arch) -> Result<Option<Programs>> {
        let Some(workloads) = self.workloads.clone() else { return Ok(None) };
        self.programs_of(&workloads, arch).map(Some)
    }

    fn programs_of(&mut self, guest: &GuestCrate, arch: Arch) -> Result<Programs> {
        let key = (arch, guest.package);
        if let Some(programs) = self.built_programs.get(&key) {
            return Ok(programs.clone());
        }
        let programs = programs::build(&self.cache, guest, arch)?;
        self.built_programs.insert(key, programs.clone());
        Ok(programs)
    }

    /// Everything that guests of one ABI need; `mounts` are further lines of
    /// their mount table.
    ///
    /// # Errors
    /// A part cannot be built; the message names it.
    pub fn build(&mut self, abi: Abi, mounts: &[String]) -> Result<Built> {
        self.build_with(&self.kernels.clone(), abi, mounts)
    }

    /// As [`BuildContext::build`], but with a kernel of this flavour.
    ///
    /// # Errors
    /// See [`BuildContext::build`].
    pub fn build_flavour(&mut self, abi: Abi, flavour: &str) -> Result<Built> {
        self.build_with(&self.kernels.with_flavour(flavour), abi, &[])
    }

    fn build_with(&mut self, kernels: &Builder, abi: Abi, mounts: &[String]) -> Result<Built> {
        let kernel = self.kernel_of(kernels, abi.kernel())?;
        let image = self.image_with(kernels, abi, mounts)?;
        Ok(Built { abi, kernel, image })
    }

    /// What guests of one ABI boot.
    ///
    /// # Errors
    /// See [`BuildContext::build`].
    pub fn image(&mut self, abi: Abi, mounts: &[String]) -> Result<Image> {
        self.image_with(&self.kernels.clone(), abi, mounts)
    }

    fn image_with(&mut self, kernels: &Builder, abi: Abi, mounts: &[String]) -> Result<Image> {
        let workloads = self.programs(abi.program())?;
        let modules = self.modules_of(kernels, abi.kernel())?.into_iter();
        let parts = ImageParts {
            init: self.init(abi.kernel())?.path("init"),
            busybox: busybox::fetch(&self.cache, abi.program())?,
            workloads: workloads.iter().flat_map(Programs::files).collect(),
            modules: modules.map(|module| (module.name, module.path, module.parameters)).collect(),
        };
        Recipe::read(RECIPE)?.with_mounts(mounts.iter().cloned()).make(&self.cache, &parts)
    }

    /// Builds one kind of thing for these ABIs and lists what there is.
    ///
    /// # Errors
    /// See the builder of the kind.
    pub fn artifacts(&mut self, kind: &str, abis: &[Abi]) -> Result<Vec<Artifact>> {
        let mut artifacts = Vec::new();
        let mut arches: Vec<Arch> = match kind {
            "userspace" => abis.iter().flat_map(|abi| [abi.kernel(), abi.program()]).collect(),
            _ => abis.iter().map(|abi| abi.kernel()).collect(),
        };
        arches.sort_unstable();
        arches.dedup();
        match kind {
            "kernel" => {
                for arch in arches {
                    let kernel = self.kernel(arch)?;
                    artifacts.push(Artifact {
                        kind: "kernel",
                        of: arch.to_string(),
                        path: kernel.image(),
                        sha256: kernel.image_sha256.clone(),
                        from_cache: kernel.from_cache,
                    });
                }
            }
            "module" => {
                for arch in arches {
                    for module in self.modules(arch)? {
                        artifacts.push(Artifact {
                            kind: "module",
                            of: arch.to_string(),
                            sha256: self.cache.file_sha256(&module.path)?,
                            path: module.path,
                            from_cache: module.from_cache,
                        });
                    }
                }
            }
            "userspace" => {
                for arch in arches {
                    for programs in [Some(self.init(arch)?), self.programs(arch)?] {
                        let Some(programs) = programs else { continue };
                        for (_, path) in programs.files() {
                            artifacts.push(Artifact {
                                kind: "userspace",
                                of: arch.to_string(),
                                sha256: cache::sha256(cache::read(&path)?),
                                path,
                                from_cache: programs.from_cache,
                            });
                        }
                    }
                }
            }
            _ => {
                for &abi in abis {
                    let image = self.image(abi, &[])?;
                    artifacts.push(Artifact {
                        kind: "image",
                        of: abi.to_string(),
                        path: image.initramfs(),
                        sha256: self.cache.file_sha256(&image.initramfs())?,
                        from_cache: image.from_cache(),
                    });
                }
            }
        }
        ui::detail(&format!("{kind}: {} artifacts", artifacts.len()));
        Ok(artifacts)
    }
}
