//! `doctor`: checks whether this host can run the rig.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

use super::{kernels, prepare};
use crate::abi::{Abi, Arch};
use crate::accel::AccelMode;
use crate::kernel::source::Source;
use crate::options::DoctorOptions;
use crate::process::{capture, find};
use crate::scratch::Scratch;
use crate::{accel, error, qemu, report, share, toolchain, ui};

/// The programs that builds of kernels and modules need.
const TOOLS: [&str; 11] =
    ["gcc", "ld", "make", "bison", "flex", "bc", "tar", "xz", "apt-get", "dpkg-deb", "cargo"];
/// The least free disk space: kernel source, two kernels and the programs take about
/// 2.5 GiB.
const DISK_MIN_BYTES: u64 = 4 << 30;
/// The least memory: the largest default guest has 5 GiB and touches under 2.
const MEMORY_MIN_BYTES: u64 = 3 << 30;

/// A requirement of a run, and the finding.
#[derive(Debug, Serialize)]
struct Check {
    what: String,
    ok: bool,
    /// The version or size found, or the problem.
    finding: String,
}

/// Checks and prints the requirements of a run; the exit status is 0 only if all are
/// met.
///
/// # Errors
/// Usage errors only: a missing requirement is a finding.
pub fn doctor(options: &DoctorOptions) -> Result<u8> {
    let mut checks: Vec<Check> = TOOLS.iter().map(|tool| check(tool, version(tool))).collect();
    for arch in Arch::ALL {
        let found = qemu::find(arch);
        if let Ok(qemu) = &found {
            let layers = qemu.program.confinement().describe();
            checks.push(check(&format!("confinement of {}", qemu::program(arch)), fine(layers)));
        }
        checks.push(check(qemu::program(arch), found.map(|qemu| qemu.version)));
    }
    for arch in Arch::ALL {
        let choice = toolchain::choose(arch).map(|choice| choice.reason);
        checks.push(check(&format!("guest programs for {arch}"), choice));
    }
    let builder = kernels(&options.guest)?;
    let source = Source::find(&builder);
    checks.push(check("kernel source", source.map(|source| source.path.display().to_string())));
    checks.push(check("32-bit static programs", link_32_bit()));
    checks.push(check("share daemons", share::check().map(|layers| layers.describe())));
    checks.push(check("memory", memory()));
    checks.push(check("disk", disk(builder.cache.root())));
    for arch in Arch::ALL {
        checks.push(check(&format!("accelerator for {arch} guests"), accelerator(options, arch)));
    }

    let well = checks.iter().all(|check| check.ok);
    if options.json {
        let document = serde_json::json!({ "ok": well, "checks": checks });
        ui::result(&serde_json::to_string_pretty(&document)?)?;
    } else {
        for Check { what, ok, finding } in &checks {
            ui::result(&format!(
                "{} {what:<32} {finding}",
                if *ok { "ok     " } else { "MISSING" }
            ))?;
        }
        ui::result(if well { "A run would work." } else { "A run would not work." })?;
    }
    Ok(if well { error::OK } else { error::RIG })
}

fn check<E: Into<anyhow::Error>>(what: &str, found: Result<String, E>) -> Check {
    let (ok, finding) = match found {
        Ok(finding) => (true, finding),
        Err(err) => (false, format!("{:#}", err.into())),
    };
    Check { what: what.to_string(), ok, finding }
}

/// A finding that says nothing against a run.
fn fine(finding: String) -> Result<String> {
    Ok(finding)
}

fn version(tool: &str) -> Result<String> {
    let Some(path) = find(tool) else {
        bail!("not found; `cargo xtask rig --yes` installs missing packages");
    };
    let mut command = std::process::Command::new(&path);
    command.arg("--version");
    let text = capture(command, Duration::from_secs(20))?;
    Ok(text.lines().next().unwrap_or_default().to_string())
}

/// Links an empty 32-bit static program, like the guest programs.
fn link_32_bit() -> Result<String> {
    let dir = Scratch::new()?;
    let source = dir.path().join("empty.c");
    crate::cache::write(&source, "int main(void) { return 0; }\n")?;
    let mut command = std::process::Command::new("gcc");
    command.args(["-m32", "-static", "-o"]).arg(dir.path().join("empty")).arg(source);
    match capture(command, Duration::from_secs(60)) {
        Ok(_) => Ok("gcc -m32 -static works".to_string()),
        Err(err) => bail!("install gcc-multilib ({err:#})"),
    }
}

fn memory() -> Result<String> {
    let bytes = report::host().memory_bytes;
    if bytes < MEMORY_MIN_BYTES {
        bail!("{} MiB; the largest guest needs {}", bytes >> 20, MEMORY_MIN_BYTES >> 20);
    }
    Ok(format!("{} MiB", bytes >> 20))
}

fn disk(path: &std::path::Path) -> Result<String> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    let bytes = stat.blocks_available() as u64 * stat.fragment_size() as u64;
    if bytes < DISK_MIN_BYTES {
        bail!(
            "{} MiB free at {}; {} are needed",
            bytes >> 20,
            path.display(),
            DISK_MIN_BYTES >> 20
        );
    }
    Ok(format!("{} MiB free at {}", bytes >> 20, path.display()))
}

/// The verdict on KVM; this boots a kernel if one is built and none was tried.
fn accelerator(options: &DoctorOptions, arch: Arch) -> Result<String> {
    if let Some(trouble) = accel::device_trouble(std::path::Path::new("/dev/kvm")) {
        return match options.guest.accel {
            AccelMode::Kvm => bail!("KVM is asked for: {trouble}"),
            _ => Ok(format!("tcg: KVM does not work here: {trouble}")),
        };
    }
    let (mut workshop, lab) = prepare(&options.guest)?;
    if kernels(&options.guest)?.built(arch)?.is_none() {
        return Ok("not known yet: /dev/kvm opens, but only booting a kernel under it tells, and none is built".into());
    }
    let abi = Abi::ALL.into_iter().find(|abi| abi.kernel() == arch && abi.program() == arch);
    let built = workshop.build(abi.unwrap_or(Abi::X86_64), &[])?;
    let choice = lab.accel(&built)?;
    Ok(format!("{}: {}", choice.used.name(), choice.reason))
}
