//! A crowd of threads, each with a netlink socket that binds a port which is
//! computed from the thread's own pthread_self() and the process id.
//!
//! What such ports are worth depends on where the threads' stacks lie. So threads
//! are created as a plain C program creates them, by pthread_create() with
//! default attributes: Rust's own map a signal stack each. And they do not
//! allocate unless that is asked for, because a thread's first malloc maps an
//! arena between the stacks.

use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use nlrig_guest::uapi::NETLINK_NLRIG;
use nlrig_netlink::{Errno, GroupMask, Socket};

use crate::evidence::{Evidence, Trouble};
use crate::process::wait_for_ever;

/// How long one thread may take for its socket.
const THREAD_LIMIT: Duration = Duration::from_secs(20);
/// The size of stacks that are not of the C library's making.
const OWN_STACK_BYTES: usize = 1 << 20;

/// A port from pthread_self() and the process id. Called by the thread itself; must
/// not allocate.
pub type Formula = fn(usize, u32) -> u32;

/// What a thread does besides binding its socket, which always stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It lives on, until the process ends.
    Stays,
    /// It lives on, and has called malloc once.
    Allocates,
    /// It ends before the next one is created.
    Ends,
}

/// What a crowd is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub threads: usize,
    pub life: Life,
    pub formula: Formula,
    pub stacks: Stacks,
}

/// Where threads have their stacks.
#[derive(Clone, Copy, Debug)]
pub enum Stacks {
    /// As the C library makes them: of the size that RLIMIT_STACK said.
    Default,
    /// As the C library makes them, of this size in bytes.
    OfSize(usize),
    /// Not of the C library's making. They end so many bytes below a page's end,
    /// times the number of the thread.
    Shifted(usize),
}

impl Plan {
    /// Threads that live on and do nothing else.
    pub fn new(threads: usize, formula: Formula) -> Plan {
        Plan { threads, life: Life::Stays, formula, stacks: Stacks::Default }
    }
}

/// What came of one thread.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its pthread_self().
    pub own: usize,
    /// What came of socket(),
    pub socket: Result<(), Errno>,
    /// and of bind(); EADDRINUSE too if there was no socket for that reason.
    pub bind: Result<(), Errno>,
}

/// What came of all, in the order of their creation.
#[derive(Debug)]
pub struct Crowd {
    pub members: Vec<Member>,
    /// Why there are no more, if there are fewer than planned.
    pub refused: Option<Errno>,
}

impl Crowd {
    /// Creates the threads, each when the one before it is done with its socket.
    pub fn gather(plan: Plan) -> Result<Crowd, Trouble> {
        // Threads that live on may look at them until the process ends.
        let room: &'static Room = Box::leak(Box::new(Room::default()));
        let seats: Vec<Seat> = (0..plan.threads).map(|_| Seat::new(room, plan)).collect();
        let seats: &'static [Seat] = Vec::leak(seats);
        let mut members = Vec::with_capacity(plan.threads);
        for (number, seat) in seats.iter().enumerate() {
            match create(seat, number) {
                Err(refused) => return Ok(Crowd { members, refused: Some(refused) }),
                Ok(thread) => {
                    room.wait_for(number + 1)?;
                    if plan.life == Life::Ends {
                        // SAFETY: the thread was created to be joined, and is once.
                        unsafe { libc::pthread_join(thread, null_mut()) };
                    }
                    members.push(seat.member()?);
                }
            }
        }
        Ok(Crowd { members, refused: None })
    }

    /// How many could not bind because the port was in use.
    pub fn failed(&self) -> usize {
        self.members.iter().filter(|member| member.bind.is_err()).count()
    }

    /// Which was the first of them, from 1; 0 if none was.
    pub fn first_failed(&self) -> usize {
        let place = self.members.iter().position(|member| member.bind.is_err());
        place.map_or(0, |place| place + 1)
    }

    /// Reports how many there are, how many could not bind, and the first of those.
    pub fn note(&self, evidence: &mut Evidence) {
        evidence.note("threads", self.members.len());
        evidence.note("failed", self.failed());
        evidence.note("first_failed", self.first_failed());
    }
}

/// Where the main thread waits for the others.
#[derive(Debug, Default)]
struct Room {
    done: Mutex<usize>,
    changed: Condvar,
}

