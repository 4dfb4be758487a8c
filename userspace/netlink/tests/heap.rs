//! Functions documented as not allocating do not allocate. Some threads of the
//! rig must not use the heap.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use nlrig_netlink::{
    Address, Errno, Group, GroupMask, Header, MessageBuilder, Messages, RequestLimits, Socket,
    request_ack,
};

thread_local! {
    /// The number of allocator calls of this thread.
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: all calls are forwarded to the system allocator; the counter is a
// const thread-local, which does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller upholds the contract of alloc().
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller upholds the contract of dealloc().
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Uses a socket in every way that a worker thread does, including failing
/// calls.
fn use_everything() -> Result<(), Errno> {
    let socket = Socket::new(libc::NETLINK_ROUTE)?;
    socket.set_extended_acks(true)?;
    socket.set_packet_info(true)?;
    socket.set_receive_timeout(Some(Duration::from_secs(10)))?;
    socket.bind(0, GroupMask::NONE)?;
    socket.join(Group(1))?;
    let address = socket.address()?;
    assert_eq!(socket.bind(address.portid ^ 1, GroupMask::NONE), Err(Errno(libc::EINVAL)));
    socket.leave(Group(1))?;
    socket.connect(0, GroupMask::NONE)?;

    let mut room = [0; 64];
    let mut builder = MessageBuilder::in_buffer(&mut room);
    builder.message(Header::ack(0x3fff, 0, 1), |body| {
        body.raw(&[0; 16]).nested(1, |nest| {
            nest.string(2, "text");
        });
    });
    let request = builder.bytes().unwrap_or_default();
    let mut buffer = [0; 512];
    let ack = request_ack(&socket, request, &mut buffer, RequestLimits::default());
    assert!(ack.is_ok_and(|ack| ack.errno > 0));

    socket.send(request, 0)?;
    socket.recv(&mut buffer, 0)?;
    socket.send_to(request, Address::KERNEL, 0)?;
    socket.recv_from(&mut buffer, 0)?;
    socket.send_message(request, Some(Address::KERNEL), 0)?;
    let length = socket.recv_message(&mut buffer, 0)?.length;
    assert_eq!(Messages::new(&buffer[..length]).filter(Result::is_ok).count(), 1);
    assert_eq!(socket.recv(&mut buffer, libc::MSG_DONTWAIT), Err(Errno(libc::EAGAIN)));
    Ok(())
}

#[test]
fn sockets_and_requests_do_not_allocate() {
    let before = CALLS.get();
    let result = use_everything();
    let calls = CALLS.get() - before;
    assert_eq!((result, calls), (Ok(()), 0));
    drop(std::hint::black_box(vec![1]));
    assert_ne!(CALLS.get(), before, "the calls are counted");
}
