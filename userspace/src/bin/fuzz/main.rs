//! The workload `fuzz SECONDS SEED`: sends malformed messages to the module, as
//! a user and as root, and checks that the kernel survives.
//!
//! Each burst is a child process with its own seed. A burst that hangs is
//! killed: SIGKILL must end a sender in any wait of the module.

mod junk;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::FromRawFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use junk::Xorshift;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, setgid, setuid};
use nlrig_guest::kmemleak;
use nlrig_guest::netlink::EchoSocket;
use nlrig_guest::protocol::WORKLOAD_FD;
use nlrig_guest::uapi::{
    NETLINK_NLRIG, NLRIG_IOC_EXCHANGE, NLRIG_IOC_WAKE, NLRIG_MSG_BASE, NLRIG_MSG_MAX,
};
use nlrig_netlink::{Address, Errno, GroupMask, Messages, Socket};
use serde_json::{Map, Value, json};

/// The maximum number of messages of a burst.
const BURST: u32 = 2000;
/// The longest time of a burst, for slow debug kernels.
const BURST_TIME: Duration = Duration::from_secs(2);
/// A burst that takes longer hangs and is killed.
const BURST_TIMEOUT: Duration = Duration::from_secs(8);
/// The uid and gid of an unprivileged user.
const USER: u32 = 1000;
/// Bursts in parallel.
const MAX_PARALLEL: u64 = 4;

/// Counts of answers by type and errno. They show the code that the messages
/// reached.
type Counts = BTreeMap<String, u64>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("fuzz: {err}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().ok_or("missing argument SECONDS")?.parse()?;
    let seed: u64 = arguments.next().ok_or("missing argument SEED")?.parse()?;
    // SAFETY: PID 1 opened this descriptor, and nothing else in this process
    // uses it.
    let mut report = unsafe { File::from_raw_fd(WORKLOAD_FD) };
    let has_kmemleak = kmemleak::clear()?;
    let (mut counts, mut bursts, mut killed) = (Counts::new(), 0, 0);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < deadline {
        let round: Vec<_> = (bursts..bursts + MAX_PARALLEL)
            .map(|burst| start(seed ^ (burst << 20), burst % 4 != 0))
            .collect::<Result<_, _>>()?;
        bursts += MAX_PARALLEL;
        for burst in round {
            match burst.wait()? {
                Some(found) => {
                    found.into_iter().for_each(|(key, n)| *counts.entry(key).or_default() += n)
                }
                None => killed += 1,
            }
        }
        writeln!(report, "{}", json!({ "progress": { "bursts": bursts } }))?;
    }
    let counts: Map<String, Value> = counts.into_iter().map(|(key, n)| (key, json!(n))).collect();
    writeln!(report, "{}", json!({ "bursts": bursts, "killed": killed, "counts": counts }))?;
    // The module must still work.
    let socket = EchoSocket::open().map_err(|failure| format!("{failure:?}"))?;
    socket.echo(1).map_err(|failure| format!("the echo after the bursts failed: {failure:?}"))?;
    if has_kmemleak {
        let leaks = kmemleak::scan()?;
        writeln!(report, "{}", json!({ "leaks": leaks.objects, "leak": leaks.first }))?;
    }
    Ok(())
}

/// A child process that sends one burst.
struct Burst {
    pid: Pid,
    counts: std::io::PipeReader,
    deadline: Instant,
}

fn start(seed: u64, as_user: bool) -> Result<Burst, Box<dyn Error>> {
    let (counts, mut writer) = std::io::pipe()?;
    let deadline = Instant::now() + BURST_TIMEOUT;
    // SAFETY: the process has a single thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Burst { pid: child, counts, deadline }),
        ForkResult::Child => {
            let status = match burst(seed, as_user) {
                Ok(found) => serde_json::to_writer(&mut writer, &found).map_or(1, |()| 0),
                Err(err) => {
                    eprintln!("fuzz: seed {seed}: {err}");
                    1
                }
            };
            drop(writer);
            // SAFETY: _exit() ends the forked child without running exit
            // handlers.
            unsafe { libc::_exit(status) }
        }
    }
}

impl Burst {
    /// Waits for the child. Returns its counts, or None if it had to be killed.
    fn wait(self) -> Result<Option<Counts>, Box<dyn Error>> {
        loop {
            let status = waitpid(self.pid, Some(WaitPidFlag::WNOHANG))?;
            match status {
                WaitStatus::StillAlive if Instant::now() > self.deadline => {
                    kill(self.pid, Signal::SIGKILL)?;
                    waitpid(self.pid, None)?;
                    return Ok(None);
                }
                WaitStatus::StillAlive => std::thread::sleep(Duration::from_millis(2)),
                // The counts fit into the pipe, so the child never blocks on
                // writing them.
                WaitStatus::Exited(_, 0) => return Ok(Some(serde_json::from_reader(self.counts)?)),
                other => return Err(format!("a burst ended with {other:?}").into()),
            }
        }
    }
}

