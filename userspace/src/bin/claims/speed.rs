//! Claims about speed: netlink compared with other ways of communication.
//!
//! Results are ratios, because the guest may run under emulation.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use nlrig_guest::netlink;
use nlrig_guest::uapi::*;
use nlrig_netlink::{GroupMask, Socket};

use crate::Cases;
use crate::chardev::Device;
use crate::evidence::{BoxError, Evidence};
use crate::module::SendRequest;
use crate::process::{ForkedChild, pin_to_cpu};

pub const CASES: Cases = &[
    ("A33.8", netlink_and_others_among_programs),
    ("B6", mapped_memory_and_calls),
    ("B24.1", netlink_ioctl_and_pipes),
    ("B24.2", netlink_and_files),
    ("B24.3", netlink_and_another_socket),
    ("B24.4", netlink_and_files_with_64_kib),
];

/// The number of measurements per method; the median counts.
const ROUNDS: usize = 250;
/// Exchanges per measurement, because reading the clock takes time too.
const CALLS: u32 = 8;
/// Reads of mapped memory per measurement.
const LOADS: u32 = 1000;

/// A method of exchanging a number, with its measured times.
struct Method<'a> {
    calls: u32,
    exchange: Box<dyn FnMut() -> Result<(), BoxError> + 'a>,
    times_ns: Vec<f64>,
}

impl<'a> Method<'a> {
    fn new(exchange: impl FnMut() -> Result<(), BoxError> + 'a) -> Method<'a> {
        Method { calls: CALLS, exchange: Box::new(exchange), times_ns: Vec::new() }
    }

    fn time(&mut self) -> Result<(), BoxError> {
        let start = Instant::now();
        for _ in 0..self.calls {
            (self.exchange)()?;
        }
        self.times_ns.push(start.elapsed().as_nanos() as f64 / f64::from(self.calls));
        Ok(())
    }
}

/// The median time of each method in nanoseconds. The methods alternate, so
/// that a slow phase of the machine affects all of them.
fn medians<const N: usize>(mut methods: [Method; N]) -> Result<[f64; N], BoxError> {
    // One CPU, because cross-CPU wakeups are not part of the comparison.
    pin_to_cpu(0)?;
    for _ in 0..ROUNDS {
        for method in &mut methods {
            method.time()?;
        }
    }
    Ok(methods.map(|mut method| {
        method.times_ns.sort_unstable_by(f64::total_cmp);
        method.times_ns[ROUNDS / 2]
    }))
}

/// Notes a ratio with one decimal.
fn note_ratio(evidence: &mut Evidence, key: &str, ratio: f64) {
    evidence.note(key, (ratio * 10.0).round() / 10.0);
}

/// By netlink: send() queues the answer before it returns, then recv().
fn by_netlink<'a>() -> Result<Method<'a>, BoxError> {
    let failed = |failure: netlink::Failure| format!("{}: {}", failure.call.name(), failure.errno);
    let socket = netlink::EchoSocket::open().map_err(failed)?;
    let mut number = 0;
    Ok(Method::new(move || {
        number += 1;
        Ok(socket.echo(number).map_err(failed)?)
    }))
}

fn by_ioctl(device: &Device) -> Method<'_> {
    let mut number = 0;
    Method::new(move || {
        number += 1;
        match device.exchange(number)?.value == number + 1 {
            true => Ok(()),
            false => Err("the answer has another number".into()),
        }
    })
}

/// By an open file: write, then read and compare with `back`.
fn by_file<'a>(path: &str, back: &'a str) -> Result<Method<'a>, BoxError> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut text = [0; 32];
    Ok(Method::new(move || {
        file.write_at(b"41", 0)?;
        let length = file.read_at(&mut text, 0)?;
        match text[..length].trim_ascii() == back.as_bytes() {
            true => Ok(()),
            false => Err("the answer has another number".into()),
        }
    }))
}

/// As many bytes as an echo has.
const NOTE: [u8; 32] = [b'.'; 32];

/// By a pipe within this process: write and read.
fn by_own_pipe<'a>() -> Result<Method<'a>, BoxError> {
    let (mut reader, mut writer) = io::pipe()?;
    let mut note = NOTE;
    Ok(Method::new(move || {
        writer.write_all(&NOTE)?;
        Ok(reader.read_exact(&mut note)?)
    }))
}

/// By a pair of Unix datagram sockets within this process: send and receive.
fn by_own_sockets<'a>() -> Result<Method<'a>, BoxError> {
    let (one, other) = UnixDatagram::pair()?;
    let mut note = NOTE;
    Ok(Method::new(move || {
        one.send(&NOTE)?;
        other.recv(&mut note)?;
        Ok(())
    }))
}

/// By two netlink sockets within this process: send and receive.
fn by_own_netlink<'a>() -> Result<Method<'a>, BoxError> {
    let (one, other) = (Socket::new(libc::NETLINK_USERSOCK)?, Socket::new(libc::NETLINK_USERSOCK)?);
    other.bind(0, GroupMask(0))?;
    one.connect(other.address()?.portid, GroupMask(0))?;
    let mut note = NOTE;
    Ok(Method::new(move || {
        one.send(&NOTE, 0)?;
        other.recv(&mut note, 0)?;
        Ok(())
    }))
}

