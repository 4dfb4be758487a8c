//! The rig's own checkout, if it runs from one: where results go, and which
//! revision it is. Nothing is built from it.

use std::path::{Path, PathBuf};

/// A checkout of the project.
#[derive(Clone, Debug)]
pub struct Project {
    root: PathBuf,
}

impl Project {
    /// The checkout that this process was started from: `cargo xtask` names it,
    /// and so does cargo for tests.
    pub fn find() -> Option<Project> {
        let named = std::env::var_os("NLRIG_CHECKOUT").map(PathBuf::from);
        let of_cargo = std::env::var_os("CARGO_MANIFEST_DIR")
            .and_then(|folder| Some(Path::new(&folder).parent()?.to_path_buf()));
        let is_ours = |root: &PathBuf| root.join("kernel-config/base.config").is_file();
        named.into_iter().chain(of_cargo).find(is_ours).map(|root| Project { root })
    }

    /// The top of the checkout.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The newest commit, with `+` if files were changed since; none outside of
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

/// The revision of this rig: its commit, or its version if it was installed.
pub fn revision() -> String {
    let commit = Project::find().and_then(|project| project.commit());
    commit.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_string())
}

/// Where runs put their results unless told otherwise: `target/rig` of the
/// checkout, or of the cargo package in the current directory; else `.nlrig` in
/// that directory.
pub fn results() -> PathBuf {
    match Project::find() {
        Some(project) => project.root.join("target/rig"),
        None if Path::new("Cargo.toml").is_file() => "target/rig".into(),
        None => ".nlrig".into(),
    }
}
