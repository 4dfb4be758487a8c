//! Claims about multicast groups: membership, permissions and delivery.

use nlrig_guest::uapi::*;
use nlrig_netlink::{Address, Errno, Group, GroupMask, Socket};
use serde_json::json;

use crate::Cases;
use crate::evidence::{BoxError, Evidence};
use crate::module::{self, SendRequest};
use crate::peers::{bound, count_received, message};
use crate::process::run_as_user;
use crate::state::State;

pub const CASES: Cases = &[
    ("A21.1", more_than_32_groups),
    ("A21.2", a_group_without_a_bit),
    ("A21.3", bind_to_all_groups),
    ("A22.1", join_without_bind),
    ("A22.2", join_as_another_user),
    ("A22.3", a_mask_at_bind),
    ("A22.4", no_group_at_bind),
    ("A23.1", a_number_from_the_kernel),
    ("A23.2", the_port_of_a_broadcast),
    ("A23.3", a_mask_from_a_program),
    ("A24", a_group_and_a_port),
    ("B11.1", groups_0_and_multicast),
    ("B11.2", groups_64_and_unicast),
    ("B11.3", no_group_in_the_destination),
];

const PROTOCOL: i32 = NETLINK_NLRIG as i32;

/// A bound socket of the module's protocol that has joined `groups`.
fn member(groups: &[u32]) -> Result<Socket, BoxError> {
    let (socket, _) = bound(PROTOCOL)?;
    for group in groups {
        socket.join(Group(*group))?;
    }
    Ok(socket)
}

/// Lets the module send one message to a group.
fn broadcast(group: u32) -> Result<State, BoxError> {
    SendRequest { count: 1, size: 4, group: Some(group), ..SendRequest::default() }.run()
}

/// The groups of a socket, as text.
fn memberships(socket: &Socket) -> Result<String, BoxError> {
    let groups: Vec<_> = socket.memberships()?.iter().map(|group| group.0.to_string()).collect();
    Ok(if groups.is_empty() { "none".to_string() } else { groups.join(" ") })
}

/// Notes the number of messages received by each of the members of groups 2, 3
/// and 6.
fn note_received(evidence: &mut Evidence, members: &[Socket; 3]) -> Result<(), BoxError> {
    for (group, member) in [2, 3, 6].into_iter().zip(members) {
        evidence.note(&format!("heard_in_{group}"), count_received(member)?);
    }
    Ok(())
}

fn more_than_32_groups(evidence: &mut Evidence) -> Result<(), BoxError> {
    let (socket, _) = bound(PROTOCOL)?;
    for group in [40, NLRIG_GROUPS, NLRIG_GROUPS + 1] {
        evidence.outcome(&format!("join_{group}"), &socket.join(Group(group)));
    }
    let state = broadcast(40)?;
    evidence.note("sent_to_40", state.send.sent);
    evidence.note("heard", count_received(&socket)?);
    // RTNLGRP_BRVLAN, a group of one of the kernel's own protocols.
    let (route, _) = bound(libc::NETLINK_ROUTE)?;
    evidence.outcome("join_33_of_route", &route.join(Group(33)));
    Ok(())
}

fn a_group_without_a_bit(evidence: &mut Evidence) -> Result<(), BoxError> {
    let socket = member(&[6, 40])?;
    evidence.note("mask_of_the_socket", socket.address()?.groups.0);
    evidence.note("memberships", memberships(&socket)?);
    socket.set_packet_info(true)?;
    for group in [6, 40] {
        broadcast(group)?;
        let got = socket.recv_message(&mut [0; 64], libc::MSG_DONTWAIT)?;
        evidence.note(&format!("mask_from_{group}"), got.from.groups.0);
        let number = got.group.ok_or("no NETLINK_PKTINFO control message")?.0;
        evidence.note(&format!("packet_info_from_{group}"), number);
    }
    Ok(())
}

