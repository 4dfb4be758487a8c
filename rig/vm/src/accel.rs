//! What runs a guest's instructions: KVM if it works, TCG if not.
//!
//! A `/dev/kvm` that opens and answers proves nothing: there are hosts where it
//! even runs a tiny guest and then hangs every kernel, without a word. So under
//! `auto` this very kernel is booted under KVM first, with a short deadline,
//! and the verdict is remembered, with its reason, for this boot of the host.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::outcome::Result;
use nlrig_host::bail;
use serde::{Deserialize, Serialize};

use nlrig_build::Arch;
use nlrig_host::cache::Cache;
use nlrig_host::ui;

/// How long a kernel may take to say that it is ready, before KVM is given up.
/// A working one takes less than a second; a nested one a few.
pub const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// KVM's only API version; the kernel's documentation says to refuse others.
const KVM_API_VERSION: i32 = 12;

mod ioctl {
    // KVM_GET_API_VERSION of linux/kvm.h.
    nix::ioctl_none!(kvm_get_api_version, 0xAE, 0x00);
}

/// A QEMU accelerator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// The host's processor.
    Kvm,
    /// Emulation.
    Tcg,
}

impl Accel {
    /// How many times as long a guest may take for what it does. Emulated code
    /// runs at a tenth of the speed, but a guest mostly waits: its boot takes two
    /// seconds in the place of half of one.
    pub fn slowdown(self) -> u32 {
        match self {
            Accel::Kvm => 1,
            Accel::Tcg => 3,
        }
    }
}

/// What the user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccelMode {
    /// KVM if it boots this kernel, TCG otherwise.
    Auto,
    /// KVM, or an error.
    Kvm,
    /// TCG.
    Tcg,
}

impl std::str::FromStr for AccelMode {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<AccelMode, String> {
        match text {
            "auto" => Ok(AccelMode::Auto),
            "kvm" => Ok(AccelMode::Kvm),
            "tcg" => Ok(AccelMode::Tcg),
            _ => Err(format!("no accelerator \"{text}\": there is auto, kvm, tcg")),
        }
    }
}

/// The accelerator of a kernel image, and the reason for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccelChoice {
    /// The accelerator.
    pub used: Accel,
    /// One line.
    pub reason: String,
}

/// The outcome of booting a kernel under KVM.
pub type Probe = std::result::Result<(), ProbeFailure>;

/// Why a kernel was not ready under KVM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeFailure {
    /// One short clause: `QEMU aborted (SIGABRT) while booting the guest kernel`.
    pub reason: String,
    /// What QEMU and the guest's console said, for the log.
    pub log: String,
}

/// A verdict on KVM that holds as long as everything it depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tried {
    /// The boot of the host, its kernel, QEMU, and the guest's kernel image.
    holds_for: String,
    works: bool,
    reason: String,
}

impl Accel {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        }
    }
}

/// The kernel image that a verdict on KVM is about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What it runs on.
    pub arch: Arch,
    /// The hash of the image.
    pub image_sha256: String,
    /// The version of the QEMU that boots it.
    pub qemu: String,
}

impl Subject {
    /// Everything that a verdict depends on.
    fn holds_for(&self) -> String {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_string();
        format!(
            "host boot {}, host kernel {}, QEMU {}, guest kernel {}",
            read("/proc/sys/kernel/random/boot_id"),
            read("/proc/sys/kernel/osrelease"),
            self.qemu,
            self.image_sha256
        )
    }

    /// The name under which the verdict is kept: one for each image, so that
    /// kernels that are run in turn are not tried in turn.
    fn memory(&self) -> String {
        let image = self.image_sha256.get(..32).unwrap_or(&self.image_sha256);
        format!("kvm-{image}.json")
    }
}

