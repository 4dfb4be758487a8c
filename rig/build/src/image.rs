//! What a guest boots and sees, made from a recipe in `images/`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use cpio::newc::{Builder as CpioBuilder, trailer};
use nlrig_host::{Context, Result, bail};
use serde::Deserialize;

use crate::busybox;
use crate::sources::data;
use nlrig_host::cache::{self, Cache, Entry, Key};

/// The version of how images are made of recipes: part of every key.
const RECIPE: &str = "2";

/// A recipe: `images/NAME.toml`.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The recipe as it is written: part of the image's key.
    text: String,
    contents: Contents,
    /// Further lines of the mount table.
    mounts: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    initramfs: Initramfs,
    share: ShareContents,
    kernel: KernelLine,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Initramfs {
    files: BTreeMap<String, String>,
    links: BTreeMap<String, String>,
    modules: String,
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

/// The files that an image is made of.
#[derive(Clone, Debug)]
pub struct ImageParts {
    /// PID 1, built for the kernel.
    pub init: PathBuf,
    /// The shell and its tools, of the ABI's word size.
    pub busybox: PathBuf,
    /// Programs built for the ABI: the name below `workloads/`, and the file.
    pub workloads: Vec<(String, PathBuf)>,
    /// Modules, in the order in which they are loaded: the name without `.ko`,
    /// the file, and the parameters.
    pub modules: Vec<(String, PathBuf, String)>,
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
    /// The recipe `NAME.toml` that the crate carries.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn read(name: &str) -> Result<Recipe> {
        let path = format!("images/{name}.toml");
        let text = data(&path)?.to_string();
        let contents = toml::from_str(&text).with_context(|| path)?;
        Ok(Recipe { text, contents, mounts: Vec::new() })
    }

    /// The same recipe with further lines in its mount table.
    pub fn with_mounts(mut self, lines: impl IntoIterator<Item = String>) -> Recipe {
        self.mounts.extend(lines);
        self
    }

    /// Finds or makes the image of these parts.
    ///
    /// # Errors
    /// The recipe names something that is not among the parts, or a part cannot
    /// be read.
    pub fn make(&self, cache: &Cache, parts: &ImageParts) -> Result<Image> {
        let files = self.share_files(parts)?;
        let modules = self.module_lines(parts);
        let mut key = Key::new()
            .add("recipe", RECIPE)
            .add("contents", &self.text)
            .add("mounts", self.mounts.join("\n"))
            .add("modules", &modules);
        let mut hashes = BTreeMap::new();
        let boot_files = self.contents.initramfs.files.iter();
        let boot_files: Vec<(&str, &Path)> = boot_files
            .map(|(path, source)| Ok((path.as_str(), parts.find(source)?)))
            .collect::<Result<_>>()?;
        let shared = files.iter().map(|(path, file)| (path.as_str(), file.as_path()));
        for (name, file) in boot_files.iter().copied().chain(shared) {
            let hash = cache.file_sha256(file)?;
            key = key.add(name, &hash);
            hashes.insert(file.to_path_buf(), hash);
        }
        // Another run may build a part anew just now.
        let content = |path: &Path| -> Result<Vec<u8>> {
            let content = cache::read(path)?;
            if hashes.get(path) != Some(&cache::sha256(&content)) {
                bail!("{} changed while the image was made; run again", path.display());
            }
            Ok(content)
        };
        let entry = cache.entry("image", key, |dir| {
            let archive = self.initramfs(&boot_files, &modules, content)?;
            cache::write(&dir.join("initramfs.cpio"), archive)?;
            fill_share(&files, content, &dir.join("share"))
        })?;
        Ok(Image {
            entry,
            command_line: self.contents.kernel.command_line.join(" "),
            tcg_command_line: self.contents.kernel.tcg_command_line.join(" "),
        })
    }

    /// The files of the share by their paths in it.
    fn share_files(&self, parts: &ImageParts) -> Result<Vec<(String, PathBuf)>> {
        let mut files = Vec::new();
        for (path, source) in &self.contents.share.files {
            files.push((path.clone(), parts.find(source)?.to_path_buf()));
        }
        files.extend(
            parts.workloads.iter().map(|(name, file)| (format!("workloads/{name}"), file.clone())),
        );
        files.extend(
            parts
                .modules
                .iter()
                .map(|(name, file, _)| (format!("modules/{name}.ko"), file.clone())),
        );
        Ok(files)
    }

    /// What PID 1 loads: a path and its parameters a line.
    fn module_lines(&self, parts: &ImageParts) -> String {
        let folder = &self.contents.initramfs.modules;
        let line = |(name, _, parameters): &(String, PathBuf, String)| {
            let line = format!("{folder}/{name}.ko {parameters}");
            line.trim_end().to_string() + "\n"
        };
        parts.modules.iter().map(line).collect()
    }

    fn initramfs(
        &self,
        files: &[(&str, &Path)],
        modules: &str,
        content: impl Fn(&Path) -> Result<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        let mounts = self.contents.initramfs.mounts.iter().chain(&self.mounts);
        let mounts: String = mounts.map(|line| format!("{line}\n")).collect();
        archive.file("/etc/fstab", 0o644, mounts.as_bytes())?;
        archive.file("/etc/modules", 0o644, modules.as_bytes())?;
        for (path, file) in files {
            archive.file(path, 0o755, &content(file)?)?;
        }
        for (path, target) in &self.contents.initramfs.links {
            archive.add(path, LINK | 0o777, target.as_bytes())?;
        }
        archive.finish()
    }
}

fn fill_share(
    files: &[(String, PathBuf)],
    content: impl Fn(&Path) -> Result<Vec<u8>>,
    share: &Path,
) -> Result<()> {
    for (path, file) in files {
        let target = share.join(path);
        fs::create_dir_all(target.parent().unwrap_or(share))?;
        cache::write(&target, content(file)?)?;
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

impl ImageParts {
    fn find(&self, source: &str) -> Result<&Path> {
        match source {
            "init" => Ok(&self.init),
            "busybox" => Ok(&self.busybox),
            _ => bail!("the image's recipe names \"{source}\", which is not built"),
        }
    }
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
        let size = u32::try_from(content.len()).ok();
        let size = size.context("a file of the initramfs is too large")?;
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
    fn the_recipe_can_be_read_and_an_unknown_part_is_named() {
        let recipe = Recipe::read("guest").unwrap();
        assert!(recipe.contents.initramfs.files.contains_key("/init"));
        let parts = ImageParts {
            init: "/init".into(),
            busybox: "/busybox".into(),
            workloads: Vec::new(),
            modules: vec![("x".to_string(), "/x.ko".into(), "debug=1".to_string())],
        };
        let err = parts.find("nothing").unwrap_err();
        assert!(err.to_string().contains("nothing"), "{err}");
        assert_eq!(recipe.module_lines(&parts), "/run/nlrig/guest/modules/x.ko debug=1\n");
    }
}
