//! Every way to go wrong that a control provokes, and what must be said of it.

use std::time::Duration;

use nlrig_guest::protocol::GuestFault;

use crate::experiment::{Fault, HostFault};
use crate::report::{FaultDomain, Verdict};

/// One control.
#[derive(Clone, Copy, Debug)]
pub struct ControlCase {
    /// Its name, the last part of the trial's.
    pub name: &'static str,
    /// What happens, for a person.
    pub what: &'static str,
    /// How it is made to happen.
    pub by: By,
    /// Kernel parameters that make it happen soon.
    pub sysctls: &'static [(&'static str, &'static str)],
    /// How long the program gets.
    pub timeout: Duration,
    /// What the verdict must be.
    pub verdict: Verdict,
    /// What its fault domain must be; none for a pass.
    pub fault_domain: Option<FaultDomain>,
    /// How often it must be tried.
    pub attempts: u32,
    /// What the reason must say.
    pub says: &'static str,
    /// How soon the verdict must come at the latest, after the program's start.
    pub within: Duration,
}

/// Who makes it happen.
#[derive(Clone, Copy, Debug)]
pub enum By {
    /// The module: what the workload `fault` asks it for.
    Module(&'static str),
    /// A script in the guest's shell.
    Script(&'static str),
    /// The kernel, by these words on its command line.
    Boot(&'static str),
    /// The guest's PID 1, or the rig.
    Outside(Fault),
}

/// What is dead or has said what is wrong is reported within a second; the rest
/// is for the start of the program on a busy host, and for reading a call trace.
const SOON: Duration = Duration::from_secs(8);
/// The time of a program that must not use it.
const PLENTY: Duration = Duration::from_secs(60);

/// A second after its boot a kernel takes its last clock, and stops all
/// processors for that: one that does not stop would hang the guest, which is
/// another fault than the one that is meant.
const STUCK_SOFTIRQ: &str = "while grep -q early /sys/devices/system/clocksource/clocksource0/current_clocksource; \
     do sleep 0.1; done; exec /run/nlrig/guest/workloads/fault softirq";

const fn immediate(
    name: &'static str,
    what: &'static str,
    by: By,
    verdict: Verdict,
    says: &'static str,
) -> ControlCase {
    ControlCase {
        name,
        what,
        by,
        sysctls: &[],
        timeout: PLENTY,
        verdict,
        fault_domain: Some(FaultDomain::Guest),
        attempts: 1,
        says,
        within: SOON,
    }
}

/// A fault outside of the guest. What QEMU or the host does is tried again.
const fn outside(domain: FaultDomain, control: ControlCase) -> ControlCase {
    let is_lost = matches!(control.verdict, Verdict::LostVm)
        && matches!(domain, FaultDomain::Qemu | FaultDomain::Host);
    ControlCase { fault_domain: Some(domain), attempts: if is_lost { 2 } else { 1 }, ..control }
}

const fn late(seconds: u64, control: ControlCase) -> ControlCase {
    let timeout = Duration::from_secs(seconds);
    // Then the guest is asked, and QEMU's monitor after it.
    let within = Duration::from_secs(seconds + 25);
    ControlCase { timeout, within, ..control }
}

const fn guest(how: GuestFault) -> By {
    By::Outside(Fault::Guest(how))
}

const fn host(how: HostFault) -> By {
    By::Outside(Fault::Host(how))
}

/// All of them.
pub const ALL: &[ControlCase] = &[
    immediate(
        "panic",
        "the module calls panic()",
        By::Module("panic"),
        Verdict::Panic,
        "nlrig: a panic on request",
    ),
    immediate(
        "no-init",
        "there is no PID 1 to start",
        By::Boot("rdinit=/nowhere"),
        Verdict::Panic,
        "No working init found",
    ),
    immediate(
        "null-dereference",
        "the module writes through a null pointer",
        By::Module("null"),
        Verdict::Oops,
        "nlrig_null_dereference",
    ),
    immediate("warn", "the module warns", By::Module("warn"), Verdict::Warning, "nlrig_fault"),
    ControlCase {
        sysctls: &[("kernel.watchdog_thresh", "1")],
        ..late(
            8,
            immediate(
                "stuck-softirq",
                "a softirq never ends",
                By::Script(STUCK_SOFTIRQ),
                Verdict::Warning,
                "soft lockup",
            ),
        )
    },
    ControlCase {
        sysctls: &[("kernel.hung_task_timeout_secs", "2")],
        ..late(
            8,
            immediate(
                "d-state",
                "a task waits for ever and cannot be woken",
                By::Module("block"),
                Verdict::Warning,
                "is in state D in nlrig_block",
            ),
        )
    },
    late(
        4,
        immediate(
            "livelock",
            "every processor spins with interrupts off",
            By::Module("livelock"),
            Verdict::GuestHang,
            "nlrig_spin",
        ),
    ),
    late(
        4,
        immediate(
            "mute",
            "PID 1 says nothing any more; the kernel lives",
            guest(GuestFault::Mute),
            Verdict::GuestHang,
            "nobody answers",
        ),
    ),
    late(
        4,
        immediate(
            "late",
            "the program does not end",
            By::Script("sleep 1000"),
            Verdict::Timeout,
            "sleep",
        ),
    ),
    immediate(
        "taint",
        "the kernel is tainted, and says nothing of it",
        By::Script("echo 64 > /proc/sys/kernel/tainted"),
        Verdict::Taint,
        "U: set by a program",
    ),
    immediate("fail", "the program fails", By::Script("exit 1"), Verdict::Fail, "Code(1)"),
    immediate(
        "half-report",
        "the program reports half an object",
        By::Script("printf '{\"half\":' >&3"),
        Verdict::Fail,
        "half",
    ),
    immediate(
        "reboot",
        "the guest reboots in the middle",
        By::Script("reboot -f"),
        Verdict::Reset,
        "without the guest's last event",
    ),
    immediate(
        "triple-fault",
        "a triple fault",
        By::Module("triple"),
        Verdict::Reset,
        "without the guest's last event",
    ),
    // Would pass at a second try, which it must not get.
    immediate(
        "reset-every-second-boot",
        "the guest resets its machine in every second boot, the first included",
        By::Outside(Fault::GuestOnce(GuestFault::NoLastEvent)),
        Verdict::Reset,
        "without the guest's last event",
    ),
    outside(
        FaultDomain::Qemu,
        immediate(
            "qemu-killed",
            "QEMU is killed",
            host(HostFault::KillQemu),
            Verdict::LostVm,
            "QEMU ended (signal: 9",
        ),
    ),
    ControlCase {
        fault_domain: None,
        attempts: 2,
        ..immediate(
            "qemu-killed-once",
            "QEMU is killed at the first try",
            By::Outside(Fault::HostOnce(HostFault::KillQemu)),
            Verdict::Pass,
            "",
        )
    },
    outside(
        FaultDomain::Host,
        immediate(
            "share-daemon-killed",
            "the daemon of a share is killed",
            host(HostFault::KillShareDaemon),
            Verdict::LostVm,
            "the daemon of the share guest died",
        ),
    ),
    outside(
        FaultDomain::Unknown,
        immediate(
            "channel-closed",
            "the event port is closed, nobody knows by whom",
            host(HostFault::CloseChannel),
            Verdict::LostVm,
            "the event port was closed",
        ),
    ),
    immediate(
        "result-cut",
        "the machine ends in the middle of the program's last event",
        guest(GuestFault::CutResult),
        Verdict::Reset,
        "without the guest's last event",
    ),
    immediate(
        "garbage",
        "bytes that are no event",
        guest(GuestFault::Garbage),
        Verdict::LostVm,
        "the guest sent no event",
    ),
    immediate(
        "no-last-event",
        "the machine ends without the session's last event",
        guest(GuestFault::NoLastEvent),
        Verdict::Reset,
        "without the guest's last event",
    ),
    immediate(
        "forged-end",
        "the last event comes too early, and then a panic",
        guest(GuestFault::ForgedEnd),
        Verdict::Panic,
        "sysrq triggered crash",
    ),
    ControlCase {
        within: PLENTY,
        ..immediate(
            "flood",
            "events without end",
            guest(GuestFault::Flood),
            Verdict::Fail,
            "reported without end",
        )
    },
    outside(
        FaultDomain::Host,
        immediate(
            "report-folder-gone",
            "the folder of the report is removed in the middle",
            host(HostFault::RemoveFolder),
            Verdict::Infra,
            "the folder of the trial is gone",
        ),
    ),
];