impl Room {
    fn one_is_done(&self) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_one();
    }

    fn wait_for(&self, threads: usize) -> Result<(), Trouble> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let (_done, waited) = self
            .changed
            .wait_timeout_while(done, THREAD_LIMIT, |done| *done < threads)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() { Err("a thread is late".into()) } else { Ok(()) }
    }
}

/// What one thread is told, and what it tells. Errors are 0 for none.
#[derive(Debug)]
struct Seat {
    room: &'static Room,
    plan: Plan,
    own: AtomicUsize,
    socket: AtomicI32,
    bind: AtomicI32,
}

impl Seat {
    fn new(room: &'static Room, plan: Plan) -> Seat {
        let (own, socket, bind) = (AtomicUsize::new(0), AtomicI32::new(0), AtomicI32::new(0));
        Seat { room, plan, own, socket, bind }
    }

    fn take(&self) {
        // SAFETY: pthread_self() takes nothing.
        let own = unsafe { libc::pthread_self() } as usize;
        self.own.store(own, Ordering::SeqCst);
        if self.plan.life == Life::Allocates {
            // SAFETY: malloc() may be called from any thread. The compiler, which
            // knows it, would leave out what nobody looks at.
            std::hint::black_box(unsafe { libc::malloc(64) });
        }
        let port = (self.plan.formula)(own, std::process::id());
        match Socket::new(NETLINK_NLRIG as i32) {
            Err(errno) => {
                self.socket.store(errno.0, Ordering::SeqCst);
                self.bind.store(errno.0, Ordering::SeqCst);
            }
            Ok(socket) => {
                if let Err(errno) = socket.bind(port, GroupMask::NONE) {
                    self.bind.store(errno.0, Ordering::SeqCst);
                }
                // Open until the process ends.
                std::mem::forget(socket);
            }
        }
        self.room.one_is_done();
    }

    fn member(&self) -> Result<Member, Trouble> {
        let read = |errno: &AtomicI32| match errno.load(Ordering::SeqCst) {
            0 => Ok(Ok(())),
            libc::EADDRINUSE => Ok(Err(Errno(libc::EADDRINUSE))),
            other => Err(format!("a thread's socket failed with {}", Errno(other))),
        };
        let (socket, bind) = (read(&self.socket)?, read(&self.bind)?);
        Ok(Member { own: self.own.load(Ordering::SeqCst), socket, bind })
    }
}

extern "C" fn thread(seat: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `create` gives the address of a seat that is never freed.
    let seat = unsafe { &*seat.cast::<Seat>() };
    seat.take();
    if seat.plan.life != Life::Ends {
        wait_for_ever();
    }
    null_mut()
}

fn create(seat: &'static Seat, number: usize) -> Result<libc::pthread_t, Errno> {
    // SAFETY: pthread_attr_t is plain data, which pthread_attr_init() fills in.
    let mut attributes = unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        libc::pthread_attr_init(&mut attributes);
        attributes
    };
    let errno = match seat.plan.stacks {
        Stacks::Default => 0,
        // SAFETY: the attributes are initialised.
        Stacks::OfSize(bytes) => unsafe { libc::pthread_attr_setstacksize(&mut attributes, bytes) },
        Stacks::Shifted(shift) => {
            let stack = map(OWN_STACK_BYTES, libc::PROT_READ | libc::PROT_WRITE)?;
            let bytes = OWN_STACK_BYTES - shift * number;
            // SAFETY: as above; the stack is mapped, is ours, and stays.
            unsafe { libc::pthread_attr_setstack(&mut attributes, stack, bytes) }
        }
    };
    check(errno)?;
    // A plain program gives none.
    let chosen = match seat.plan.stacks {
        Stacks::Default => null(),
        _ => &raw const attributes,
    };
    let mut created: libc::pthread_t = 0;
    let seat = (&raw const *seat).cast_mut().cast();
    // SAFETY: all pointers are valid for the call, and the seat for ever.
    check(unsafe { libc::pthread_create(&mut created, chosen, thread, seat) })?;
    Ok(created)
}

/// What a function of pthreads returns.
fn check(errno: i32) -> Result<(), Errno> {
    if errno == 0 { Ok(()) } else { Err(Errno(errno)) }
}

/// Maps so many bytes where the kernel likes, for good: it moves what is mapped
/// later, as another draw of the kernel's random numbers does.
pub fn map(bytes: usize, protection: i32) -> Result<*mut libc::c_void, Errno> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, at a place that nobody has.
    let at = unsafe { libc::mmap(null_mut(), bytes, protection, flags, -1, 0) };
    if at == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(at) }
}
