//! The report: one document that everything else is rendered from.
//!
//! Its form is a contract, `nlrig.report/1`: keys are never renamed, only
//! added; a unit is the last part of a name.

pub mod markdown;
pub mod terminal;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::abi::Abi;
use crate::accel::AccelChoice;
use crate::confine::Confinement;
use crate::kernel::Kernel;
use crate::procfs::{self, MEMINFO};
use crate::project;

/// The name of this form of report.
pub const SCHEMA: &str = "nlrig.report/1";

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// RFC 3339.
    pub started_at: String,
    /// From start to end, builds included.
    pub duration_s: f64,
    /// From the start of the process to the start of the first QEMU whose guest
    /// came up, absent if none did. cargo, `cargo xtask` and
    /// the rig become one another, so their time is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_vm_s: Option<f64>,
    /// What it ran on.
    pub environment: Environment,
    /// In the order in which they were planned.
    pub trials: Vec<TrialReport>,
}

/// What a run ran on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Environment {
    /// The rig's own commit, with `+` if files were changed since.
    pub revision: String,
    /// The machine.
    pub host: Host,
    /// QEMU's version.
    pub qemu: String,
    /// What ran the guests, by architecture.
    pub accel: BTreeMap<String, ArchAccel>,
    /// What held QEMU (`qemu`) and the share daemons (`share`) back; reports of
    /// old have none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub confinement: BTreeMap<String, Confinement>,
    /// The kernels that were booted.
    pub kernels: Vec<Kernel>,
}

/// The accelerator of an architecture's guests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchAccel {
    /// That of the first kernel.
    #[serde(flatten)]
    pub choice: AccelChoice,
    /// That of each kernel, if they differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<KernelAccel>,
}

/// The accelerator of one kernel's guests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelAccel {
    /// The release it reports.
    pub version: String,
    /// Its flavour.
    pub flavour: String,
    /// The hash of the image that boots.
    pub image_sha256: String,
    /// Its accelerator.
    #[serde(flatten)]
    pub choice: AccelChoice,
}

impl Environment {
    /// Adds the accelerators of kernels that were tried. A kernel is listed by
    /// itself only where another one of its architecture got another accelerator.
    pub fn add_accels<'a>(&mut self, chosen: impl IntoIterator<Item = (&'a Kernel, AccelChoice)>) {
        let mut by_arch: BTreeMap<String, Vec<KernelAccel>> = BTreeMap::new();
        for (kernel, choice) in chosen {
            let kernels = by_arch.entry(kernel.arch.to_string()).or_default();
            if kernels.iter().all(|known| known.image_sha256 != kernel.image_sha256) {
                kernels.push(KernelAccel {
                    version: kernel.version.clone(),
                    flavour: kernel.flavour.clone(),
                    image_sha256: kernel.image_sha256.clone(),
                    choice,
                });
            }
        }
        for (arch, mut kernels) in by_arch {
            let Some(first) = kernels.first().map(|kernel| kernel.choice.clone()) else { continue };
            if kernels.iter().all(|kernel| kernel.choice.used == first.used) {
                kernels.clear();
            }
            self.accel.insert(arch, ArchAccel { choice: first, kernels });
        }
    }
}

/// The machine that the rig ran on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Host {
    /// The processor's name.
    pub cpu: String,
    /// Processors this process may use.
    pub cores: usize,
    /// Memory.
    pub memory_bytes: u64,
    /// The distribution's name.
    pub os: String,
}

/// One trial.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrialReport {
    /// The experiment it belongs to.
    pub experiment: String,
    /// Unique in the report.
    pub name: String,
    /// What kind of program ran.
    pub abi: Abi,
    /// The kernel's release.
    pub kernel: String,
    /// The kernel's flavour.
    pub flavour: String,
    /// What ran the guest: `kvm` or `tcg`.
    pub accel: String,
    /// The experiment's parameters.
    pub params: Map<String, Value>,
    /// What came of it.
    pub verdict: Verdict,
    /// Why; nothing for a pass.
    pub reason: Option<String>,
    /// How often it was tried: twice if QEMU or the host lost the first machine.
    pub attempts: u32,
    /// Whether it passed only at the second try.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flaky: bool,
    /// How the first machine was lost, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_loss: Option<String>,
    /// Where the fault is, unless it passed or was skipped; reports of old call it
    /// `blame`.
    #[serde(default, alias = "blame", skip_serializing_if = "Option::is_none")]
    pub fault_domain: Option<FaultDomain>,
    /// The machine it ran in; trials that name the same shared one boot.
    #[serde(default)]
    pub vm: String,
    /// What was measured.
    pub measured: Option<Map<String, Value>>,
    /// What was predicted, before.
    pub predicted: Option<Map<String, Value>>,
    /// What others have published.
    pub published: Vec<Published>,
    /// From the start of its machine, or of its program in one that was there, to
    /// the verdict; both tries, and no waiting for room on the host.
    pub duration_s: f64,
    /// The clock that the guest's times come from.
    pub clocksource: Option<String>,
    /// Where the kernel's source makes it so, as far as the experiment says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_lines: Vec<SourceLine>,
    /// Files of this trial, relative to the report.
    pub artifacts: BTreeMap<String, String>,
    /// The last lines of its console, unless all went well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub console_tail: Vec<String>,
}

