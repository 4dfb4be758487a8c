//! What a guest boots and sees, made from a recipe in `images/`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cpio::newc::{Builder as CpioBuilder, trailer};
use serde::Deserialize;

use crate::busybox;
use crate::cache::{self, Cache, Entry, Key};

/// The version of how images are made of recipes: part of every key.
const RECIPE: &str = "1";

/// A recipe: `images/NAME.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    initramfs: Initramfs,
    share: ShareContents,
    kernel: KernelLine,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Initramfs {
    files: BTreeMap<String, String>,
    links: BTreeMap<String, String>,
    modules: Vec<String>,
    mounts: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShareContents {
    files: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KernelLine {
    command_line: Vec<String>,
    tcg_command_line: Vec<String>,
}

/// Where the things are that a recipe names.
#[derive(Clone, Debug)]
pub struct Parts {
    /// PID 1, built for the kernel.
    pub init: PathBuf,
    /// Programs built for the ABI, by name.
    pub workloads: BTreeMap<String, PathBuf>,
    /// The shell and its tools, of the ABI's word size.
    pub busybox: PathBuf,
    /// The kernel module.
    pub module: PathBuf,
}

/// An image that was made.
#[derive(Clone, Debug)]
pub struct Image {
    entry: Entry,
    /// The recipe's words for the kernel.
    pub command_line: String,
    /// The recipe's further words for a kernel under TCG; `{tsc_khz}` stands
    /// for the rate of the time stamp counter.
    pub tcg_command_line: String,
}

impl Image {
    /// The archive that becomes the first file system.
    pub fn initramfs(&self) -> PathBuf {
        self.entry.dir.join("initramfs.cpio")
    }

    /// The folder of the share `guest`.
    pub fn share(&self) -> PathBuf {
        self.entry.dir.join("share")
    }

    /// Whether it was there before.
    pub fn from_cache(&self) -> bool {
        self.entry.from_cache
    }
}

impl Recipe {
    /// Reads `NAME.toml` in a folder of recipes.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn read(folder: &Path, name: &str) -> Result<Recipe> {
        let path = folder.join(name).with_extension("toml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    /// The same recipe with further lines in its mount table.
    pub fn with_mounts(mut self, lines: impl IntoIterator<Item = String>) -> Recipe {
        self.initramfs.mounts.extend(lines);
        self
    }

    /// Finds or makes the image of these parts.
    ///
    /// # Errors
    /// The recipe names something there is not, or a part cannot be read.
    pub fn make(&self, cache: &Cache, parts: &Parts) -> Result<Image> {
        let mut key = Key::new().add("recipe", RECIPE).add("contents", format!("{self:?}"));
        let mut hashes = BTreeMap::new();
        for source in self.initramfs.files.values().chain(self.share.files.values()) {
            let hash = cache.file_sha256(&parts.find(source)?)?;
            key = key.add(source, &hash);
            hashes.insert(source.as_str(), hash);
        }
        // Another run may build a part anew just now.
        let content = |source: &str| -> Result<Vec<u8>> {
            let path = parts.find(source)?;
            let content = cache::read(&path)?;
            if hashes.get(source) != Some(&cache::sha256(&content)) {
                bail!("{} changed while the image was made; run again", path.display());
            }
            Ok(content)
        };
        let entry = cache.entry("image", key, |dir| {
            cache::write(&dir.join("initramfs.cpio"), self.initramfs(content)?)?;
            self.fill_share(content, &dir.join("share"))
        })?;
        Ok(Image {
            entry,
            command_line: self.kernel.command_line.join(" "),
            tcg_command_line: self.kernel.tcg_command_line.join(" "),
        })
    }

    fn initramfs(&self, content: impl Fn(&str) -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        let mounts = self.initramfs.mounts.join("\n") + "\n";
        let modules = self.initramfs.modules.join("\n") + "\n";
        archive.file("/etc/fstab", 0o644, mounts.as_bytes())?;
        archive.file("/etc/modules", 0o644, modules.as_bytes())?;
        for (path, source) in &self.initramfs.files {
            archive.file(path, 0o755, &content(source)?)?;
        }
        for (path, target) in &self.initramfs.links {
            archive.add(path, LINK | 0o777, target.as_bytes())?;
        }
        archive.finish()
    }

    fn fill_share(&self, content: impl Fn(&str) -> Result<Vec<u8>>, share: &Path) -> Result<()> {
        for (path, source) in &self.share.files {
            let target = share.join(path);
            fs::create_dir_all(target.parent().unwrap_or(share))?;
            cache::write(&target, content(source)?)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
        }
        let busybox = share.join("bin/busybox");
        if busybox.is_file() {
            for command in busybox::commands(&busybox)? {
                let link = share.join("bin").join(command);
                if !link.exists() {
                    symlink("busybox", &link)?;
                }
            }
        }
        Ok(())
    }
}

impl Parts {
    fn find(&self, source: &str) -> Result<PathBuf> {
        let found = match source.split_once(':') {
            Some(("workload", name)) => self.workloads.get(name),
            None if source == "init" => Some(&self.init),
            None if source == "busybox" => Some(&self.busybox),
            None if source == "module" => Some(&self.module),
            _ => None,
        };
        match found {
            Some(path) => Ok(path.clone()),
            None => bail!("the image's recipe names \"{source}\", which is not built"),
        }
    }

    /// The names of the programs that a recipe may ask for as `workload:NAME`.
    pub const WORKLOADS: [&str; 8] =
        ["threads", "echo", "fault", "claims", "reload", "fuzz", "ports", "hunt"];
}

/// File types of a newc archive's mode (stat(2)).
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const REGULAR: u32 = 0o100_000;
const DEVICE: u32 = 0o020_000;

/// A newc archive in the making. The kernel makes no folder that is not named,
/// so every one is, before what is in it.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    folders: std::collections::BTreeSet<String>,
    inode: u32,
}

impl Archive {
    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.add(path, REGULAR | mode, content)
    }

    fn add(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let path = path.trim_start_matches('/');
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder)?;
        }
        self.entry(CpioBuilder::new(path).mode(mode).nlink(1), content)
    }

    fn folder(&mut self, path: &str) -> Result<()> {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent)?;
        }
        if self.folders.insert(path.to_string()) {
            self.entry(CpioBuilder::new(path).mode(FOLDER | 0o755).nlink(2), &[])?;
        }
        Ok(())
    }

    fn entry(&mut self, builder: CpioBuilder, content: &[u8]) -> Result<()> {
        self.inode += 1;
        let size = u32::try_from(content.len()).context("a file of the initramfs is too large")?;
        let mut writer = builder.ino(self.inode).write(&mut self.bytes, size);
        std::io::Write::write_all(&mut writer, content)?;
        writer.finish()?;
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        // The kernel opens this for PID 1 before anything is mounted.
        self.folder("dev")?;
        let console = CpioBuilder::new("dev/console").mode(DEVICE | 0o600).nlink(1);
        self.entry(console.rdev_major(5).rdev_minor(1), &[])?;
        trailer(&mut self.bytes)?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::project::Project;

    #[test]
    fn every_folder_comes_before_what_is_in_it() {
        let mut archive = Archive::default();
        archive.file("/etc/a/b", 0o644, b"content").unwrap();
        archive.file("/init", 0o755, b"program").unwrap();
        let bytes = archive.finish().unwrap();
        let mut rest = &bytes[..];
        let mut names = Vec::new();
        loop {
            let mut reader = cpio::newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            names.push(reader.entry().name().to_string());
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            rest = reader.finish().unwrap();
        }
        assert_eq!(names, ["etc", "etc/a", "etc/a/b", "init", "dev", "dev/console"]);
    }

    #[test]
    fn the_projects_recipe_can_be_read_and_an_unknown_part_is_named() {
        let project = Project::find().unwrap();
        let recipe = Recipe::read(&project.images(), "guest").unwrap();
        assert!(recipe.initramfs.files.contains_key("/init"));
        let parts = Parts {
            init: "/init".into(),
            workloads: BTreeMap::new(),
            busybox: "/busybox".into(),
            module: "/module".into(),
        };
        let err = parts.find("workload:nothing").unwrap_err();
        assert!(err.to_string().contains("workload:nothing"), "{err}");
    }
}
