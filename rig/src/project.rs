//! The rig's own checkout, if the rig runs from one: the folder for results and the
//! revision. Nothing is built from it.

use std::path::{Path, PathBuf};

/// A checkout of the project.
#[derive(Clone, Debug)]
pub struct Project {
    root: PathBuf,
}

impl Project {
    /// Finds the checkout from the environment, which `cargo xtask` sets, and cargo
    /// for tests.
    pub fn find() -> Option<Project> {
        let named = std::env::var_os("NLRIG_CHECKOUT").map(PathBuf::from);
        let of_cargo = std::env::var_os("CARGO_MANIFEST_DIR")
            .and_then(|folder| Some(Path::new(&folder).parent()?.to_path_buf()));
        let is_ours = |root: &PathBuf| root.join("kernel-config/base.config").is_file();
        named.into_iter().chain(of_cargo).find(is_ours).map(|root| Project { root })
    }

    /// Returns the top folder of the checkout.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the commit id, with `+` if the work tree has changes; `None` without
    /// git.
    fn commit(&self) -> Option<String> {
        let git = |arguments: &[&str]| {
            let mut command = std::process::Command::new("git");
            command.arg("-C").arg(&self.root).args(arguments);
            crate::process::capture(command, std::time::Duration::from_secs(10)).ok()
        };
        let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
        let changed = git(&["status", "--porcelain"]).is_none_or(|text| !text.is_empty());
        Some(format!("{}{}", commit.trim(), if changed { "+" } else { "" }))
    }
}

/// Returns the revision of the rig: the commit, or the version if it is installed.
pub fn revision() -> String {
    let commit = Project::find().and_then(|project| project.commit());
    commit.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_string())
}

/// Returns the default folder for results: `target/rig` of the checkout or of the
/// cargo package in the current directory, else `.nlrig` in that directory.
pub fn results() -> PathBuf {
    match Project::find() {
        Some(project) => project.root.join("target/rig"),
        None if Path::new("Cargo.toml").is_file() => "target/rig".into(),
        None => ".nlrig".into(),
    }
}