impl TrialReport {
    /// A trial that passed in a guest of Linux 6.1 under TCG, without anything else
    /// to report: what tests change and complete.
    pub fn new(experiment: &str, name: impl Into<String>, abi: Abi) -> TrialReport {
        TrialReport {
            experiment: experiment.to_string(),
            name: name.into(),
            abi,
            kernel: "6.1.0".to_string(),
            flavour: "default".to_string(),
            accel: "tcg".to_string(),
            params: Map::new(),
            verdict: Verdict::Pass,
            reason: None,
            attempts: 1,
            flaky: false,
            first_loss: None,
            fault_domain: None,
            vm: String::new(),
            measured: None,
            predicted: None,
            published: Vec::new(),
            duration_s: 1.0,
            clocksource: None,
            source_lines: Vec::new(),
            artifacts: BTreeMap::new(),
            console_tail: Vec::new(),
        }
    }
}

/// A number that others have published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Who published it.
    pub source: String,
    /// How many threads they counted.
    pub threads: PublishedThreads,
    /// Their own wording, if it is not a plain number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_printed: Option<String>,
}

/// A published number of threads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PublishedThreads {
    /// The number for the trial's own stack size.
    Count(u64),
    /// A number for each stack size: `2M`.
    ByStack(BTreeMap<String, u64>),
}

impl Published {
    /// A number of threads from this source.
    pub fn count(source: &str, threads: u64) -> Published {
        let threads = PublishedThreads::Count(threads);
        Published { source: source.to_string(), threads, as_printed: None }
    }

    /// The same number with the source's own wording.
    pub fn as_printed(self, wording: &str) -> Published {
        Published { as_printed: Some(wording.to_string()), ..self }
    }
}

/// A line of the kernel's source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceLine {
    /// Below the source's folder.
    pub file: String,
    /// Its number in the source that was built, from 1; none if it is not there.
    pub line: Option<usize>,
    /// What stands in it.
    pub text: String,
}

pub use nlrig_vm::{FaultDomain, Verdict};

/// A table of an experiment with what it says in plain words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// A heading.
    pub title: String,
    /// The table's head; without one there are words only.
    pub columns: Vec<String>,
    /// Its rows, as long as the head.
    pub rows: Vec<Vec<String>>,
    /// What came out, what differs, and why.
    pub words: String,
    /// What a table has no room for.
    pub entries: Vec<Detail>,
    /// What is easier seen than read.
    pub figure: Option<Figure>,
}

/// A drawing, in a file of its own beside the page that shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// The file's name.
    pub file: String,
    /// What it shows, for who cannot see it.
    pub title: String,
    /// The drawing.
    pub svg: String,
}

/// One thing that a section tells about at length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// A heading.
    pub title: String,
    /// What is told, each with its name.
    pub fields: Vec<(&'static str, String)>,
}

impl Report {
    /// Writes `report.json`, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        write_whole(path, &(serde_json::to_string_pretty(self)? + "\n"))
    }
}

/// Writes the page of a report, and beside it the drawings that it shows.
///
/// # Errors
/// One of them cannot be written.
pub fn write_page(path: &Path, report: &Report, sections: &[Section]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    for figure in sections.iter().filter_map(|section| section.figure.as_ref()) {
        write_whole(&folder.join(&figure.file), &figure.svg)?;
    }
    write_whole(path, &markdown::page(report, sections))
}