/// Chooses the accelerator for guests of one kernel image. `boot` boots it under
/// KVM until it is ready, or returns why it is not; it is only called when
/// nothing cheaper decides.
///
/// # Errors
/// KVM was requested and does not work; the run was interrupted.
pub fn choose(
    mode: AccelMode,
    cache: &Cache,
    subject: &Subject,
    boot: impl FnOnce() -> Result<Probe>,
) -> Result<AccelChoice> {
    if mode == AccelMode::Tcg {
        return Ok(AccelChoice { used: Accel::Tcg, reason: "asked for".to_string() });
    }
    let arch = subject.arch;
    let verdict = match device_trouble(Path::new("/dev/kvm")) {
        Some(reason) => Tried { holds_for: subject.holds_for(), works: false, reason },
        None => try_kernel(cache, subject, Path::new(PVM), boot)?,
    };
    match (mode, verdict.works) {
        (_, true) => Ok(AccelChoice { used: Accel::Kvm, reason: verdict.reason }),
        (AccelMode::Kvm, false) => {
            bail!("KVM was asked for and does not work for {arch} guests: {}", verdict.reason)
        }
        (_, false) => Ok(AccelChoice {
            used: Accel::Tcg,
            reason: format!("KVM does not work here: {}", verdict.reason),
        }),
    }
}

/// Present where KVM is that of a nested host without hardware virtualization:
/// the module runs kernels that were made for it (a "pagetable virtual machine").
const PVM: &str = "/sys/module/kvm_pvm";

/// The remembered verdict, or a new one.
fn try_kernel(
    cache: &Cache,
    subject: &Subject,
    pvm: &Path,
    boot: impl FnOnce() -> Result<Probe>,
) -> Result<Tried> {
    let (arch, name, holds_for) = (subject.arch, subject.memory(), subject.holds_for());
    if let Some(verdict) = cache.load::<Tried>(&name)
        && verdict.holds_for == holds_for
    {
        return Ok(verdict);
    }
    ui::detail(&format!(
        "{arch}: trying this kernel under KVM, {} s at most",
        PROBE_LIMIT.as_secs()
    ));
    let start = Instant::now();
    let (works, reason) = match boot()? {
        Ok(()) => {
            (true, format!("this kernel was ready after {:.1} s", start.elapsed().as_secs_f64()))
        }
        Err(failure) => {
            let log = cache.root().join(&name).with_extension("log.json");
            ui::detail(&format!("{arch}: the log of that boot is {}", log.display()));
            cache.store(&log.file_name().unwrap_or_default().to_string_lossy(), &failure.log)?;
            let mut reason = format!("/dev/kvm opens, but {}", failure.reason);
            if pvm.exists() {
                reason.push_str(" (its module kvm_pvm only boots kernels made for it)");
            }
            (false, reason)
        }
    };
    let outcome = if works { "KVM works" } else { "no KVM, so TCG" };
    ui::status(&format!("{arch} guests: {outcome}: {reason}"));
    let verdict = Tried { holds_for, works, reason };
    cache.store(&name, &verdict)?;
    Ok(verdict)
}

/// Why KVM's device cannot be used, if that can be told without a guest.
pub fn device_trouble(device: &Path) -> Option<String> {
    let name = device.display();
    let file = match OpenOptions::new().read(true).write(true).open(device) {
        Ok(file) => file,
        Err(err) if err.kind() == ErrorKind::NotFound => {
            return Some(format!("there is no {name}"));
        }
        Err(err) if err.kind() == ErrorKind::PermissionDenied => {
            return Some(format!(
                "{name} may not be opened by this user; a udev rule KERNEL==\"kvm\", GROUP=\"kvm\", MODE=\"0666\" allows it"
            ));
        }
        Err(err) => return Some(format!("{name} does not open: {err}")),
    };
    use std::os::fd::AsRawFd;
    // SAFETY: this request takes no argument and changes nothing.
    match unsafe { ioctl::kvm_get_api_version(file.as_raw_fd()) } {
        Ok(KVM_API_VERSION) => None,
        Ok(version) => Some(format!("{name} speaks version {version}, not {KVM_API_VERSION}")),
        Err(err) => Some(format!("{name} does not answer: {err}")),
    }
}

/// The rate of the host's time stamp counter in kHz, which is the guest's own
/// under TCG. Measured against the monotonic clock, once.
pub fn tsc_khz() -> u64 {
    const MOMENT: Duration = Duration::from_millis(10);
    const SAMPLES: usize = 3;
    static KHZ: OnceLock<u64> = OnceLock::new();
    *KHZ.get_or_init(|| {
        let sample = || {
            let (start, first) = tsc_now();
            std::thread::sleep(MOMENT);
            let (end, last) = tsc_now();
            last.wrapping_sub(first) as f64 / (end - start).as_secs_f64() / 1000.0
        };
        let mut samples: Vec<f64> = (0..SAMPLES).map(|_| sample()).collect();
        samples.sort_by(f64::total_cmp);
        samples[SAMPLES / 2] as u64
    })
}

