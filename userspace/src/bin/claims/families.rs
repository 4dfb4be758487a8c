//! Claims about the netlink protocols that the article names, and the
//! subsystems behind them.

use std::fs;
use std::time::Duration;

use nlrig_netlink::builder::message;
use nlrig_netlink::{
    Errno, Group, GroupMask, Header, MessageBuilder, Messages, RequestLimits, Socket, dump,
    request_ack,
};

use crate::Cases;
use crate::evidence::{BoxError, Evidence};

pub const CASES: Cases =
    &[("A41.1", links), ("A41.2", events_of_objects), ("A41.3", generic_families)];

/// The longest wait for a notification, which is queued before the request
/// returns.
const NOTIFICATION_TIMEOUT: Duration = Duration::from_secs(2);

/// struct ifinfomsg.
#[derive(Clone, Copy, Default)]
struct Link {
    index: i32,
    flags: u32,
    change: u32,
}

impl Link {
    const BYTES: usize = 16;
    const UP: u32 = libc::IFF_UP as u32;

    fn to_bytes(self) -> [u8; Link::BYTES] {
        let mut bytes = [0; Link::BYTES];
        bytes[4..8].copy_from_slice(&self.index.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[12..].copy_from_slice(&self.change.to_ne_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Link> {
        let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        Some(Link { index: word(4)? as i32, flags: word(8)?, change: word(12)? })
    }
}

fn links(evidence: &mut Evidence) -> Result<(), BoxError> {
    let socket = Socket::new(libc::NETLINK_ROUTE)?;
    let request = message(Header::dump(libc::RTM_GETLINK, 1), &Link::default().to_bytes());
    let links = dump(&socket, &request, RequestLimits::default())?;
    let lo = links.messages().find_map(|message| {
        let name = message.attributes(Link::BYTES).find_kind(libc::IFLA_IFNAME)?;
        (name.str()? == "lo").then(|| Link::from_bytes(message.payload))?
    });
    evidence.note("links", links.messages().count());
    evidence.note("finds_lo", lo.is_some());
    let lo = lo.ok_or("network interface lo does not exist")?;

    let listener = Socket::new(libc::NETLINK_ROUTE)?;
    listener.bind(0, GroupMask::NONE)?;
    listener.join(Group(libc::RTNLGRP_LINK))?;
    // First up, so that it can be set down; its old state is restored at the
    // end.
    let was_up = lo.flags & Link::UP != 0;
    let mut result = set(&socket, lo.index, true)?;
    drain(&listener)?;
    for (key, up) in [("told_that_lo_is_down", false), ("told_that_lo_is_up", true)] {
        result = result.and(set(&socket, lo.index, up)?);
        evidence.note(key, is_notified(&listener, lo.index, up)?);
    }
    evidence.outcome("set", &result.and(set(&socket, lo.index, was_up)?));
    Ok(())
}

/// Sets a link up or down.
fn set(socket: &Socket, index: i32, up: bool) -> Result<Result<(), Errno>, BoxError> {
    let link = Link { index, flags: if up { Link::UP } else { 0 }, change: Link::UP };
    let request = message(Header::ack(libc::RTM_NEWLINK, 0, 2), &link.to_bytes());
    let mut buffer = [0; 4096];
    Ok(request_ack(socket, &request, &mut buffer, RequestLimits::default())?.result())
}

/// Whether `listener` is notified that the link is up, or down.
fn is_notified(listener: &Socket, index: i32, up: bool) -> Result<bool, BoxError> {
    let mut buffer = [0; 8192];
    while listener.poll(libc::POLLIN, Some(NOTIFICATION_TIMEOUT))? != 0 {
        let length = listener.recv(&mut buffer, libc::MSG_DONTWAIT)?;
        for message in Messages::new(&buffer[..length]) {
            let message = message?;
            let link = Link::from_bytes(message.payload);
            if message.header.kind == libc::RTM_NEWLINK
                && link
                    .is_some_and(|link| link.index == index && (link.flags & Link::UP != 0) == up)
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn drain(socket: &Socket) -> Result<(), BoxError> {
    loop {
        match socket.recv(&mut [0; 16], libc::MSG_DONTWAIT) {
            Ok(_) => {}
            Err(Errno(libc::EAGAIN)) => return Ok(()),
            Err(err) => return Err(err.into()),
        }
    }
}

fn events_of_objects(evidence: &mut Evidence) -> Result<(), BoxError> {
    let socket = Socket::new(libc::NETLINK_KOBJECT_UEVENT)?;
    socket.bind(0, GroupMask(1))?;
    drain(&socket)?;
    fs::write("/sys/class/net/lo/uevent", "add")?;
    let mut buffer = [0; 8192];
    while socket.poll(libc::POLLIN, Some(NOTIFICATION_TIMEOUT))? != 0 {
        let received = socket.recv_from(&mut buffer, libc::MSG_DONTWAIT)?;
        let text = String::from_utf8_lossy(&buffer[..received.length]);
        let mut words = text.split('\0');
        let event = words.next().unwrap_or_default();
        if event.ends_with("/net/lo") {
            evidence.note("event", event);
            evidence.note("says_subsystem_net", words.any(|word| word == "SUBSYSTEM=net"));
            evidence.note("from_port", received.from.portid);
            evidence.note("group", received.from.groups.0);
            return Ok(());
        }
    }
    evidence.note("event", "none");
    Ok(())
}

/// struct genlmsghdr with command CTRL_CMD_GETFAMILY, version 1.
const GET_FAMILY: [u8; 4] = [libc::CTRL_CMD_GETFAMILY as u8, 1, 0, 0];
const ID_CONTROL: u16 = libc::GENL_ID_CTRL as u16;

fn generic_families(evidence: &mut Evidence) -> Result<(), BoxError> {
    let socket = Socket::new(libc::NETLINK_GENERIC);
    evidence.outcome("list", &socket);
    let Ok(socket) = socket else { return Ok(()) };
    let families = dump(
        &socket,
        &message(Header::dump(ID_CONTROL, 1), &GET_FAMILY),
        RequestLimits::default(),
    )?;
    let mut names = Vec::new();
    for family in families.messages() {
        let attributes = family.attributes(GET_FAMILY.len());
        let name = attributes.find_kind(libc::CTRL_ATTR_FAMILY_NAME as u16);
        let id = attributes.find_kind(libc::CTRL_ATTR_FAMILY_ID as u16);
        let (Some(name), Some(id)) =
            (name.as_ref().and_then(|name| name.str()), id.and_then(|id| id.u16()))
        else {
            continue;
        };
        names.push(name.to_string());
        if name == "nlctrl" {
            evidence.note("id_of_nlctrl", id);
        }
    }
    evidence.note("families", names.join(" "));

    let mut request = MessageBuilder::new();
    request.message(Header::ack(ID_CONTROL, 0, 2), |body| {
        body.raw(&GET_FAMILY).string(libc::CTRL_ATTR_FAMILY_NAME as u16, "nobody");
    });
    let mut buffer = [0; 4096];
    let unknown =
        request_ack(&socket, request.bytes()?, &mut buffer, RequestLimits::default())?.result();
    evidence.outcome("unknown_name", &unknown);
    let request = message(Header::ack(1000, 0, 3), &GET_FAMILY);
    let unknown = request_ack(&socket, &request, &mut buffer, RequestLimits::default())?.result();
    evidence.outcome("unknown_number", &unknown);
    Ok(())
}
