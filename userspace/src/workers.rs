//! Threads that each hold a bound netlink socket, created one by one until a
//! call fails.
//!
//! The workload measures its own address space and kernel tables, so it must
//! not disturb them:
//! - Threads of Rust's standard library set a stack size and map a signal
//!   stack, so this module calls pthread_create() itself.
//! - Workers do not allocate by default, because a thread's first malloc maps
//!   an arena. The heap that pthread_create() needs in the main thread can be
//!   reserved beforehand, so that only stacks are mapped afterwards.

use std::io;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::futex;
use crate::netlink::{Call, EchoSocket, Failure};
use crate::protocol::WORKLOAD_FD;
use crate::snapshot::Counts;

/// Heap bytes per pthread_create() in the main thread: the thread's dtv,
/// `calloc(17, sizeof(dtv_t))` in glibc's allocate_dtv without loaded modules,
/// plus malloc's 16 bytes. Rounded up.
const HEAP_PER_THREAD_BYTES: usize = 384;
/// Heap bytes for all other allocations after the snapshot.
const HEAP_SPARE_BYTES: usize = 2 << 20;
/// The longest time one worker may take for its socket and its echo.
const WORKER_DEADLINE: Duration = Duration::from_secs(60);

/// Workers that have opened a socket.
static SOCKETS: AtomicU32 = AtomicU32::new(0);
/// Workers that have received an echo.
static ECHOES: AtomicU32 = AtomicU32::new(0);
/// Finished workers, successful or not. The main thread waits on it.
static DONE: AtomicU32 = AtomicU32::new(0);
/// The number of the call that failed in a worker; 0 if none has.
static FAILED_CALL: AtomicI32 = AtomicI32::new(0);
/// The errno of the failed call.
static FAILED_ERRNO: AtomicI32 = AtomicI32::new(0);
/// The descriptor of the newest socket.
static LAST_SOCKET: AtomicI32 = AtomicI32::new(-1);
/// Never changes. Finished workers wait on it.
static FOREVER: AtomicU32 = AtomicU32::new(0);

/// Grows the heap once for `threads` threads, so that it does not grow later.
pub fn reserve_heap(threads: usize) {
    let bytes = threads * HEAP_PER_THREAD_BYTES + HEAP_SPARE_BYTES;
    // Below M_MMAP_THRESHOLD, so that malloc takes them from the heap. Together
    // larger than malloc's initial heap, so that it must grow.
    const PIECE_BYTES: usize = 100 << 10;
    // SAFETY: mallopt() changes settings of malloc; each piece is freed once
    // and never used.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        libc::mallopt(libc::M_TOP_PAD, bytes.min(1 << 30) as libc::c_int);
        // Without black_box, the compiler removes the unused allocations.
        let pieces = std::hint::black_box([libc::malloc(PIECE_BYTES), libc::malloc(PIECE_BYTES)]);
        pieces.into_iter().for_each(|piece| libc::free(piece));
        libc::mallopt(libc::M_TOP_PAD, 128 << 10);
    }
}

/// Attributes of new threads.
pub struct ThreadAttributes(libc::pthread_attr_t);

impl ThreadAttributes {
    /// Attributes with a stack size.
    ///
    /// # Errors
    /// glibc rejects the size.
    pub fn with_stack(bytes: usize) -> io::Result<ThreadAttributes> {
        let mut attributes = ThreadAttributes::default();
        // SAFETY: `attributes` is initialised.
        refused(unsafe { libc::pthread_attr_setstacksize(&mut attributes.0, bytes) })?;
        Ok(attributes)
    }

    /// The argument for pthread_create(): the attributes, or null for the
    /// defaults.
    pub fn or_default(attributes: Option<&ThreadAttributes>) -> *const libc::pthread_attr_t {
        attributes.map_or(null(), |attributes| &raw const attributes.0)
    }

    /// Sets the size of the stack guard; 0 disables it.
    ///
    /// # Errors
    /// glibc rejects the size.
    pub fn set_guard_size(&mut self, bytes: usize) -> io::Result<()> {
        // SAFETY: `self` is initialised.
        refused(unsafe { libc::pthread_attr_setguardsize(&mut self.0, bytes) })
    }
}

