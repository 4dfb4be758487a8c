//! Kernel modules: built out of tree against one kernel, or built before by
//! somebody else and checked against it.

pub mod info;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nlrig_host::{Context, Error, ErrorKind, Result, bail, ui};

use crate::environment;
use crate::kernel::Kernel;
use crate::sources::Tree;
use info::ModuleInfo;
use nlrig_host::cache::{self, Cache, Entry, Key};
use nlrig_host::process::run_logged;

/// A few files; a busy machine may take long all the same.
const BUILD_LIMIT: Duration = Duration::from_secs(10 * 60);
/// The version of how modules are built: part of every key.
const RECIPE: &str = "3";
/// How many warnings of a build are shown.
const WARNINGS_SHOWN: usize = 20;

/// The modules of an entry of the cache, in the order in which they are loaded.
const ORDER_FILE: &str = "modules";
/// The warnings of an entry's build.
const WARNINGS_FILE: &str = "warnings";
/// What the modules of a build export, for builds that use it.
const SYMVERS_FILE: &str = "Module.symvers";

/// A module that was built.
#[derive(Clone, Debug)]
pub struct Module {
    /// What the kernel calls it.
    pub name: String,
    /// The object to load.
    pub path: PathBuf,
    /// The parameters that it is loaded with, as insmod(8) takes them.
    pub parameters: String,
    /// Whether nothing had to be compiled.
    pub from_cache: bool,
}

/// Modules to build and to load.
#[derive(Clone, Debug)]
pub struct ModuleSource {
    /// What messages call it: the path that the user gave.
    pub label: String,
    /// Where they come from.
    pub origin: ModuleOrigin,
    /// Further words for make: `VAR=VALUE`.
    pub make: Vec<String>,
    /// Whether a warning of the compiler or of modpost fails the build. It is
    /// shown otherwise.
    pub warnings_are_errors: bool,
}

/// Where modules come from.
#[derive(Clone, Debug)]
pub enum ModuleOrigin {
    /// A folder with a `Kbuild`, or a `Makefile`, that sets `obj-m`.
    Sources(Tree),
    /// An object that was built before.
    Object(PathBuf),
}

/// A parameter that a module is loaded with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleParameter {
    /// The module's name.
    pub module: String,
    /// The parameter's name.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl ModuleSource {
    /// The modules of a folder with sources, or of an object FILE.ko.
    ///
    /// # Errors
    /// A usage error: no module is built there.
    pub fn at(path: &Path, make: &[String]) -> Result<ModuleSource> {
        let label = path.display().to_string();
        let origin = if path.is_dir() {
            let makefiles = ["Kbuild", "Makefile"].map(|name| path.join(name));
            if !makefiles.iter().any(|file| file.is_file()) {
                return Err(Error::usage(format!(
                    "--module {label}: no module is built there: neither Kbuild nor Makefile"
                )));
            }
            ModuleOrigin::Sources(Tree::Folder(path.to_path_buf()))
        } else if path.is_file() && path.extension().is_some_and(|kind| kind == "ko") {
            ModuleOrigin::Object(path.to_path_buf())
        } else {
            let what =
                if path.exists() { "neither a folder nor a .ko file" } else { "no such file" };
            return Err(Error::usage(format!("--module {label}: {what}")));
        };
        Ok(ModuleSource { label, origin, make: make.to_vec(), warnings_are_errors: false })
    }
}

