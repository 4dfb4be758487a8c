//! Memory: what a worker takes of it, and for how many there is enough.
//!
//! What the kernel's allocators take in the end cannot be told to the byte, so
//! where memory binds the model gives a bound from either side. It is only
//! there to say that memory is what binds, and about where: if any other limit
//! binds below the lower bound, memory does not matter at all.

use nlrig_guest::look::Look;

use super::{Limit, PAGE_BYTES, Room};
use crate::abi::{Abi, Arch};

/// What one worker takes beside pages: task_struct with its FPU state, struct
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

/// Page tables for one page at the top of each stack: of every table a part, as
/// long as several stacks share it. Without PAE a table of 32 bits maps 4 MiB;
/// one of 64 bits maps 2 MiB, and the next higher one 1 GiB.
fn page_table_bytes(arch: Arch, each_bytes: u64) -> u64 {
    let spans: &[u64] = match arch {
        Arch::I386 => &[4 << 20],
        Arch::X86_64 => &[2 << 20, 1 << 30],
    };
    spans.iter().map(|&span| PAGE_BYTES * each_bytes.min(span) / span).sum()
}

/// What a worker takes: at least, at most.
#[derive(Clone, Copy)]
struct Cost {
    least: u64,
    most: u64,
}

impl Cost {
    /// The kernel's own part, which has to be low memory on i386.
    fn of_kernel(arch: Arch, each_bytes: u64) -> Cost {
        let sure = kernel_stack_bytes(arch) + page_table_bytes(arch, each_bytes);
        let objects = objects_bytes(arch);
        // Another compiler or flavour moves the sizes of objects.
        Cost { least: sure + objects * 3 / 4, most: sure + objects * 3 / 2 }
    }

    /// With the touched pages of its stack: one, or two where a frame crosses
    /// a page.
    fn of_all(arch: Arch, each_bytes: u64) -> Cost {
        let kernel = Cost::of_kernel(arch, each_bytes);
        Cost { least: kernel.least + PAGE_BYTES, most: kernel.most + 2 * PAGE_BYTES }
    }

    /// For how many there is room in so many bytes, give or take what the
    /// kernel keeps back or gives up when it is pressed.
    fn room(self, limit: Limit, bytes: u64, total_bytes: u64) -> Room {
        let reserve = total_bytes / 32;
        Room {
            limit,
            least: bytes.saturating_sub(reserve) / self.most,
            most: bytes.saturating_add(reserve) / self.least,
        }
    }
}

/// The rooms that memory leaves.
pub fn rooms(look: &Look, abi: Abi, stack_bytes: u64, each_bytes: u64) -> Vec<Room> {
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
        2 => rooms.push(promised(look, stack_bytes)),
        _ => {}
    }
    rooms
}

/// With vm.overcommit_memory=2 every writable page is promised when it is
/// mapped, and promises have a limit (mm/util.c, `__vm_enough_memory`). All but
/// root leave reserves to others. The sum of promises is counted on each
/// processor apart, up to 1/256 of all memory off the whole
/// (mm/mm_init.c, `mm_compute_batch`).
fn promised(look: &Look, stack_bytes: u64) -> Room {
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
