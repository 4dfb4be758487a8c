//! The workload `fault`: requests a fault from the module by name.
//!
//! `none` requests no fault, and the module must acknowledge it.

use std::fs;
use std::process::ExitCode;

use nlrig_guest::netlink::EchoSocket;
use nlrig_guest::uapi;

/// The module parameter that enables faults; see `module/fault.c`.
const SWITCH: &str = "/sys/module/nlrig/parameters/faults";

const KINDS: [(&str, u32); 8] = [
    ("none", uapi::NLRIG_FAULT_NONE),
    ("panic", uapi::NLRIG_FAULT_PANIC),
    ("null", uapi::NLRIG_FAULT_NULL),
    ("warn", uapi::NLRIG_FAULT_WARN),
    ("softirq", uapi::NLRIG_FAULT_SOFTIRQ),
    ("block", uapi::NLRIG_FAULT_BLOCK),
    ("livelock", uapi::NLRIG_FAULT_LIVELOCK),
    ("triple", uapi::NLRIG_FAULT_TRIPLE),
];

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == name) else {
        eprintln!("fault: unknown fault \"{name}\"");
        return ExitCode::from(2);
    };
    if let Err(err) = fs::write(SWITCH, "1") {
        eprintln!("fault: {SWITCH}: {err}");
        return ExitCode::FAILURE;
    }
    match EchoSocket::open().and_then(|socket| socket.fault(*kind)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("fault: {} failed: errno {}", failure.call.name(), failure.errno);
            ExitCode::FAILURE
        }
    }
}
