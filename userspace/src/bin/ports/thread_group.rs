//! Threads that bind to netlink ports which they compute themselves.
//!
//! The ports depend on the threads' addresses. Threads are therefore created
//! like those of a plain C program, by pthread_create() with default
//! attributes, and do not allocate by default.
//!
//! All threads report their addresses before the first one binds; then each
//! wakes the next. Predictions are made from the addresses alone.

use std::io;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use nlrig_guest::clone::pin_to_cpu;
use nlrig_guest::futex;
use nlrig_guest::netlink::{Call, EchoSocket, Failure};
use nlrig_guest::ports::{Formula, Generator};
use nlrig_guest::snapshot::Failed;
use nlrig_guest::workers::ThreadAttributes;

use crate::formula;

/// The longest time without progress before a thread counts as hung.
const THREAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Threads between two heartbeats during creation.
const HEARTBEAT_EVERY: u32 = 2048;
/// The interval at which the main thread checks for progress.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Options of a thread group.
#[derive(Clone, Copy, Debug)]
pub struct GroupOptions {
    /// The maximum number of threads. Fewer are created if the address space
    /// does not suffice.
    pub threads: u32,
    /// The stack size attribute; RLIMIT_STACK applies if absent.
    pub stack_bytes: Option<usize>,
    /// Bytes that each thread allocates once, at its start; 0 for none.
    pub malloc_bytes: usize,
    /// Whether each thread exits before the next is created.
    pub threads_exit: bool,
    /// The formula by which a thread binds at its start. If absent, threads
    /// bind in [`ThreadGroup::bind`].
    pub bind_at_start: Option<Formula>,
}

/// The threads of this process.
pub struct ThreadGroup {
    slots: &'static [Slot],
    created: u32,
    /// The errno of pthread_create(), if there are fewer threads than
    /// requested.
    pub refused: Option<i32>,
    shared: &'static Shared,
}

/// Data that all threads share.
struct Shared {
    process: u32,
    generator: Mutex<Generator>,
    formula: Mutex<Formula>,
    /// The slots of the created threads, set after the last one.
    created_slots: OnceLock<&'static [Slot]>,
    /// Threads that have finished their start.
    started: AtomicU32,
    /// The number of finished binds, successful or not.
    done: AtomicU32,
}

/// A thread with its identity and the result of its bind.
struct Slot {
    number: u32,
    options: GroupOptions,
    shared: &'static Shared,
    pthread_self: AtomicUsize,
    tid: AtomicU32,
    /// The number of turns granted to the thread.
    turn: AtomicU32,
    fd: AtomicI32,
    port: AtomicU32,
    echo: AtomicU32,
    call: AtomicI32,
    errno: AtomicI32,
}

/// The result of a thread's bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindOutcome {
    /// The thread's socket has this port.
    Bound(u32),
    /// Another socket has the port.
    InUse,
    /// Another call failed.
    Failed(Failure),
}

/// A summary of all threads.
#[derive(Debug, Default)]
pub struct GroupSummary {
    pub echoes: u32,
    pub unexpected: u32,
    pub failed: Option<Failed>,
}

