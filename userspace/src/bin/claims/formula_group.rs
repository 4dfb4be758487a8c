//! A group of threads, each with a netlink socket bound to a port that a
//! formula computes from pthread_self() and the process id.
//!
//! The ports depend on the addresses of the threads' stacks. Threads are
//! therefore created like those of a plain C program, by pthread_create() with
//! default attributes; Rust's threads also map a signal stack. They do not
//! allocate by default, because a thread's first malloc maps an arena between
//! the stacks.

use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use nlrig_guest::uapi::NETLINK_NLRIG;
use nlrig_netlink::{Errno, GroupMask, Socket};

use crate::evidence::{BoxError, Evidence};
use crate::process::sleep_forever;

/// The longest time a thread may take for its socket.
const THREAD_TIMEOUT: Duration = Duration::from_secs(20);
/// The size of stacks that this program maps itself.
const OWN_STACK_BYTES: usize = 1 << 20;

/// A formula that computes a port from pthread_self() and the process id.
/// Called by the thread, so it must not allocate.
pub type PortFormula = fn(usize, u32) -> u32;

/// Behaviour of a thread after binding its socket, which stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Stays alive until the process ends.
    Stays,
    /// Calls malloc once and stays alive.
    Allocates,
    /// Exits before the next thread is created.
    Ends,
}

/// Options of a group.
#[derive(Clone, Copy, Debug)]
pub struct FormulaGroupOptions {
    pub threads: usize,
    pub life: Life,
    pub formula: PortFormula,
    pub stacks: Stacks,
}

/// The allocation of the threads' stacks.
#[derive(Clone, Copy, Debug)]
pub enum Stacks {
    /// By glibc, with the size that RLIMIT_STACK had at exec.
    Default,
    /// By glibc, with this size in bytes.
    OfSize(usize),
    /// By this program. Each stack ends at a page boundary, minus this number of
    /// bytes times the number of the thread.
    Shifted(usize),
}

impl FormulaGroupOptions {
    /// Options for threads that stay alive and do nothing else.
    pub fn new(threads: usize, formula: PortFormula) -> FormulaGroupOptions {
        FormulaGroupOptions { threads, life: Life::Stays, formula, stacks: Stacks::Default }
    }
}

/// The result of one thread.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// pthread_self().
    pub pthread_self: usize,
    /// The result of socket().
    pub socket: Result<(), Errno>,
    /// The result of bind(), or the error of socket().
    pub bind: Result<(), Errno>,
}

/// The results of all threads, in order of creation.
#[derive(Debug)]
pub struct FormulaGroup {
    pub members: Vec<Member>,
    /// The errno of pthread_create(), if there are fewer threads than
    /// requested.
    pub refused: Option<Errno>,
}

impl FormulaGroup {
    /// Creates the threads, each after the previous one has bound its socket.
    pub fn spawn_all(options: FormulaGroupOptions) -> Result<FormulaGroup, BoxError> {
        // Leaked, because threads may use it until the process ends.
        let progress: &'static Progress = Box::leak(Box::new(Progress::default()));
        let slots: Vec<Slot> = (0..options.threads).map(|_| Slot::new(progress, options)).collect();
        let slots: &'static [Slot] = Vec::leak(slots);
        let mut members = Vec::with_capacity(options.threads);
        for (number, slot) in slots.iter().enumerate() {
            match create(slot, number) {
                Err(refused) => return Ok(FormulaGroup { members, refused: Some(refused) }),
                Ok(thread) => {
                    progress.wait_for(number + 1)?;
                    if options.life == Life::Ends {
                        // SAFETY: the thread is joinable and joined once.
                        unsafe { libc::pthread_join(thread, null_mut()) };
                    }
                    members.push(slot.member()?);
                }
            }
        }
        Ok(FormulaGroup { members, refused: None })
    }

    /// The number of threads whose port was in use.
    pub fn failed(&self) -> usize {
        self.members.iter().filter(|member| member.bind.is_err()).count()
    }

    /// The first thread, from 1, whose port was in use; 0 if there is none.
    pub fn first_failed(&self) -> usize {
        let place = self.members.iter().position(|member| member.bind.is_err());
        place.map_or(0, |place| place + 1)
    }

    /// Notes the number of threads, the failed ones, and the first of those.
    pub fn note(&self, evidence: &mut Evidence) {
        evidence.note("threads", self.members.len());
        evidence.note("failed", self.failed());
        evidence.note("first_failed", self.first_failed());
    }
}

/// The number of finished threads, for which the main thread waits.
#[derive(Debug, Default)]
struct Progress {
    done: Mutex<usize>,
    changed: Condvar,
}

