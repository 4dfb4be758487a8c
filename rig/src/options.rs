//! What can be typed behind a subcommand, and the values that are refused.

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
    /// What guests are like.
    pub guest: GuestOptions,
    /// Thread stack sizes: 64K, 2M, 1G
    #[arg(long, value_name = "SIZE", value_delimiter = ',', value_parser = units::size)]
    pub stack: Vec<u64>,
    /// A parameter of the experiment's own; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
    /// How often each trial is run, each a trial of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    /// How many machines at once; as many as memory and cores bear if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub vms: Option<u32>,
    /// How long the whole run may take: what is not begun by then is not run
    #[arg(long, value_name = "DURATION", default_value = "12h", value_parser = duration)]
    pub run_timeout: Duration,
    /// Fail if a trial passed only at the second try
    #[arg(long)]
    pub no_flaky: bool,
    /// Do not fail if every trial of an experiment or ABI that was named was
    /// skipped
    #[arg(long)]
    pub allow_skip: bool,
    /// Write the report here too; `-` is standard output, and then nothing else
    /// goes there
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the page of tables here too
    #[arg(long, value_name = "FILE")]
    pub page: Option<PathBuf>,
    /// The folder of results; `latest` in it is the newest
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Options that `run` and `exec` share: what guests are like.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct GuestOptions {
    /// Kinds of programs: i386, ia32, x86_64
    #[arg(long, value_name = "ABI", value_delimiter = ',')]
    pub abi: Vec<Abi>,
    /// The kernel's version, as `list` shows it
    #[arg(long, value_name = "VERSION", default_value = DEFAULT_KERNEL)]
    pub kernel: String,
    /// The kernel's flavour, as `list` shows it
    #[arg(long, value_name = "NAME", default_value = DEFAULT_FLAVOUR)]
    pub flavour: String,
    /// auto tries this kernel under KVM and falls back to TCG; kvm never does
    #[arg(long, value_name = "auto|kvm|tcg", default_value = "auto")]
    pub accel: AccelMode,
    /// Processors of a guest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: Option<u32>,
    /// Memory of a guest
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub memory: Option<u64>,
    /// A kernel parameter in the guest: kernel.pid_max=2000; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = sysctl)]
    pub sysctl: Vec<(String, String)>,
    /// A limit of the program in the guest: nofile=64, stack=2M; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = rlimit)]
    pub rlimit: Vec<Rlimit>,
    /// The user that the program runs as in the guest
    #[arg(long, value_name = "UID")]
    pub user: Option<u32>,
    /// An environment variable of the program, from here if it has no value;
    /// repeatable
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// A word for the guest kernel's command line: nokaslr; repeatable
    #[arg(long, value_name = "WORD", value_parser = kernel_arg)]
    pub kernel_arg: Vec<String>,
    /// How long a program may take: 90s, 5m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Kernel source to build instead of the distribution's
    #[arg(long, value_name = "DIR|TARBALL")]
    pub kernel_source: Option<PathBuf>,
    /// What the SHA-256 of that source must be
    #[arg(long, value_name = "HEX", requires = "kernel_source")]
    pub kernel_sha256: Option<String>,
    /// A kernel that was built elsewhere: its ELF file vmlinux, with the drivers that
    /// a guest needs built in
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel_source", "kernel_config"])]
    pub kernel_image: Option<PathBuf>,
    /// Kernel configuration of your own, a fragment that overrides the flavour's;
    /// repeatable
    #[arg(long, value_name = "FILE")]
    pub kernel_config: Vec<PathBuf>,
    /// A module to load: a folder with a Kbuild or a Makefile that sets obj-m, a
    /// .ko file, or `rig` for the rig's own; repeatable, loaded in this order
    #[arg(long, value_name = "DIR|FILE.ko")]
    pub module: Vec<PathBuf>,
    /// A variable of make for these modules: CONFIG_HELLO=m, KCFLAGS=-DDEBUG;
    /// repeatable
    #[arg(long, value_name = "VAR=VALUE", requires = "module", value_parser = make_variable)]
    pub module_make: Vec<String>,
    /// A parameter of a module: hello.debug=1; repeatable
    #[arg(long, value_name = "NAME.KEY=VALUE", value_parser = module_parameter)]
    pub module_param: Vec<ModuleParameter>,
    /// Compilers at once; as many as processors if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,
}

