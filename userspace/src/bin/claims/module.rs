//! The kernel module, as the rows use it: loading, parameters, and requests to
//! send. `module/uapi/nlrig.h` documents them; its counters are in [`crate::state`].

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::time::Duration;

use nix::kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module};
use nlrig_guest::uapi::*;
use nlrig_netlink::{Builder, Errno, Header, Limits, Socket, request_ack};

use crate::evidence::Trouble;
use crate::state::State;

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
            body.u32(NLRIG_A_SEND_COUNT as u16, self.count);
            body.u32(NLRIG_A_SEND_SIZE as u16, self.size);
            body.u32(NLRIG_A_SEND_DELAY_MS as u16, self.delay_ms);
            body.u32(NLRIG_A_SEND_CONTEXT as u16, self.context);
            let optional = [
                (NLRIG_A_SEND_PORTID, self.portid),
                (NLRIG_A_SEND_GROUP, self.group),
                (NLRIG_A_SEND_PROTOCOL, self.protocol),
            ];
            for (attribute, value) in optional {
                if let Some(value) = value {
                    body.u32(attribute as u16, value);
                }
            }
            if self.block {
                body.flag(NLRIG_A_SEND_BLOCK as u16);
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
        if !State::wait(|state| state.send.done, Duration::from_secs(15))? {
            return Err("the module has not sent what it was asked for".into());
        }
        State::read()
    }
}
