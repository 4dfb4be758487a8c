//! The options of each subcommand, and the parsers of their values.

use std::env::VarError;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use nlrig_build::module::ModuleParameter;
use nlrig_guest::protocol::Rlimit;

use crate::abi::Abi;
use crate::accel::AccelMode;
use crate::report::Verdict;
use crate::units;
use nlrig_vm::{DEFAULT_FLAVOUR, DEFAULT_KERNEL};

/// Options of `run`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct RunOptions {
    #[command(flatten)]
    /// Options for the guests.
    pub guest: GuestOptions,
    /// Thread stack sizes, comma-separated: 64K,2M,1G
    #[arg(long, value_name = "SIZE", value_delimiter = ',', value_parser = units::size)]
    pub stack: Vec<u64>,
    /// Set a parameter of the experiment; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
    /// Run each trial N times; each run is a trial in the report
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    /// VMs that may run at once [default: as many as memory and cores allow]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub vms: Option<u32>,
    /// Time limit of the whole run; trials that have not started by then are not run
    #[arg(long, value_name = "DURATION", default_value = "12h", value_parser = duration)]
    pub run_timeout: Duration,
    /// Exit 1 if a trial passed only at the second attempt
    #[arg(long)]
    pub no_flaky: bool,
    /// Exit 0 even if all trials of an experiment or ABI named on the command line
    /// were skipped
    #[arg(long)]
    pub allow_skip: bool,
    /// Also write the report as JSON; `-` prints only the JSON to standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also write the tables as Markdown
    #[arg(long, value_name = "FILE")]
    pub page: Option<PathBuf>,
    /// Folder for the results; `latest` in it links to the newest run
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Options for guests, which `run`, `build`, `doctor` and `exec` share.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct GuestOptions {
    /// ABIs of the guest programs, comma-separated: i386, ia32, x86_64
    #[arg(long, value_name = "ABI", value_delimiter = ',')]
    pub abi: Vec<Abi>,
    /// Kernel version, as `list` shows it
    #[arg(long, value_name = "VERSION", default_value = DEFAULT_KERNEL)]
    pub kernel: String,
    /// Kernel flavour, as `list` shows it
    #[arg(long, value_name = "NAME", default_value = DEFAULT_FLAVOUR)]
    pub flavour: String,
    /// Accelerator; auto boots the kernel under KVM once and falls back to TCG if
    /// that fails
    #[arg(long, value_name = "auto|kvm|tcg", default_value = "auto")]
    pub accel: AccelMode,
    /// CPUs of a guest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: Option<u32>,
    /// Memory of a guest
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub memory: Option<u64>,
    /// Set a sysctl in the guest: kernel.pid_max=2000; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = sysctl)]
    pub sysctl: Vec<(String, String)>,
    /// Set a resource limit of the program in the guest: nofile=64, stack=2M;
    /// repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = rlimit)]
    pub rlimit: Vec<Rlimit>,
    /// User id of the program in the guest
    #[arg(long, value_name = "UID")]
    pub user: Option<u32>,
    /// Set an environment variable of the program; NAME alone copies the host's
    /// value; repeatable
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// Add a parameter to the guest kernel's command line: nokaslr; repeatable
    #[arg(long, value_name = "WORD", value_parser = kernel_arg)]
    pub kernel_arg: Vec<String>,
    /// Time limit of a program: 90s, 5m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Build this kernel source instead of the distribution's
    #[arg(long, value_name = "DIR|TARBALL")]
    pub kernel_source: Option<PathBuf>,
    /// Fail if the kernel source does not have this SHA-256
    #[arg(long, value_name = "HEX", requires = "kernel_source")]
    pub kernel_sha256: Option<String>,
    /// Boot this vmlinux (ELF); the drivers that a guest needs must be built in
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel_source", "kernel_config"])]
    pub kernel_image: Option<PathBuf>,
    /// Add a kernel configuration fragment, which overrides the flavour's; repeatable
    #[arg(long, value_name = "FILE")]
    pub kernel_config: Vec<PathBuf>,
    /// Load a module: a folder with a Kbuild or a Makefile that sets obj-m, a .ko
    /// file, or `rig` for the rig's own; repeatable, loaded in this order
    #[arg(long, value_name = "DIR|FILE.ko")]
    pub module: Vec<PathBuf>,
    /// Set a make variable for the builds of modules: CONFIG_HELLO=m,
    /// KCFLAGS=-DDEBUG; repeatable
    #[arg(long, value_name = "VAR=VALUE", requires = "module", value_parser = make_variable)]
    pub module_make: Vec<String>,
    /// Set a parameter of a module: hello.debug=1; repeatable
    #[arg(long, value_name = "NAME.KEY=VALUE", value_parser = module_parameter)]
    pub module_param: Vec<ModuleParameter>,
    /// Compilers that may run at once [default: the number of CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,
}

