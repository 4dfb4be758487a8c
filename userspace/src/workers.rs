//! Threads that each hold a bound netlink socket, made one after another until
//! that fails.
//!
//! What is measured is the address space and the tables of the kernel, so this
//! is careful with both:
//! - Rust's own threads always ask for a size and map a signal stack; this
//!   calls pthread_create itself.
//! - Workers do not allocate unless they are asked to: a thread's first malloc
//!   maps an arena. The heap that pthread_create needs in the main thread can be
//!   reserved before, so that from then on nothing is mapped but stacks.

use std::io;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::futex;
use crate::look::Counts;
use crate::netlink::{Call, Failure, Socket};
use crate::protocol::WORKLOAD_FD;

/// Heap that one pthread_create takes in the main thread: the thread's table of
/// thread-local storage, `calloc(17, sizeof(dtv_t))` in glibc's allocate_dtv
/// with no module loaded, plus malloc's own 16 bytes; with room to spare.
const HEAP_PER_THREAD_BYTES: usize = 384;
/// Heap for everything else this program does after the look.
const HEAP_SPARE_BYTES: usize = 2 << 20;
/// How long one worker may take for its socket and its echo.
const WORKER_DEADLINE: Duration = Duration::from_secs(60);

/// Workers that got as far as this, in the order of their steps.
static SOCKETS: AtomicU32 = AtomicU32::new(0);
static ECHOES: AtomicU32 = AtomicU32::new(0);
/// Workers that are done, well or not; the main thread waits on it.
static DONE: AtomicU32 = AtomicU32::new(0);
/// The first failure of a worker: its call (0 is none) and errno.
static FAILED_CALL: AtomicI32 = AtomicI32::new(0);
static FAILED_ERRNO: AtomicI32 = AtomicI32::new(0);
/// The descriptor of the newest socket.
static LAST_SOCKET: AtomicI32 = AtomicI32::new(-1);
/// Never changes: workers that are done sleep on it.
static FOREVER: AtomicU32 = AtomicU32::new(0);

/// Grows the heap once, by all that so many threads will need, so that it does
/// not grow until the last of them.
pub fn reserve_heap(threads: usize) {
    let bytes = threads * HEAP_PER_THREAD_BYTES + HEAP_SPARE_BYTES;
    // Below M_MMAP_THRESHOLD, so that it comes from the heap; together more
    // than the room malloc starts with, so that the heap has to grow.
    const PIECE_BYTES: usize = 100 << 10;
    // SAFETY: mallopt changes malloc's settings; the pieces are freed once and
    // not used.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        libc::mallopt(libc::M_TOP_PAD, bytes.min(1 << 30) as libc::c_int);
        // The compiler knows malloc, and would leave out what nobody looks at.
        let pieces = std::hint::black_box([libc::malloc(PIECE_BYTES), libc::malloc(PIECE_BYTES)]);
        pieces.into_iter().for_each(|piece| libc::free(piece));
        libc::mallopt(libc::M_TOP_PAD, 128 << 10);
    }
}

/// The attributes that threads are created with.
pub struct Attributes(libc::pthread_attr_t);

impl Attributes {
    /// Threads with stacks of this size.
    ///
    /// # Errors
    /// glibc refuses the size.
    pub fn with_stack(bytes: usize) -> io::Result<Attributes> {
        let mut attributes = Attributes::default();
        // SAFETY: `attributes` is initialised.
        refused(unsafe { libc::pthread_attr_setstacksize(&mut attributes.0, bytes) })?;
        Ok(attributes)
    }

    /// What pthread_create takes: these, or null for threads as they are by
    /// default.
    pub fn or_default(attributes: Option<&Attributes>) -> *const libc::pthread_attr_t {
        attributes.map_or(null(), |attributes| &raw const attributes.0)
    }

    /// Threads with a guard of this size below their stacks, none if it is zero.
    ///
    /// # Errors
    /// glibc refuses the size.
    pub fn guard(&mut self, bytes: usize) -> io::Result<()> {
        // SAFETY: `self` is initialised.
        refused(unsafe { libc::pthread_attr_setguardsize(&mut self.0, bytes) })
    }
}

impl Default for Attributes {
    fn default() -> Attributes {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: glibc's pthread_attr_init fills it in and cannot fail.
        Attributes(unsafe {
            libc::pthread_attr_init(attributes.as_mut_ptr());
            attributes.assume_init()
        })
    }
}

