//! The start of a machine: its shares, its ports, QEMU, and the wait for the
//! guest's first word.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nlrig_guest::protocol::{Event, PORT_EVENTS, PORT_STDERR, PORT_STDIN, PORT_STDOUT};

use super::console::Console;
use super::events::Lines;
use super::streams::Streams;
use super::{Guest, Ready, loss, out_of_order, seconds};
use crate::process::{self, Child};
use crate::qemu::{self, Machine};
use crate::report::Verdict;
use crate::scratch::Scratch;
use crate::share::{Folder, Share};

/// How long a request may wait for QEMU to take it.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// What a guest is started with.
#[derive(Clone, Debug)]
pub struct Boot<'a> {
    /// This rig's own binary, which is also the share daemon.
    pub program: &'a Path,
    /// The machine, but for shares and ports.
    pub machine: Machine,
    /// What it sees of the host.
    pub folders: Vec<Folder>,
    /// Where console, events and QEMU's command line are written.
    pub dir: &'a Path,
    /// How long it may take to be ready.
    pub limit: Duration,
}

impl Guest {
    /// Starts a machine and waits until it is ready.
    ///
    /// # Errors
    /// A [`Loss`] if the guest did not come up.
    pub fn boot(boot: Boot<'_>) -> Result<Guest> {
        fs::create_dir_all(boot.dir)
            .with_context(|| format!("cannot make {}", boot.dir.display()))?;
        let scratch = Scratch::new()?;
        let mut shares = Vec::new();
        for folder in &boot.folders {
            let log = boot.dir.join(format!("share-{}.log", folder.tag));
            shares.push(Share::start(boot.program, folder, scratch.path(), &log)?);
        }

        let mut machine = boot.machine;
        machine.shares =
            shares.iter().map(|share| (share.tag.clone(), share.socket.clone())).collect();
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for name in [PORT_EVENTS, PORT_STDIN, PORT_STDOUT, PORT_STDERR] {
            let (host, guest) = process::socket_pair()?;
            machine.ports.push((name.to_string(), process::number(&guest)));
            ours.push(UnixStream::from(host));
            theirs.push(guest);
        }
        let [events, stdin, stdout, stderr] = <[UnixStream; 4]>::try_from(ours)
            .map_err(|_| anyhow::anyhow!("four ports make four sockets"))?;

        let start = Instant::now();
        let mut qemu = start_qemu(&machine, theirs, boot.dir)?;
        let piped = "QEMU was started with pipes";
        events.set_write_timeout(Some(SEND_LIMIT))?;
        let mut guest = Guest {
            console: Console::new(qemu.take_stdout().context(piped)?, &boot.dir.join("console"))?,
            complaints: Console::new(
                qemu.take_stderr().context(piped)?,
                &boot.dir.join("qemu.log"),
            )?,
            qemu,
            shares,
            events: Lines::new(events.try_clone()?, &boot.dir.join("events.jsonl"))?,
            control: events,
            streams: Streams::new(stdin, stdout, stderr)?,
            ready: Ready { clocksource: String::new(), faults: Vec::new(), boot: Duration::ZERO },
            _scratch: scratch,
        };
        guest.wait_until_ready(start, boot.limit)?;
        Ok(guest)
    }

    fn wait_until_ready(&mut self, start: Instant, limit: Duration) -> Result<()> {
        let late = || {
            loss(Verdict::GuestHang, format!("the guest said nothing within {}", seconds(limit)))
        };
        match self.next_event(start + limit, late)? {
            Event::Ready { clocksource, faults, .. } => {
                self.ready = Ready { clocksource, faults, boot: start.elapsed() };
                Ok(())
            }
            event => Err(out_of_order(&event)),
        }
    }
}

fn start_qemu(machine: &Machine, ports: Vec<OwnedFd>, dir: &Path) -> Result<Child> {
    let program = qemu::program(machine.arch);
    let arguments = qemu::arguments(machine);
    crate::cache::write(
        &dir.join("qemu.sh"),
        format!(
            "# Inherited descriptors stand for the ports.\n{}\n",
            process::show(program, &arguments)
        ),
    )?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Child::spawn(command, ports)
}
