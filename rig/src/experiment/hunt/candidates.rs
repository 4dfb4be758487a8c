//! The candidates: set-ups that people had in 2016, or may have had, as data.

use std::sync::LazyLock;

use nlrig_guest::hunt::{AddressSpaceLayout, Guard, Setup};
use nlrig_guest::protocol::Aslr;

use super::fit;
use crate::abi::Abi;

/// One set-up that may be the paper's.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What the user calls it.
    pub name: &'static str,
    /// What it stands for, and why it is plausible.
    pub stands_for: &'static str,
    /// How it comes about here.
    pub how: Fidelity,
    /// What in it was searched for until it fitted best: a number or a choice that no
    /// source gives.
    pub free: Option<&'static str>,
    /// What speaks against it before anything is counted.
    pub doubt: Option<&'static str>,
    /// What the program sets for itself.
    pub setup: Setup,
    /// The kind of program and of kernel.
    pub abi: Abi,
    /// The machine, where it is not like that of the others.
    pub machine: VmShape,
}

/// How a set-up comes about here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fidelity {
    /// It is the thing itself.
    Real,
    /// Something else has the same effect on the address space: what it is.
    Emulated(&'static str),
}

/// What a candidate wants of its machine; the default is shared with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmShape {
    /// Processors.
    pub cpus: Option<u32>,
    /// Memory.
    pub memory_bytes: Option<u64>,
    /// The kernel's flavour.
    pub flavour: Option<&'static str>,
    /// The user that the program runs as.
    pub user: Option<u32>,
}

impl VmShape {
    /// Whether it is a machine like that of most candidates.
    pub fn is_common(&self) -> bool {
        VmShape { user: None, ..*self } == VmShape::default()
    }
}

/// What `malloc(NLMSG_LENGTH(MAX_PAYLOAD))` takes with the MAX_PAYLOAD of every
/// netlink tutorial, 1024: header and payload.
const TUTORIAL_BYTES: u64 = 16 + 1024;
/// /proc/PID/maps of Ubuntu 14.04's 32-bit programs, as people have published
/// them: libc 1732 KiB with its data, ld.so 136 KiB, libgcc_s 116 KiB, and 24 KiB
/// of their own; libpthread is about 112 KiB, and a locale archive is mapped 2 MiB
/// at a time.
const LIBRARIES_BYTES: u64 = (1732 + 136 + 116 + 24 + 112 + 2048) << 10;

const MALLOC: &str = "the size that each thread allocates";
const WHOLE: &str = "how much is mapped beforehand";

/// All candidates, those first that share a machine.
pub static CANDIDATES: LazyLock<Vec<Candidate>> = LazyLock::new(|| {
    let mut all = plain();
    all.extend(malloc());
    all.extend(arenas());
    all.extend(top_down());
    all.extend(machines());
    all.extend(kernels());
    all
});

/// A candidate in the common machine.
fn one(name: &'static str, stands_for: &'static str, how: Fidelity, setup: Setup) -> Candidate {
    let machine = VmShape::default();
    Candidate { name, stands_for, how, free: None, doubt: None, setup, abi: Abi::I386, machine }
}

const NOTHING: Setup = Setup {
    malloc_bytes: None,
    arenas_max: None,
    mapped_bytes: None,
    address_space_bytes: None,
    nproc: None,
    layout: AddressSpaceLayout::Default,
    aslr: Aslr::On,
    guard: Guard::Outside,
};