impl Default for ThreadAttributes {
    fn default() -> ThreadAttributes {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: glibc's pthread_attr_init() initialises the attributes and
        // cannot fail.
        ThreadAttributes(unsafe {
            libc::pthread_attr_init(attributes.as_mut_ptr());
            attributes.assume_init()
        })
    }
}

fn refused(errno: i32) -> io::Result<()> {
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}

/// Creates workers one by one, until a call fails. Each worker starts after the
/// previous one has finished its echo.
///
/// Each worker keeps `malloc_bytes` of heap, or does not use the heap if it is
/// 0. `progress` is called with the number of workers after each one. Returns
/// the counts and the failure.
///
/// # Errors
/// Any error of `progress`.
pub fn create_until_failure(
    attributes: Option<&ThreadAttributes>,
    malloc_bytes: usize,
    mut progress: impl FnMut(u32) -> io::Result<()>,
) -> io::Result<(Counts, Failure)> {
    let attributes = ThreadAttributes::or_default(attributes);
    let counts = |created| Counts {
        threads: u64::from(created),
        sockets: u64::from(SOCKETS.load(Ordering::SeqCst)),
        echoes: u64::from(ECHOES.load(Ordering::SeqCst)),
    };
    let mut created: u32 = 0;
    loop {
        let mut thread: libc::pthread_t = 0;
        let argument = std::ptr::without_provenance_mut(malloc_bytes);
        // SAFETY: all pointers are valid for the call; the worker's argument is
        // an integer.
        let errno = unsafe { libc::pthread_create(&mut thread, attributes, worker, argument) };
        if errno != 0 {
            return Ok((counts(created), Failure { call: Call::PthreadCreate, errno }));
        }
        created += 1;
        if !wait_until_done(created) {
            return Ok((counts(created), Failure { call: Call::Wait, errno: libc::ETIMEDOUT }));
        }
        if let Some(call) = Call::from_number(FAILED_CALL.load(Ordering::SeqCst)) {
            // The failed worker has ended.
            let errno = FAILED_ERRNO.load(Ordering::SeqCst);
            return Ok((counts(created - 1), Failure { call, errno }));
        }
        progress(created)?;
    }
}

/// Closes the newest sockets, which are counted already, and returns their
/// number. The snapshot afterwards needs descriptors, and none may be left.
pub fn free_descriptors() -> u64 {
    const SNAPSHOT_NEEDS: i32 = 4;
    let last = LAST_SOCKET.load(Ordering::SeqCst);
    // Descriptors are assigned in ascending order, so the previous ones are
    // sockets too.
    let first = (last - SNAPSHOT_NEEDS + 1).max(WORKLOAD_FD + 1);
    // SAFETY: the descriptors are the workers' sockets, and the workers sleep
    // forever.
    (first..=last).map(|fd| u64::from(unsafe { libc::close(fd) } == 0)).sum()
}

extern "C" fn worker(malloc_bytes: *mut libc::c_void) -> *mut libc::c_void {
    if let Err(failure) = allocate_heap(malloc_bytes.addr()).and_then(|()| socket_and_echo()) {
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

/// Allocates `bytes` of heap permanently and touches them.
fn allocate_heap(bytes: usize) -> Result<(), Failure> {
    if bytes == 0 {
        return Ok(());
    }
    // SAFETY: malloc() returned at least one byte that nothing else uses. The
    // write is volatile so that the compiler keeps it.
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
    let socket = EchoSocket::open()?;
    SOCKETS.fetch_add(1, Ordering::SeqCst);
    LAST_SOCKET.store(socket.fd(), Ordering::SeqCst);
    // The port identifies the thread. It is in the high half, so that the
    // cookie differs from the port itself.
    socket.echo(u64::from(socket.portid()) << 32 | 0x6e6c)?;
    ECHOES.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

/// Waits until `workers` workers have finished. False on timeout.
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
