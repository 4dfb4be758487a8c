//! What a formula gives, and what the kernel makes of it: pure functions from
//! where threads are to the ports that they will have.
//!
//! The kernel keeps one table of ports for each protocol and network namespace.
//! Who comes first has the port; for who comes later bind() fails with EADDRINUSE
//! (net/netlink/af_netlink.c of Linux 6.1, `netlink_insert`). Port 0 asks for one
//! of the kernel's choice (`netlink_autobind`): the process id, and if that is
//! taken a random one from 2^31 up.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use nlrig_guest::ports::{Formula, Generator};

/// Ports that the kernel takes at random: from S32_MIN to -4097
/// (`netlink_autobind`).
pub const CHOSEN: RangeInclusive<u32> = 0x8000_0000..=0xffff_efff;

/// The threads of one process, in the order in which they bind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// getpid().
    pub pid: u32,
    /// The time that libnl's generator begins with, in seconds.
    pub time_s: u64,
    /// pthread_self() and gettid() of each thread.
    pub threads: Vec<(u64, u32)>,
}

/// What becomes of one bind().
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The thread has this port.
    Port(u32),
    /// It has one of the kernel's choice: one of [`CHOSEN`].
    Chosen,
    /// The port is in use.
    InUse,
}

impl Answer {
    /// Whether this is what was seen: a port, or none because it was in use.
    pub fn is(self, seen: Option<u32>) -> bool {
        match (self, seen) {
            (Answer::Port(port), Some(seen)) => port == seen,
            (Answer::Chosen, Some(seen)) => CHOSEN.contains(&seen),
            (Answer::InUse, None) => true,
            _ => false,
        }
    }
}

/// The port that a formula gives a thread, from its pthread_self() and gettid();
/// none for libnl's, which does not look at the thread.
///
/// A port has 32 bits: whatever the word size, the rest is cut off.
pub fn port(formula: Formula, own: u64, id: u32, pid: u32) -> Option<u32> {
    let pid = u64::from(pid);
    let port = match formula {
        Formula::LinuxJournal => own << 16 | pid,
        Formula::Paper => own >> 16 | pid << 16,
        Formula::PaperMasked => own >> 16 & 0xffff | pid << 16,
        Formula::PaperXor => own >> 16 ^ pid << 16,
        Formula::HighHalf => own & 0xffff_0000 | pid & 0xffff,
        Formula::Shift12 => own >> 12 | pid << 16,
        Formula::Gettid => u64::from(id),
        Formula::Kernel => 0,
        Formula::Libnl => return None,
    };
    Some((port & 0xffff_ffff) as u32)
}

/// What the kernel answers these processes, one after the other, while all of
/// their sockets stay open.
pub fn answers(formula: Formula, processes: &[Process]) -> Vec<Vec<Answer>> {
    let mut taken = HashSet::new();
    let mut take = |port: u32, pid: u32| match port {
        0 if taken.insert(pid) => Answer::Port(pid),
        0 => Answer::Chosen,
        port if taken.insert(port) => Answer::Port(port),
        _ => Answer::InUse,
    };
    let of = |process: &Process| {
        let pid = process.pid;
        let mut generator = Generator::new(process.time_s);
        let threads = process.threads.iter().map(|&(own, id)| match formula {
            // The library gives up when its ports are used up.
            Formula::Libnl => generator.next(pid),
            formula => port(formula, own, id, pid),
        });
        threads.map(|port| port.map_or(Answer::InUse, |port| take(port, pid))).collect()
    };
    processes.iter().map(of).collect()
}

/// What binding came to, over all processes in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Threads that bound, or tried.
    pub threads: u64,
    /// The first of them, from 1, whose port was in use.
    pub first_collision: Option<u64>,
    /// How many found their port in use.
    pub collisions: u64,
}

impl Tally {
    /// Counts threads by whether they have a port.
    pub fn of(have: impl Iterator<Item = bool>) -> Tally {
        let mut tally = Tally::default();
        for has in have {
            tally.threads += 1;
            if !has {
                tally.collisions += 1;
                tally.first_collision.get_or_insert(tally.threads);
            }
        }
        tally
    }

