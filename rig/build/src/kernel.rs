//! Kernels: from a source and fragments of configuration to an image that
//! boots, built once for each combination of source, resolved configuration and
//! compiler.

pub mod config;
pub mod flavour;
mod image;
mod kconfig;
pub mod source;
pub mod symbols;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nlrig_host::{Context, Error, ErrorKind, Result, bail, ui};
use serde::{Deserialize, Serialize};

use crate::abi::Arch;
use crate::environment;
use crate::sources::data;
use nlrig_host::cache::{self, Cache, Entry, Key};
use nlrig_host::process::{capture, run_logged};
use source::Source;

/// A build takes two and a half minutes of two cores; a slow and busy machine
/// may take twenty times that.
const BUILD_LIMIT: Duration = Duration::from_secs(60 * 60);
/// The name of the description in a finished build.
const MANIFEST: &str = "kernel.json";
/// The version of the recipe in this file: part of every key, so that a change
/// to how kernels are built is not mistaken for nothing.
const RECIPE: &str = "3";

/// A kernel that was built.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kernel {
    /// The release it reports: `6.1.192`.
    pub version: String,
    /// What it was built for.
    pub arch: Arch,
    /// The flavour it was asked for as. Two flavours may resolve to the same
    /// configuration, so the manifest of a build does not have it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub flavour: String,
    /// The hash of the source tarball, or of all files of a source folder.
    pub source_sha256: String,
    /// The hash of the resolved configuration.
    pub config_sha256: String,
    /// The hash of the image that boots.
    pub image_sha256: String,
    /// The compiler's own words.
    pub compiler: String,
    /// How many objects were compiled for it.
    pub objects: u32,
    /// The entry of the cache it is in.
    #[serde(skip)]
    pub dir: PathBuf,
    /// Whether nothing had to be compiled.
    #[serde(skip)]
    pub from_cache: bool,
}

impl Kernel {
    /// The ELF image that QEMU boots.
    pub fn image(&self) -> PathBuf {
        self.dir.join("build/vmlinux")
    }

    /// The names and addresses of its functions.
    pub fn symbols(&self) -> PathBuf {
        self.dir.join("build/System.map")
    }

    /// The source it was built from.
    pub fn source_dir(&self) -> PathBuf {
        // Kbuild's own link, for builds outside of the source.
        self.dir.join("build/source")
    }

    /// Whether modules can be built against it: not if only its image is known.
    pub fn builds_modules(&self) -> bool {
        self.build_dir().join("Makefile").is_file()
    }

    /// The folder that modules are built against.
    pub fn build_dir(&self) -> PathBuf {
        self.dir.join("build")
    }
}

/// One entry of `kernel-config/kernels.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// What the user calls it: `6.1`.
    pub version: String,
    /// Where the distribution's package puts the source.
    pub source: PathBuf,
    /// That package.
    pub package: String,
    /// About how many objects a build compiles, by architecture.
    pub objects: BTreeMap<String, u32>,
}

/// The content of `kernel-config/kernels.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownKernels {
    kernel: Vec<Known>,
    max_objects: BTreeMap<String, u32>,
}

fn known_kernels() -> Result<KnownKernels> {
    const PATH: &str = "kernel-config/kernels.toml";
    toml::from_str(data(PATH)?).context(PATH)
}

/// The kernels that the rig can build, newest last.
///
/// # Errors
/// `kernel-config/kernels.toml` is damaged.
pub fn known() -> Result<Vec<Known>> {
    Ok(known_kernels()?.kernel)
}

/// How many objects a kernel of this flavour may compile at most.
///
/// # Errors
/// `kernel-config/kernels.toml` is damaged, or has no bound for `default`.
pub fn max_objects(flavour: &str) -> Result<u32> {
    let bounds = known_kernels()?.max_objects;
    let bound = bounds.get(flavour).or_else(|| bounds.get("default"));
    bound.copied().context("kernel-config/kernels.toml has no max_objects.default")
}

/// The known kernel of this version.
///
/// # Errors
/// A usage error that lists the ones there are.
pub fn find(version: &str) -> Result<Known> {
    let known = known()?;
    let versions: Vec<_> = known.iter().map(|kernel| kernel.version.clone()).collect();
    known.into_iter().find(|kernel| kernel.version == version).ok_or_else(|| {
        Error::usage(format!("no kernel \"{version}\": there is {}", versions.join(", ")))
    })
}

/// How to build kernels.
#[derive(Clone, Debug)]
pub struct Builder {
    /// Where kernels are kept.
    pub cache: Cache,
    /// The kernel asked for.
    pub known: Known,
    /// A source instead of the distribution's.
    pub source: Option<PathBuf>,
    /// What that source's SHA-256 must be.
    pub source_sha256: Option<String>,
    /// Which flavour: see [`flavour`].
    pub flavour: String,
    /// Fragments of the user's own, which apply after the flavour's.
    pub fragments: Vec<PathBuf>,
    /// An image that was built elsewhere, in place of all of the above.
    pub image: Option<PathBuf>,
    /// Compilers at once.
    pub jobs: usize,
}