fn refused(errno: i32) -> io::Result<()> {
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}

/// Creates one worker after another, each after the one before it is done, and
/// says how many are alive and what failed in the end. Each keeps a piece of heap
/// of `malloc_bytes`, and none at all if that is zero. The number of workers is
/// passed on as it grows.
///
/// # Errors
/// What `progress` returns.
pub fn create_until_failure(
    attributes: Option<&Attributes>,
    malloc_bytes: usize,
    mut progress: impl FnMut(u32) -> io::Result<()>,
) -> io::Result<(Counts, Failure)> {
    let attributes = Attributes::or_default(attributes);
    let counts = |created| Counts {
        threads: u64::from(created),
        sockets: u64::from(SOCKETS.load(Ordering::SeqCst)),
        echoes: u64::from(ECHOES.load(Ordering::SeqCst)),
    };
    let mut created: u32 = 0;
    loop {
        let mut thread: libc::pthread_t = 0;
        let argument = std::ptr::without_provenance_mut(malloc_bytes);
        // SAFETY: all pointers are valid for the call; the worker's argument is a
        // number.
        let errno = unsafe { libc::pthread_create(&mut thread, attributes, worker, argument) };
        if errno != 0 {
            return Ok((counts(created), Failure { call: Call::PthreadCreate, errno }));
        }
        created += 1;
        if !wait_until_done(created) {
            return Ok((counts(created), Failure { call: Call::Wait, errno: libc::ETIMEDOUT }));
        }
        if let Some(call) = Call::from_number(FAILED_CALL.load(Ordering::SeqCst)) {
            // The worker that failed has ended.
            let errno = FAILED_ERRNO.load(Ordering::SeqCst);
            return Ok((counts(created - 1), Failure { call, errno }));
        }
        progress(created)?;
    }
}

/// Closes the newest few sockets, now that they are counted, and says how many:
/// the look afterwards has files to open, and there may be no descriptor left.
pub fn free_descriptors() -> u64 {
    const LOOK_NEEDS: i32 = 4;
    let last = LAST_SOCKET.load(Ordering::SeqCst);
    // Descriptors are handed out in their order: those before are sockets too.
    let first = (last - LOOK_NEEDS + 1).max(WORKLOAD_FD + 1);
    // SAFETY: these are the workers' sockets, and the workers sleep for good.
    (first..=last).map(|fd| u64::from(unsafe { libc::close(fd) } == 0)).sum()
}

extern "C" fn worker(malloc_bytes: *mut libc::c_void) -> *mut libc::c_void {
    if let Err(failure) = keep_heap(malloc_bytes.addr()).and_then(|()| socket_and_echo()) {
        FAILED_ERRNO.store(failure.errno, Ordering::SeqCst);
        FAILED_CALL.store(failure.call as i32, Ordering::SeqCst);
        DONE.fetch_add(1, Ordering::SeqCst);
        futex::wake(&DONE);
        return null_mut();
    }
    DONE.fetch_add(1, Ordering::SeqCst);
    futex::wake(&DONE);
    loop {
        futex::wait(&FOREVER, 0, None);
    }
}

/// Takes so many bytes of heap for good, and touches them.
fn keep_heap(bytes: usize) -> Result<(), Failure> {
    if bytes == 0 {
        return Ok(());
    }
    // SAFETY: there is at least one byte, and it is nobody else's. A write that
    // could be left out would not be one.
    unsafe {
        let piece: *mut u8 = libc::malloc(bytes).cast();
        if piece.is_null() {
            return Err(Failure { call: Call::Malloc, errno: libc::ENOMEM });
        }
        piece.write_volatile(1);
    }
    Ok(())
}

fn socket_and_echo() -> Result<(), Failure> {
    let socket = Socket::open()?;
    SOCKETS.fetch_add(1, Ordering::SeqCst);
    LAST_SOCKET.store(socket.fd(), Ordering::SeqCst);
    // The port tells the threads apart; the high half tells it from a port.
    socket.echo(u64::from(socket.portid()) << 32 | 0x6e6c)?;
    ECHOES.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

/// Waits until `workers` of them are done; false if that takes too long.
fn wait_until_done(workers: u32) -> bool {
    let mut deadline = None;
    loop {
        let done = DONE.load(Ordering::SeqCst);
        if done >= workers {
            return true;
        }
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + WORKER_DEADLINE);
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        futex::wait(&DONE, done, Some(left));
    }
}
