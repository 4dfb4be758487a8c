//! Threads of one process that bind ports which they compute for themselves.
//!
//! They are created as a plain C program creates them, by pthread_create() with
//! default attributes, and do not allocate unless that is asked for: where they
//! are is what the ports are made of. First all of them say where they are; only
//! then does the first one bind, and each wakes the next: what is predicted from
//! the places cannot have seen the ports.

use std::io;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use nlrig_guest::birth::stay_on;
use nlrig_guest::futex;
use nlrig_guest::look::Failed;
use nlrig_guest::netlink::{Call, Failure, Socket};
use nlrig_guest::ports::{Formula, Generator};
use nlrig_guest::workers::Attributes;

use crate::formula;

/// How long nothing may happen before a thread is called late.
const THREAD_LIMIT: Duration = Duration::from_secs(60);
/// Threads between two signs of life while they are created.
const SIGN_EVERY: u32 = 2048;
/// How often the main thread looks whether something happens.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a crowd is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// At most so many: there may be no room for all.
    pub threads: u32,
    /// The size of their stacks as an attribute; by RLIMIT_STACK if absent.
    pub stack_bytes: Option<usize>,
    /// What each allocates once, before all else; nothing if 0.
    pub malloc_bytes: usize,
    /// Whether each ends before the next one is created.
    pub ends: bool,
    /// Bound as soon as a thread is there; later, by [`Crowd::bind`], if absent.
    pub at_birth: Option<Formula>,
}

/// The threads of this process.
pub struct Crowd {
    seats: &'static [Seat],
    created: u32,
    /// Why there are no more: an errno.
    pub refused: Option<i32>,
    common: &'static Common,
}

/// What all threads share.
struct Common {
    process: u32,
    generator: Mutex<Generator>,
    formula: Mutex<Formula>,
    /// The seats that threads were created for, once all are there.
    taken: OnceLock<&'static [Seat]>,
    /// How many threads have come to where they wait.
    born: AtomicU32,
    /// How often one has bound, or tried.
    done: AtomicU32,
}

/// One thread: where it is, and what came of its port.
struct Seat {
    number: u32,
    plan: Plan,
    common: &'static Common,
    own: AtomicUsize,
    id: AtomicU32,
    /// How often it was its turn to bind.
    turn: AtomicU32,
    fd: AtomicI32,
    port: AtomicU32,
    echo: AtomicU32,
    call: AtomicI32,
    errno: AtomicI32,
}

/// What came of a thread's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has this one.
    Bound(u32),
    /// Another socket has it.
    InUse,
    /// Something else failed.
    Failed(Failure),
}

/// What all came to.
#[derive(Debug, Default)]
pub struct Sum {
    pub echoes: u32,
    pub strays: u32,
    pub failed: Option<Failed>,
}

impl Crowd {
    /// Creates the threads, each when the one before it has said where it is, and
    /// as many as there can be; `sign` is called with their number now and then.
    pub fn gather(plan: Plan, time_s: u64, mut sign: impl FnMut(u32)) -> io::Result<Crowd> {
        if plan.malloc_bytes == 0 {
            // Each waits for the one before it, so there is never work for two
            // processors, and under TCG it takes several times as long to wake a
            // thread on another one. But glibc makes arenas by the processors that
            // a process may use.
            stay_on(0)?;
        }
        // Threads look at them until the process ends.
        let common: &'static Common = Box::leak(Box::new(Common {
            process: std::process::id(),
            generator: Mutex::new(Generator::new(time_s)),
            formula: Mutex::new(plan.at_birth.unwrap_or(Formula::Kernel)),
            taken: OnceLock::new(),
            born: AtomicU32::new(0),
            done: AtomicU32::new(0),
        }));
        let seats: Vec<_> =
            (0..plan.threads).map(|number| Seat::new(number, plan, common)).collect();
        let seats: &'static [Seat] = Vec::leak(seats);
        let mut crowd = Crowd { seats, created: 0, refused: None, common };
        let attributes = plan.stack_bytes.map(Attributes::with_stack).transpose()?;
        while crowd.created < plan.threads {
            match crowd.create(attributes.as_ref()) {
                Err(errno) => {
                    crowd.refused = Some(errno);
                    break;
                }
                Ok(thread) => {
                    crowd.created += 1;
                    wait_until(&common.born, crowd.created, &mut sign)?;
                    if crowd.created.is_multiple_of(SIGN_EVERY) {
                        sign(crowd.created);
                    }
                    if plan.ends {
                        // SAFETY: the thread was created to be joined, and is once.
                        unsafe { libc::pthread_join(thread, null_mut()) };
                    }
                }
            }
        }
        let _ = common.taken.set(crowd.seats());
        Ok(crowd)
    }

    fn seats(&self) -> &'static [Seat] {
        &self.seats[..self.created as usize]
    }

    /// How many threads there are, or were.
    pub fn threads(&self) -> u32 {
        self.created
    }

    /// Where each is, and its id.
    pub fn places(&self) -> impl Iterator<Item = (u64, u32)> {
        self.seats().iter().map(|seat| (seat.own.load(SeqCst) as u64, seat.id.load(SeqCst)))
    }

    /// Has each thread bind a port by this formula, one after the other.
    pub fn bind(&mut self, formula: Formula, mut sign: impl FnMut(u32)) -> io::Result<()> {
        if let Ok(mut now) = self.common.formula.lock() {
            *now = formula;
        }
        let Some(first) = self.seats().first() else { return Ok(()) };
        let before = self.common.done.load(SeqCst);
        first.your_turn();
        wait_until(&self.common.done, before + self.created, |done| sign(done - before))
    }

    /// What came of each, in their order.
    pub fn outcomes(&self) -> impl Iterator<Item = Outcome> {
        self.seats().iter().map(Seat::outcome)
    }

    /// The first thread, from 1, whose port was in use; 0 if there is none.
    pub fn first_in_use(&self) -> u32 {
        let place = self.outcomes().position(|outcome| outcome == Outcome::InUse);
        place.map_or(0, |place| place as u32 + 1)
    }

    /// Looks into each socket for what nobody asked for, closes it, and sums up.
    pub fn close(&mut self) -> Sum {
        let mut sum = Sum::default();
        for seat in self.seats() {
            if let Outcome::Failed(failure) = seat.outcome() {
                sum.failed.get_or_insert_with(|| Failed::from(failure));
            }
            sum.echoes += seat.echo.swap(0, SeqCst);
            let fd = seat.fd.swap(-1, SeqCst);
            if fd >= 0 {
                sum.strays += u32::from(has_something(fd));
                // SAFETY: the thread has left its socket open for us.
                unsafe { libc::close(fd) };
            }
        }
        sum
    }

    fn create(&self, attributes: Option<&Attributes>) -> Result<libc::pthread_t, i32> {
        let seat = &self.seats[self.created as usize];
        let seat = (&raw const *seat).cast_mut().cast();
        let mut thread: libc::pthread_t = 0;
        let attributes = Attributes::or_default(attributes);
        // SAFETY: all pointers are valid for the call, and the seat for ever.
        match unsafe { libc::pthread_create(&mut thread, attributes, live, seat) } {
            0 => Ok(thread),
            errno => Err(errno),
        }
    }
}