impl Default for GuestOptions {
    /// As if none of them were typed.
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
    /// As if none of them were typed.
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
    /// As one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Options of `build`.
#[derive(Args, Debug)]
pub struct BuildOptions {
    /// What to build
    #[arg(value_name = "WHAT", value_parser = ["kernel", "module", "userspace", "image"])]
    pub what: Vec<String>,
    /// What guests are like.
    #[command(flatten)]
    pub guest: GuestOptions,
    /// Each artifact with its path and hash, as one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Options of `doctor`.
#[derive(Args, Debug)]
pub struct DoctorOptions {
    /// What guests are like.
    #[command(flatten)]
    pub guest: GuestOptions,
    /// As one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Options of `exec`.
#[derive(Args, Debug)]
pub struct ExecOptions {
    /// What the guest is like.
    #[command(flatten)]
    pub guest: GuestOptions,
    /// Let the command write to the current directory
    #[arg(long)]
    pub writable: bool,
    /// Give the command no standard input: in a loop it would eat the loop's
    #[arg(short = 'n', long)]
    pub no_stdin: bool,
    /// Kinds of guest kernel faults that do not make the exit status 99
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    pub allow: Vec<FaultKind>,
    /// Exit as `git bisect run` expects: 1 for a bad revision, 125 for a kernel
    /// that does not build, 128 for anything that must stop the bisection
    #[arg(long)]
    pub bisect: bool,
    /// Write a record of this command here, as JSON: verdict, deciding line, call
    /// trace, fault domain, exit status
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The command and its arguments, after `--`
    #[arg(value_name = "CMD", required = true, last = true)]
    pub command: Vec<String>,
}

/// Options of `classify`.
#[derive(Args, Debug)]
#[command(after_help = CLASSIFY_HELP)]
pub struct ClassifyOptions {
    /// The console log; standard input if none is given, or `-`
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// As one JSON document: verdict, kind, line, message, trace, source, cause
    #[arg(long)]
    pub json: bool,
}

const CLASSIFY_HELP: &str = "\
Exit status: 0 if the log reports no fault of the kernel, 1 if it does, 125 if it \
cannot be read.

Example:
  dmesg | nlrig classify
  nlrig classify --json console.txt | jq -r '.verdict, .trace[0]'";

/// What a guest kernel can report of itself and go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FaultKind {
    /// It oopsed.
    Oops,
    /// It warned, or a detector of it reported something.
    Warning,
    /// A taint bit was set that neither a module nor another kind of fault sets.
    Taint,
}

impl FaultKind {
    /// The verdict on it.
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
    /// How often each stage is timed; three rounds take about five minutes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Write what was measured here too; `-` is standard output, and then
    /// nothing else goes there
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err(format!("\"{text}\" is not key=value")),
    }
}

/// An environment variable; without a value it is the rig's own.
fn variable(text: &str) -> Result<(String, String), String> {
    if text.contains('=') {
        return pair(text).map_err(|_| format!("\"{text}\" has no name before the ="));
    }
    match std::env::var(text) {
        Ok(value) => Ok((text.to_string(), value)),
        Err(VarError::NotPresent) => {
            Err(format!("{text} is not set here: give it a value, {text}=VALUE"))
        }
        Err(VarError::NotUnicode(_)) => Err(format!("the value of {text} is not UTF-8")),
    }
}

/// One word for a kernel's command line. Quotes do not help: it goes to QEMU
/// beside other words, and is cut at blanks again by the kernel.
fn kernel_arg(text: &str) -> Result<String, String> {
    match text {
        "" => Err("an empty word".to_string()),
        _ if text.chars().all(|c| c.is_ascii_graphic()) => Ok(text.to_string()),
        _ => Err(format!("\"{text}\" is not one word: give --kernel-arg once for each word")),
    }
}

/// Variables of make that say where and for what a module is built: the rig's.
const MAKE_OF_RIG: [&str; 6] =
    ["ARCH", "KBUILD_EXTMOD", "KBUILD_EXTRA_SYMBOLS", "KBUILD_OUTPUT", "M", "O"];

fn make_variable(text: &str) -> Result<String, String> {
    let (name, _) = pair(text)?;
    if MAKE_OF_RIG.contains(&name.as_str()) {
        return Err(format!("{name} is set by the rig"));
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) {
        return Err(format!("\"{name}\" is not the name of a variable"));
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
                return Err("a module's parameter cannot have quotes or line breaks".to_string());
            }
            Ok(ModuleParameter { module: module.to_string(), key: key.to_string(), value })
        }
        _ => Err(format!("\"{text}\" is not module.parameter=value")),
    }
}

/// Kernel parameters that limit threads, which may be given without their path.
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
            "\"{name}\" is not the name of a kernel parameter, like kernel.pid_max"
        ));
    }
    Ok((name, value))
}

/// The limits that the guest's PID 1 knows.
const RLIMITS: [&str; 9] =
    ["as", "core", "cpu", "data", "fsize", "memlock", "nofile", "nproc", "stack"];

fn rlimit(text: &str) -> Result<Rlimit, String> {
    let (name, value) = pair(text)?;
    let name = name.to_ascii_lowercase().trim_start_matches("rlimit_").to_string();
    if !RLIMITS.contains(&name.as_str()) {
        return Err(format!("no limit is called \"{name}\": there is {}", RLIMITS.join(", ")));
    }
    let value = match value.as_str() {
        "unlimited" | "infinity" => None,
        "0" => Some(0),
        value => Some(units::size(value)?),
    };
    Ok(Rlimit { name, value })
}

/// The least that a guest boots with, and the most that its machine takes.
const MEMORY_BYTES: std::ops::RangeInclusive<u64> = (64 << 20)..=(1 << 40);

fn memory(text: &str) -> Result<u64, String> {
    let bytes = units::size(text)?;
    if !MEMORY_BYTES.contains(&bytes) || !bytes.is_multiple_of(1 << 20) {
        return Err(format!("\"{text}\" is not a number of MiB from 64M to 1T"));
    }
    Ok(bytes)
}

/// Longer is a slip of the finger.
const DURATIONS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 60 * 60);

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if DURATIONS.contains(&duration) => Ok(duration),
        Ok(_) => Err(format!("\"{text}\" is not between a second and a week")),
        Err(err) => Err(format!("\"{text}\" is not a duration like 90s or 5m: {err}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_of_sysctls_and_sizes_of_limits() {
        assert_eq!(sysctl("pid_max=2000").unwrap().0, "kernel.pid_max");
        assert_eq!(sysctl("net.core.rmem_max=1").unwrap().0, "net.core.rmem_max");
        assert_eq!(
            rlimit("RLIMIT_AS=1G").unwrap(),
            Rlimit { name: "as".into(), value: Some(1 << 30) }
        );
        assert_eq!(rlimit("stack=unlimited").unwrap().value, None);
    }

    #[test]
    fn a_variable_without_a_value_is_the_rigs_own() {
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
    fn parameters_of_modules_and_of_their_builds() {
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