/// Finds or builds these modules for a kernel. What one exports the next may use.
///
/// # Errors
/// A build failed, or a built object is not for this kernel: an error of the kind
/// [`ErrorKind::ModuleBuild`] with the compiler's first error. A usage error: two
/// modules have one name, or a parameter's module or name does not exist.
pub fn build(
    cache: &Cache,
    kernel: &Kernel,
    sources: &[ModuleSource],
    parameters: &[ModuleParameter],
    jobs: usize,
) -> Result<Vec<Module>> {
    let mut modules: Vec<Module> = Vec::new();
    let mut exported = Vec::new();
    for source in sources {
        let entry = match &source.origin {
            ModuleOrigin::Sources(tree) => compiled(cache, kernel, source, tree, &exported, jobs)?,
            ModuleOrigin::Object(path) => taken(cache, kernel, source, path)?,
        };
        show_warnings(source, &entry)?;
        let order = cache::read(&entry.dir.join(ORDER_FILE))?;
        for name in String::from_utf8_lossy(&order).lines() {
            if modules.iter().any(|module| module.name == name) {
                return Err(Error::usage(format!(
                    "--module {}: there is a module {name} already",
                    source.label
                )));
            }
            modules.push(Module {
                name: name.to_string(),
                path: entry.dir.join(format!("{name}.ko")),
                parameters: String::new(),
                from_cache: entry.from_cache,
            });
        }
        exported.extend(Some(entry.dir.join(SYMVERS_FILE)).filter(|file| file.is_file()));
    }
    for parameter in parameters {
        set(&mut modules, parameter)?;
    }
    Ok(modules)
}

/// The name that the kernel makes of a file's (KBUILD_MODNAME).
fn kernel_name(name: &str) -> String {
    name.replace('-', "_")
}

fn set(modules: &mut [Module], parameter: &ModuleParameter) -> Result<()> {
    let ModuleParameter { module: name, key, value } = parameter;
    let names: Vec<_> = modules.iter().map(|module| module.name.clone()).collect();
    let found = modules.iter_mut().find(|module| module.name == kernel_name(name));
    let Some(module) = found else {
        return Err(Error::usage(format!(
            "--module-param {name}.{key}: no module {name} is loaded; there is {}",
            if names.is_empty() { "none".to_string() } else { names.join(", ") }
        )));
    };
    let info = ModuleInfo::read(&module.path)?;
    if !info.has_parameter(key) {
        let known = info.parameters();
        return Err(Error::usage(format!(
            "--module-param {name}.{key}: {name} has no such parameter; it has {}",
            if known.is_empty() { "none".to_string() } else { known.join(", ") }
        )));
    }
    // The kernel takes the quotes off (next_arg() in lib/cmdline.c).
    let quoted =
        if value.contains(char::is_whitespace) { format!("\"{value}\"") } else { value.clone() };
    if !module.parameters.is_empty() {
        module.parameters.push(' ');
    }
    module.parameters.push_str(&format!("{key}={quoted}"));
    Ok(())
}

/// An object that was built before, as an entry of the cache.
fn taken(cache: &Cache, kernel: &Kernel, source: &ModuleSource, path: &Path) -> Result<Entry> {
    let of_source = || format!("--module {}", source.label);
    let info = ModuleInfo::read(path).with_context(of_source)?;
    info.check_vermagic(kernel).with_context(of_source)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = kernel_name(info.name().unwrap_or(&stem));
    let symvers = path.with_file_name(SYMVERS_FILE);
    let symvers = fs::read(symvers).ok();
    let key = Key::new()
        .add("recipe", RECIPE)
        .add("object", &name)
        .add("content", cache::read(path)?)
        .add("symvers", symvers.as_deref().unwrap_or_default());
    cache.entry("module", key, |dir| {
        fs::copy(path, dir.join(format!("{name}.ko")))
            .with_context(|| format!("cannot copy {}", path.display()))?;
        if let Some(symvers) = symvers {
            cache::write(&dir.join(SYMVERS_FILE), symvers)?;
        }
        cache::write(&dir.join(ORDER_FILE), &name)
    })
}

/// The modules of a folder, compiled if they must be.
fn compiled(
    cache: &Cache,
    kernel: &Kernel,
    source: &ModuleSource,
    tree: &Tree,
    exported: &[PathBuf],
    jobs: usize,
) -> Result<Entry> {
    if !kernel.builds_modules() {
        return Err(Error::usage(format!(
            "--module {}: modules cannot be built for a kernel of which only the image is known; give a .ko file that was built with it",
            source.label
        )));
    }
    let mut key = Key::new()
        .add("recipe", RECIPE)
        .add("kernel", &kernel.image_sha256)
        .add("config", &kernel.config_sha256)
        .add("environment", environment::kbuild_key())
        .add("make", source.make.join("\n"))
        .add("warnings are errors", [u8::from(source.warnings_are_errors)]);
    for file in exported {
        key = key.add("exported", cache::read(file)?);
    }
    let key = tree.add_to(key, "module")?;
    cache.entry("module", key, |dir| {
        let build = Build { kernel, source, exported, jobs, dir };
        build.run(tree).map_err(|err| err.with_kind(ErrorKind::ModuleBuild))
    })
}

