//! The workload `echo`: opens one socket, exchanges one echo and reports the
//! result.

use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::process::ExitCode;

use nlrig_guest::netlink::EchoSocket;
use nlrig_guest::protocol::WORKLOAD_FD;

/// An arbitrary cookie, which the module must return.
const COOKIE: u64 = 0x6e6c_7269_6720_6f6b;

fn main() -> ExitCode {
    let line = match EchoSocket::open().and_then(|socket| socket.echo(COOKIE).map(|()| socket)) {
        Ok(socket) => serde_json::json!({ "portid": socket.portid() }),
        Err(failure) => {
            serde_json::json!({ "failed": failure.call.name(), "errno": failure.errno })
        }
    };
    // SAFETY: PID 1 opened this descriptor, and nothing else in this process
    // uses it.
    let mut report = unsafe { File::from_raw_fd(WORKLOAD_FD) };
    match writeln!(report, "{line}") {
        Ok(()) if line.get("portid").is_some() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