impl Seat {
    fn new(number: u32, plan: Plan, common: &'static Common) -> Seat {
        Seat {
            number,
            plan,
            common,
            own: AtomicUsize::new(0),
            id: AtomicU32::new(0),
            turn: AtomicU32::new(0),
            fd: AtomicI32::new(-1),
            port: AtomicU32::new(0),
            echo: AtomicU32::new(0),
            call: AtomicI32::new(0),
            errno: AtomicI32::new(0),
        }
    }

    /// Says where the thread is that calls.
    fn take(&self) {
        // SAFETY: these calls take nothing.
        let (own, id) = unsafe { (libc::pthread_self(), libc::gettid()) };
        self.own.store(own as usize, SeqCst);
        self.id.store(id.unsigned_abs(), SeqCst);
        if self.plan.malloc_bytes > 0 {
            // SAFETY: malloc() may be called from any thread. The compiler, which
            // knows it, would leave out what nobody looks at.
            std::hint::black_box(unsafe { libc::malloc(self.plan.malloc_bytes) });
        }
    }

    /// Binds a port by the formula, and asks for one echo.
    fn bind(&self) {
        self.call.store(0, SeqCst);
        self.errno.store(0, SeqCst);
        let (own, id) = (self.own.load(SeqCst), self.id.load(SeqCst));
        let formula = self.common.formula.lock().map_or(Formula::Kernel, |formula| *formula);
        let Some(port) =
            formula::port(formula, own, id, self.common.process, &self.common.generator)
        else {
            return self.fail(Failure { call: Call::Bind, errno: libc::EADDRINUSE });
        };
        let socket = match Socket::open_at(port) {
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

    fn outcome(&self) -> Outcome {
        let errno = self.errno.load(SeqCst);
        match Call::from_number(self.call.load(SeqCst)) {
            None => Outcome::Bound(self.port.load(SeqCst)),
            Some(Call::Bind) if errno == libc::EADDRINUSE => Outcome::InUse,
            Some(call) => Outcome::Failed(Failure { call, errno }),
        }
    }

    fn your_turn(&self) {
        self.turn.fetch_add(1, SeqCst);
        futex::wake(&self.turn);
    }

    /// Binds whenever it is this thread's turn, and then it is the next one's.
    fn wait_for_turns(&self) -> ! {
        let mut turns = 0;
        loop {
            if self.turn.load(SeqCst) == turns {
                futex::wait(&self.turn, turns, None);
                continue;
            }
            turns += 1;
            self.bind();
            self.common.done.fetch_add(1, SeqCst);
            let taken = self.common.taken.get();
            match taken.and_then(|seats| seats.get(self.number as usize + 1)) {
                Some(next) => next.your_turn(),
                None => futex::wake(&self.common.done),
            }
        }
    }
}

extern "C" fn live(seat: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `create` gives the address of a seat that is never freed.
    let seat = unsafe { &*seat.cast::<Seat>() };
    seat.take();
    if seat.plan.at_birth.is_some() {
        seat.bind();
    }
    seat.common.born.fetch_add(1, SeqCst);
    futex::wake(&seat.common.born);
    if seat.plan.ends {
        return null_mut();
    }
    seat.wait_for_turns()
}

/// Whether there is something to read on a socket.
fn has_something(fd: i32) -> bool {
    let mut byte = 0_u8;
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: the pointer and the length are those of `byte`.
    unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, flags) >= 0 }
}

/// Waits until a word has grown to so much; an error if it stays as it is for too
/// long.
fn wait_until(word: &AtomicU32, target: u32, mut sign: impl FnMut(u32)) -> io::Result<()> {
    let (mut seen, mut since) = (word.load(SeqCst), None);
    loop {
        let now = word.load(SeqCst);
        if now >= target {
            return Ok(());
        }
        // Most often there is nothing to wait for: the clock is not asked then.
        let since = since.get_or_insert_with(Instant::now);
        if now != seen {
            (seen, *since) = (now, Instant::now());
        } else if since.elapsed() > THREAD_LIMIT {
            return Err(io::Error::other(format!("thread {} is late", now + 1)));
        }
        futex::wait(word, now, Some(LOOK_EVERY));
        if since.elapsed() >= LOOK_EVERY {
            sign(word.load(SeqCst));
        }
    }
}
