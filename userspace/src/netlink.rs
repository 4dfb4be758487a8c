//! A socket of the module's protocol, and one echo over it.
//!
//! Nothing here allocates: the workloads call it from threads that must not
//! touch the heap, because a thread's first malloc maps an arena of its own and
//! changes the very address space that is being measured.

use std::mem::{size_of, zeroed};
use std::os::fd::RawFd;

use crate::uapi::{
    NETLINK_NLRIG, NLRIG_ECHO_SIZE, NLRIG_FAULT_SIZE, NLRIG_MSG_ECHO, NLRIG_MSG_ECHO_REPLY,
    NLRIG_MSG_FAULT,
};

/// The call that failed, in the order in which a worker makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Call {
    /// Creating the thread itself.
    PthreadCreate = 1,
    /// Opening the socket.
    Socket,
    /// Binding it to a port.
    Bind,
    /// Reading back the port.
    Getsockname,
    /// Sending the request.
    Send,
    /// Receiving the answer.
    Recv,
    /// The answer was not the right one.
    Answer,
    /// The worker did not answer in time.
    Wait,
}

impl Call {
    /// The function's name.
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
        }
    }

    /// The call of this number, if there is one.
    pub fn from_number(number: i32) -> Option<Call> {
        use Call::*;
        [PthreadCreate, Socket, Bind, Getsockname, Send, Recv, Answer, Wait]
            .into_iter()
            .find(|&call| call as i32 == number)
    }
}

/// A call that failed and its error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The call.
    pub call: Call,
    /// Its errno.
    pub errno: i32,
}

/// A bound socket of protocol `NETLINK_NLRIG`. It is closed when the process
/// ends, and not before: the experiments count sockets that are held.
#[derive(Clone, Copy, Debug)]
pub struct Socket {
    fd: RawFd,
    portid: u32,
}

/// Header and body of an echo, as `module/uapi/nlrig.h` lays them out.
#[repr(C)]
#[derive(Clone, Copy)]
struct EchoMessage {
    header: libc::nlmsghdr,
    cookie: u64,
    portid: u32,
    reserved: u32,
}

const _: () = assert!(
    size_of::<EchoMessage>() == size_of::<libc::nlmsghdr>() + NLRIG_ECHO_SIZE as usize,
    "the message has no padding"
);

/// Header and body of a request to go wrong, and room for the answer: a
/// struct nlmsgerr with the header it is about.
#[repr(C)]
#[derive(Clone, Copy)]
struct FaultMessage {
    header: libc::nlmsghdr,
    /// In the answer a negative errno, or zero.
    kind: u32,
    reserved: u32,
    rest: [u32; 3],
}

/// A message of plain integers, for which any bytes are a value.
trait Message: Copy {}
impl Message for EchoMessage {}
impl Message for FaultMessage {}

impl Socket {
    /// Opens a socket and binds it to a port of the kernel's choice (port 0,
    /// as netlink(7) advises), then asks for the port.
    ///
    /// # Errors
    /// The first call that failed; the socket is closed again.
    pub fn open() -> Result<Socket, Failure> {
        // SAFETY: socket() takes no pointer.
        let fd = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                NETLINK_NLRIG as libc::c_int,
            )
        };
        check(Call::Socket, fd)?;
        bind(fd).inspect_err(|_| {
            // SAFETY: the descriptor is ours and nobody else has it.
            unsafe { libc::close(fd) };
        })
    }

    /// The port the kernel gave.
    pub fn portid(&self) -> u32 {
        self.portid
    }

    /// The descriptor.
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// Sends one echo and takes the answer, which must carry the same cookie
    /// and this socket's port.
    ///
    /// The answer is taken without waiting: the module queues it before send()
    /// returns, so one that is not there would never come.
    ///
    /// # Errors
    /// The call that failed; [`Call::Answer`] with EBADMSG, or with the error
    /// the kernel sent, if the answer is not the right one.
    pub fn echo(&self, cookie: u64) -> Result<(), Failure> {
        let length = size_of::<EchoMessage>();
        let request = EchoMessage {
            header: libc::nlmsghdr {
                nlmsg_len: length as u32,
                nlmsg_type: NLRIG_MSG_ECHO as u16,
                nlmsg_flags: libc::NLM_F_REQUEST as u16,
                nlmsg_seq: 1,
                nlmsg_pid: 0,
            },
            cookie,
            portid: 0,
            reserved: 0,
        };
        let (answer, got) = self.exchange(&request, length)?;
        if answer.header.nlmsg_type == libc::NLMSG_ERROR as u16 {
            // struct nlmsgerr begins with a negative errno, where the cookie is.
            let errno = (answer.cookie as u32 as i32).wrapping_neg();
            return Err(Failure { call: Call::Answer, errno });
        }
        let right = got == length
            && answer.header.nlmsg_type == NLRIG_MSG_ECHO_REPLY as u16
            && answer.header.nlmsg_seq == 1
            && answer.cookie == cookie
            && answer.portid == self.portid;
        if right { Ok(()) } else { Err(Failure { call: Call::Answer, errno: libc::EBADMSG }) }
    }
}