impl Default for GuestOptions {
    /// The values without any option on the command line.
    fn default() -> GuestOptions {
        GuestOptions {
            abi: Vec::new(),
            kernel: DEFAULT_KERNEL.to_string(),
            flavour: DEFAULT_FLAVOUR.to_string(),
            accel: AccelMode::Auto,
            cpus: None,
            memory: None,
            sysctl: Vec::new(),
            rlimit: Vec::new(),
            user: None,
            env: Vec::new(),
            kernel_arg: Vec::new(),
            timeout: None,
            kernel_source: None,
            kernel_sha256: None,
            kernel_image: None,
            kernel_config: Vec::new(),
            module: Vec::new(),
            module_make: Vec::new(),
            module_param: Vec::new(),
            jobs: None,
        }
    }
}

impl Default for RunOptions {
    /// The values without any option on the command line.
    fn default() -> RunOptions {
        RunOptions {
            guest: GuestOptions::default(),
            stack: Vec::new(),
            set: Vec::new(),
            repeat: 1,
            vms: None,
            run_timeout: Duration::from_secs(12 * 60 * 60),
            no_flaky: false,
            allow_skip: false,
            json: None,
            page: None,
            out: None,
        }
    }
}

/// Options of `list`.
#[derive(Args, Debug)]
pub struct ListOptions {
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Options of `build`.
#[derive(Args, Debug)]
pub struct BuildOptions {
    /// VmHandles to build [default: all]
    #[arg(value_name = "PART", value_parser = ["kernel", "module", "userspace", "image"])]
    pub what: Vec<String>,
    /// Options for the guests.
    #[command(flatten)]
    pub guest: GuestOptions,
    /// Print one JSON document: each artifact with its path and hash
    #[arg(long)]
    pub json: bool,
}

/// Options of `doctor`.
#[derive(Args, Debug)]
pub struct DoctorOptions {
    /// Options for the guests.
    #[command(flatten)]
    pub guest: GuestOptions,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Options of `exec`.
#[derive(Args, Debug)]
pub struct ExecOptions {
    /// Options for the guest.
    #[command(flatten)]
    pub guest: GuestOptions,
    /// Share the current directory with write access
    #[arg(long)]
    pub writable: bool,
    /// Do not forward standard input; needed in a `while read` loop
    #[arg(short = 'n', long)]
    pub no_stdin: bool,
    /// Kernel faults that do not cause exit status 99, comma-separated
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    pub allow: Vec<FaultKind>,
    /// Use the exit statuses of `git bisect run`: 1 for a bad revision, 125 for a
    /// kernel that does not build, 128 to stop the bisection
    #[arg(long)]
    pub bisect: bool,
    /// Write a JSON record of the command: verdict, deciding line, call trace, fault
    /// domain, exit status
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Command to run, with its arguments
    #[arg(value_name = "CMD", required = true, last = true)]
    pub command: Vec<String>,
}

/// Options of `classify`.
#[derive(Args, Debug)]
#[command(after_help = CLASSIFY_HELP)]
pub struct ClassifyOptions {
    /// Console log to read [default: standard input, also `-`]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Print one JSON document: verdict, kind, line, message, trace, source, cause
    #[arg(long)]
    pub json: bool,
}

const CLASSIFY_HELP: &str = "\
Exit status: 0 if the log has no report of a kernel fault, 1 if it has one, 125 if
the log cannot be read.

Examples:
  dmesg | nlrig classify
  nlrig classify --json console.txt | jq -r '.verdict, .trace[0]'";

/// A fault that a guest kernel reports and survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FaultKind {
    /// The kernel oopsed
    Oops,
    /// The kernel warned, or one of its detectors reported a fault
    Warning,
    /// A taint bit was set that neither a module nor another fault sets
    Taint,
}

impl FaultKind {
    /// Returns the verdict for this fault.
    pub fn verdict(self) -> Verdict {
        match self {
            FaultKind::Oops => Verdict::Oops,
            FaultKind::Warning => Verdict::Warning,
            FaultKind::Taint => Verdict::Taint,
        }
    }
}

/// Options of `bench`.
#[derive(Args, Debug)]
pub struct BenchOptions {
    /// Rounds of each measurement; three rounds take about five minutes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Also write the measurements as JSON; `-` prints only the JSON to standard
    /// output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Parses KEY=VALUE.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err(format!("\"{text}\" is not key=value")),
    }
}

