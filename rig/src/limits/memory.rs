//! Memory: the cost of a worker, and the number of workers that fit.
//!
//! The cost cannot be predicted to the byte, as it depends on the compiler and on
//! the kernel's configuration. So the model gives a lower and an upper bound. They
//! matter only if no other limit binds below the lower bound.

use nlrig_guest::snapshot::Snapshot;

use super::{Limit, PAGE_BYTES, Room};
use crate::abi::{Abi, Arch};

/// The bytes of kernel objects of one worker: task_struct with its FPU state, struct
/// pid, two areas, and the socket with its inode, dentry and file.
///
/// Measured with the flavour `default` of 6.1: the difference of MemAvailable
/// before the first thread and after the last, over their number (`nlrig run
/// threads --stack 16K`: 18,970 bytes on i386, 28,890 on x86_64), less kernel
/// stack, the touched page of the thread's own stack, and page tables.
fn objects_bytes(arch: Arch) -> u64 {
    match arch {
        Arch::I386 => 6_660,
        Arch::X86_64 => 8_370,
    }
}

/// THREAD_SIZE (arch/x86/include/asm/page_32_types.h, page_64_types.h): two
/// pages from low memory, or four mapped one by one.
fn kernel_stack_bytes(arch: Arch) -> u64 {
    match arch {
        Arch::I386 => 2 * PAGE_BYTES,
        Arch::X86_64 => 4 * PAGE_BYTES,
    }
}

/// The bytes of page tables for one page at the top of each stack. Stacks that share
/// a table pay a part of it each. Without PAE a 32-bit table maps 4 MiB; a 64-bit
/// table maps 2 MiB, and the next higher one 1 GiB.
fn page_table_bytes(arch: Arch, each_bytes: u64) -> u64 {
    let spans: &[u64] = match arch {
        Arch::I386 => &[4 << 20],
        Arch::X86_64 => &[2 << 20, 1 << 30],
    };
    spans.iter().map(|&span| PAGE_BYTES * each_bytes.min(span) / span).sum()
}

/// Bounds on the bytes of memory that one worker takes.
#[derive(Clone, Copy)]
struct Cost {
    least: u64,
    most: u64,
}

impl Cost {
    /// The kernel's part, which has to be low memory on i386.
    fn of_kernel(arch: Arch, each_bytes: u64) -> Cost {
        let sure = kernel_stack_bytes(arch) + page_table_bytes(arch, each_bytes);
        let objects = objects_bytes(arch);
        // Another compiler or flavour moves the sizes of objects.
        Cost { least: sure + objects * 3 / 4, most: sure + objects * 3 / 2 }
    }

    /// The kernel's part and the touched pages of the worker's stack: one, or two
    /// where a frame crosses a page.
    fn of_all(arch: Arch, each_bytes: u64) -> Cost {
        let kernel = Cost::of_kernel(arch, each_bytes);
        Cost { least: kernel.least + PAGE_BYTES, most: kernel.most + 2 * PAGE_BYTES }
    }

    /// The number of workers that fit in `bytes`. It is a range, because the kernel
    /// may hold back, or free under pressure, up to 1/32 of memory.
    fn room(self, limit: Limit, bytes: u64, total_bytes: u64) -> Room {
        let reserve = total_bytes / 32;
        Room {
            limit,
            least: bytes.saturating_sub(reserve) / self.most,
            most: bytes.saturating_add(reserve) / self.least,
        }
    }
}

/// The room that memory leaves, a value for each kind of memory.
pub fn rooms(look: &Snapshot, abi: Abi, stack_bytes: u64, each_bytes: u64) -> Vec<Room> {
    let arch = abi.kernel();
    let memory = &look.memory;
    let mut rooms = vec![Cost::of_all(arch, each_bytes).room(
        Limit::Memory,
        memory.available_bytes,
        memory.total_bytes,
    )];
    // Kernel stacks, tables and objects lie in the lower 896 MiB.
    if let Some(low_bytes) = memory.low_free_bytes {
        let cost = Cost::of_kernel(arch, each_bytes);
        rooms.push(cost.room(Limit::Memory, low_bytes, memory.total_bytes));
    }
    match look.sysctls.overcommit_memory {
        // Making a stack writable is refused if it alone is larger than all
        // memory; the guest has no swap (mm/util.c, `__vm_enough_memory`).
        0 if stack_bytes > memory.total_bytes => rooms.push(Room::exact(Limit::Memory, 0)),
        2 => rooms.push(committed(look, stack_bytes)),
        _ => {}
    }
    rooms
}

/// The room under vm.overcommit_memory=2, where every writable page is committed when
/// it is mapped, up to CommitLimit (mm/util.c, `__vm_enough_memory`). All users but
/// root leave a reserve. The sum of commitments is kept per processor and may be
/// wrong by 1/256 of all memory (mm/mm_init.c, `mm_compute_batch`).
fn committed(look: &Snapshot, stack_bytes: u64) -> Room {
    let memory = &look.memory;
    let left = memory.commit_limit_bytes.saturating_sub(memory.committed_bytes);
    let off = memory.total_bytes / 256;
    let reserves = memory.admin_reserve_bytes.saturating_add(memory.user_reserve_bytes);
    Room {
        limit: Limit::Memory,
        least: left.saturating_sub(off).saturating_sub(reserves) / stack_bytes.max(1),
        most: left.saturating_add(off) / stack_bytes.max(1),
    }
}