impl Socket {
    /// Asks the module to go wrong in this way: a number `NLRIG_FAULT_*`. Most
    /// of them never come back.
    ///
    /// # Errors
    /// The call that failed; [`Call::Answer`] with the error the kernel sent.
    pub fn fault(&self, kind: u32) -> Result<(), Failure> {
        let length = size_of::<libc::nlmsghdr>() + NLRIG_FAULT_SIZE as usize;
        let request = FaultMessage {
            header: libc::nlmsghdr {
                nlmsg_len: length as u32,
                nlmsg_type: NLRIG_MSG_FAULT as u16,
                nlmsg_flags: (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16,
                nlmsg_seq: 1,
                nlmsg_pid: 0,
            },
            kind,
            reserved: 0,
            rest: [0; 3],
        };
        let (answer, _) = self.exchange(&request, length)?;
        match (answer.header.nlmsg_type == libc::NLMSG_ERROR as u16, answer.kind) {
            (true, 0) => Ok(()),
            (true, error) => {
                Err(Failure { call: Call::Answer, errno: (error as i32).wrapping_neg() })
            }
            (false, _) => Err(Failure { call: Call::Answer, errno: libc::EBADMSG }),
        }
    }
}

impl Socket {
    /// Sends so many bytes of a request and takes the answer; how long that is.
    fn exchange<M: Message>(&self, request: &M, length: usize) -> Result<(M, usize), Failure> {
        debug_assert!(length <= size_of::<M>());
        // An unconnected netlink socket sends to port 0, the kernel.
        // SAFETY: the pointer is that of `request`, which is no shorter.
        let sent = unsafe { libc::send(self.fd, (&raw const *request).cast(), length, 0) };
        check(Call::Send, sent as i64)?;
        // SAFETY: a message is plain integers, for which zero is a value.
        let mut answer: M = unsafe { zeroed() };
        let room = size_of::<M>();
        // SAFETY: the pointer and the length are those of `answer`.
        let got =
            unsafe { libc::recv(self.fd, (&raw mut answer).cast(), room, libc::MSG_DONTWAIT) };
        check(Call::Recv, got as i64)?;
        Ok((answer, got as usize))
    }
}

fn bind(fd: RawFd) -> Result<Socket, Failure> {
    let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    // SAFETY: sockaddr_nl is plain integers, for which zero is a value.
    let mut address: libc::sockaddr_nl = unsafe { zeroed() };
    address.nl_family = libc::AF_NETLINK as u16;
    // SAFETY: the pointer and the length are those of `address`.
    check(Call::Bind, unsafe { libc::bind(fd, (&raw const address).cast(), length) })?;
    // SAFETY: as above; `length` says how much room there is.
    check(Call::Getsockname, unsafe {
        libc::getsockname(fd, (&raw mut address).cast(), &mut length)
    })?;
    Ok(Socket { fd, portid: address.nl_pid })
}

fn check(call: Call, result: impl Into<i64>) -> Result<(), Failure> {
    if result.into() >= 0 {
        return Ok(());
    }
    // SAFETY: errno belongs to this thread; reading it touches nothing else.
    Err(Failure { call, errno: unsafe { *libc::__errno_location() } })
}