fn netlink_and_others_among_programs(evidence: &mut Evidence) -> Result<(), BoxError> {
    let [netlink, pipe, socket] = medians([by_own_netlink()?, by_own_pipe()?, by_own_sockets()?])?;
    note_ratio(evidence, "netlink_by_pipe", netlink / pipe);
    note_ratio(evidence, "netlink_by_socket", netlink / socket);
    Ok(())
}

fn mapped_memory_and_calls(evidence: &mut Evidence) -> Result<(), BoxError> {
    let device = Device::open()?;
    let page = device.page()?;
    // The mapping shows the result of this exchange.
    let back = device.exchange(41)?;
    evidence.note("in_mapping", page.exchange().value == back.value);
    let mut mapped = Method::new(|| {
        black_box(page.exchange());
        Ok(())
    });
    mapped.calls = LOADS;
    let [mapped, ioctl, netlink] = medians([mapped, by_ioctl(&device), by_netlink()?])?;
    note_ratio(evidence, "ioctl_by_mapped", ioctl / mapped);
    note_ratio(evidence, "netlink_by_mapped", netlink / mapped);
    note_ratio(evidence, "netlink_by_ioctl", netlink / ioctl);
    Ok(())
}

fn netlink_and_files(evidence: &mut Evidence) -> Result<(), BoxError> {
    // A module parameter, because writing the module's own sysfs file also
    // signals an event.
    let parameter = "/sys/module/nlrig/parameters/article_delay_ms";
    let methods = [by_netlink()?, by_file("/proc/nlrig/value", "42")?, by_file(parameter, "41")?];
    let [netlink, proc, sysfs] = medians(methods)?;
    note_ratio(evidence, "netlink_by_proc", netlink / proc);
    note_ratio(evidence, "netlink_by_sysfs", netlink / sysfs);
    Ok(())
}

fn netlink_and_another_socket(evidence: &mut Evidence) -> Result<(), BoxError> {
    let device = Device::open()?;
    let [netlink, socket, ioctl] = medians([by_netlink()?, by_own_sockets()?, by_ioctl(&device)])?;
    note_ratio(evidence, "socket_by_ioctl", socket / ioctl);
    note_ratio(evidence, "netlink_by_ioctl", netlink / ioctl);
    Ok(())
}

/// A process that echoes its input, through two pipes.
struct EchoProcess {
    there: PipeWriter,
    back: PipeReader,
    _process: ForkedChild,
}

impl EchoProcess {
    fn start() -> Result<EchoProcess, BoxError> {
        let (mut from_us, there) = io::pipe()?;
        let (back, mut to_us) = io::pipe()?;
        let process = ForkedChild::start(|| {
            pin_to_cpu(0)?;
            let mut note = NOTE;
            loop {
                from_us.read_exact(&mut note)?;
                to_us.write_all(&note)?;
            }
        })?;
        Ok(EchoProcess { there, back, _process: process })
    }
}

fn netlink_ioctl_and_pipes(evidence: &mut Evidence) -> Result<(), BoxError> {
    let mut echo_process = EchoProcess::start()?;
    let device = Device::open()?;
    let mut note = NOTE;
    let pipes = Method::new(|| {
        echo_process.there.write_all(&NOTE)?;
        Ok(echo_process.back.read_exact(&mut note)?)
    });
    let [netlink, ioctl, pipes] = medians([by_netlink()?, by_ioctl(&device), pipes])?;
    note_ratio(evidence, "netlink_by_ioctl", netlink / ioctl);
    note_ratio(evidence, "pipes_by_netlink", pipes / netlink);
    Ok(())
}

/// 64 KiB from the kernel: as one netlink message, as one read() from a /proc
/// file, and as reads of a sysfs file, which returns one page at a time.
fn netlink_and_files_with_64_kib(evidence: &mut Evidence) -> Result<(), BoxError> {
    const BYTES: usize = 64 << 10;
    let (requester, socket) =
        (Socket::new(NETLINK_NLRIG as i32)?, Socket::new(NETLINK_NLRIG as i32)?);
    socket.bind(0, GroupMask(0))?;
    let portid = socket.address()?.portid;
    let send = SendRequest {
        count: 1,
        size: BYTES as u32,
        portid: Some(portid),
        ..SendRequest::default()
    };
    let mut buffer = vec![0; 2 * BYTES];
    let mut message = Method::new(|| {
        send.submit(&requester)??;
        match socket.recv(&mut buffer, libc::MSG_DONTWAIT)? > BYTES {
            true => Ok(()),
            false => Err("the message is too short".into()),
        }
    });
    message.calls = 1;
    let mut proc = by_reading("/proc/nlrig/big", BYTES)?;
    let mut sysfs = by_reading("/sys/kernel/nlrig/blob", BYTES)?;
    (proc.calls, sysfs.calls) = (1, 1);
    let [message, proc, sysfs] = medians([message, proc, sysfs])?;
    note_ratio(evidence, "netlink_by_proc", message / proc);
    note_ratio(evidence, "netlink_by_sysfs", message / sysfs);
    Ok(())
}

fn by_reading<'a>(path: &str, bytes: usize) -> Result<Method<'a>, BoxError> {
    let file = File::open(path)?;
    let mut buffer = vec![0; bytes];
    Ok(Method::new(move || Ok(file.read_exact_at(&mut buffer, 0)?)))
}