fn burst(seed: u64, as_user: bool) -> Result<Counts, Box<dyn Error>> {
    let mut random = Xorshift::new(seed);
    if as_user {
        setgid(Gid::from_raw(USER))?;
        setuid(Uid::from_raw(USER))?;
    }
    let mut counts = Counts::new();
    let mut socket = new_socket(&mut random)?;
    let mut buffer = vec![0; 64 << 10];
    let start = Instant::now();
    for _ in 0..BURST {
        if start.elapsed() > BURST_TIME {
            break;
        }
        let datagram = junk::datagram(&mut random);
        let flags = if random.one_in(2) { libc::MSG_DONTWAIT } else { 0 };
        let sent = match random.below(3) {
            0 => socket.send(&datagram, flags),
            1 => socket.send_to(&datagram, Address::KERNEL, flags),
            _ => socket.send_message(&datagram, Some(Address::KERNEL), flags),
        };
        let key = sent.map_or_else(|errno| format!("send {errno}"), |_| "sent".to_string());
        *counts.entry(key).or_default() += 1;
        // Not always read, so that receive buffers fill up.
        if random.one_in(2) {
            drain(&socket, &mut buffer, &mut counts);
        }
        if random.one_in(50) {
            socket = new_socket(&mut random)?;
        }
        if !as_user && random.one_in(20) {
            write_junk_to_file(&mut random);
        }
    }
    Ok(counts)
}

/// A new socket with random options, port and groups.
fn new_socket(random: &mut Xorshift) -> Result<Socket, Box<dyn Error>> {
    let socket = Socket::new(NETLINK_NLRIG as i32)?;
    // The kernel may refuse any of these calls.
    if random.one_in(3) {
        let _ = socket.set_receive_buffer(random.below(8192) as i32);
    }
    if random.one_in(3) {
        let _ = socket.bind(random.next() as u32, GroupMask(random.next() as u32));
    }
    if random.one_in(3) {
        let _ = socket.set_extended_acks(true);
    }
    if random.one_in(3) {
        let _ = socket.set_option(libc::SOL_NETLINK, random.below(16) as i32, random.next() as i32);
    }
    Ok(socket)
}

fn drain(socket: &Socket, buffer: &mut [u8], counts: &mut Counts) {
    while let Ok(length) = socket.recv(buffer, libc::MSG_DONTWAIT) {
        for message in Messages::new(&buffer[..length.min(buffer.len())]) {
            let key = match message.as_ref().map(|message| message.ack()) {
                Ok(Some(Ok(ack))) => {
                    format!("{} of {}", errno_name(ack.errno), type_name(ack.header.kind))
                }
                Ok(_) => "answer".to_string(),
                Err(_) => "malformed answer".to_string(),
            };
            *counts.entry(key).or_default() += 1;
        }
    }
}

/// Sends random data to the module's other interfaces.
fn write_junk_to_file(random: &mut Xorshift) {
    const FILES: [&str; 6] = [
        "/dev/nlrig",
        "/proc/nlrig/value",
        "/proc/nlrig/big",
        "/sys/kernel/nlrig/value",
        "/sys/kernel/nlrig/blob",
        "/sys/kernel/nlrig/page",
    ];
    let path = FILES[random.below(FILES.len() as u64) as usize];
    // The module may refuse the data.
    let _ = fs::write(path, junk::bytes(random, 600));
    if let Ok(file) = File::open("/dev/nlrig") {
        let mut argument = junk::bytes(random, 64);
        argument.resize(64, 0);
        let request = match random.below(4) {
            0 => random.next() as u32,
            1 => NLRIG_IOC_WAKE,
            _ => NLRIG_IOC_EXCHANGE,
        };
        // SAFETY: the device's two ioctls access at most 16 bytes, all within
        // `argument`; other requests fail.
        unsafe {
            libc::ioctl(
                std::os::fd::AsRawFd::as_raw_fd(&file),
                request as _,
                argument.as_mut_ptr(),
            );
        }
    }
}

/// The name of a message type. All unknown types share one name.
fn type_name(kind: u16) -> String {
    match u32::from(kind) {
        NLRIG_MSG_BASE..=NLRIG_MSG_MAX => format!("type {kind}"),
        _ => "another type".to_string(),
    }
}

fn errno_name(errno: i32) -> String {
    if errno == 0 { "ok".to_string() } else { Errno(errno).to_string() }
}
