//! What the workload `ports` reports, and the formulas by which its threads
//! compute ports for themselves.

use serde::{Deserialize, Serialize};

use crate::look::Failed;

/// What a thread binds its socket to. Meant for each thread of each process to be
/// another one, some vainly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Formula {
    /// Kevin Kaichuan He, Linux Journal 130 (2005); in wide use since.
    #[serde(rename = "linux-journal")]
    LinuxJournal,
    /// Xiong, Ding and Luo (2017).
    #[serde(rename = "paper")]
    Paper,
    /// The paper's, cut so that the address leaves the process id alone.
    #[serde(rename = "paper-masked")]
    PaperMasked,
    /// The paper's, with exclusive or.
    #[serde(rename = "paper-xor")]
    PaperXor,
    /// The same two halves the other way round.
    #[serde(rename = "high-half")]
    HighHalf,
    /// The paper's, but shifted by a page.
    #[serde(rename = "shift-12")]
    Shift12,
    /// The id of the thread.
    #[serde(rename = "gettid")]
    Gettid,
    /// libnl's generator (lib/socket.c, `generate_local_port`).
    #[serde(rename = "libnl")]
    Libnl,
    /// 0: the kernel chooses, as netlink(7) advises.
    #[serde(rename = "kernel")]
    Kernel,
}

impl Formula {
    /// All of them, in the order of tables.
    pub const ALL: [Formula; 9] = [
        Formula::LinuxJournal,
        Formula::Paper,
        Formula::PaperMasked,
        Formula::PaperXor,
        Formula::HighHalf,
        Formula::Shift12,
        Formula::Gettid,
        Formula::Libnl,
        Formula::Kernel,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Formula::LinuxJournal => "linux-journal",
            Formula::Paper => "paper",
            Formula::PaperMasked => "paper-masked",
            Formula::PaperXor => "paper-xor",
            Formula::HighHalf => "high-half",
            Formula::Shift12 => "shift-12",
            Formula::Gettid => "gettid",
            Formula::Libnl => "libnl",
            Formula::Kernel => "kernel",
        }
    }

    /// The formula of this name.
    pub fn from_name(name: &str) -> Option<Formula> {
        Formula::ALL.into_iter().find(|formula| formula.name() == name)
    }

    /// What a programmer writes.
    pub fn expression(self) -> &'static str {
        match self {
            Formula::LinuxJournal => "pthread_self() << 16 | getpid()",
            Formula::Paper => "pthread_self() >> 16 | getpid() << 16",
            Formula::PaperMasked => "(pthread_self() >> 16 & 0xffff) | getpid() << 16",
            Formula::PaperXor => "pthread_self() >> 16 ^ getpid() << 16",
            Formula::HighHalf => "(pthread_self() & 0xffff0000) | (getpid() & 0xffff)",
            Formula::Shift12 => "pthread_self() >> 12 | getpid() << 16",
            Formula::Gettid => "gettid()",
            Formula::Libnl => "(getpid() & 0x3fffff) + (n << 22)",
            Formula::Kernel => "0",
        }
    }
}

/// The ports that libnl gives the sockets of one process: 1024, each once, in an
/// order that begins somewhere by the time of day.
#[derive(Clone, Debug)]
pub struct Generator {
    taken: [u32; 32],
    state: u16,
    seeded: bool,
    time_s: u64,
}

impl Generator {
    /// For a process that makes its first socket at this time, in seconds since
    /// 1970.
    pub const fn new(time_s: u64) -> Generator {
        Generator { taken: [0; 32], state: 0, seeded: false, time_s }
    }

    /// The next port of this process; none if all 1024 are taken.
    pub fn next(&mut self, pid: u32) -> Option<u32> {
        self.state = if !self.seeded || self.state == 0 {
            let time = self.time_s as u32;
            (time ^ (time >> 16) ^ 0x3047) as u16
        } else {
            self.state.wrapping_add(20011)
        };
        self.seeded = true;
        let mut block = i32::from(self.state >> 5);
        let mut bit = u32::from(self.state);
        for round in 0..32 {
            // Block 0 last: an older libnl in the same process begins there.
            block = if round == 31 { 0 } else { (block - 1 + 7) % 31 + 1 };
            if self.taken[block as usize] == u32::MAX {
                continue;
            }
            for _ in 0..32 {
                bit = (bit + 13) % 32;
                let taken = &mut self.taken[block as usize];
                if *taken >> bit & 1 == 0 {
                    *taken |= 1 << bit;
                    let number = bit + block as u32 * 32;
                    return Some((pid & 0x3f_ffff).wrapping_add(number << 22));
                }
            }
        }
        None
    }
}

/// One object that the workload writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// Threads that are there and have bound nothing yet, in the order of their
    /// creation; behind those that this process has reported before.
    Threads {
        /// Which process it is, from 0.
        process: u32,
        /// pthread_self() of each,
        addresses: Vec<u64>,
        /// and gettid().
        ids: Vec<u32>,
    },
    /// All threads of a process are there.
    Gathered {
        /// Which process it is.
        process: u32,
        /// How many processes there are in all.
        of: u32,
        /// getpid().
        pid: u32,
        /// How many threads it has.
        threads: u32,
        /// Why there are no more, if that is fewer than asked for: an errno.
        refused: Option<i32>,
        /// The time that libnl's generator begins with.
        time_s: u64,
    },
    /// The ports of threads, in their order, behind those reported before: none
    /// if the port was in use.
    Ports {
        /// Which process it is.
        process: u32,
        /// What they bound.
        formula: Formula,
        /// As getsockname() has it.
        ports: Vec<Option<u32>>,
    },
    /// All threads of a process have bound by a formula, or tried.
    Bound {
        /// Which process it is.
        process: u32,
        /// What they bound.
        formula: Formula,
        /// Threads that got their own echo, from the port that they have.
        echoes: u32,
        /// Sockets on which something came that was not asked for.
        strays: u32,
        /// Threads that were elsewhere than reported.
        moved: u32,
        /// The first call that failed in another way than by a port in use.
        failed: Option<Failed>,
    },
    /// Many processes will come, as many at once as there are processors.
    Batch {
        /// So many,
        processes: u32,
        /// each with so many threads.
        threads: u32,
        /// Processors that the program may use: glibc makes arenas by them.
        processors: u32,
    },
    /// One of them.
    Process {
        /// getpid().
        pid: u32,
        /// pthread_self() of its threads.
        addresses: Vec<u64>,
        /// The first thread, from 1, whose port was in use; 0 if there is none.
        first_failed: u32,
        /// How many found their port in use.
        in_use: u32,
    },
    /// A sign of life.
    Progress {
        /// Threads that are done.
        threads: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_reports() {
        for formula in Formula::ALL {
            assert_eq!(serde_json::to_value(formula).unwrap(), formula.name());
            assert_eq!(Formula::from_name(formula.name()), Some(formula));
        }
        assert_eq!(Formula::from_name("nonsense"), None);
    }

    #[test]
    fn a_generator_gives_each_of_1024_ports_once() {
        for time_s in [0, 1_700_000_000, 0xffff_ffff, 0x3047] {
            let mut generator = Generator::new(time_s);
            let mut ports: Vec<_> = (0..1024).filter_map(|_| generator.next(4711)).collect();
            assert!(ports.iter().all(|port| port & 0x3f_ffff == 4711));
            ports.sort_unstable();
            ports.dedup();
            assert_eq!(ports.len(), 1024);
            assert_eq!(generator.next(4711), None);
        }
    }
}
