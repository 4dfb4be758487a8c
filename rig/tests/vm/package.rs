//! Tests of the published crates: packaged, unpacked elsewhere, and used with the
//! checkout hidden. And a test of the example in the library's documentation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};

use crate::common::{can_mount, mounted};
use crate::exec::{Outcome, check};

/// The published crates; each includes its data.
const CRATES: [&str; 8] = [
    "nlrig-host",
    "nlrig-build",
    "nlrig-init",
    "nlrig-splat",
    "nlrig-vm",
    "nlrig-netlink",
    "nlrig-guest",
    "nlrig",
];

pub fn tests() -> Vec<Trial> {
    vec![
        Trial::test("library/example", example),
        // Ignored: compiles the library and the rig again.
        Trial::test("library/packaged", packaged).with_ignored_flag(true),
    ]
}

/// Runs the example in the documentation of `nlrig-vm`, which cargo builds with the
/// tests.
fn example() -> Outcome {
    let tests = std::env::current_exe()?;
    let profile = tests.parent().and_then(Path::parent).ok_or("a target folder")?;
    let output = Command::new(profile.join("examples/uname")).stdin(Stdio::null()).output()?;
    check("it succeeds", output.status.success(), &output)?;
    check("it prints the answer", output.stdout == b"the guest is i686\n", &output)
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.stdin(Stdio::null()).env_remove("CARGO_TARGET_DIR").env_remove("NLRIG_CHECKOUT");
    command
}

/// Packages the crates into a folder and unpacks them there.
fn unpack(into: &Path) -> Result<Vec<(&'static str, PathBuf)>, Failed> {
    let mut package = cargo();
    package.args(["package", "--no-verify", "--allow-dirty", "--quiet", "--target-dir"]);
    package.arg(into.join("target"));
    for name in CRATES {
        package.args(["-p", name]);
    }
    let output = package.current_dir(env!("CARGO_MANIFEST_DIR")).output()?;
    check("the crates are packaged", output.status.success(), &output)?;
    let version = env!("CARGO_PKG_VERSION");
    let mut folders = Vec::new();
    for name in CRATES {
        let archive = into.join(format!("target/package/{name}-{version}.crate"));
        let output = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(into).output()?;
        check("a crate is unpacked", output.status.success(), &output)?;
        folders.push((name, into.join(format!("{name}-{version}"))));
    }
    Ok(folders)
}

/// A foreign crate runs the example, and the packaged rig runs an experiment, without
/// the checkout.
fn packaged() -> Outcome {
    if !can_mount() {
        return Err("cannot hide the checkout: this host does not permit mounts".into());
    }
    let dir = tempfile::tempdir()?;
    let folders = unpack(dir.path())?;
    let patches: String = folders
        .iter()
        .map(|(name, folder)| format!("{name} = {{ path = \"{}\" }}\n", folder.display()))
        .collect();
    let foreign = dir.path().join("foreign");
    fs::create_dir_all(foreign.join("src"))?;
    fs::write(
        foreign.join("Cargo.toml"),
        format!(
            "[package]\nname = \"foreign\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\
             [dependencies]\nnlrig-vm = \"0.1\"\nnlrig = \"0.1\"\n\
             [patch.crates-io]\n{patches}[workspace]\n"
        ),
    )?;
    fs::write(foreign.join("src/main.rs"), include_str!("../../vm/examples/uname.rs"))?;
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the checkout")?;
    let hide = format!("mount -t tmpfs none '{}'", checkout.display());

    let mut run = cargo();
    run.args(["run", "--quiet", "--manifest-path"]).arg(foreign.join("Cargo.toml"));
    let output = mounted(&hide, &run).current_dir(&foreign).output()?;
    check("a foreign crate boots a guest", output.status.success(), &output)?;
    check("it gets the answer", output.stdout == b"the guest is i686\n", &output)?;

    let mut install = cargo();
    install.args(["build", "--quiet", "-p", "nlrig", "--bin", "nlrig"]);
    let output = install.current_dir(&foreign).output()?;
    check("the packaged rig builds", output.status.success(), &output)?;
    let rig = foreign.join("target/debug/nlrig");
    let mut smoke = Command::new(rig);
    smoke.args(["run", "smoke", "--abi", "x86_64"]).env_remove("NLRIG_CHECKOUT");
    let output = mounted(&hide, &smoke).current_dir(dir.path()).output()?;
    check("it runs without the checkout", output.status.success(), &output)?;
    check(
        "results are in the current directory",
        dir.path().join(".nlrig/latest").exists(),
        &output,
    )
}
