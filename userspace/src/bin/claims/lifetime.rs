//! Claims about loading and unloading the module, and its reference count.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nlrig_guest::uapi::*;
use nlrig_netlink::Socket;
use serde_json::json;

use crate::Cases;
use crate::client::{Client, PORTID};
use crate::evidence::{BoxError, Evidence};
use crate::module;
use crate::observe::KmsgReader;
use crate::process::{CHILD_TIMEOUT, ForkedChild};
use crate::state::State;

pub const CASES: Cases = &[
    ("A28.2", the_socket_is_released_at_exit),
    ("A29.1", unloading_with_clients),
    ("A29.2", the_use_count),
    ("A40", init_returns_1),
];

const PROTOCOL: i32 = NETLINK_NLRIG as i32;
const ARTICLE: i32 = NETLINK_NLRIG_ARTICLE as i32;

fn the_socket_is_released_at_exit(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(1, Duration::ZERO)?;
    // The client has an unread message in its buffer.
    let client = Client::new(PORTID, PORTID)?;
    client.greet(0)?;
    drop(client);
    let mut log = KmsgReader::from_now()?;
    evidence.outcome("unload", &module::unload());
    evidence.outcome("socket_afterwards", &Socket::new(ARTICLE));
    let lines = log.lines()?;
    // Reports of net/netlink/af_netlink.c about an inconsistent socket.
    let complaints = lines.iter().filter(|line| {
        line.text.contains("Freeing alive netlink socket") || line.text.contains("WARNING")
    });
    evidence.note("complaints", complaints.count());
    evidence.outcome("load", &module::load(c"article=26"));
    evidence.outcome("socket_then", &Socket::new(ARTICLE));
    Ok(())
}

fn unloading_with_clients(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(1, Duration::from_millis(1500))?;
    State::reset()?;
    let open = Socket::new(PROTOCOL)?;
    evidence.outcome("with_an_open_socket", &module::unload());
    drop(open);
    let killed = ForkedChild::start(|| {
        Client::new(PORTID, PORTID)?.greet(0)?;
        Ok(json!({}))
    })?;
    State::wait(|state| state.article.calls.active >= 1, CHILD_TIMEOUT)?;
    kill(Pid::from_raw(killed.id() as i32), Signal::SIGKILL)?;
    evidence.outcome("while_the_handler_works", &module::unload());
    // Waits for the end of the process.
    drop(killed);
    evidence.outcome("without_clients", &module::unload());
    evidence.note("is_loaded", module::is_live());
    evidence.outcome("load", &module::load(c""));
    Ok(())
}

fn use_count() -> Result<i64, BoxError> {
    Ok(fs::read_to_string("/sys/module/nlrig/refcnt")?.trim().parse()?)
}

fn the_use_count(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(1, Duration::ZERO)?;
    let before = use_count()?;
    let mut sockets = Vec::new();
    for protocol in [PROTOCOL, PROTOCOL, PROTOCOL, ARTICLE, ARTICLE] {
        sockets.push(Socket::new(protocol)?);
    }
    evidence.note("sockets", sockets.len());
    evidence.note("count_rose_by", use_count()? - before);
    drop(sockets);
    evidence.note("count_is_back", use_count()? == before);
    Ok(())
}

fn init_returns_1(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::unload()?;
    let mut log = KmsgReader::from_now()?;
    evidence.outcome("load", &module::load(c"article_init_fails=1"));
    evidence.note("is_loaded", module::is_live());
    evidence.note("warnings", log.count("suspiciously returned 1")?);
    evidence.outcome("article_socket", &Socket::new(ARTICLE));
    evidence.outcome("unload", &module::unload());
    evidence.outcome("load_afterwards", &module::load(c""));
    Ok(())
}