impl Builder {
    /// Builds this kernel from the distribution's source, with a compiler for
    /// each processor.
    pub fn new(cache: Cache, known: Known, flavour: impl Into<String>) -> Builder {
        Builder {
            cache,
            known,
            source: None,
            source_sha256: None,
            flavour: flavour.into(),
            fragments: Vec::new(),
            image: None,
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// The same with another flavour.
    pub fn with_flavour(&self, flavour: &str) -> Builder {
        Builder { flavour: flavour.to_string(), ..self.clone() }
    }

    /// Finds or builds the kernel for one architecture.
    ///
    /// # Errors
    /// The source is missing or damaged. An [`ErrorKind::KernelBuild`] if a symbol of the
    /// configuration was lost or the source does not compile.
    pub fn build(&self, arch: Arch) -> Result<Kernel> {
        if let Some(path) = &self.image {
            return self.built_elsewhere(path, arch);
        }
        let source = Source::find(self)?;
        let compiler = compiler()?;
        let config = config::resolve(self, &source, arch, &compiler)?;
        let entry = self.cache.entry("kernel", key(&source, &config, &compiler), |dir| {
            let tree = source.unpack(&self.cache)?;
            let objects = self.compile(&tree, arch, &config, dir)?;
            let build = dir.join("build");
            let release = fs::read_to_string(build.join("include/config/kernel.release"))?;
            let kernel = Kernel {
                version: release.trim().to_string(),
                arch,
                flavour: String::new(),
                source_sha256: source.sha256.clone(),
                config_sha256: cache::sha256(&config),
                image_sha256: self.cache.file_sha256(&build.join("vmlinux"))?,
                compiler: compiler.clone(),
                objects,
                dir: PathBuf::new(),
                from_cache: false,
            };
            cache::write(&dir.join(MANIFEST), serde_json::to_string_pretty(&kernel)?)
        })?;
        self.read_manifest(entry)
    }

    /// The kernel in an image of the user's.
    fn built_elsewhere(&self, path: &Path, arch: Arch) -> Result<Kernel> {
        let kernel = image::describe(&self.cache, path)?;
        if kernel.arch != arch {
            return Err(Error::usage(format!(
                "{}: a kernel for {}, not for {arch}: choose another --abi",
                path.display(),
                kernel.arch
            )));
        }
        Ok(Kernel { flavour: self.flavour.clone(), ..kernel })
    }

    /// The folder with the source, unpacked if it must be.
    ///
    /// # Errors
    /// See [`Source::find`] and [`Source::unpack`].
    pub fn source_tree(&self) -> Result<PathBuf> {
        Source::find(self)?.unpack(&self.cache)
    }

    /// The kernel for one architecture if it is built already; compiles and
    /// configures nothing.
    ///
    /// # Errors
    /// The source is missing, or the entry in the cache is damaged.
    pub fn built(&self, arch: Arch) -> Result<Option<Kernel>> {
        if let Some(path) = &self.image {
            return self.built_elsewhere(path, arch).map(Some);
        }
        let source = Source::find(self)?;
        let compiler = compiler()?;
        let Some(config) = config::resolved(self, &source, arch, &compiler)? else {
            return Ok(None);
        };
        let found = self.cache.find("kernel", key(&source, &config, &compiler));
        found.map(|entry| self.read_manifest(entry)).transpose()
    }

    fn read_manifest(&self, entry: Entry) -> Result<Kernel> {
        let manifest = entry.dir.join(MANIFEST);
        let kernel: Kernel =
            serde_json::from_slice(&cache::read(&manifest)?).with_context(|| {
                format!("{} is damaged: remove {}", manifest.display(), entry.dir.display())
            })?;
        let (dir, from_cache) = (entry.dir, entry.from_cache);
        Ok(Kernel { flavour: self.flavour.clone(), dir, from_cache, ..kernel })
    }

    /// Compiles image and module support; gives back the number of objects.
    fn compile(&self, tree: &Path, arch: Arch, config: &str, dir: &Path) -> Result<u32> {
        let build = dir.join("build");
        fs::create_dir_all(&build)?;
        cache::write(&build.join(".config"), config)?;
        let log = dir.join("build.log");
        let about = self.known.objects.get(arch.name()).copied().unwrap_or(700);
        let what = format!("kernel {} {arch}", self.known.version);
        ui::status(&format!(
            "{what}: compiling about {about} objects with {} jobs; log in {}",
            self.jobs,
            log.display()
        ));

        let start = Instant::now();
        let mut progress = ui::Progress::new();
        let mut objects = 0;
        let compiled = run_logged(
            make(tree, &build, arch, self.jobs, &["vmlinux", "modules"]),
            &what,
            &log,
            BUILD_LIMIT,
            |line| {
                if is_object(line) {
                    objects += 1;
                }
                let seconds = start.elapsed().as_secs();
                progress
                    .update(|| format!("{what}: {objects} of about {about} objects, {seconds} s"));
            },
        );
        drop(progress);
        compiled.map_err(does_not_build)?;
        ui::status(&format!("{what}: {objects} objects in {} s", start.elapsed().as_secs()));
        remove_objects(&build)?;
        Ok(objects)
    }
}

/// Makes the error of a command that failed an [`ErrorKind::KernelBuild`]. A host that lacks
/// something is not the kernel's fault.
fn does_not_build(err: Error) -> Error {
    match err.kind() {
        ErrorKind::CommandFailed => err.with_kind(ErrorKind::KernelBuild),
        _ => err,
    }
}

/// Everything that makes one kernel differ from another.
fn key(source: &Source, config: &str, compiler: &str) -> Key {
    Key::new()
        .add("recipe", RECIPE)
        .add("source", &source.sha256)
        .add("config", config)
        .add("compiler", compiler)
        .add("environment", environment::kbuild_key())
}

/// A line of Kbuild's output that says an object for the kernel was compiled,
/// as against one for a tool that runs on the host.
fn is_object(line: &str) -> bool {
    let mut words = line.split_whitespace();
    matches!(words.next(), Some("CC" | "AS"))
        && words.next().is_some_and(|path| path.ends_with(".o"))
}

/// `make` for a kernel, out of the source's tree.
fn make(tree: &Path, build: &Path, arch: Arch, jobs: usize, targets: &[&str]) -> Command {
    let mut output = std::ffi::OsString::from("O=");
    output.push(build);
    let mut command = environment::make(tree);
    command.arg(output).arg(format!("ARCH={arch}")).arg(format!("-j{jobs}")).args(targets);
    command
}

/// The compiler's and the linker's own words: another one makes another kernel.
///
/// # Errors
/// One of them is not there, or says nothing.
pub fn compiler() -> Result<String> {
    let mut words = Vec::new();
    for program in ["gcc", "ld"] {
        let mut command = environment::command(program);
        command.arg("--version");
        let text = capture(command, Duration::from_secs(20))?;
        match text.lines().next() {
            Some(line) => words.push(line.to_string()),
            None => bail!("{program} --version says nothing"),
        }
    }
    Ok(words.join(", "))
}

/// Removes the kernel's own objects: modules are built against headers, scripts
/// and symbol tables.
fn remove_objects(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let kept = folder.ends_with("build")
            && ["scripts", "tools"].iter().any(|name| path.ends_with(name));
        if entry.file_type()?.is_dir() {
            if !kept {
                remove_objects(&path)?;
            }
        } else if path.extension().is_some_and(|kind| kind == "o" || kind == "a")
            // The linker script of modules is made of this.
            && path.file_name().is_some_and(|name| name != "module.lds")
        {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_objects_of_the_kernel_are_counted() {
        assert!(is_object("  CC      net/netlink/af_netlink.o"));
        assert!(is_object("  AS      arch/x86/entry/entry_64.o"));
        assert!(!is_object("  HOSTCC  scripts/kallsyms"));
        assert!(!is_object("  AR      net/built-in.a"));
        assert!(!is_object("  CC      kernel/bounds.s"));
    }

    /// The flavour is that of who asks, whatever the manifest has.
    #[test]
    fn a_kernel_has_the_flavour_that_it_was_asked_for_as() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path()).unwrap();
        let entry = cache
            .entry("kernel", Key::new(), |dir| {
                let manifest = r#"{"version": "6.1.0", "arch": "i386", "flavour": "other",
                    "source_sha256": "a", "config_sha256": "b", "image_sha256": "c",
                    "compiler": "gcc", "objects": 7}"#;
                cache::write(&dir.join(MANIFEST), manifest)
            })
            .unwrap();
        let builder = Builder::new(cache, known().unwrap().remove(0), "default");
        let kernel = builder.read_manifest(entry.clone()).unwrap();
        assert_eq!((kernel.flavour.as_str(), kernel.objects), ("default", 7));
        let kernel = builder.with_flavour("debug").read_manifest(entry).unwrap();
        assert_eq!(kernel.flavour, "debug");
    }

    #[test]
    fn a_flavour_without_a_bound_has_that_of_default() {
        assert_eq!(max_objects("default").unwrap(), max_objects("split-2g").unwrap());
    }

    #[test]
    fn the_known_kernels_can_be_read_and_an_unknown_one_is_named() {
        assert!(!known().unwrap().is_empty());
        let err = find("9.9").unwrap_err();
        assert!(err.to_string().contains("\"9.9\""), "{err}");
        assert_eq!(err.kind(), ErrorKind::Usage);
    }
}