/// One build of a folder of modules.
struct Build<'a> {
    kernel: &'a Kernel,
    source: &'a ModuleSource,
    exported: &'a [PathBuf],
    jobs: usize,
    /// The entry of the cache that is made.
    dir: &'a Path,
}

impl Build<'_> {
    fn run(&self, tree: &Tree) -> Result<()> {
        ui::status(&format!("{}: compiling", self.what()));
        // In the cache, because Kbuild refuses a path with blanks in M=.
        let build = self.dir.join("src");
        tree.write_to(&build)?;
        let warnings = self.make(&build)?;
        cache::write(&self.dir.join(WARNINGS_FILE), warnings.join("\n"))?;
        let names = self.keep_objects(&build)?;
        cache::write(&self.dir.join(ORDER_FILE), names.join("\n"))?;
        let symvers = build.join(SYMVERS_FILE);
        if symvers.is_file() {
            fs::rename(symvers, self.dir.join(SYMVERS_FILE))?;
        }
        fs::remove_dir_all(&build)?;
        Ok(())
    }

    fn what(&self) -> String {
        let Build { source, kernel, .. } = self;
        format!("module {} for {} {}", source.label, kernel.version, kernel.arch)
    }

    /// Runs make; returns the warnings.
    fn make(&self, build: &Path) -> Result<Vec<String>> {
        let mut folder = std::ffi::OsString::from("M=");
        folder.push(build);
        let exported: Vec<_> =
            self.exported.iter().map(|file| file.display().to_string()).collect();
        let mut command = environment::make(&self.kernel.build_dir());
        command
            .arg(format!("ARCH={}", self.kernel.arch))
            .arg(format!("-j{}", self.jobs))
            .arg(folder)
            .arg(format!("KBUILD_EXTRA_SYMBOLS={}", exported.join(" ")))
            .args(&self.source.make)
            .arg("modules")
            // As a shell sets it for a make that is started in the folder.
            .current_dir(build)
            .env("PWD", build);
        let log = self.dir.join("build.log");
        let in_cache = format!("{}/", build.display());
        let (mut first_error, mut warnings) = (None, Vec::new());
        let ended = run_logged(command, &self.what(), &log, BUILD_LIMIT, |line| {
            let line = line.replace(&in_cache, "");
            if first_error.is_none() && is_error(&line) {
                first_error = Some(line.clone());
            }
            if line.to_ascii_lowercase().contains("warning:") {
                warnings.push(line);
            }
        });
        let fatal = match &ended {
            Err(err) if err.is_interruption() => None,
            Err(_) => first_error,
            Ok(()) if self.source.warnings_are_errors => warnings.first().cloned(),
            Ok(()) => None,
        };
        if let Some(line) = fatal {
            bail!("{}: {line}; the whole log is {}", self.what(), log.display());
        }
        ended.map(|()| warnings)
    }

    /// Moves the objects into the entry; returns the names of the modules, those
    /// first that others depend on.
    fn keep_objects(&self, build: &Path) -> Result<Vec<String>> {
        let mut left: Vec<(String, Vec<String>)> = Vec::new();
        for object in objects(build)? {
            let info = ModuleInfo::read(&object)?;
            let stem = object.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let name = kernel_name(info.name().unwrap_or(&stem));
            let depends = info.depends().map(kernel_name).collect();
            fs::rename(&object, self.dir.join(format!("{name}.ko")))?;
            left.push((name, depends));
        }
        if left.is_empty() {
            bail!("{}: make built no .ko file: does obj-m name one?", self.what());
        }
        Ok(load_order(left))
    }
}