/// The clock and the counter at the same moment: of several pairs the one that
/// was read fastest, because the host may have been elsewhere in between.
fn tsc_now() -> (Instant, u64) {
    const PAIRS: usize = 8;
    let pair = || {
        let before = Instant::now();
        // SAFETY: every x86_64 processor has the instruction.
        let ticks = unsafe { std::arch::x86_64::_rdtsc() };
        (before.elapsed(), before, ticks)
    };
    let first = pair();
    let best = (1..PAIRS)
        .map(|_| pair())
        .fold(first, |best, next| if next.0 < best.0 { next } else { best });
    (best.1, best.2)
}

#[cfg(test)]
mod tests {
    use nlrig_host::Error;

    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path()).unwrap();
        (root, cache)
    }

    fn subject(arch: Arch, image: &str) -> Subject {
        Subject { arch, image_sha256: image.repeat(32), qemu: "7.2".to_string() }
    }

    /// A host with no kvm_pvm.
    fn tried(
        cache: &Cache,
        subject: &Subject,
        boot: impl FnOnce() -> Result<Probe>,
    ) -> Result<Tried> {
        try_kernel(cache, subject, Path::new("/nonexistent"), boot)
    }

    fn hang() -> Result<Probe> {
        let reason = "the guest said nothing within 10 s".to_string();
        Ok(Err(ProbeFailure { reason, log: "a long log".to_string() }))
    }

    #[test]
    fn a_verdict_is_remembered_until_what_it_depends_on_changes() {
        let (_root, cache) = cache();
        let image = subject(Arch::X86_64, "1");
        let first = tried(&cache, &image, hang).unwrap();
        assert!(!first.works && first.reason.contains("nothing within 10 s"), "{first:?}");
        let again = tried(&cache, &image, || panic!("tried again")).unwrap();
        assert_eq!(first, again);
        let newer = Subject { qemu: "8.0".to_string(), ..image };
        assert!(tried(&cache, &newer, || Ok(Ok(()))).unwrap().works);
    }

    #[test]
    fn each_image_has_its_own_verdict_and_keeps_it() {
        let (_root, cache) = cache();
        let (first, second) = (subject(Arch::X86_64, "1"), subject(Arch::X86_64, "2"));
        assert!(!tried(&cache, &first, hang).unwrap().works);
        assert!(tried(&cache, &second, || Ok(Ok(()))).unwrap().works);
        assert!(!tried(&cache, &first, || panic!("tried again")).unwrap().works);
        assert!(tried(&cache, &second, || panic!("tried again")).unwrap().works);
    }

    #[test]
    fn the_reason_is_short_and_the_log_is_kept() {
        let (root, cache) = cache();
        let image = subject(Arch::I386, "1");
        let verdict = try_kernel(&cache, &image, root.path(), hang).unwrap();
        assert_eq!(
            verdict.reason,
            "/dev/kvm opens, but the guest said nothing within 10 s \
             (its module kvm_pvm only boots kernels made for it)"
        );
        let log = format!("kvm-{}.log.json", "1".repeat(32));
        assert_eq!(cache.load::<String>(&log).unwrap(), "a long log");
    }

    #[test]
    fn an_interruption_or_the_hosts_own_trouble_is_no_verdict() {
        let (_root, cache) = cache();
        let image = subject(Arch::X86_64, "1");
        let interrupt = || Err(nlrig_host::interrupt::Interrupted.into());
        let err = tried(&cache, &image, interrupt).unwrap_err();
        assert!(err.is_interruption());
        let full = || Err(Error::new("disk full").into());
        assert!(tried(&cache, &image, full).is_err());
        assert!(tried(&cache, &image, || Ok(Ok(()))).unwrap().works);
    }

    #[test]
    fn a_missing_or_failing_device_says_so() {
        let trouble = |path: &str| device_trouble(Path::new(path)).unwrap();
        assert!(trouble("/nonexistent/kvm").contains("there is no"));
        assert!(trouble("/dev/null").contains("does not answer"));
    }

    #[test]
    fn the_counter_runs() {
        assert!(tsc_khz() > 100_000, "no x86_64 processor is slower than 100 MHz");
    }
}
