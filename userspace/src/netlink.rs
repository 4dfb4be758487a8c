//! A socket of the module's protocol, and one echo over it.
//!
//! Does not allocate. The workloads call this from threads that must not use
//! the heap: a thread's first malloc maps an arena, which changes the measured
//! address space.

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, RawFd};

use nlrig_netlink::builder::MessageBuilder;
use nlrig_netlink::wire::{HEADER_BYTES, Header, NLM_F_REQUEST};
use nlrig_netlink::{Errno, GroupMask, Message, Messages};

use crate::uapi::{
    NETLINK_NLRIG, NLRIG_MSG_ECHO, NLRIG_MSG_ECHO_REPLY, NLRIG_MSG_FAULT, nlrig_echo, nlrig_fault,
};

/// The calls of a worker, in order, to identify the one that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Call {
    /// Creating the thread.
    PthreadCreate = 1,
    /// Opening the socket.
    Socket,
    /// Binding the socket to a port.
    Bind,
    /// Reading the port back.
    Getsockname,
    /// Sending the request.
    Send,
    /// Receiving the answer.
    Recv,
    /// Checking the answer.
    Answer,
    /// Waiting for the worker, which timed out.
    Wait,
    /// Allocating the heap that the worker keeps, before it opens its socket.
    Malloc,
}

impl Call {
    /// The name of the function.
    pub fn name(self) -> &'static str {
        match self {
            Call::PthreadCreate => "pthread_create",
            Call::Socket => "socket",
            Call::Bind => "bind",
            Call::Getsockname => "getsockname",
            Call::Send => "send",
            Call::Recv => "recv",
            Call::Answer => "answer",
            Call::Wait => "wait",
            Call::Malloc => "malloc",
        }
    }

    /// The call with this number, if there is one.
    pub fn from_number(number: i32) -> Option<Call> {
        use Call::*;
        [PthreadCreate, Socket, Bind, Getsockname, Send, Recv, Answer, Wait, Malloc]
            .into_iter()
            .find(|&call| call as i32 == number)
    }
}

/// A failed call and its errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The call.
    pub call: Call,
    /// The errno.
    pub errno: i32,
}

/// The sequence number of all requests. Only one request is in flight at a
/// time.
const SEQUENCE: u32 = 1;
/// Buffer size for answers. The longest is an NLMSG_ERROR: an errno and the
/// whole request.
const ANSWER_BYTES: usize = 128;

/// Size of the body of an echo.
const ECHO_BYTES: usize = size_of::<nlrig_echo>();

/// The answer is wrong.
const BAD_ANSWER: Failure = Failure { call: Call::Answer, errno: libc::EBADMSG };
/// The request exceeds its buffer, which fits the longest request.
const TOO_LONG: Failure = Failure { call: Call::Send, errno: libc::EMSGSIZE };

/// A bound socket of protocol `NETLINK_NLRIG`. It stays open until the process
/// ends, because the experiments count open sockets.
#[derive(Debug)]
pub struct EchoSocket {
    socket: ManuallyDrop<nlrig_netlink::Socket>,
    portid: u32,
}

impl EchoSocket {
    /// Opens a socket, binds it to a port that the kernel chooses (port 0, as
    /// netlink(7) advises), and reads the port back.
    ///
    /// # Errors
    /// The first call that failed. The socket is closed.
    pub fn open() -> Result<EchoSocket, Failure> {
        EchoSocket::open_at(0)
    }

    /// Like [`EchoSocket::open`], but binds to `portid`; 0 lets the kernel
    /// choose.
    ///
    /// # Errors
    /// See [`EchoSocket::open`]. [`Call::Bind`] with EADDRINUSE if another
    /// socket has the port.
    pub fn open_at(portid: u32) -> Result<EchoSocket, Failure> {
        let socket =
            nlrig_netlink::Socket::new(NETLINK_NLRIG as i32).map_err(failed(Call::Socket))?;
        socket.bind(portid, GroupMask::NONE).map_err(failed(Call::Bind))?;
        let portid = socket.address().map_err(failed(Call::Getsockname))?.portid;
        Ok(EchoSocket { socket: ManuallyDrop::new(socket), portid })
    }

    /// The port.
    pub fn portid(&self) -> u32 {
        self.portid
    }

    /// The file descriptor.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Sends one echo and checks the answer, which must carry the same cookie
    /// and this socket's port.
    ///
    /// Receives without blocking: the module queues the answer before send()
    /// returns, so a missing answer would never come.
    ///
    /// # Errors
    /// The call that failed. [`Call::Answer`] with the kernel's errno, or with
    /// EBADMSG if the answer is wrong.
    pub fn echo(&self, cookie: u64) -> Result<(), Failure> {
        let header = Header::new(NLRIG_MSG_ECHO as u16, NLM_F_REQUEST, SEQUENCE);
        let mut buffer = [0; ANSWER_BYTES];
        let answer = self.exchange(header, &echo_body(cookie, 0), &mut buffer)?;
        if let Some(ack) = answer.ack() {
            let errno = ack.map_or(BAD_ANSWER.errno, |ack| ack.errno);
            return Err(Failure { call: Call::Answer, errno });
        }
        let right = answer.header.kind == NLRIG_MSG_ECHO_REPLY as u16
            && answer.header.sequence == SEQUENCE
            && answer.payload == echo_body(cookie, self.portid);
        if right { Ok(()) } else { Err(BAD_ANSWER) }
    }

    /// Requests a fault `NLRIG_FAULT_*` from the module. Most faults never
    /// return.
    ///
    /// # Errors
    /// The call that failed. [`Call::Answer`] with the kernel's errno.
    pub fn fault(&self, kind: u32) -> Result<(), Failure> {
        let mut body = [0; size_of::<nlrig_fault>()];
        body[..4].copy_from_slice(&kind.to_ne_bytes());
        let mut buffer = [0; ANSWER_BYTES];
        let header = Header::ack(NLRIG_MSG_FAULT as u16, 0, SEQUENCE);
        match self.exchange(header, &body, &mut buffer)?.ack() {
            Some(Ok(ack)) => ack.result().map_err(failed(Call::Answer)),
            _ => Err(BAD_ANSWER),
        }
    }

    /// Sends one message and receives the answer, which must be a single
    /// message.
    fn exchange<'b>(
        &self,
        header: Header,
        body: &[u8],
        buffer: &'b mut [u8],
    ) -> Result<Message<'b>, Failure> {
        let mut request = [0; HEADER_BYTES + ECHO_BYTES];
        let mut request = MessageBuilder::in_buffer(&mut request);
        request.message(header, |message| {
            message.raw(body);
        });
        let request = request.bytes().map_err(|_| TOO_LONG)?;
        // An unconnected netlink socket sends to port 0, the kernel.
        self.socket.send(request, 0).map_err(failed(Call::Send))?;
        let got = self.socket.recv(buffer, libc::MSG_DONTWAIT).map_err(failed(Call::Recv))?;
        let mut messages = Messages::new(&buffer[..got]);
        match (messages.next(), messages.next()) {
            (Some(Ok(answer)), None) => Ok(answer),
            _ => Err(BAD_ANSWER),
        }
    }
}

/// The body of an echo, struct nlrig_echo.
fn echo_body(cookie: u64, portid: u32) -> [u8; ECHO_BYTES] {
    let mut body = [0; ECHO_BYTES];
    body[..8].copy_from_slice(&cookie.to_ne_bytes());
    body[8..12].copy_from_slice(&portid.to_ne_bytes());
    body
}

/// Creates the failure of `call` from an errno.
fn failed(call: Call) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure { call, errno: errno.0 }
}