impl Progress {
    fn add_one(&self) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_one();
    }

    fn wait_for(&self, threads: usize) -> Result<(), BoxError> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let (_done, waited) = self
            .changed
            .wait_timeout_while(done, THREAD_TIMEOUT, |done| *done < threads)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() { Err("timed out waiting for a thread".into()) } else { Ok(()) }
    }
}

/// Input and output of a thread. Errnos are 0 for success.
#[derive(Debug)]
struct Slot {
    progress: &'static Progress,
    options: FormulaGroupOptions,
    pthread_self: AtomicUsize,
    socket: AtomicI32,
    bind: AtomicI32,
}

impl Slot {
    fn new(progress: &'static Progress, options: FormulaGroupOptions) -> Slot {
        let (pthread_self, socket, bind) =
            (AtomicUsize::new(0), AtomicI32::new(0), AtomicI32::new(0));
        Slot { progress, options, pthread_self, socket, bind }
    }

    fn run(&self) {
        // SAFETY: pthread_self() takes no arguments.
        let pthread_self = unsafe { libc::pthread_self() } as usize;
        self.pthread_self.store(pthread_self, Ordering::SeqCst);
        if self.options.life == Life::Allocates {
            // SAFETY: malloc() is thread-safe. Without black_box, the compiler
            // removes the unused allocation.
            std::hint::black_box(unsafe { libc::malloc(64) });
        }
        let port = (self.options.formula)(pthread_self, std::process::id());
        match Socket::new(NETLINK_NLRIG as i32) {
            Err(errno) => {
                self.socket.store(errno.0, Ordering::SeqCst);
                self.bind.store(errno.0, Ordering::SeqCst);
            }
            Ok(socket) => {
                if let Err(errno) = socket.bind(port, GroupMask::NONE) {
                    self.bind.store(errno.0, Ordering::SeqCst);
                }
                // Keeps the socket open until the process ends.
                std::mem::forget(socket);
            }
        }
        self.progress.add_one();
    }

    fn member(&self) -> Result<Member, BoxError> {
        let read = |errno: &AtomicI32| match errno.load(Ordering::SeqCst) {
            0 => Ok(Ok(())),
            libc::EADDRINUSE => Ok(Err(Errno(libc::EADDRINUSE))),
            other => Err(format!("a thread's socket failed with {}", Errno(other))),
        };
        let (socket, bind) = (read(&self.socket)?, read(&self.bind)?);
        Ok(Member { pthread_self: self.pthread_self.load(Ordering::SeqCst), socket, bind })
    }
}

extern "C" fn thread_main(slot: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `create` passes the address of a slot, which is never freed.
    let slot = unsafe { &*slot.cast::<Slot>() };
    slot.run();
    if slot.options.life != Life::Ends {
        sleep_forever();
    }
    null_mut()
}

fn create(slot: &'static Slot, number: usize) -> Result<libc::pthread_t, Errno> {
    // SAFETY: pthread_attr_t is plain data, and pthread_attr_init() initialises
    // it.
    let mut attributes = unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        libc::pthread_attr_init(&mut attributes);
        attributes
    };
    let errno = match slot.options.stacks {
        Stacks::Default => 0,
        // SAFETY: the attributes are initialised.
        Stacks::OfSize(bytes) => unsafe { libc::pthread_attr_setstacksize(&mut attributes, bytes) },
        Stacks::Shifted(shift) => {
            let stack = map(OWN_STACK_BYTES, libc::PROT_READ | libc::PROT_WRITE)?;
            let bytes = OWN_STACK_BYTES - shift * number;
            // SAFETY: the attributes are initialised; the stack is mapped,
            // unused and never unmapped.
            unsafe { libc::pthread_attr_setstack(&mut attributes, stack, bytes) }
        }
    };
    check(errno)?;
    // A plain C program passes no attributes.
    let chosen = match slot.options.stacks {
        Stacks::Default => null(),
        _ => &raw const attributes,
    };
    let mut created: libc::pthread_t = 0;
    let slot = (&raw const *slot).cast_mut().cast();
    // SAFETY: all pointers are valid for the call, and slots are never freed.
    check(unsafe { libc::pthread_create(&mut created, chosen, thread_main, slot) })?;
    Ok(created)
}

/// Converts the result of a pthreads function.
fn check(errno: i32) -> Result<(), Errno> {
    if errno == 0 { Ok(()) } else { Err(Errno(errno)) }
}

/// Maps `bytes` permanently, at an address that the kernel chooses. This shifts
/// later mappings, like other random offsets of the kernel would.
pub fn map(bytes: usize, protection: i32) -> Result<*mut libc::c_void, Errno> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the mapping is new, at an unused address.
    let at = unsafe { libc::mmap(null_mut(), bytes, protection, flags, -1, 0) };
    if at == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(at) }
}
