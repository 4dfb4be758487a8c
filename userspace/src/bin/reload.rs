//! The workload `reload TIMES`: unloads and loads the module `TIMES` times,
//! with an echo after each load, and measures the kernel memory lost.

use std::error::Error;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::FromRawFd;
use std::process::ExitCode;
use std::time::Instant;

use nix::kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module};
use nlrig_guest::kmemleak;
use nlrig_guest::netlink::EchoSocket;
use nlrig_guest::protocol::WORKLOAD_FD;
use serde_json::json;

const MODULE: &str = "/run/nlrig/guest/modules/nlrig.ko";
const NAME: &CStr = c"nlrig";
/// Caches fill up in the first rounds. Growth after them is a leak.
const WARM_UP: u32 = 50;
/// Rounds between two heartbeats.
const PROGRESS_EVERY: u32 = 25;
/// Module parameters of the rounds, so that all parts of the module are loaded
/// and unloaded.
const PARAMETERS: [&CStr; 4] = [c"", c"article=26", c"paper=27", c"article=26 paper=27"];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("reload: {err}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let times: u32 = std::env::args().nth(1).ok_or("missing argument TIMES")?.parse()?;
    // SAFETY: PID 1 opened this descriptor, and nothing else in this process
    // uses it.
    let mut report = unsafe { File::from_raw_fd(WORKLOAD_FD) };
    let has_kmemleak = kmemleak::clear()?;
    let mut before = memory_kib()?;
    let start = Instant::now();
    for round in 0..times {
        if round == WARM_UP {
            before = memory_kib()?;
        }
        once(round).map_err(|err| format!("round {round}: {err}"))?;
        if round % PROGRESS_EVERY == 0 {
            writeln!(report, "{}", json!({ "progress": { "rounds": round } }))?;
        }
    }
    let grown_kib = memory_kib()? - before;
    let seconds = start.elapsed().as_secs_f64();
    writeln!(report, "{}", json!({ "rounds": times, "rounds_per_s": f64::from(times) / seconds }))?;
    writeln!(
        report,
        "{}",
        json!({ "grown_kib": grown_kib, "counted": times.saturating_sub(WARM_UP) })
    )?;
    if has_kmemleak {
        let leaks = kmemleak::scan()?;
        writeln!(report, "{}", json!({ "leaks": leaks.objects, "leak": leaks.first }))?;
    }
    Ok(())
}

fn once(round: u32) -> Result<(), Box<dyn Error>> {
    delete_module(NAME, DeleteModuleFlags::O_NONBLOCK)?;
    let parameters = PARAMETERS[round as usize % PARAMETERS.len()];
    finit_module(&File::open(MODULE)?, parameters, ModuleInitFlags::empty())?;
    // Closed immediately, because an open socket holds a reference to the
    // module.
    let socket = EchoSocket::open().map_err(|failure| format!("{failure:?}"))?;
    let echoed = socket.echo(u64::from(round));
    // SAFETY: the descriptor is that of `socket`, which is not used afterwards.
    unsafe { libc::close(socket.fd()) };
    Ok(echoed.map_err(|failure| format!("{failure:?}"))?)
}

/// Kernel memory that a module can leak: slabs, vmalloc space and page tables.
fn memory_kib() -> Result<i64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<i64>().ok()).unwrap_or(0)
    };
    Ok(["SUnreclaim:", "VmallocUsed:", "PageTables:"].into_iter().map(field).sum())
}
