//! Kernel source: the distribution's tarball, or one that the user names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nlrig_host::{Context, Result, bail, ui};
use xshell::{Shell, cmd};

use super::Builder;
use nlrig_host::cache::{Cache, Key};
use nlrig_host::process::{capture, run_logged};

/// Unpacking takes ten seconds on an idle disk.
const UNPACK_LIMIT: Duration = Duration::from_secs(15 * 60);

/// A source that was found and identified, but maybe not unpacked.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    is_folder: bool,
    /// The hash of the tarball, or of the names and contents of all files.
    pub sha256: String,
}

impl Source {
    /// Finds the source that the builder names.
    ///
    /// # Errors
    /// It is missing, or its hash is not the one that was given.
    pub fn find(builder: &Builder) -> Result<Source> {
        let path = match &builder.source {
            Some(path) => path.clone(),
            None if builder.known.source.is_file() => builder.known.source.clone(),
            None => bail!(
                "the source of kernel {} is missing: no {}; install {} (`cargo xtask rig --yes` does) or name one with --kernel-source",
                builder.known.version,
                builder.known.source.display(),
                builder.known.package
            ),
        };
        let meta = fs::metadata(&path)
            .with_context(|| format!("cannot read the kernel source {}", path.display()))?;
        let sha256 =
            if meta.is_dir() { hash_folder(&path)? } else { builder.cache.file_sha256(&path)? };
        if let Some(wanted) = &builder.source_sha256
            && !wanted.eq_ignore_ascii_case(&sha256)
        {
            bail!("{} has the SHA-256 {sha256}, not {wanted}", path.display());
        }
        Ok(Source { path, is_folder: meta.is_dir(), sha256 })
    }

    /// The folder with the source in the cache, unpacked if it must be. Builds
    /// only read it.
    ///
    /// # Errors
    /// The tarball is damaged, or is not that of a kernel.
    pub fn unpack(&self, cache: &Cache) -> Result<PathBuf> {
        let entry = cache.entry("source", Key::new().add("sha256", &self.sha256), |dir| {
            ui::status(&format!("kernel source: unpacking {}", self.path.display()));
            let tree = dir.join("linux");
            fs::create_dir_all(&tree)?;
            let sh = Shell::new()?;
            let path = &self.path;
            let command: Command = if self.is_folder {
                cmd!(sh, "cp -a {path}/. {tree}/").into()
            } else {
                cmd!(sh, "tar -x -f {path} -C {tree} --strip-components=1 --no-same-owner").into()
            };
            let what = format!("unpacking {}", path.display());
            run_logged(command, &what, &dir.join("unpack.log"), UNPACK_LIMIT, |_| {})?;
            if !tree.join("Kbuild").is_file() || !tree.join("net/netlink/af_netlink.c").is_file() {
                bail!("{} does not hold the source of a Linux kernel", path.display());
            }
            if tree.join(".config").exists() || tree.join("include/config").exists() {
                bail!("{} was built in: run `make mrproper` there first", path.display());
            }
            Ok(())
        })?;
        Ok(entry.dir.join("linux"))
    }
}

/// The hash of a folder's files. Git knows it of a clean checkout; otherwise
/// every file is read.
fn hash_folder(path: &Path) -> Result<String> {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(path).args(arguments);
        capture(command, Duration::from_secs(60)).ok()
    };
    if path.join(".git").exists()
        && let (Some(tree), Some(status)) =
            (git(&["rev-parse", "HEAD^{tree}"]), git(&["status", "--porcelain"]))
        && status.is_empty()
    {
        return Ok(Key::new().add("git tree", tree.trim()).finish());
    }
    Ok(Key::new().add_tree("linux", path)?.finish())
}