    /// Counts what is predicted.
    pub fn predicted(answers: &[Vec<Answer>]) -> Tally {
        Tally::of(answers.iter().flatten().map(|answer| *answer != Answer::InUse))
    }

    /// The earlier first one and the larger number of both, of as many threads.
    pub fn worse(self, other: Tally) -> Tally {
        let first = self.first_collision.into_iter().chain(other.first_collision).min();
        let collisions = self.collisions.max(other.collisions);
        Tally { first_collision: first, collisions, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stacks side by side, from the top down.
    fn process(pid: u32, top: u64, each: u64, threads: u64) -> Process {
        let threads = (0..threads).map(|n| (top - n * each - 0x940, pid + n as u32)).collect();
        Process { pid, time_s: 1, threads }
    }

    fn tally(formula: Formula, processes: &[Process]) -> Tally {
        Tally::predicted(&answers(formula, processes))
    }

    #[test]
    fn the_journals_formula_has_sixteen_values() {
        let each = (8 << 20) + 4096;
        for top in [0xb7d0_0000, 0x7f12_3456_7000] {
            let found = tally(Formula::LinuxJournal, &[process(4711, top, each, 64)]);
            assert_eq!((found.first_collision, found.collisions), (Some(17), 48));
            // With the guard the stack is a multiple of 64 KiB.
            let found = tally(Formula::LinuxJournal, &[process(4711, top, 8 << 20, 16)]);
            assert_eq!((found.first_collision, found.collisions), (Some(2), 15));
        }
    }

    #[test]
    fn the_papers_formula_loses_the_process_id_behind_64_bit_addresses() {
        // Without randomisation all processes have their stacks in the same places.
        let (each, wide) = ((2 << 20) + 4096, 0x7fff_f7ff_0000);
        let two = |top| [process(100, top, each, 4), process(101, top, each, 4)];
        assert_eq!(tally(Formula::Paper, &two(wide)).first_collision, Some(5));
        assert_eq!(tally(Formula::Paper, &two(0xb7d0_0000)).first_collision, None);
        assert_eq!(tally(Formula::PaperMasked, &two(wide)).first_collision, None);
        // 16 bits of a process id are not all of them.
        let far = [process(100, wide, each, 4), process(65636, wide, each, 4)];
        assert_eq!(tally(Formula::PaperMasked, &far).collisions, 4);
    }

    #[test]
    fn the_kernel_gives_the_process_id_and_then_what_it_likes() {
        let both = [process(100, 1 << 40, 1 << 20, 3), process(101, 1 << 40, 1 << 20, 1)];
        let found = answers(Formula::Kernel, &both);
        assert_eq!(found[0], [Answer::Port(100), Answer::Chosen, Answer::Chosen]);
        assert_eq!(found[1], [Answer::Port(101)]);
        assert!(Answer::Chosen.is(Some(0x8000_0000)) && !Answer::Chosen.is(Some(0xffff_f000)));
        assert!(!Answer::Chosen.is(None) && Answer::InUse.is(None));
    }

    #[test]
    fn libnl_has_1024_ports_a_process() {
        let found = tally(Formula::Libnl, &[process(100, 1 << 40, 1 << 20, 1100)]);
        assert_eq!((found.first_collision, found.collisions), (Some(1025), 76));
    }

    #[test]
    fn words_of_32_and_64_bits_agree_on_32_bits() {
        for own in [0xb7d0_0940_u32, 0x0a10_f940] {
            for pid in [1_u32, 1024, 32767] {
                let narrow = own << 16 | pid;
                assert_eq!(port(Formula::LinuxJournal, own.into(), 0, pid), Some(narrow));
                let narrow = own >> 16 | pid << 16;
                assert_eq!(port(Formula::Paper, own.into(), 0, pid), Some(narrow));
            }
        }
    }
}