/// What a compiler, a linker or modpost calls an error.
fn is_error(line: &str) -> bool {
    [": error: ", ": fatal error: ", "ERROR: modpost: ", "undefined reference"]
        .iter()
        .any(|sign| line.contains(sign))
}

/// The objects of a build in the order of its `modules.order`.
fn objects(build: &Path) -> Result<Vec<PathBuf>> {
    let file = build.join("modules.order");
    let order =
        fs::read_to_string(&file).with_context(|| format!("make wrote no {}", file.display()))?;
    // Kernels before 6.2 list *.ko, later ones *.o; the paths are absolute or
    // relative to the folder.
    let objects = order.lines().map(|line| build.join(line).with_extension("ko"));
    Ok(objects.filter(|path| path.is_file()).collect())
}

/// Modules in an order in which each comes behind those of the others that it
/// depends on, and in the given order otherwise.
fn load_order(mut left: Vec<(String, Vec<String>)>) -> Vec<String> {
    let mut order = Vec::new();
    while !left.is_empty() {
        let names: BTreeSet<String> = left.iter().map(|(name, _)| name.clone()).collect();
        let is_free =
            |(_, depends): &(String, Vec<String>)| !depends.iter().any(|name| names.contains(name));
        // modpost refuses a circle; if there is one, the kernel will too.
        let next = left.iter().position(is_free).unwrap_or(0);
        order.push(left.remove(next).0);
    }
    order
}

/// Shows what the compiler warned of when the entry was built.
fn show_warnings(source: &ModuleSource, entry: &Entry) -> Result<()> {
    let file = entry.dir.join(WARNINGS_FILE);
    if !file.is_file() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&cache::read(&file)?).into_owned();
    let count = text.lines().count();
    for line in text.lines().take(WARNINGS_SHOWN) {
        ui::status(&format!("module {}: {line}", source.label));
    }
    if count > WARNINGS_SHOWN {
        let log = entry.dir.join("build.log");
        let more = count - WARNINGS_SHOWN;
        ui::status(&format!("module {}: {more} more warnings in {}", source.label, log.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_behind_those_it_depends_on() {
        let module = |name: &str, depends: &[&str]| {
            (name.to_string(), depends.iter().map(|name| (*name).to_string()).collect())
        };
        let order = load_order(vec![
            module("user", &["lib", "core"]),
            module("plain", &[]),
            module("lib", &["core"]),
            module("core", &["built_in"]),
        ]);
        assert_eq!(order, ["plain", "core", "lib", "user"]);
        let circle = load_order(vec![module("a", &["b"]), module("b", &["a"])]);
        assert_eq!(circle, ["a", "b"]);
    }

    #[test]
    fn what_is_not_a_module_is_a_usage_error() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |path: &Path| ModuleSource::at(path, &[]).unwrap_err();
        fs::write(dir.path().join("Makefile.bak"), "").unwrap();
        let nothing = refused(dir.path());
        assert_eq!(nothing.kind(), ErrorKind::Usage);
        assert!(nothing.to_string().contains("Makefile"), "{nothing}");
        assert!(refused(&dir.path().join("Makefile.bak")).to_string().contains(".ko"));
        assert!(refused(&dir.path().join("gone")).to_string().contains("no such file"));
        fs::write(dir.path().join("Makefile"), "obj-m := x.o\n").unwrap();
        assert!(ModuleSource::at(dir.path(), &[]).is_ok());
    }

    #[test]
    fn a_parameter_of_no_module_names_those_there_are() {
        let module = Module {
            name: "hello_nl".to_string(),
            path: PathBuf::new(),
            parameters: String::new(),
            from_cache: true,
        };
        let parameter = ModuleParameter {
            module: "hello".to_string(),
            key: "debug".to_string(),
            value: "1".to_string(),
        };
        let err = set(&mut [module], &parameter).unwrap_err();
        assert!(err.to_string().contains("there is hello_nl"), "{err}");
        assert!(set(&mut [], &parameter).unwrap_err().to_string().contains("none"));
    }
}
