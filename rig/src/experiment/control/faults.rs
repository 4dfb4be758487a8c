//! Every way to go wrong that a control provokes, and what must be said of it.

use std::time::Duration;

use nlrig_guest::protocol::Misbehaviour;

use crate::experiment::{Fault, Sabotage};
use crate::report::Verdict;

/// One control.
#[derive(Clone, Copy, Debug)]
pub struct Control {
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
    /// What the verdict must be,
    pub verdict: Verdict,
    /// what its reason must say,
    pub says: &'static str,
    /// and how soon it must come at the latest, after the program's start.
    pub within: Duration,
}

/// Who makes it happen.
#[derive(Clone, Copy, Debug)]
pub enum By {
    /// The module: what the workload `fault` asks it for.
    Module(&'static str),
    /// A script in the guest's shell.
    Script(&'static str),
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

const fn at_once(name: &'static str, by: By, verdict: Verdict, says: &'static str) -> Control {
    Control { name, what: "", by, sysctls: &[], timeout: PLENTY, verdict, says, within: SOON }
}

const fn late(seconds: u64, control: Control) -> Control {
    let timeout = Duration::from_secs(seconds);
    // Then the guest is asked, and QEMU's monitor after it.
    let within = Duration::from_secs(seconds + 25);
    Control { timeout, within, ..control }
}

const fn what(what: &'static str, control: Control) -> Control {
    Control { what, ..control }
}

const fn guest(how: Misbehaviour) -> By {
    By::Outside(Fault::Guest(how))
}

const fn host(how: Sabotage) -> By {
    By::Outside(Fault::Host(how))
}

/// All of them.
pub const ALL: &[Control] = &[
    what(
        "the module calls panic()",
        at_once("panic", By::Module("panic"), Verdict::Panic, "nlrig: a panic on request"),
    ),
    what(
        "there is no PID 1 to start",
        at_once(
            "no-init",
            By::Outside(Fault::Boot("rdinit=/nowhere")),
            Verdict::Panic,
            "No working init found",
        ),
    ),
    what(
        "the module writes through a null pointer",
        at_once("null-dereference", By::Module("null"), Verdict::Oops, "nlrig_null_dereference"),
    ),
    what("the module warns", at_once("warn", By::Module("warn"), Verdict::Warning, "nlrig_fault")),
    what(
        "a softirq never ends",
        Control {
            sysctls: &[("kernel.watchdog_thresh", "1")],
            ..late(
                8,
                at_once(
                    "stuck-softirq",
                    By::Script(STUCK_SOFTIRQ),
                    Verdict::Warning,
                    "soft lockup",
                ),
            )
        },
    ),
    what(
        "a task waits for ever and cannot be woken",
        Control {
            sysctls: &[("kernel.hung_task_timeout_secs", "2")],
            ..late(
                8,
                at_once(
                    "d-state",
                    By::Module("block"),
                    Verdict::Warning,
                    "is in state D in nlrig_block",
                ),
            )
        },
    ),
    what(
        "every processor spins with interrupts off",
        late(4, at_once("livelock", By::Module("livelock"), Verdict::GuestHang, "nlrig_spin")),
    ),
    what(
        "PID 1 says nothing any more; the kernel lives",
        late(4, at_once("mute", guest(Misbehaviour::Mute), Verdict::GuestHang, "nobody answers")),
    ),
    what(
        "the program does not end",
        late(4, at_once("late", By::Script("sleep 1000"), Verdict::Timeout, "sleep")),
    ),
    what(
        "the kernel is tainted, and says nothing of it",
        at_once(
            "taint",
            By::Script("echo 64 > /proc/sys/kernel/tainted"),
            Verdict::Taint,
            "U: set by a program",
        ),
    ),
    what("the program fails", at_once("fail", By::Script("exit 1"), Verdict::Fail, "Code(1)")),
    what(
        "the program reports half an object",
        at_once("half-report", By::Script("printf '{\"half\":' >&3"), Verdict::Fail, "half"),
    ),
    what(
        "the guest reboots in the middle",
        at_once(
            "reboot",
            By::Script("reboot -f"),
            Verdict::LostVm,
            "without the guest's last event",
        ),
    ),
    what(
        "a triple fault",
        at_once(
            "triple-fault",
            By::Module("triple"),
            Verdict::LostVm,
            "without the guest's last event",
        ),
    ),
    what(
        "QEMU is killed",
        at_once("qemu-killed", host(Sabotage::KillQemu), Verdict::LostVm, "QEMU ended (signal: 9"),
    ),
    what(
        "the daemon of a share is killed",
        at_once(
            "share-daemon-killed",
            host(Sabotage::KillShareDaemon),
            Verdict::LostVm,
            "the daemon of the share guest died",
        ),
    ),
    what(
        "the event port is closed",
        at_once(
            "channel-closed",
            host(Sabotage::CloseChannel),
            Verdict::LostVm,
            "without the guest's last event",
        ),
    ),
    what(
        "the machine ends in the middle of the program's last event",
        at_once(
            "result-cut",
            guest(Misbehaviour::CutResult),
            Verdict::LostVm,
            "without the guest's last event",
        ),
    ),
    what(
        "bytes that are no event",
        at_once(
            "garbage",
            guest(Misbehaviour::Garbage),
            Verdict::LostVm,
            "the guest sent no event",
        ),
    ),
    what(
        "the machine ends without the session's last event",
        at_once(
            "no-last-event",
            guest(Misbehaviour::NoLastEvent),
            Verdict::LostVm,
            "without the guest's last event",
        ),
    ),
    what(
        "the last event comes too early, and then a panic",
        at_once(
            "forged-end",
            guest(Misbehaviour::ForgedEnd),
            Verdict::Panic,
            "sysrq triggered crash",
        ),
    ),
    what(
        "events without end",
        Control {
            within: PLENTY,
            ..at_once("flood", guest(Misbehaviour::Flood), Verdict::Fail, "reported without end")
        },
    ),
    what(
        "the folder of the report is removed in the middle",
        at_once(
            "report-folder-gone",
            host(Sabotage::RemoveFolder),
            Verdict::Infra,
            "the folder of the trial is gone",
        ),
    ),
];
