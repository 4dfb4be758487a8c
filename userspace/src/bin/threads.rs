//! The workload `threads`: creates threads until that fails, each holding a
//! bound netlink socket that has had one echo.
//!
//! What is measured is the address space and the tables of the kernel, so the
//! program is careful with both:
//! - glibc and the kernel read RLIMIT_STACK at exec only. Whoever starts this
//!   program sets the limit first, and threads are created with default
//!   attributes, as a plain C program does. `--stack BYTES` sets the size by
//!   attribute instead, for stacks too small for a main thread to live on.
//! - Rust's own threads always ask for a size and map a signal stack; this
//!   calls pthread_create itself.
//! - Workers do not allocate: a thread's first malloc maps an arena. The heap
//!   that pthread_create needs in the main thread is reserved before the look,
//!   so that from then on nothing is mapped but stacks.

use std::fs::File;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::FromRawFd;
use std::process::ExitCode;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nlrig_guest::futex;
use nlrig_guest::look::{Counts, Failed, Look, Outcome, PROGRESS_EVERY, Report};
use nlrig_guest::netlink::{Call, Failure, Socket};
use nlrig_guest::protocol::WORKLOAD_FD;

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

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("threads: {err}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let options = Options::from_args(std::env::args().skip(1))?;
    // SAFETY: PID 1 opened this descriptor for us and nobody else in this
    // process uses it.
    let mut report = unsafe { File::from_raw_fd(WORKLOAD_FD) };

    reserve_heap(&Look::take()?, options.stack_bytes);
    let look = Look::take()?;
    write_line(&mut report, &Report::Look(look))?;
    if options.look_only {
        return Ok(());
    }

    let start = Instant::now();
    let (alive, failure) = create_until_failure(&options, &mut report)?;
    let elapsed_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);

    let counts = Counts {
        threads: u64::from(alive),
        sockets: u64::from(SOCKETS.load(Ordering::SeqCst)),
        echoes: u64::from(ECHOES.load(Ordering::SeqCst)),
    };
    let failed = Failed {
        call: failure.call.name().to_string(),
        errno: failure.errno,
        name: format!("{:?}", nix::errno::Errno::from_raw(failure.errno)),
    };
    let closed = free_descriptors();
    let mut outcome = Outcome::take(counts, failed, elapsed_ns)?;
    outcome.open_files += closed;
    write_line(&mut report, &Report::Outcome(outcome))
}

/// Closes the newest few sockets, now that they are counted, and says how many:
/// the look afterwards has files to open, and there may be no descriptor left.
fn free_descriptors() -> u64 {
    const LOOK_NEEDS: i32 = 4;
    let last = LAST_SOCKET.load(Ordering::SeqCst);
    // Descriptors are handed out in their order: those before are sockets too.
    let first = (last - LOOK_NEEDS + 1).max(WORKLOAD_FD + 1);
    // SAFETY: these are the workers' sockets, and the workers sleep for good.
    (first..=last).map(|fd| u64::from(unsafe { libc::close(fd) } == 0)).sum()
}

struct Options {
    look_only: bool,
    /// Set the size by attribute; by RLIMIT_STACK if absent.
    stack_bytes: Option<usize>,
}

impl Options {
    fn from_args(mut args: impl Iterator<Item = String>) -> io::Result<Options> {
        let mut options = Options { look_only: false, stack_bytes: None };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--look-only" => options.look_only = true,
                "--stack" => options.stack_bytes = args.next().and_then(|n| n.parse().ok()),
                _ => return Err(io::Error::other(format!("unknown argument {arg}"))),
            }
        }
        Ok(options)
    }
}

/// Grows the heap once, by all that the run will need, so that it does not grow
/// between the look and the last thread.
fn reserve_heap(look: &Look, by_attribute: Option<usize>) {
    let by_attribute = by_attribute.map(|bytes| bytes as u64);
    let stack_bytes = by_attribute.or(look.limits.stack_bytes).unwrap_or(2 << 20).max(16 << 10);
    let by_space = if look.word_bits == 32 { (4 << 30) / stack_bytes } else { u64::MAX };
    let threads =
        look.sysctls.threads_max.min(look.sysctls.pid_max).min(by_space).min(1 << 20) as usize;
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

/// Creates one worker after another, each after the one before it is done, and
/// says how many are alive and what failed in the end.
fn create_until_failure(options: &Options, report: &mut File) -> io::Result<(u32, Failure)> {
    // SAFETY: pthread_attr_t is plain data; pthread_attr_init fills it in.
    let mut attributes = unsafe { MaybeUninit::<libc::pthread_attr_t>::zeroed().assume_init() };
    let mut attributes_or_default = null();
    if let Some(bytes) = options.stack_bytes {
        // SAFETY: `attributes` outlives every call that gets its address.
        let result = unsafe {
            libc::pthread_attr_init(&mut attributes);
            libc::pthread_attr_setstacksize(&mut attributes, bytes)
        };
        if result != 0 {
            return Err(io::Error::from_raw_os_error(result));
        }
        attributes_or_default = &raw const attributes;
    }

    let mut created = 0;
    loop {
        let mut thread: libc::pthread_t = 0;
        // SAFETY: all pointers are valid for the call; the worker needs none.
        let errno =
            unsafe { libc::pthread_create(&mut thread, attributes_or_default, worker, null_mut()) };
        if errno != 0 {
            return Ok((created, Failure { call: Call::PthreadCreate, errno }));
        }
        created += 1;
        if !wait_until_done(created) {
            return Ok((created, Failure { call: Call::Wait, errno: libc::ETIMEDOUT }));
        }
        if let Some(call) = Call::from_number(FAILED_CALL.load(Ordering::SeqCst)) {
            // The worker that failed has ended.
            let errno = FAILED_ERRNO.load(Ordering::SeqCst);
            return Ok((created - 1, Failure { call, errno }));
        }
        if created % PROGRESS_EVERY == 0 {
            write_line(report, &Report::Progress { threads: u64::from(created) })?;
        }
    }
}

extern "C" fn worker(_: *mut libc::c_void) -> *mut libc::c_void {
    if let Err(failure) = socket_and_echo() {
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

fn write_line(to: &mut File, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    to.write_all(&line)
}