fn bind_to_all_groups(evidence: &mut Evidence) -> Result<(), BoxError> {
    let socket = Socket::new(PROTOCOL)?;
    socket.bind(0, GroupMask(u32::MAX))?;
    evidence.note("joined", socket.memberships()?.len());
    for group in [32, 40] {
        broadcast(group)?;
        evidence.note(&format!("heard_of_{group}"), count_received(&socket)?);
    }
    Ok(())
}

fn join_without_bind(evidence: &mut Evidence) -> Result<(), BoxError> {
    let by_bind = Socket::new(PROTOCOL)?;
    evidence.outcome("bind", &by_bind.bind(0, GroupMask(1 << 4)));
    let (by_option, _) = bound(PROTOCOL)?;
    evidence.outcome("option", &by_option.join(Group(5)));
    // Sending the first message assigns a port.
    let never_bound = Socket::new(PROTOCOL)?;
    never_bound.join(Group(5))?;
    never_bound.send_to(&message(b""), Address::KERNEL, 0)?;
    let no_port = Socket::new(PROTOCOL)?;
    no_port.join(Group(5))?;
    broadcast(5)?;
    evidence.note("heard_by_bind", count_received(&by_bind)?);
    evidence.note("heard_by_option", count_received(&by_option)?);
    evidence.note("heard_without_bind", count_received(&never_bound)?);
    evidence.note("heard_without_a_port", count_received(&no_port)?);
    Ok(())
}

fn join_as_another_user(evidence: &mut Evidence) -> Result<(), BoxError> {
    let protocols = [
        ("private", PROTOCOL),
        ("route", libc::NETLINK_ROUTE),
        ("usersock", libc::NETLINK_USERSOCK),
    ];
    for (name, protocol) in protocols {
        let results = run_as_user(1000, || {
            let text = |result: Result<(), Errno>| {
                result.map_or_else(|errno| errno.to_string(), |()| "ok".to_string())
            };
            let bind = text(Socket::new(protocol)?.bind(0, GroupMask(1)));
            let option = text(bound(protocol)?.0.join(Group(1)));
            Ok(json!({ "bind": bind, "option": option }))
        })?;
        for way in ["bind", "option"] {
            evidence.note(&format!("{name}_{way}"), results[way].clone());
        }
    }
    Ok(())
}

fn a_mask_at_bind(evidence: &mut Evidence) -> Result<(), BoxError> {
    let socket = Socket::new(PROTOCOL)?;
    socket.bind(0, GroupMask(6))?;
    evidence.note("memberships", memberships(&socket)?);
    for group in [2, 3, 6] {
        broadcast(group)?;
        evidence.note(&format!("heard_of_{group}"), count_received(&socket)?);
    }
    Ok(())
}

fn no_group_at_bind(evidence: &mut Evidence) -> Result<(), BoxError> {
    let (socket, portid) = bound(PROTOCOL)?;
    let control = member(&[1, 32, 40])?;
    for group in [1, 32, 40] {
        broadcast(group)?;
    }
    evidence.note("memberships", memberships(&socket)?);
    evidence.note("heard", count_received(&socket)?);
    evidence.note("heard_by_a_member", count_received(&control)?);
    // Again, with a socket that has joined groups.
    socket.join(Group(6))?;
    socket.join(Group(40))?;
    socket.bind(portid, GroupMask::NONE)?;
    evidence.note("memberships_after_bind_again", memberships(&socket)?);
    Ok(())
}

fn a_number_from_the_kernel(evidence: &mut Evidence) -> Result<(), BoxError> {
    let members = [member(&[2])?, member(&[3])?, member(&[6])?];
    // Interpreted as a bit mask, 6 would mean groups 2 and 3.
    let state = broadcast(6)?;
    evidence.note("sent", state.send.sent);
    note_received(evidence, &members)
}

fn the_port_of_a_broadcast(evidence: &mut Evidence) -> Result<(), BoxError> {
    let (named, other) = (member(&[6])?, member(&[6])?);
    let portid = named.address()?.portid;
    SendRequest {
        count: 1,
        size: 4,
        group: Some(6),
        portid: Some(portid),
        ..SendRequest::default()
    }
    .run()?;
    evidence.note("heard_at_the_port", count_received(&named)?);
    evidence.note("heard_elsewhere", count_received(&other)?);
    Ok(())
}