/// Parses an environment variable; one without a value has the rig's own.
fn variable(text: &str) -> Result<(String, String), String> {
    if text.contains('=') {
        return pair(text).map_err(|_| format!("\"{text}\" has no name before the ="));
    }
    match std::env::var(text) {
        Ok(value) => Ok((text.to_string(), value)),
        Err(VarError::NotPresent) => {
            Err(format!("{text} is not set in the environment; write {text}=VALUE"))
        }
        Err(VarError::NotUnicode(_)) => Err(format!("the value of {text} is not UTF-8")),
    }
}

/// Parses one word of a kernel command line.
///
/// Quotes do not make blanks possible: the rig joins the words with blanks, and
/// the kernel splits the line at blanks.
fn kernel_arg(text: &str) -> Result<String, String> {
    match text {
        "" => Err("the word is empty".to_string()),
        _ if text.chars().all(|c| c.is_ascii_graphic()) => Ok(text.to_string()),
        _ => Err(format!("\"{text}\" is not one word; repeat --kernel-arg for each word")),
    }
}

/// The make variables that the rig sets itself.
const MAKE_OF_RIG: [&str; 6] =
    ["ARCH", "KBUILD_EXTMOD", "KBUILD_EXTRA_SYMBOLS", "KBUILD_OUTPUT", "M", "O"];

fn make_variable(text: &str) -> Result<String, String> {
    let (name, _) = pair(text)?;
    if MAKE_OF_RIG.contains(&name.as_str()) {
        return Err(format!("{name} is set by the rig; remove it"));
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) {
        return Err(format!("\"{name}\" is not the name of a make variable"));
    }
    Ok(text.to_string())
}

fn module_parameter(text: &str) -> Result<ModuleParameter, String> {
    let (name, value) = pair(text)?;
    let plain = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    };
    match name.split_once('.') {
        Some((module, key)) if plain(module) && plain(key) => {
            if value.contains(['"', '\n', '\0']) {
                return Err("a module parameter cannot have quotes or line breaks".to_string());
            }
            Ok(ModuleParameter { module: module.to_string(), key: key.to_string(), value })
        }
        _ => Err(format!("\"{text}\" is not module.parameter=value, like hello.debug=1")),
    }
}

/// Short names of the sysctls that limit threads.
const SHORT_SYSCTLS: [(&str, &str); 3] = [
    ("threads-max", "kernel.threads-max"),
    ("pid_max", "kernel.pid_max"),
    ("max_map_count", "vm.max_map_count"),
];

fn sysctl(text: &str) -> Result<(String, String), String> {
    let (name, value) = pair(text)?;
    let short = SHORT_SYSCTLS.iter().find(|(short, _)| *short == name);
    let name = short.map_or(name, |(_, full)| (*full).to_string());
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.contains('.') || !name.chars().all(plain) || name.contains("..") {
        return Err(format!(
            "\"{name}\" is not the name of a sysctl; write a name like kernel.pid_max"
        ));
    }
    Ok((name, value))
}