impl ThreadGroup {
    /// Creates the threads, each after the previous one has recorded its
    /// identity, until one cannot be created. Calls `heartbeat` with their
    /// number at intervals.
    pub fn spawn_all(
        options: GroupOptions,
        time_s: u64,
        mut heartbeat: impl FnMut(u32),
    ) -> io::Result<ThreadGroup> {
        if options.malloc_bytes == 0 {
            // Threads run one at a time, so a second CPU does not help, and
            // under TCG cross-CPU wakeups take several times as long. Threads
            // that allocate must not be pinned, because glibc's arena limit
            // depends on the CPU affinity.
            pin_to_cpu(0)?;
        }
        // Threads use it until the process ends.
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            process: std::process::id(),
            generator: Mutex::new(Generator::new(time_s)),
            formula: Mutex::new(options.bind_at_start.unwrap_or(Formula::Kernel)),
            created_slots: OnceLock::new(),
            started: AtomicU32::new(0),
            done: AtomicU32::new(0),
        }));
        let slots: Vec<_> =
            (0..options.threads).map(|number| Slot::new(number, options, shared)).collect();
        let slots: &'static [Slot] = Vec::leak(slots);
        let mut group = ThreadGroup { slots, created: 0, refused: None, shared };
        let attributes = options.stack_bytes.map(ThreadAttributes::with_stack).transpose()?;
        while group.created < options.threads {
            match group.create(attributes.as_ref()) {
                Err(errno) => {
                    group.refused = Some(errno);
                    break;
                }
                Ok(thread) => {
                    group.created += 1;
                    wait_until(&shared.started, group.created, &mut heartbeat)?;
                    if group.created.is_multiple_of(HEARTBEAT_EVERY) {
                        heartbeat(group.created);
                    }
                    if options.threads_exit {
                        // SAFETY: the thread is joinable and joined once.
                        unsafe { libc::pthread_join(thread, null_mut()) };
                    }
                }
            }
        }
        let _ = shared.created_slots.set(group.slots());
        Ok(group)
    }

    fn slots(&self) -> &'static [Slot] {
        &self.slots[..self.created as usize]
    }

    /// The number of created threads.
    pub fn threads(&self) -> u32 {
        self.created
    }

    /// pthread_self() and gettid() of each thread.
    pub fn identities(&self) -> impl Iterator<Item = (u64, u32)> {
        self.slots()
            .iter()
            .map(|slot| (slot.pthread_self.load(SeqCst) as u64, slot.tid.load(SeqCst)))
    }

    /// Makes the threads bind by `formula`, one after the other.
    pub fn bind(&mut self, formula: Formula, mut heartbeat: impl FnMut(u32)) -> io::Result<()> {
        if let Ok(mut now) = self.shared.formula.lock() {
            *now = formula;
        }
        let Some(first) = self.slots().first() else { return Ok(()) };
        let before = self.shared.done.load(SeqCst);
        first.grant_turn();
        wait_until(&self.shared.done, before + self.created, |done| heartbeat(done - before))
    }

    /// The results of the threads in order of creation.
    pub fn outcomes(&self) -> impl Iterator<Item = BindOutcome> {
        self.slots().iter().map(Slot::outcome)
    }

    /// The first thread, from 1, whose port was in use; 0 if there is none.
    pub fn first_in_use(&self) -> u32 {
        let place = self.outcomes().position(|outcome| outcome == BindOutcome::InUse);
        place.map_or(0, |place| place as u32 + 1)
    }

    /// Checks each socket for unexpected messages, closes it, and sums up the
    /// results.
    pub fn close(&mut self) -> GroupSummary {
        let mut sum = GroupSummary::default();
        for slot in self.slots() {
            if let BindOutcome::Failed(failure) = slot.outcome() {
                sum.failed.get_or_insert_with(|| Failed::from(failure));
            }
            sum.echoes += slot.echo.swap(0, SeqCst);
            let fd = slot.fd.swap(-1, SeqCst);
            if fd >= 0 {
                sum.unexpected += u32::from(has_message(fd));
                // SAFETY: the thread no longer uses its socket.
                unsafe { libc::close(fd) };
            }
        }
        sum
    }

    fn create(&self, attributes: Option<&ThreadAttributes>) -> Result<libc::pthread_t, i32> {
        let slot = &self.slots[self.created as usize];
        let slot = (&raw const *slot).cast_mut().cast();
        let mut thread: libc::pthread_t = 0;
        let attributes = ThreadAttributes::or_default(attributes);
        // SAFETY: all pointers are valid for the call, and slots are never
        // freed.
        match unsafe { libc::pthread_create(&mut thread, attributes, thread_main, slot) } {
            0 => Ok(thread),
            errno => Err(errno),
        }
    }
}

impl Slot {
    fn new(number: u32, options: GroupOptions, shared: &'static Shared) -> Slot {
        Slot {
            number,
            options,
            shared,
            pthread_self: AtomicUsize::new(0),
            tid: AtomicU32::new(0),
            turn: AtomicU32::new(0),
            fd: AtomicI32::new(-1),
            port: AtomicU32::new(0),
            echo: AtomicU32::new(0),
            call: AtomicI32::new(0),
            errno: AtomicI32::new(0),
        }
    }

