//! The kernel module: loading, parameters, and send requests.
//! `module/uapi/nlrig.h` documents them; the counters are in [`crate::state`].

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::time::Duration;

use nix::kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module};
use nlrig_guest::uapi::*;
use nlrig_netlink::{Errno, Header, MessageBuilder, RequestLimits, Socket, request_ack};

use crate::evidence::BoxError;
use crate::state::State;

const FILE: &str = "/run/nlrig/guest/modules/nlrig.ko";
const NAME: &CStr = c"nlrig";
const PARAMETERS: &str = "/sys/module/nlrig/parameters";

/// Writes a module parameter.
pub fn set(name: &str, value: impl ToString) -> Result<(), io::Error> {
    fs::write(format!("{PARAMETERS}/{name}"), value.to_string())
}

/// Unloads the module. Fails immediately if it is in use.
pub fn unload() -> Result<(), Errno> {
    delete_module(NAME, DeleteModuleFlags::O_NONBLOCK).map_err(|err| Errno(err as i32))
}

/// Loads the module with parameters, such as `article=26 paper=27`.
pub fn load(parameters: &CStr) -> Result<(), BoxError> {
    Ok(finit_module(&File::open(FILE)?, parameters, ModuleInitFlags::empty())?)
}

/// Whether the module is loaded and initialised.
pub fn is_live() -> bool {
    fs::read_to_string("/sys/module/nlrig/initstate").is_ok_and(|state| state.trim() == "live")
}

/// Enables the article's module and sets its answers: `replies` messages, each
/// after `delay`, to the port in nlmsg_pid.
pub fn article(replies: u32, delay: Duration) -> Result<(), BoxError> {
    set("article_replies", replies)?;
    set("article_delay_ms", delay.as_millis())?;
    set("article_reply_to_source", 0)?;
    set("article_writes_literal", 0)?;
    enable("article", NETLINK_NLRIG_ARTICLE)
}

/// Enables the paper's module: one thread that sleeps for `delay` on each
/// message and works on copies.
pub fn paper(delay: Duration) -> Result<(), BoxError> {
    set("paper_delay_ms", delay.as_millis())?;
    set("paper_takes_reference", 0)?;
    enable("paper", NETLINK_NLRIG_PAPER)
}

fn enable(name: &str, protocol: u32) -> Result<(), BoxError> {
    match set(name, protocol) {
        Err(err) if err.raw_os_error() != Some(libc::EBUSY) => {
            Err(format!("cannot enable {name}: {err}").into())
        }
        _ => Ok(()),
    }
}

/// A request to send messages: the attributes of NLRIG_MSG_SEND.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendRequest {
    pub count: u32,
    pub size: u32,
    pub delay_ms: u32,
    /// The destination port; None for the requester's own.
    pub portid: Option<u32>,
    pub group: Option<u32>,
    /// NLRIG_CONTEXT_*.
    pub context: u32,
    /// Send through the kernel socket of this protocol.
    pub protocol: Option<u32>,
    /// Block while the receive buffer is full.
    pub block: bool,
}

impl SendRequest {
    /// Sends the request from a NETLINK_NLRIG socket and returns the module's
    /// acknowledgement. The outcome is in [`State`].
    pub fn submit(&self, from: &Socket) -> Result<Result<(), Errno>, BoxError> {
        let mut request = MessageBuilder::new();
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
        let ack = request_ack(from, request.bytes()?, &mut buffer, RequestLimits::default())?;
        Ok(ack.result())
    }

    /// Sends the request from a new socket and waits until the module has
    /// finished.
    pub fn run(&self) -> Result<State, BoxError> {
        let requester = Socket::new(NETLINK_NLRIG as i32)?;
        self.submit(&requester)??;
        if !State::wait(|state| state.send.done, Duration::from_secs(15))? {
            return Err("timed out waiting for the module to send".into());
        }
        State::read()
    }
}