/// What changes a word of how the program is started, and what it has mapped.
fn plain() -> Vec<Candidate> {
    use Fidelity::{Emulated, Real};
    vec![
        one(
            "baseline",
            "a static program whose threads allocate nothing, with the kernel's own settings",
            Real,
            NOTHING,
        ),
        one(
            "aslr-off",
            "randomisation switched off, as in a debugger or by `setarch -R`",
            Real,
            Setup { aslr: Aslr::Off, ..NOTHING },
        ),
        one(
            "bottom-up",
            "the layout of kernels before 2.6.9, which `setarch -L` and vm.legacy_va_layout \
             bring back, and on older kernels an unlimited stack too",
            Real,
            Setup { layout: AddressSpaceLayout::BottomUp, ..NOTHING },
        ),
        one(
            "guard-inside",
            "the guard page as part of the stack's size, as glibc before 2.27 has it, without the \
             page that it added for other reasons",
            Emulated("the size is set by attribute, one page less"),
            Setup { guard: Guard::Inside, ..NOTHING },
        ),
        one(
            "guard-none",
            "threads without a guard page: a program that sets the guard's size to zero",
            Real,
            Setup { guard: Guard::None, ..NOTHING },
        ),
        one(
            "libraries",
            "a dynamic program of Ubuntu 14.04 with libc, libpthread, libgcc_s and a locale",
            Emulated("as much is mapped beforehand as these take"),
            Setup { mapped_bytes: Some(LIBRARIES_BYTES), ..NOTHING },
        ),
        Candidate {
            free: Some(WHOLE),
            ..one(
                "mapped-158M",
                "a large program: many libraries, a large heap or a file mapped as a whole",
                Emulated("158 MiB are mapped beforehand"),
                Setup { mapped_bytes: Some(158 << 20), ..NOTHING },
            )
        },
        one(
            "as-3000000K",
            "`ulimit -v 3000000`: three gigabytes, as people write them",
            Real,
            Setup { address_space_bytes: Some(3_000_000 << 10), ..NOTHING },
        ),
        Candidate {
            free: Some("the limit"),
            ..one(
                "as-2909M",
                "`ulimit -v` with just the number that it takes",
                Real,
                Setup { address_space_bytes: Some(2909 << 20), ..NOTHING },
            )
        },
    ]
}

/// A malloc in each thread, kept: the paper's listing has one, of a size that it
/// does not print.
fn malloc() -> Vec<Candidate> {
    const SIZES: [(&str, u64); 9] = [
        ("malloc-16K", 16),
        ("malloc-32K", 32),
        ("malloc-48K", 48),
        ("malloc-60K", 60),
        ("malloc-62K", 62),
        ("malloc-64K", 64),
        ("malloc-72K", 72),
        ("malloc-96K", 96),
        ("malloc-128K", 128),
    ];
    let mut all = vec![one(
        "malloc-1040",
        "the paper's own listing: each thread takes NLMSG_LENGTH(MAX_PAYLOAD) by malloc; 1024 is \
         the MAX_PAYLOAD of the tutorials",
        Fidelity::Real,
        Setup { malloc_bytes: Some(TUTORIAL_BYTES), ..NOTHING },
    )];
    all.extend(SIZES.map(|(name, kib)| Candidate {
        free: Some(MALLOC),
        ..one(
            name,
            "the paper's listing with a larger MAX_PAYLOAD, or a buffer beside it",
            Fidelity::Real,
            Setup { malloc_bytes: Some(kib << 10), ..NOTHING },
        )
    }));
    all
}

/// A malloc in each thread, on machines of other sizes and in larger programs.
fn arenas() -> Vec<Candidate> {
    const HOW: Fidelity = Fidelity::Emulated("the number of arenas is set by M_ARENA_MAX");
    let on = |name, cpus: i32, bytes| {
        one(
            name,
            "the paper's listing on a machine with so many processors: malloc has two arenas of 1 MiB \
             for each (the common machine has two processors)",
            HOW,
            Setup { malloc_bytes: Some(bytes), arenas_max: Some(2 * cpus), ..NOTHING },
        )
    };
    let searched = |candidate| Candidate { free: Some(MALLOC), ..candidate };
    vec![
        on("arenas-1-cpu", 1, TUTORIAL_BYTES),
        on("arenas-4-cpus", 4, TUTORIAL_BYTES),
        on("arenas-8-cpus", 8, TUTORIAL_BYTES),
        searched(on("malloc-64K-1-cpu", 1, 64 << 10)),
        searched(on("malloc-62K-8-cpus", 8, 62 << 10)),
        searched(one(
            "malloc-62K-libraries",
            "the paper's listing with a larger MAX_PAYLOAD, in a dynamic program",
            Fidelity::Emulated("as much is mapped beforehand as its libraries take"),
            Setup { malloc_bytes: Some(62 << 10), mapped_bytes: Some(LIBRARIES_BYTES), ..NOTHING },
        )),
    ]
}

