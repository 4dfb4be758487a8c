//! Tests against the running kernel's NETLINK_ROUTE, which is available
//! wherever networking is, even in a container. The tests change no network
//! settings.

use std::os::fd::IntoRawFd;
use std::time::{Duration, Instant};

use nlrig_netlink::wire::{
    HEADER_BYTES, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_MULTI, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NLMSG_NOOP,
};
use nlrig_netlink::{
    Address, Errno, Group, GroupMask, Header, MessageBuilder, Messages, RequestError,
    RequestLimits, Socket, builder, dump, request_ack,
};

/// Size of struct ifinfomsg.
const IFINFOMSG_BYTES: usize = 16;
const IFLA_IFNAME: u16 = 3;
const RTNLGRP_LINK: Group = Group(1);
/// Far above the message types of rtnetlink.
const NO_SUCH_TYPE: u16 = 0x3fff;

fn route() -> Socket {
    let socket = Socket::new(libc::NETLINK_ROUTE).unwrap();
    socket.set_receive_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// A port that the kernel never assigns, unique to each test. The kernel
/// assigns the process id first, and then negative numbers.
fn own_port(test: u32) -> u32 {
    0x4000_0000 | test << 24 | std::process::id()
}

fn links_request(sequence: u32) -> Vec<u8> {
    builder::message(Header::dump(libc::RTM_GETLINK, sequence), &[0; IFINFOMSG_BYTES])
}

#[test]
fn a_dump_of_links_contains_lo_and_ends_with_nlmsg_done() {
    let socket = route();
    let dump = dump(&socket, &links_request(77), RequestLimits::default()).unwrap();
    let names: Vec<&str> = dump
        .messages()
        .map(|message| {
            assert_eq!((message.header.kind, message.header.sequence), (libc::RTM_NEWLINK, 77));
            assert!(message.header.has(NLM_F_MULTI));
            assert_eq!(message.header.portid, socket.address().unwrap().portid);
            let attributes = message.attributes(IFINFOMSG_BYTES);
            attributes.check().unwrap();
            attributes.find_kind(IFLA_IFNAME).and_then(|name| name.str()).unwrap()
        })
        .collect();
    assert!(names.contains(&"lo"), "{names:?}");
    assert!(dump.done.has(NLM_F_MULTI));
    assert_eq!((dump.done.kind, dump.done.sequence), (NLMSG_DONE, 77));
    assert!(dump.datagrams >= 1);
}

#[test]
fn limits_end_a_dump() {
    let socket = route();
    let limits = RequestLimits { datagrams: 0, ..RequestLimits::default() };
    let error = dump(&socket, &links_request(1), limits).unwrap_err();
    assert_eq!(error, RequestError::Datagrams(0));

    // The length exceeds the datagram, so netlink drops the message without an
    // error.
    let other = route();
    let dropped = Header { length: 64, ..Header::ack(libc::RTM_GETLINK, 0, 1) }.to_bytes();
    let start = Instant::now();
    let limits = RequestLimits { time: Duration::from_millis(50), ..RequestLimits::default() };
    let error = request_ack(&other, &dropped, &mut [0; 256], limits).unwrap_err();
    assert_eq!(error, RequestError::Time);
    assert!(start.elapsed() >= limits.time);

    let no_answer = builder::message(Header::new(16, NLM_F_REQUEST, 1), &[]);
    let error = request_ack(&other, &no_answer, &mut [0; 256], limits).unwrap_err();
    assert_eq!(error, RequestError::Request);
}

#[test]
fn an_unknown_type_is_refused() {
    let socket = route();
    let request = builder::message(Header::ack(NO_SUCH_TYPE, 0, 5), &[0; IFINFOMSG_BYTES]);
    let mut buffer = [0; 512];
    let ack = request_ack(&socket, &request, &mut buffer, RequestLimits::default()).unwrap();
    let errno = ack.result().unwrap_err();
    assert!([libc::EOPNOTSUPP, libc::EINVAL, libc::EPERM].contains(&errno.0), "{errno}");
    assert_eq!((ack.header.kind, ack.header.sequence), (NO_SUCH_TYPE, 5));
    assert_eq!(ack.header.length as usize, request.len());
    // By default, an error includes the whole request.
    assert_eq!(ack.request, Some(&[0; IFINFOMSG_BYTES][..]));

    socket.set_capped_acks(true).unwrap();
    socket.send(&request, 0).unwrap();
    let length = socket.recv(&mut buffer, 0).unwrap();
    let capped = Messages::new(&buffer[..length]).next().unwrap().unwrap();
    assert!(capped.header.has(NLM_F_CAPPED));
    assert_eq!(capped.header.kind, NLMSG_ERROR);
    let ack = capped.ack().unwrap().unwrap();
    assert_eq!((ack.result(), ack.request), (Err(errno), None));
}

#[test]
fn success_is_acknowledged_without_the_request() {
    let socket = route();
    // Netlink core acknowledges the no-op.
    let request = builder::message(Header::ack(NLMSG_NOOP, 0, 6), &[1, 2, 3, 4]);
    let mut buffer = [0; 512];
    let ack = request_ack(&socket, &request, &mut buffer, RequestLimits::default()).unwrap();
    assert_eq!((ack.result(), ack.request), (Ok(()), None));
    assert_eq!((ack.header.kind, ack.header.sequence), (NLMSG_NOOP, 6));
}

#[test]
fn a_refused_dump_returns_the_errno() {
    let socket = route();
    let request = builder::message(Header::dump(NO_SUCH_TYPE, 1), &[0; IFINFOMSG_BYTES]);
    match dump(&socket, &request, RequestLimits::default()).unwrap_err() {
        RequestError::Refused { errno, .. } => {
            assert!([libc::EOPNOTSUPP, libc::EINVAL, libc::EPERM].contains(&errno.0), "{errno}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_short_request_is_answered_or_dropped() {
    let socket = route();
    // Shorter than struct rtgenmsg, the start of every rtnetlink message.
    let request = builder::message(Header::ack(libc::RTM_GETLINK, 0, 1), &[]);
    let limits = RequestLimits { time: Duration::from_millis(200), ..RequestLimits::default() };
    match request_ack(&socket, &request, &mut [0; 512], limits) {
        Ok(_) | Err(RequestError::Time) => {}
        Err(other) => panic!("{other}"),
    }
    // Shorter than a header: netlink drops the message and send() succeeds.
    assert_eq!(socket.send(&request[..HEADER_BYTES - 1], 0), Ok(HEADER_BYTES - 1));
    // The length exceeds the datagram: dropped as well.
    let header = Header { length: 64, ..Header::ack(libc::RTM_GETLINK, 0, 1) };
    assert_eq!(socket.send(&header.to_bytes(), 0), Ok(HEADER_BYTES));
    assert_eq!(socket.recv(&mut [0; 512], libc::MSG_DONTWAIT), Err(Errno(libc::EAGAIN)));
}

#[test]
fn a_strict_check_returns_an_error_text_and_offset() {
    let socket = route();
    socket.set_strict_check(true).unwrap();
    socket.set_extended_acks(true).unwrap();
    // struct ifinfomsg with a change mask, which strict get requests reject.
    let mut body = [0; IFINFOMSG_BYTES];
    body[12..16].copy_from_slice(&1_u32.to_ne_bytes());
    let request = builder::message(Header::dump(libc::RTM_GETLINK, 3), &body);
    match dump(&socket, &request, RequestLimits::default()).unwrap_err() {
        RequestError::Refused { errno, message: Some(message) } => {
            assert_eq!(errno, Errno(libc::EINVAL));
            assert!(message.contains("Invalid values in header"), "{message}");
        }
        other => panic!("{other}"),
    }

    // The offset points to an attribute of the wrong length.
    let mut wrong = MessageBuilder::new();
    wrong.message(Header::ack(libc::RTM_GETLINK, 0, 4), |body| {
        // IFLA_EXT_MASK is a u32.
        body.raw(&[0; IFINFOMSG_BYTES]).u8(29, 1);
    });
    let mut buffer = [0; 512];
    let ack = request_ack(&socket, wrong.bytes().unwrap(), &mut buffer, RequestLimits::default())
        .unwrap();
    assert!(ack.errno > 0);
    assert!(ack.message.is_some(), "{ack:?}");
    assert_eq!(ack.offset, Some((HEADER_BYTES + IFINFOMSG_BYTES) as u32));
}

#[test]
fn two_sockets_do_not_share_a_port() {
    let (first, second) = (route(), route());
    let portid = own_port(1);
    first.bind(portid, GroupMask::NONE).unwrap();
    assert_eq!(second.bind(portid, GroupMask::NONE), Err(Errno(libc::EADDRINUSE)));
    // A socket cannot have two ports; two protocols can use the same port
    // number.
    assert_eq!(first.bind(portid ^ 1, GroupMask::NONE), Err(Errno(libc::EINVAL)));
    let other = Socket::new(libc::NETLINK_USERSOCK).unwrap();
    assert_eq!(other.bind(portid, GroupMask::NONE), Ok(()));
}

#[test]
fn the_kernel_assigns_the_pid_or_a_negative_port() {
    let socket = route();
    assert_eq!(socket.address(), Ok(Address::KERNEL));
    let (first, second) = (route(), route());
    for socket in [&first, &second] {
        socket.bind(0, GroupMask::NONE).unwrap();
        let portid = socket.address().unwrap().portid;
        assert!(portid == std::process::id() || portid >= 1 << 31, "{portid:#x}");
    }
    assert_ne!(first.address(), second.address());
    // Sending binds an unbound socket.
    socket.send(&links_request(1), 0).unwrap();
    assert_ne!(socket.address(), Ok(Address::KERNEL));
}

#[test]
fn a_connected_socket_sends_without_an_address() {
    let socket = route();
    socket.connect(0, GroupMask::NONE).unwrap();
    let request = builder::message(Header::ack(NO_SUCH_TYPE, 0, 9), &[0; IFINFOMSG_BYTES]);
    let mut buffer = [0; 512];
    for round in 0..3 {
        let sent = match round {
            0 => socket.send(&request, 0),
            1 => socket.send_message(&request, None, 0),
            _ => socket.send_message(&request, Some(Address::KERNEL), 0),
        };
        assert_eq!(sent, Ok(request.len()));
        assert_eq!(socket.poll(libc::POLLIN, Some(Duration::ZERO)), Ok(libc::POLLIN));
        let received = socket.recv_message(&mut buffer, 0).unwrap();
        assert_eq!((received.from, received.flags, received.group), (Address::KERNEL, 0, None));
    }
    assert_eq!(socket.poll(libc::POLLIN, Some(Duration::from_micros(1))), Ok(0));
}

#[test]
fn a_truncated_datagram_has_msg_trunc() {
    let socket = route();
    let request = builder::message(Header::ack(NO_SUCH_TYPE, 0, 9), &[0; IFINFOMSG_BYTES]);
    let whole = HEADER_BYTES + 4 + request.len();
    let mut buffer = [0; 20];
    socket.send(&request, 0).unwrap();
    let peeked = socket.recv(&mut buffer, libc::MSG_PEEK | libc::MSG_TRUNC);
    assert_eq!(peeked, Ok(whole));
    let received = socket.recv_message(&mut buffer, 0).unwrap();
    assert_eq!((received.length, received.flags), (20, libc::MSG_TRUNC));
    assert!(Messages::new(&buffer).next().unwrap().is_err());

    socket.send_to(&request, Address::KERNEL, 0).unwrap();
    let received = socket.recv_from(&mut buffer, libc::MSG_TRUNC).unwrap();
    assert_eq!(received.length, whole);
    let error = request_ack(&socket, &request, &mut buffer, RequestLimits::default()).unwrap_err();
    assert_eq!(error, RequestError::TooLong(whole));
}

#[test]
fn groups_are_joined_by_number_and_returned_as_a_mask() {
    let socket = route();
    assert_eq!(socket.memberships(), Ok(vec![]));
    socket.join(RTNLGRP_LINK).unwrap();
    socket.join(Group(33)).unwrap();
    assert_eq!(socket.memberships(), Ok(vec![RTNLGRP_LINK, Group(33)]));
    let groups = socket.address().unwrap().groups;
    assert_eq!(Some(groups), GroupMask::of(RTNLGRP_LINK));
    socket.leave(RTNLGRP_LINK).unwrap();
    assert_eq!(socket.memberships(), Ok(vec![Group(33)]));
    assert_eq!(socket.join(Group(0)), Err(Errno(libc::EINVAL)));
    assert_eq!(socket.join(Group(1 << 20)), Err(Errno(libc::EINVAL)));

    // bind() takes a bit mask, so 0b101 means groups 1 and 3.
    let masked = route();
    masked.bind(0, GroupMask(0b101)).unwrap();
    assert_eq!(masked.memberships(), Ok(vec![Group(1), Group(3)]));
}

/// NETLINK_USERSOCK lets users send to each other. Joining a group requires
/// CAP_NET_ADMIN, which a container may lack.
#[test]
fn users_receive_the_group_of_a_multicast() {
    let (sender, receiver) = (
        Socket::new(libc::NETLINK_USERSOCK).unwrap(),
        Socket::new(libc::NETLINK_USERSOCK).unwrap(),
    );
    for socket in [&sender, &receiver] {
        socket.bind(0, GroupMask::NONE).unwrap();
        socket.set_receive_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    receiver.set_packet_info(true).unwrap();
    let from = Address::port(sender.address().unwrap().portid);
    let to = Address::port(receiver.address().unwrap().portid);
    // Netlink carries any bytes, not only messages.
    assert_eq!(sender.send_to(b"hello", to, 0), Ok(5));
    let mut buffer = [0; 16];
    let received = receiver.recv_message(&mut buffer, 0).unwrap();
    assert_eq!((&buffer[..received.length], received.group), (&b"hello"[..], Some(Group(0))));
    assert_eq!(received.from, from);

    let group = Group(7);
    let to = Address { portid: 0, groups: GroupMask::of(group).unwrap() };
    match receiver.join(group).and_then(|()| sender.send_to(b"all", to, 0)) {
        // The group has received the message; the unicast to port 0 then fails.
        Err(Errno(libc::ECONNREFUSED)) => {
            let received = receiver.recv_message(&mut buffer, 0).unwrap();
            assert_eq!((received.length, received.group), (3, Some(group)));
        }
        other => assert_eq!(other, Err(Errno(libc::EPERM))),
    }
}

#[test]
fn options_return_the_values_set() {
    let socket = route();
    socket.set_receive_buffer(1 << 16).unwrap();
    assert_eq!(socket.receive_buffer(), Ok(1 << 17));
    socket.set_send_buffer(1 << 15).unwrap();
    assert_eq!(socket.send_buffer(), Ok(1 << 16));
    socket.set_no_enobufs(true).unwrap();
    assert_eq!(socket.option(libc::SOL_NETLINK, libc::NETLINK_NO_ENOBUFS), Ok(1));
    socket.set_broadcast_error(true).unwrap();
    socket.set_reuse_address(true).unwrap();
    assert_eq!(socket.option(libc::SOL_SOCKET, libc::SO_REUSEADDR), Ok(1));
    assert_eq!(socket.option(libc::SOL_SOCKET, libc::SO_PROTOCOL), Ok(libc::NETLINK_ROUTE));

    // For a value shorter than an int, other levels fail and netlink reads 0.
    let short = |level, name| socket.set_option_bytes(level, name, &[1, 0]);
    assert_eq!(short(libc::SOL_SOCKET, libc::SO_RCVBUF), Err(Errno(libc::EINVAL)));
    assert_eq!(short(libc::SOL_NETLINK, libc::NETLINK_NO_ENOBUFS), Ok(()));
    assert_eq!(socket.option(libc::SOL_NETLINK, libc::NETLINK_NO_ENOBUFS), Ok(0));
    assert_eq!(socket.set_option(libc::SOL_NETLINK, 999, 1), Err(Errno(libc::ENOPROTOOPT)));

    socket.set_send_timeout(Some(Duration::from_secs(u64::MAX))).unwrap();
    let start = Instant::now();
    socket.set_receive_timeout(Some(Duration::from_millis(30))).unwrap();
    assert_eq!(socket.recv(&mut [0; 16], 0), Err(Errno(libc::EAGAIN)));
    assert!(start.elapsed() >= Duration::from_millis(25));
    socket.set_receive_timeout(Some(Duration::ZERO)).unwrap();
    assert_eq!(socket.recv(&mut [0; 16], 0), Err(Errno(libc::EAGAIN)));
}

#[test]
fn each_call_returns_its_errno() {
    let opened = |kind, protocol| Socket::with_type(kind, protocol).map(|_| ());
    assert_eq!(opened(libc::SOCK_RAW, 31), Err(Errno(libc::EPROTONOSUPPORT)));
    assert_eq!(opened(libc::SOCK_RAW, 999), Err(Errno(libc::EPROTONOSUPPORT)));
    assert_eq!(opened(libc::SOCK_STREAM, 0), Err(Errno(libc::ESOCKTNOSUPPORT)));
    assert_eq!(opened(libc::SOCK_DGRAM, 0), Ok(()));

    let socket = Socket::new(libc::NETLINK_USERSOCK).unwrap();
    let nobody = Address::port(0x7fff_fff1);
    assert_eq!(socket.send_to(b"hello", nobody, 0), Err(Errno(libc::ECONNREFUSED)));
    assert_eq!(socket.recv(&mut [], libc::MSG_DONTWAIT), Err(Errno(libc::EAGAIN)));
    assert_eq!(socket.recv(&mut [], libc::MSG_OOB), Err(Errno(libc::EOPNOTSUPP)));
}

#[test]
fn drop_closes_a_socket_unless_into_raw_fd_took_it() {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    let portid = own_port(2);
    route().bind(portid, GroupMask::NONE).unwrap();
    let again = route();
    again.bind(portid, GroupMask::NONE).unwrap();
    let fd = again.into_raw_fd();
    assert_eq!(route().bind(portid, GroupMask::NONE), Err(Errno(libc::EADDRINUSE)));
    // SAFETY: into_raw_fd() gave up the descriptor, so it has no other owner.
    let back = Socket::from(unsafe { OwnedFd::from_raw_fd(fd) });
    assert_eq!(back.as_raw_fd(), fd);
    assert_eq!(back.address().unwrap().portid, portid);
}

#[test]
fn one_datagram_can_request_an_acknowledgement_and_a_dump() {
    let socket = route();
    let mut builder = MessageBuilder::new();
    builder
        .message(Header::ack(NO_SUCH_TYPE, 0, 1), |body| {
            body.raw(&[0; 3]);
        })
        .message(Header::new(libc::RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 2), |body| {
            body.raw(&[0; IFINFOMSG_BYTES]);
        });
    socket.send(builder.bytes().unwrap(), 0).unwrap();
    let mut buffer = vec![0; 1 << 16];
    let mut sequences = Vec::new();
    while sequences.last() != Some(&(NLMSG_DONE, 2)) {
        let length = socket.recv(&mut buffer, 0).unwrap();
        for message in Messages::new(&buffer[..length]) {
            let header = message.unwrap().header;
            sequences.push((header.kind, header.sequence));
        }
    }
    assert_eq!(sequences[0], (NLMSG_ERROR, 1));
}
