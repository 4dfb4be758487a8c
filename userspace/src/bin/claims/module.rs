//! The kernel module, as the rows use it: its parameters, what it counts, what it
//! is asked to send. `module/uapi/nlrig.h` says what all of it means.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::time::{Duration, Instant};

use nix::kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module};
use nlrig_guest::uapi::*;
use nlrig_netlink::wire::NLM_F_REQUEST;
use nlrig_netlink::{Address, Builder, Errno, Header, Limits, Messages, Socket, request_ack};

use crate::evidence::Trouble;

const FILE: &str = "/run/nlrig/guest/modules/nlrig.ko";
const NAME: &CStr = c"nlrig";
const PARAMETERS: &str = "/sys/module/nlrig/parameters";

/// Writes a parameter of the module.
pub fn set(name: &str, value: impl ToString) -> Result<(), io::Error> {
    fs::write(format!("{PARAMETERS}/{name}"), value.to_string())
}

/// Unloads the module; does not wait until nobody uses it.
pub fn unload() -> Result<(), Errno> {
    delete_module(NAME, DeleteModuleFlags::O_NONBLOCK).map_err(|err| Errno(err as i32))
}

/// Loads the module anew, with these parameters: `article=26 paper=27`.
pub fn load(parameters: &CStr) -> Result<(), Trouble> {
    Ok(finit_module(&File::open(FILE)?, parameters, ModuleInitFlags::empty())?)
}

/// Whether the module is loaded, and its init is over.
pub fn is_live() -> bool {
    fs::read_to_string("/sys/module/nlrig/initstate").is_ok_and(|state| state.trim() == "live")
}

/// Switches on the article's module, if it is not on yet, and sets how it
/// answers: so many times, each after a wait, to the port that nlmsg_pid says.
pub fn article(replies: u32, delay: Duration) -> Result<(), Trouble> {
    set("article_replies", replies)?;
    set("article_delay_ms", delay.as_millis())?;
    set("article_reply_to_source", 0)?;
    set("article_writes_literal", 0)?;
    switch_on("article", NETLINK_NLRIG_ARTICLE)
}

/// Switches on the paper's module, if it is not on yet: one thread that sleeps so
/// long over each message, with copies.
pub fn paper(delay: Duration) -> Result<(), Trouble> {
    set("paper_delay_ms", delay.as_millis())?;
    set("paper_takes_reference", 0)?;
    switch_on("paper", NETLINK_NLRIG_PAPER)
}

fn switch_on(name: &str, protocol: u32) -> Result<(), Trouble> {
    match set(name, protocol) {
        Err(err) if err.raw_os_error() != Some(libc::EBUSY) => {
            Err(format!("cannot switch on {name}: {err}").into())
        }
        _ => Ok(()),
    }
}

/// What the module counts: `NLRIG_A_*` from `NLRIG_A_SENT` on.
pub struct State(BTreeMap<u32, u32>);

impl State {
    /// Asks for it.
    pub fn read() -> Result<State, Trouble> {
        State::ask(false)
    }

    /// Asks for it, and sets the counters back.
    pub fn reset() -> Result<State, Trouble> {
        State::ask(true)
    }

    fn ask(reset: bool) -> Result<State, Trouble> {
        let socket = Socket::new(NETLINK_NLRIG as i32)?;
        let mut request = Builder::new();
        request.message(Header::new(NLRIG_MSG_STATE as u16, NLM_F_REQUEST, 1), |body| {
            if reset {
                body.flag(NLRIG_A_RESET as u16);
            }
        });
        socket.send_to(request.bytes()?, Address::KERNEL, 0)?;
        let mut buffer = [0; 4096];
        // The module answers before send returns.
        let length = socket.recv(&mut buffer, libc::MSG_DONTWAIT)?;
        let answer = Messages::new(&buffer[..length]).next().ok_or("an empty answer")??;
        if u32::from(answer.header.kind) != NLRIG_MSG_STATE_REPLY {
            return Err(format!("no state but a message of type {}", answer.header.kind).into());
        }
        let known = answer.attributes(0).flatten();
        Ok(State(known.filter_map(|one| Some((u32::from(one.kind()), one.u32()?))).collect()))
    }

    /// One counter.
    pub fn get(&self, attribute: u32) -> u32 {
        self.0.get(&attribute).copied().unwrap_or(0)
    }

    /// Waits until one counter is at least this; false if that takes too long.
    pub fn wait(attribute: u32, least: u32, limit: Duration) -> Result<bool, Trouble> {
        let deadline = Instant::now() + limit;
        loop {
            if State::read()?.get(attribute) >= least {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What the module is asked to send: attributes of NLRIG_MSG_SEND.
#[derive(Clone, Copy, Debug, Default)]
pub struct Send {
    pub count: u32,
    pub size: u32,
    pub delay_ms: u32,
    /// The asker's own if None.
    pub portid: Option<u32>,
    pub group: Option<u32>,
    /// NLRIG_CONTEXT_*.
    pub context: u32,
    /// Through the kernel's socket of this protocol.
    pub protocol: Option<u32>,
    /// Wait for room.
    pub block: bool,
}

impl Send {
    /// Asks for it from a socket of NETLINK_NLRIG, and gives back the module's
    /// answer. What became of it is in [`State`].
    pub fn ask(&self, from: &Socket) -> Result<Result<(), Errno>, Trouble> {
        let mut request = Builder::new();
        request.message(Header::ack(NLRIG_MSG_SEND as u16, 0, 1), |body| {
            body.u32(NLRIG_A_COUNT as u16, self.count);
            body.u32(NLRIG_A_SIZE as u16, self.size);
            body.u32(NLRIG_A_DELAY_MS as u16, self.delay_ms);
            body.u32(NLRIG_A_CONTEXT as u16, self.context);
            let optional = [
                (NLRIG_A_PORTID, self.portid),
                (NLRIG_A_GROUP, self.group),
                (NLRIG_A_PROTOCOL, self.protocol),
            ];
            for (attribute, value) in optional {
                if let Some(value) = value {
                    body.u32(attribute as u16, value);
                }
            }
            if self.block {
                body.flag(NLRIG_A_BLOCK as u16);
            }
        });
        let mut buffer = [0; 8192];
        let ack = request_ack(from, request.bytes()?, &mut buffer, Limits::default())?;
        Ok(ack.result())
    }

    /// Asks for it from a socket of its own, and waits until it is over.
    pub fn run(&self) -> Result<State, Trouble> {
        let asker = Socket::new(NETLINK_NLRIG as i32)?;
        self.ask(&asker)??;
        if !State::wait(NLRIG_A_OVER, 1, Duration::from_secs(15))? {
            return Err("the module has not sent what it was asked for".into());
        }
        State::read()
    }
}