/// A kernel that never looks above the point where its search begins.
fn top_down() -> Vec<Candidate> {
    const HOW: Fidelity =
        Fidelity::Emulated("what is above the point where the search begins is taken");
    const GAP_BYTES: u64 = 8 << 20;
    let candidate = |name, stands_for, setup| Candidate {
        doubt: Some(
            "3.12, the kernel that the paper names, has the second search; only early 2.6 kernels had \
             none",
        ),
        ..one(name, stands_for, HOW, Setup { layout: AddressSpaceLayout::TopDownOnly, ..setup })
    };
    let on = |name, cpus: i32, mapped_bytes| {
        candidate(
            name,
            "the same, and the paper's listing on so many processors",
            Setup {
                malloc_bytes: Some(TUTORIAL_BYTES),
                arenas_max: Some(2 * cpus),
                mapped_bytes,
                ..NOTHING
            },
        )
    };
    // Put together when it was known how many threads each part takes.
    let together = |candidate| Candidate { free: Some("what to put together"), ..candidate };
    vec![
        candidate(
            "top-down-only",
            "a kernel without the second search, from the bottom up, that finds the hole above: an early \
             2.6",
            NOTHING,
        ),
        candidate(
            "top-down-only-3.12",
            "the same, with 136 MiB above as 3.12 leaves them, not 128",
            Setup { mapped_bytes: Some(GAP_BYTES), ..NOTHING },
        ),
        on("top-down-only-4-cpus", 4, None),
        on("top-down-only-8-cpus", 8, None),
        together(on("top-down-only-8-cpus-libraries", 8, Some(LIBRARIES_BYTES))),
        together(on("top-down-only-3.12-4-cpus-libraries", 4, Some(GAP_BYTES + LIBRARIES_BYTES))),
        on("top-down-only-3.12-8-cpus", 8, Some(GAP_BYTES)),
    ]
}

/// Limits on tasks, and machines that are not like the common one.
fn machines() -> Vec<Candidate> {
    use Fidelity::Real;
    let listing = Setup { malloc_bytes: Some(TUTORIAL_BYTES), ..NOTHING };
    let cpus = |cpus| VmShape { cpus: Some(cpus), ..VmShape::default() };
    let memory = |kib: u64| VmShape { memory_bytes: Some(kib << 10), ..VmShape::default() };
    vec![
        Candidate {
            machine: VmShape { user: Some(1000), ..VmShape::default() },
            free: Some("the limit"),
            ..one(
                "nproc-1451",
                "an ordinary user with a limit on tasks, as `ulimit -u` sets it, or a small machine \
                 with a desktop on it leaves it: RLIMIT_NPROC is half of threads-max, which is memory \
                 over 64 KiB",
                Real,
                Setup { nproc: Some(fit::PAPER + 2), ..NOTHING },
            )
        },
        Candidate {
            machine: memory(102_656),
            free: Some("the memory"),
            ..one(
                "memory-100M",
                "a very small machine: kernel.threads-max is memory over 64 KiB, and ends the small \
                 stacks before the address space does",
                Real,
                NOTHING,
            )
        },
        Candidate {
            machine: cpus(8),
            ..one(
                "cpus-8",
                "the paper's listing on eight real processors: whether M_ARENA_MAX stands for them",
                Real,
                listing,
            )
        },
    ]
}

/// Other kernels.
fn kernels() -> Vec<Candidate> {
    use Fidelity::Real;
    let flavour = |name| VmShape { flavour: Some(name), ..VmShape::default() };
    vec![
        Candidate {
            machine: flavour("split-2g"),
            ..one("split-2g", "a kernel that gives a program 2 GiB", Real, NOTHING)
        },
        Candidate {
            machine: flavour("split-3g-opt"),
            ..one(
                "split-3g-opt",
                "a kernel that gives a program 2.75 GiB, to have 1 GiB for itself",
                Real,
                NOTHING,
            )
        },
        Candidate {
            abi: Abi::Ia32,
            ..one("ia32", "the 32-bit program on a 64-bit kernel", Real, NOTHING)
        },
        Candidate {
            abi: Abi::Ia32,
            ..one(
                "ia32-3gb",
                "the 32-bit program on a 64-bit kernel, by `setarch --3gb`",
                Real,
                Setup { layout: AddressSpaceLayout::Limit3G, ..NOTHING },
            )
        },
    ]
}

/// What cannot be had here, and what is known of it.
pub const UNTESTED: [&str; 4] = [
    "Linux 3.12 itself (its layout was imposed on 6.1 by the program)",
    "glibc 2.19 itself (its rules for arenas and guards are those of the glibc here, its \
     allocations are not the same to the byte)",
    "Ubuntu 14.04's own libraries (as much was mapped as they take)",
    "the authors' program: its MAX_PAYLOAD, and whatever else its threads did, are not printed",
];
