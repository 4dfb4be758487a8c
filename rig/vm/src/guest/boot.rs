//! The start of a machine: its shares, its ports, QEMU, and the wait for the
//! guest's first word.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::outcome::Result;
use nlrig_host::Context;
use nlrig_init::protocol::{Event, PORT_EVENTS, PORT_STDERR, PORT_STDIN, PORT_STDOUT};

use super::console::Console;
use super::events::Lines;
use super::monitor::Monitor;
use super::streams::Streams;
use super::{COMMAND_FILE, CONSOLE_FILE, EVENTS_FILE, Guest, QEMU_LOG_FILE, Ready, seconds};
use crate::accel::Accel;
use crate::budget::Held;
use crate::confine::{Needs, Program};
use crate::qemu::{self, Machine};
use crate::share::{Folder, Share};
use nlrig_host::process::{self, Child};
use nlrig_host::scratch::Scratch;
use nlrig_host::ui::truncate;

/// How long a request may wait for QEMU to take it.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// What a guest is started with.
#[derive(Debug)]
pub struct Boot<'a> {
    /// What runs the machine.
    pub qemu: &'a Program,
    /// The machine, but for shares and ports.
    pub machine: Machine,
    /// What it sees of the host.
    pub folders: Vec<Folder>,
    /// Where console, events and QEMU's command line are written.
    pub dir: &'a Path,
    /// The names of the kernel's functions: its `System.map`.
    pub symbols: PathBuf,
    /// How long it may take to be ready.
    pub limit: Duration,
    /// How long it may take to end.
    pub end_limit: Duration,
    /// What it may take of the host.
    pub held: Held,
}

/// Kinds of processes whose confinement is reported.
const QEMU: &str = "qemu";
const SHARES: &str = "share";

impl Guest {
    /// Starts a machine and waits until it is ready.
    ///
    /// # Errors
    /// A [`VmFailure`] if the guest did not come up.
    pub fn boot(boot: Boot<'_>) -> Result<Guest> {
        fs::create_dir_all(boot.dir)
            .with_context(|| format!("cannot make {}", boot.dir.display()))?;
        let scratch = Scratch::new()?;
        let mut shares = Vec::new();
        for folder in &boot.folders {
            let log = boot.dir.join(format!("share-{}.log", folder.tag));
            shares.push(Share::start(folder, scratch.path(), &log)?);
        }

        let mut machine = boot.machine;
        let mut theirs = Vec::new();
        for share in &mut shares {
            let socket = share.take_socket().context("a share is connected once")?;
            machine.shares.push((share.tag.clone(), process::number(&socket)));
            theirs.push(socket);
        }
        let mut ours = Vec::new();
        let (console, their_console) = process::socket_pair()?;
        let (monitor, their_monitor) = process::socket_pair()?;
        machine.console = process::number(&their_console);
        machine.monitor = process::number(&their_monitor);
        theirs.extend([their_console, their_monitor]);
        for name in [PORT_EVENTS, PORT_STDIN, PORT_STDOUT, PORT_STDERR] {
            let (host, guest) = process::socket_pair()?;
            machine.ports.push((name.to_string(), process::number(&guest)));
            ours.push(UnixStream::from(host));
            theirs.push(guest);
        }
        let [events, stdin, stdout, stderr] = <[UnixStream; 4]>::try_from(ours)
            .map_err(|_| nlrig_host::Error::new("four ports make four sockets"))?;

        let start = Instant::now();
        let mut qemu = start_qemu(boot.qemu, &machine, theirs, boot.dir)?;
        let complaints = qemu.take_stderr().context("QEMU was started with a pipe")?;
        let keyboard = UnixStream::from(console.try_clone()?);
        keyboard.set_write_timeout(Some(SEND_LIMIT))?;
        events.set_write_timeout(Some(SEND_LIMIT))?;
        let mut guest = Guest {
            console: Console::new(console, &boot.dir.join(CONSOLE_FILE))?,
            complaints: Console::new(complaints, &boot.dir.join(QEMU_LOG_FILE))?,
            qemu,
            shares,
            events: Lines::new(events.try_clone()?, &boot.dir.join(EVENTS_FILE))?,
            control: events,
            keyboard,
            monitor: Monitor::new(monitor.into())?,
            dir: boot.dir.to_path_buf(),
            symbols: boot.symbols,
            taint: 0,
            taint_at_ready: 0,
            allowed: Vec::new(),
            pongs_due: 0,
            was_ready: false,
            end_limit: boot.end_limit,
            streams: Streams::new(stdin, stdout, stderr)?,
            ready: Ready::default(),
            confinement: BTreeMap::from([(QEMU.to_string(), boot.qemu.confinement().clone())]),
            _held: boot.held,
        };
        // QEMU starts meanwhile: what it asks of a daemon waits in the socket.
        for share in &mut guest.shares {
            let confinement = share.wait_until_confined()?;
            guest.confinement.insert(SHARES.to_string(), confinement);
        }
        drop(scratch);
        guest.wait_until_ready(start, boot.limit)?;
        Ok(guest)
    }

    fn wait_until_ready(&mut self, start: Instant, limit: Duration) -> Result<()> {
        match self.next_event(start + limit)? {
            Some(Event::Ready { clocksource, faults, refused, taint, .. }) => {
                let clocksource = truncate(clocksource);
                self.ready = Ready { clocksource, faults, refused, boot: start.elapsed() };
                (self.taint, self.taint_at_ready) = (taint, taint);
                self.was_ready = true;
                Ok(())
            }
            Some(event) => Err(self.out_of_order(&event)),
            None => Err(self.hung(&format!("the guest said nothing within {}", seconds(limit)))?),
        }
    }
}

fn start_qemu(
    program: &Program,
    machine: &Machine,
    mut pass: Vec<OwnedFd>,
    dir: &Path,
) -> nlrig_host::Result<Child> {
    nlrig_host::cache::write(
        &dir.join(COMMAND_FILE),
        format!(
            "# Inherited descriptors stand for the ports and the shares.\n{}\n",
            process::show(program.path(), &qemu::arguments(machine))
        ),
    )?;
    // QEMU opens these again by their descriptors: so it needs no right to any
    // folder on the way to them.
    let open = |path: &Path| -> nlrig_host::Result<OwnedFd> {
        let file = File::open(path);
        Ok(file.with_context(|| format!("cannot read {}", path.display()))?.into())
    };
    let (kernel, initramfs) = (open(&machine.kernel)?, open(&machine.initramfs)?);
    let (kernel_again, initramfs_again) = (kernel.try_clone()?, initramfs.try_clone()?);
    let by_number = |fd: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", process::number(fd)));
    let machine =
        Machine { kernel: by_number(&kernel), initramfs: by_number(&initramfs), ..machine.clone() };
    let devices: &[&Path] = match machine.accel {
        Accel::Kvm => &[Path::new("/dev/kvm")],
        Accel::Tcg => &[],
    };
    pass.extend([kernel, initramfs]);
    let readable = [kernel_again.as_fd(), initramfs_again.as_fd()];
    let file_bytes = machine.memory_bytes;
    let needs = Needs { readable: &readable, devices, file_bytes };
    let mut command = Command::new(program.path());
    command.args(qemu::arguments(&machine));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    program.spawn(command, pass, &needs)
}
