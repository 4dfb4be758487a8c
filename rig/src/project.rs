//! Where the rig's own files are, and where results go.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// A checkout of the project: the rig builds kernels, module and guest programs
/// from it.
#[derive(Clone, Debug)]
pub struct Project {
    root: PathBuf,
}

impl Project {
    /// The checkout that this program was built from.
    ///
    /// # Errors
    /// It is no longer there.
    pub fn find() -> Result<Project> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
        if !root.join("kernel-config/base.config").is_file() {
            bail!(
                "the checkout that this nlrig was built from is gone: no {}; build it again there",
                root.join("kernel-config").display()
            );
        }
        Ok(Project { root: root.to_path_buf() })
    }

    /// The top of the checkout.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What is built and reported goes below this folder.
    pub fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// Fragments of kernel configuration.
    pub fn kernel_config(&self) -> PathBuf {
        self.root.join("kernel-config")
    }

    /// The kernel module's source.
    pub fn module(&self) -> PathBuf {
        self.root.join("module")
    }

    /// The C program that a workload is held against.
    pub fn yardstick(&self) -> PathBuf {
        self.root.join("userspace/yardstick/threads.c")
    }

    /// Recipes of what a guest boots.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// The newest commit, with `+` if files were changed since; `unknown`
    /// outside of git.
    pub fn revision(&self) -> String {
        let git = |arguments: &[&str]| {
            let mut command = std::process::Command::new("git");
            command.arg("-C").arg(&self.root).args(arguments);
            crate::process::capture(command, std::time::Duration::from_secs(10)).ok()
        };
        let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
            return "unknown".to_string();
        };
        let changed = git(&["status", "--porcelain"]).is_none_or(|text| !text.is_empty());
        format!("{}{}", commit.trim(), if changed { "+" } else { "" })
    }
}