/// The resource limits that the guest's PID 1 can set.
const RLIMITS: [&str; 9] =
    ["as", "core", "cpu", "data", "fsize", "memlock", "nofile", "nproc", "stack"];

fn rlimit(text: &str) -> Result<Rlimit, String> {
    let (name, value) = pair(text)?;
    let name = name.to_ascii_lowercase().trim_start_matches("rlimit_").to_string();
    if !RLIMITS.contains(&name.as_str()) {
        let known = RLIMITS.join(", ");
        return Err(format!("unknown resource limit \"{name}\"; use one of {known}"));
    }
    let value = match value.as_str() {
        "unlimited" | "infinity" => None,
        "0" => Some(0),
        value => Some(units::size(value)?),
    };
    Ok(Rlimit { name, value })
}

/// From the least memory that a guest boots with to the most that QEMU's microvm
/// supports.
const MEMORY_BYTES: std::ops::RangeInclusive<u64> = (64 << 20)..=(1 << 40);

fn memory(text: &str) -> Result<u64, String> {
    let bytes = units::size(text)?;
    if !MEMORY_BYTES.contains(&bytes) || !bytes.is_multiple_of(1 << 20) {
        return Err(format!("\"{text}\" is not a multiple of 1M between 64M and 1T"));
    }
    Ok(bytes)
}

/// The durations that an option may have; a longer one is a typo.
const DURATIONS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 60 * 60);

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if DURATIONS.contains(&duration) => Ok(duration),
        Ok(_) => Err(format!("\"{text}\" is not between 1s and 7days")),
        Err(err) => Err(format!("\"{text}\" is not a duration like 90s or 5m: {err}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_have_short_names_and_limits_have_sizes() {
        assert_eq!(sysctl("pid_max=2000").unwrap().0, "kernel.pid_max");
        assert_eq!(sysctl("net.core.rmem_max=1").unwrap().0, "net.core.rmem_max");
        assert_eq!(
            rlimit("RLIMIT_AS=1G").unwrap(),
            Rlimit { name: "as".into(), value: Some(1 << 30) }
        );
        assert_eq!(rlimit("stack=unlimited").unwrap().value, None);
    }

    #[test]
    fn a_variable_without_a_value_has_the_rigs_own() {
        let own = std::env::var("PATH").unwrap();
        assert_eq!(variable("PATH").unwrap(), ("PATH".to_string(), own));
        assert_eq!(variable("A=b=c").unwrap(), ("A".to_string(), "b=c".to_string()));
        assert_eq!(variable("A=").unwrap().1, "");
        assert!(variable("=b").is_err());
        assert!(variable("NLRIG_NO_SUCH").unwrap_err().contains("NLRIG_NO_SUCH=VALUE"));
    }

    #[test]
    fn a_kernel_argument_is_one_word() {
        assert_eq!(kernel_arg("slub_debug=FZ,kmalloc-64").unwrap(), "slub_debug=FZ,kmalloc-64");
        for text in ["", "quiet loglevel=3", "a\nb"] {
            assert!(kernel_arg(text).is_err(), "{text}");
        }
    }

    #[test]
    fn module_parameters_and_make_variables_are_parsed() {
        let parameter = module_parameter("hello.name=a b=c").unwrap();
        assert_eq!((&*parameter.module, &*parameter.key), ("hello", "name"));
        assert_eq!(parameter.value, "a b=c");
        for wrong in ["hello=1", "hello.debug", ".debug=1", "hello.=1", "h/i.debug=1", "a.b=\"1\""]
        {
            assert!(module_parameter(wrong).is_err(), "{wrong}");
        }
        assert_eq!(make_variable("KCFLAGS=-DDEBUG -Wall").unwrap(), "KCFLAGS=-DDEBUG -Wall");
        assert!(make_variable("M=/tmp").unwrap_err().contains("set by the rig"));
        assert!(make_variable("-B").is_err() && make_variable("A B=1").is_err());
    }
}