/// Writes a file so that it is either the old one or the new one, whole.
///
/// # Errors
/// It cannot be written; the old one is still there.
pub fn write_whole(path: &Path, content: &str) -> Result<()> {
    use std::io::Write;
    let failed = || format!("cannot write {}", path.display());
    // A device, a pipe or a link is written to, never replaced.
    if fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return fs::write(path, content).with_context(failed);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .with_context(failed)?;
    file.write_all(content.as_bytes()).with_context(failed)?;
    file.as_file().sync_all().with_context(failed)?;
    file.persist(path).with_context(failed)?;
    Ok(())
}

/// The machine that the rig runs on.
pub fn host() -> Host {
    let field = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        value.trim_start_matches([' ', '\t', ':', '=']).trim_matches('"').to_string()
    };
    Host {
        cpu: field("/proc/cpuinfo", "model name"),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: procfs::meminfo_bytes(Path::new(MEMINFO), "MemTotal:").unwrap_or(0),
        os: field("/etc/os-release", "PRETTY_NAME"),
    }
}

/// The parts of a report that a run starts with.
pub fn environment(qemu: String) -> Environment {
    Environment { revision: project::revision(), host: host(), qemu, ..Environment::default() }
}

/// A moment in RFC 3339.
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Seconds with three digits after the point: more is noise.
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accel::Accel;

    #[test]
    fn a_report_that_cannot_be_written_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        write_whole(&path, "old").unwrap();
        write_whole(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        let err = write_whole(&dir.path().join("missing/report.json"), "x").unwrap_err();
        assert!(format!("{err:#}").contains("missing/report.json"), "{err:#}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing half-written is left");
    }

    #[test]
    fn names_of_verdicts_are_those_of_the_contract() {
        for verdict in [Verdict::Pass, Verdict::GuestHang, Verdict::Reset, Verdict::LostVm] {
            assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.name());
        }
        for domain in [FaultDomain::Guest, FaultDomain::Qemu, FaultDomain::Unknown] {
            assert_eq!(serde_json::to_value(domain).unwrap(), domain.name());
        }
    }

    #[test]
    fn accelerators_are_by_architecture_and_by_kernel_where_they_differ() {
        let kernel = |arch: &str, image: &str| {
            let text = format!(
                r#"{{"version":"6.1","arch":"{arch}","flavour":"{image}","source_sha256":"",
                "config_sha256":"","image_sha256":"{image}","compiler":"","objects":1}}"#
            );
            serde_json::from_str::<Kernel>(&text).unwrap()
        };
        let kernels = [kernel("i386", "a"), kernel("x86_64", "b"), kernel("x86_64", "c")];
        let choice = |used, reason: &str| AccelChoice { used, reason: reason.to_string() };
        let environment = |third| {
            let mut environment = Environment::default();
            environment.add_accels([
                (&kernels[0], choice(Accel::Tcg, "there is no /dev/kvm")),
                (&kernels[1], choice(Accel::Kvm, "ready")),
                (&kernels[2], third),
                (&kernels[1], choice(Accel::Kvm, "ready")),
            ]);
            environment
        };
        let same = environment(choice(Accel::Kvm, "ready too"));
        let json = serde_json::to_value(&same.accel).unwrap();
        assert_eq!(json["x86_64"], serde_json::json!({ "used": "kvm", "reason": "ready" }));
        let differ = environment(choice(Accel::Tcg, "aborted"));
        let json = serde_json::to_value(&differ.accel).unwrap();
        assert_eq!(json["x86_64"]["used"], "kvm");
        assert_eq!(json["x86_64"]["kernels"][1]["image_sha256"], "c");
        assert_eq!(json["x86_64"]["kernels"][1]["used"], "tcg");
        assert_eq!(json["i386"]["kernels"], Value::Null);
        let report = Report {
            schema: SCHEMA.to_string(),
            started_at: String::new(),
            duration_s: 0.0,
            first_vm_s: None,
            environment: differ,
            trials: Vec::new(),
        };
        let page = markdown::page(&report, &[]);
        let lines = [
            "- i386 guests ran under TCG. There is no /dev/kvm.",
            "- x86_64 guests of Linux 6.1 (b) ran under KVM. Ready.",
            "- x86_64 guests of Linux 6.1 (c) ran under TCG. Aborted.",
        ];
        assert!(page.contains(&lines.join("\n")), "{page}");
    }

    #[test]
    fn this_machine_has_a_name_and_memory() {
        let host = host();
        assert!(host.memory_bytes > 1 << 20 && host.cores > 0, "{host:?}");
    }
}
