//! What has to be built before a guest can boot, and only what is stale.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::abi::{Abi, Arch};
use crate::cache::{self, Cache};
use crate::image::{Image, Parts, Recipe};
use crate::kernel::{Builder, Kernel};
use crate::module::{self, Module};
use crate::project::Project;
use crate::userspace::{self, Programs};
use crate::{busybox, say};

/// The name of the recipe that every guest boots.
const RECIPE: &str = "guest";

/// Builds things, each once.
#[derive(Debug)]
pub struct Workshop {
    /// Where sources are.
    pub project: Project,
    /// Where results are kept.
    pub cache: Cache,
    /// The source of the module that guests load.
    pub module: PathBuf,
    kernels: Builder,
    /// By architecture and flavour, as the modules.
    built_kernels: BTreeMap<(Arch, String), Kernel>,
    built_modules: BTreeMap<(Arch, String), Module>,
    built_programs: BTreeMap<Arch, Programs>,
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

impl Workshop {
    /// A workshop that builds kernels as `kernels` says.
    pub fn new(kernels: Builder) -> Workshop {
        Workshop {
            project: kernels.project.clone(),
            cache: kernels.cache.clone(),
            module: kernels.project.module(),
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
        let key = (arch, self.kernels.flavour.clone());
        if let Some(kernel) = self.built_kernels.get(&key) {
            return Ok(kernel.clone());
        }
        let kernel = self.kernels.build(arch)?;
        self.built_kernels.insert(key, kernel.clone());
        Ok(kernel)
    }

    /// The module for one architecture's kernel.
    ///
    /// # Errors
    /// See [`module::build`].
    pub fn module(&mut self, arch: Arch) -> Result<Module> {
        let key = (arch, self.kernels.flavour.clone());
        if let Some(module) = self.built_modules.get(&key) {
            return Ok(module.clone());
        }
        let kernel = self.kernel(arch)?;
        let module = module::build(&self.cache, &kernel, &self.module, self.kernels.jobs)?;
        self.built_modules.insert(key, module.clone());
        Ok(module)
    }

    /// The guest's programs for one architecture.
    ///
    /// # Errors
    /// See [`userspace::build`].
    pub fn programs(&mut self, arch: Arch) -> Result<Programs> {
        if let Some(programs) = self.built_programs.get(&arch) {
            return Ok(programs.clone());
        }
        let programs = userspace::build(&self.project, arch)?;
        self.built_programs.insert(arch, programs.clone());
        Ok(programs)
    }

    /// Everything that guests of one ABI need; `mounts` are further lines of
    /// their mount table.
    ///
    /// # Errors
    /// A part cannot be built; the message names it.
    pub fn build(&mut self, abi: Abi, mounts: &[String]) -> Result<Built> {
        let kernel = self.kernel(abi.kernel())?;
        let image = self.image(abi, mounts)?;
        Ok(Built { abi, kernel, image })
    }

    /// As [`Workshop::build`], but with a kernel of this flavour.
    ///
    /// # Errors
    /// See [`Workshop::build`].
    pub fn build_flavour(&mut self, abi: Abi, flavour: &str) -> Result<Built> {
        let own = std::mem::replace(&mut self.kernels.flavour, flavour.to_string());
        let built = self.build(abi, &[]);
        self.kernels.flavour = own;
        built
    }

    /// What guests of one ABI boot.
    ///
    /// # Errors
    /// See [`Workshop::build`].
    pub fn image(&mut self, abi: Abi, mounts: &[String]) -> Result<Image> {
        let workloads = self.programs(abi.program())?;
        let parts = Parts {
            init: self.programs(abi.kernel())?.path("init"),
            workloads: Parts::WORKLOADS
                .map(|name| (name.to_string(), workloads.path(name)))
                .into_iter()
                .collect(),
            busybox: busybox::fetch(&self.cache, abi.program())?,
            module: self.module(abi.kernel())?.path,
        };
        let recipe = Recipe::read(&self.project.images(), RECIPE)?;
        recipe.with_mounts(mounts.iter().cloned()).make(&self.cache, &parts)
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
                    let module = self.module(arch)?;
                    artifacts.push(Artifact {
                        kind: "module",
                        of: arch.to_string(),
                        sha256: self.cache.file_sha256(&module.path)?,
                        path: module.path,
                        from_cache: module.from_cache,
                    });
                }
            }
            "userspace" => {
                for arch in arches {
                    let programs = self.programs(arch)?;
                    for name in Parts::WORKLOADS.into_iter().chain(["init"]) {
                        let path = programs.path(name);
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
        say::detail(&format!("{kind}: {} artifacts", artifacts.len()));
        Ok(artifacts)
    }
}
