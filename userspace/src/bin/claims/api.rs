//! Claims about the functions that a module calls. Most of them are checked by
//! a compiler on the host.

use std::time::Duration;

use nlrig_guest::uapi::NETLINK_NLRIG_ARTICLE;
use nlrig_netlink::builder::message;
use nlrig_netlink::{Address, Header, Socket};

use crate::Cases;
use crate::evidence::{BoxError, Evidence};
use crate::module;

pub const CASES: Cases = &[("B10.3", two_settings_suffice)];

/// The module passes only `groups` and `input` to netlink_kernel_create().
fn two_settings_suffice(evidence: &mut Evidence) -> Result<(), BoxError> {
    evidence.outcome("created", &module::article(1, Duration::ZERO));
    let socket = Socket::new(NETLINK_NLRIG_ARTICLE as i32)?;
    socket.bind(0, nlrig_netlink::GroupMask::NONE)?;
    let portid = socket.address()?.portid;
    socket.send_to(
        &message(Header { portid, ..Header::default() }, b"hi\0"),
        Address::KERNEL,
        0,
    )?;
    let answers = u32::from(socket.recv(&mut [0; 4096], libc::MSG_DONTWAIT).is_ok());
    evidence.note("answers", answers);
    Ok(())
}
