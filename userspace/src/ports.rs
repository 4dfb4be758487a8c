//! Reports of the workload `ports`, and the formulas by which threads compute
//! netlink ports.

use serde::{Deserialize, Serialize};

use crate::snapshot::Failed;

/// A formula for the port of a thread. Each is meant to give every thread of
/// every process its own port, but some do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Formula {
    /// Kevin Kaichuan He, Linux Journal 130 (2005); widely used since.
    #[serde(rename = "linux-journal")]
    LinuxJournal,
    /// Xiong, Ding and Luo (2017).
    #[serde(rename = "paper")]
    Paper,
    /// The paper's formula with the address masked, so that it does not overlap
    /// the process id.
    #[serde(rename = "paper-masked")]
    PaperMasked,
    /// The paper's formula with exclusive or.
    #[serde(rename = "paper-xor")]
    PaperXor,
    /// The paper's two halves, swapped.
    #[serde(rename = "high-half")]
    HighHalf,
    /// The paper's formula, shifted by a page.
    #[serde(rename = "shift-12")]
    Shift12,
    /// The thread id.
    #[serde(rename = "gettid")]
    Gettid,
    /// libnl's port generator (lib/socket.c, `generate_local_port`).
    #[serde(rename = "libnl")]
    Libnl,
    /// 0: the kernel chooses, as netlink(7) advises.
    #[serde(rename = "kernel")]
    Kernel,
}

impl Formula {
    /// All formulas, in the order of the tables.
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

    /// The name on the command line and in reports.
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

    /// The formula with this name.
    pub fn from_name(name: &str) -> Option<Formula> {
        Formula::ALL.into_iter().find(|formula| formula.name() == name)
    }

    /// The formula as a C expression.
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

/// libnl's port generator for one process: 1024 ports, each once, in an order
/// that depends on the time of day.
#[derive(Clone, Debug)]
pub struct Generator {
    taken: [u32; 32],
    state: u16,
    seeded: bool,
    time_s: u64,
}

impl Generator {
    /// The generator of a process that opens its first socket at `time_s`, in
    /// seconds since 1970.
    pub const fn new(time_s: u64) -> Generator {
        Generator { taken: [0; 32], state: 0, seeded: false, time_s }
    }

    /// The next port of the process; None if all 1024 are taken.
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
            // libnl tries block 0 last, because older versions of libnl in the
            // same process start there.
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

/// A JSON object that the workload `ports` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortReport {
    /// A chunk of the process's threads, in order of creation. No thread has
    /// bound a socket yet.
    Threads {
        /// The index of the process, from 0.
        process: u32,
        /// pthread_self() of each thread.
        addresses: Vec<u64>,
        /// gettid() of each thread.
        ids: Vec<u32>,
    },
    /// All threads of a process exist.
    #[serde(rename = "gathered")]
    Spawned {
        /// The index of the process.
        process: u32,
        /// The total number of processes.
        of: u32,
        /// getpid().
        pid: u32,
        /// The number of threads.
        threads: u32,
        /// The errno of pthread_create(), if there are fewer threads than
        /// requested.
        refused: Option<i32>,
        /// The time that seeds libnl's generator.
        time_s: u64,
    },
    /// A chunk of the threads' ports, in order of creation.
    Ports {
        /// The index of the process.
        process: u32,
        /// The formula.
        formula: Formula,
        /// Ports from getsockname(); None if the port was in use.
        ports: Vec<Option<u32>>,
    },
    /// All threads of a process have tried to bind.
    Bound {
        /// The index of the process.
        process: u32,
        /// The formula.
        formula: Formula,
        /// Threads that received their own echo from their own port.
        echoes: u32,
        /// Sockets that received an unexpected message.
        #[serde(rename = "strays")]
        unexpected: u32,
        /// Threads whose address differs from the reported one.
        moved: u32,
        /// The first call that failed, other than with EADDRINUSE.
        failed: Option<Failed>,
    },
    /// The start of a batch of processes, which run in parallel, one per CPU.
    Batch {
        /// The number of processes.
        processes: u32,
        /// The number of threads per process.
        threads: u32,
        /// CPUs available to the program. glibc's arena limit depends on them.
        processors: u32,
    },
    /// The result of one process of a batch.
    Process {
        /// getpid().
        pid: u32,
        /// pthread_self() of each thread.
        addresses: Vec<u64>,
        /// The first thread, from 1, whose port was in use; 0 if there is none.
        first_failed: u32,
        /// Threads whose port was in use.
        in_use: u32,
    },
    /// A heartbeat.
    Progress {
        /// Threads finished.
        threads: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_equal_the_serde_names() {
        for formula in Formula::ALL {
            assert_eq!(serde_json::to_value(formula).unwrap(), formula.name());
            assert_eq!(Formula::from_name(formula.name()), Some(formula));
        }
        assert_eq!(Formula::from_name("nonsense"), None);
    }

    #[test]
    fn a_generator_returns_each_of_1024_ports_once() {
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