fn a_mask_from_a_program(evidence: &mut Evidence) -> Result<(), BoxError> {
    let members = [member(&[2])?, member(&[3])?, member(&[6])?];
    let (sender, _) = bound(PROTOCOL)?;
    let to = Address { portid: 0, groups: GroupMask(6) };
    evidence.outcome("sendto", &sender.send_to(&message(b"to 2 and 3"), to, 0));
    note_received(evidence, &members)
}

/// The number of input callback invocations during `act`.
fn inputs_by(act: impl FnOnce() -> Result<(), BoxError>) -> Result<u32, BoxError> {
    let before = State::read()?.input.total;
    act()?;
    // The second State::read() invokes the callback itself.
    Ok(State::read()?.input.total.wrapping_sub(before).saturating_sub(1))
}

fn a_group_and_a_port(evidence: &mut Evidence) -> Result<(), BoxError> {
    let in_group = member(&[5])?;
    let (sender, _) = bound(PROTOCOL)?;
    let groups = GroupMask(1 << 4);
    let text = message(b"to group 5");
    let inputs = inputs_by(|| {
        evidence.outcome("sendto", &sender.send_to(&text, Address { portid: 0, groups }, 0));
        Ok(())
    })?;
    evidence.note("heard_in_the_group", count_received(&in_group)?);
    evidence.note("inputs_of_the_kernel", inputs);

    let (named, portid) = bound(PROTOCOL)?;
    sender.send_to(&text, Address { portid, groups }, 0)?;
    evidence.note("heard_at_a_port_outside", count_received(&named)?);
    drop(named);
    count_received(&in_group)?;
    let nobody = sender.send_to(&text, Address { portid, groups }, 0);
    evidence.outcome("sendto_with_nobodys_port", &nobody);
    evidence.note("heard_in_the_group_all_the_same", count_received(&in_group)?);
    Ok(())
}

fn groups_0_and_multicast(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::paper(std::time::Duration::ZERO)?;
    let (socket, _) = bound(NETLINK_NLRIG_PAPER as i32)?;
    for group in [5, 32, 33] {
        evidence.outcome(&format!("join_{group}"), &socket.join(Group(group)));
    }
    let request = SendRequest {
        count: 1,
        size: 4,
        group: Some(5),
        protocol: Some(NETLINK_NLRIG_PAPER),
        ..SendRequest::default()
    };
    evidence.note("sent_by_the_kernel", request.run()?.send.sent);
    evidence.note("heard", count_received(&socket)?);
    Ok(())
}

fn groups_64_and_unicast(evidence: &mut Evidence) -> Result<(), BoxError> {
    let (socket, _) = bound(PROTOCOL)?;
    let echo = nlrig_guest::netlink::EchoSocket::open()
        .map_err(|failure| format!("{} failed", failure.call.name()))?;
    let answered = echo.echo(1).map_err(|failure| Errno(failure.errno));
    evidence.outcome("echo", &answered);
    let state =
        SendRequest { count: 1, portid: Some(socket.address()?.portid), ..SendRequest::default() }
            .run()?;
    evidence.note("sent_by_the_kernel", state.send.sent);
    evidence.note("heard", count_received(&socket)?);
    Ok(())
}

fn no_group_in_the_destination(evidence: &mut Evidence) -> Result<(), BoxError> {
    let (named, other) = (member(&[1, 5])?, member(&[1, 5])?);
    let (sender, _) = bound(PROTOCOL)?;
    let to = Address::port(named.address()?.portid);
    evidence.outcome("sendto", &sender.send_to(&message(b"to one"), to, 0));
    evidence.note("heard_at_the_port", count_received(&named)?);
    evidence.note("heard_elsewhere", count_received(&other)?);
    Ok(())
}