    /// Records the identity of the calling thread, and allocates if requested.
    fn record_identity(&self) {
        // SAFETY: both calls take no arguments.
        let (pthread_self, tid) = unsafe { (libc::pthread_self(), libc::gettid()) };
        self.pthread_self.store(pthread_self as usize, SeqCst);
        self.tid.store(tid.unsigned_abs(), SeqCst);
        if self.options.malloc_bytes > 0 {
            // SAFETY: malloc() is thread-safe. Without black_box, the compiler
            // removes the unused allocation.
            std::hint::black_box(unsafe { libc::malloc(self.options.malloc_bytes) });
        }
    }

    /// Binds by the formula and exchanges one echo.
    fn bind(&self) {
        self.call.store(0, SeqCst);
        self.errno.store(0, SeqCst);
        let (pthread_self, tid) = (self.pthread_self.load(SeqCst), self.tid.load(SeqCst));
        let formula = self.shared.formula.lock().map_or(Formula::Kernel, |formula| *formula);
        let Some(port) =
            formula::port(formula, pthread_self, tid, self.shared.process, &self.shared.generator)
        else {
            return self.fail(Failure { call: Call::Bind, errno: libc::EADDRINUSE });
        };
        let socket = match EchoSocket::open_at(port) {
            Ok(socket) => socket,
            Err(failure) => return self.fail(failure),
        };
        self.fd.store(socket.fd(), SeqCst);
        self.port.store(socket.portid(), SeqCst);
        match socket.echo(u64::from(self.number) << 32 | u64::from(socket.portid())) {
            Ok(()) => self.echo.store(1, SeqCst),
            Err(failure) => self.fail(failure),
        }
    }

    fn fail(&self, failure: Failure) {
        self.errno.store(failure.errno, SeqCst);
        self.call.store(failure.call as i32, SeqCst);
    }

    fn outcome(&self) -> BindOutcome {
        let errno = self.errno.load(SeqCst);
        match Call::from_number(self.call.load(SeqCst)) {
            None => BindOutcome::Bound(self.port.load(SeqCst)),
            Some(Call::Bind) if errno == libc::EADDRINUSE => BindOutcome::InUse,
            Some(call) => BindOutcome::Failed(Failure { call, errno }),
        }
    }

    fn grant_turn(&self) {
        self.turn.fetch_add(1, SeqCst);
        futex::wake(&self.turn);
    }

    /// Binds on each turn and then wakes the next thread.
    fn wait_for_turns(&self) -> ! {
        let mut turns = 0;
        loop {
            if self.turn.load(SeqCst) == turns {
                futex::wait(&self.turn, turns, None);
                continue;
            }
            turns += 1;
            self.bind();
            self.shared.done.fetch_add(1, SeqCst);
            let created_slots = self.shared.created_slots.get();
            match created_slots.and_then(|slots| slots.get(self.number as usize + 1)) {
                Some(next) => next.grant_turn(),
                None => futex::wake(&self.shared.done),
            }
        }
    }
}

extern "C" fn thread_main(slot: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `create` passes the address of a slot, which is never freed.
    let slot = unsafe { &*slot.cast::<Slot>() };
    slot.record_identity();
    if slot.options.bind_at_start.is_some() {
        slot.bind();
    }
    slot.shared.started.fetch_add(1, SeqCst);
    futex::wake(&slot.shared.started);
    if slot.options.threads_exit {
        return null_mut();
    }
    slot.wait_for_turns()
}

/// Whether a socket has a message to read.
fn has_message(fd: i32) -> bool {
    let mut byte = 0_u8;
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: the pointer and the length are those of `byte`.
    unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, flags) >= 0 }
}

/// Waits until `word` reaches `target`. Fails if `word` does not change for too
/// long.
fn wait_until(word: &AtomicU32, target: u32, mut heartbeat: impl FnMut(u32)) -> io::Result<()> {
    let (mut seen, mut since) = (word.load(SeqCst), None);
    loop {
        let now = word.load(SeqCst);
        if now >= target {
            return Ok(());
        }
        // Usually the target is reached already, and the clock is not read.
        let since = since.get_or_insert_with(Instant::now);
        if now != seen {
            (seen, *since) = (now, Instant::now());
        } else if since.elapsed() > THREAD_TIMEOUT {
            return Err(io::Error::other(format!("timed out waiting for thread {}", now + 1)));
        }
        futex::wait(word, now, Some(POLL_INTERVAL));
        if since.elapsed() >= POLL_INTERVAL {
            heartbeat(word.load(SeqCst));
        }
    }
}
