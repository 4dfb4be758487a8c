//! Finds and installs missing host packages.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Result, agreed, failed, run, say};

/// The content of `ci/host-packages.txt`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct List {
    /// The packages that every run needs.
    pub needed: Vec<String>,
    /// The packages needed if rustup cannot install the 32-bit target.
    pub fallback: Vec<String>,
}

impl List {
    /// Reads and parses the file.
    pub fn read(path: &Path) -> Result<List> {
        let text = fs::read_to_string(path)
            .map_err(|err| failed(&format!("read {}", path.display()), err))?;
        Ok(List::parse(&text))
    }

    fn parse(text: &str) -> List {
        let mut list = List::default();
        let mut fallback = false;
        for line in text.lines().map(str::trim) {
            match line {
                "" => {}
                _ if line.starts_with('#') => {}
                "[fallback]" => fallback = true,
                name if fallback => list.fallback.push(name.to_string()),
                name => list.needed.push(name.to_string()),
            }
        }
        list
    }
}

/// Installs the packages that are missing, if `yes` or if the user agrees.
///
/// On hosts without dpkg it does nothing; `doctor` reports missing programs.
pub fn ensure(packages: &[String], yes: bool) -> Result<()> {
    let Some(missing) = missing(packages) else {
        say("no dpkg-query: install the programs that `cargo xtask rig doctor` reports as missing");
        return Ok(());
    };
    if missing.is_empty() {
        return Ok(());
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
    let sudo: &[&str] = if root { &[] } else { &["sudo"] };
    let install = [sudo, &["apt-get", "install", "--yes", "--no-install-recommends"]].concat();
    let update = [sudo, &["apt-get", "update"]].concat();
    let shown = format!("{} && {} {}", update.join(" "), install.join(" "), missing.join(" "));
    if !yes && !agreed(&format!("install {} with apt-get?", missing.join(", "))) {
        return Err(format!(
            "missing host packages: {}; run `{shown}`, or repeat the command with --yes",
            missing.join(", ")
        ));
    }
    say(&format!("installing {}", missing.join(", ")));
    // Go on if one of the package lists cannot be updated: the installation fails
    // if it needs that list.
    let _ = run(&mut command(&update), "apt-get update");
    run(command(&install).args(&missing), "installing packages")
        .map_err(|err| format!("{err}; as root, run `{}`", shown.replace("sudo ", "")))
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    // Standard output is for the results of the rig.
    command.args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
    command
}

/// The packages that are not installed; `None` if the host has no dpkg.
fn missing(packages: &[String]) -> Option<Vec<String>> {
    let out = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\\n"])
        .args(packages)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let installed = String::from_utf8_lossy(&out.stdout);
    Some(not_installed(packages, &installed))
}

fn not_installed(packages: &[String], installed: &str) -> Vec<String> {
    let is = |name: &str| installed.lines().any(|line| line == format!("{name} installed"));
    packages.iter().filter(|name| !is(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_needed_and_fallback_packages() {
        let list = List::parse("# Why.\ngcc\n\n make \n[fallback]\nrustc-web\n");
        assert_eq!(list.needed, ["gcc", "make"]);
        assert_eq!(list.fallback, ["rustc-web"]);
    }

    #[test]
    fn a_removed_package_is_missing() {
        let packages = ["gcc", "make", "flex"].map(str::to_string);
        let installed = "gcc installed\nmake config-files\n";
        assert_eq!(not_installed(&packages, installed), ["make", "flex"]);
    }
}
