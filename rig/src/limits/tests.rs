use nlrig_guest::snapshot::{Failed, Memory, ProcessLimits, Sysctls};

use super::*;

/// A static i386 program with a 2M stack, as seen in a guest.
const I386: &str = "\
08048000-08149000 r-xp 00000000 00:14 4          /run/nlrig/guest/workloads/threads
0976f000-09a13000 rw-p 00000000 00:00 0          [heap]
b7ef2000-b7ef6000 r--p 00000000 00:00 0          [vvar]
b7ef6000-b7ef8000 r-xp 00000000 00:00 0          [vdso]
bf87c000-bf89d000 rw-p 00000000 00:00 0          [stack]
";

fn look() -> Snapshot {
    Snapshot {
        word_bits: 32,
        page_bytes: 4096,
        uid: 0,
        maps: I386.to_string(),
        personality: 0,
        tasks: 40,
        user_tasks: 40,
        last_pid: 60,
        pids: (1..=40).chain([60]).collect(),
        open_files: 4,
        data_bytes: 3 << 20,
        memory: Memory {
            total_bytes: 1 << 30,
            available_bytes: 1 << 30,
            low_free_bytes: Some(880 << 20),
            commit_limit_bytes: 512 << 20,
            committed_bytes: 12 << 20,
            admin_reserve_bytes: 8 << 20,
            user_reserve_bytes: 30 << 20,
        },
        sysctls: Sysctls {
            threads_max: 1 << 20,
            pid_max: 1 << 20,
            max_map_count: 1 << 20,
            mmap_min_addr: 4096,
            legacy_va_layout: 0,
            randomize_va_space: 2,
            overcommit_memory: 0,
        },
        limits: ProcessLimits {
            stack_bytes: Some(2 << 20),
            nofile: None,
            nproc: None,
            address_space_bytes: None,
            data_bytes: None,
        },
    }
}

fn predicted(look: &Snapshot) -> (u64, Limit) {
    let prediction = predict(look, Abi::I386, 2 << 20).unwrap();
    (prediction.threads, prediction.binding_limit)
}

#[test]
fn every_hole_takes_as_many_stacks_as_fit() {
    let each = (2 << 20) + 4096;
    let by_hand = (0x0804_8000 - 0x1000) / each
        + (0x0976_f000 - 0x0814_9000) / each
        + (0xb7ef_2000_u64 - 0x09a1_3000) / each
        + (0xbf87_c000_u64 - (1 << 20) - 0xb7ef_8000) / each
        + (0xc000_0000_u64 - 0xbf89_d000) / each;
    assert_eq!(predicted(&look()), (by_hand, Limit::AddressSpace));
    assert!((1527..=1531).contains(&by_hand), "{by_hand}");
}

/// 24 MiB less the 972 pages that are mapped hold ten stacks of 513 pages.
/// The program and its heap in the two tests below, as seen in a guest.
const PROGRAM: &str = "\
00400000-0052b000 r-xp 00000000 00:0d 4          /run/nlrig/guest/workloads/threads
0052b000-0052e000 rw-p 00000000 00:00 0
01f8e000-02279000 rw-p 00000000 00:00 0          [heap]
";
/// The main stack in the two tests below.
const STACK: &str = "bfbff000-bfc20000 rw-p 00000000 00:00 0          [stack]\n";
const PER_STACK: u64 = (2 << 20) + 4096;

fn placed(look: &Snapshot) -> Vec<(Direction, u64, u64)> {
    let prediction = predict(look, Abi::I386, 2 << 20).unwrap();
    assert_eq!(prediction.binding_limit, Limit::AddressSpace);
    let placed = |placed: &Placed| {
        let Search { direction, start, end } = placed.search;
        let edge = if direction == Direction::TopDown { end } else { start };
        (direction, edge, placed.stacks)
    };
    prediction.searches.iter().map(placed).collect()
}

#[test]
fn an_unlimited_stack_leaves_a_sixth_of_the_addresses_between_the_searches() {
    let mapped = "\
1ff17000-1ff18000 ---p 00000000 00:00 0
1ff18000-1ff1a000 rw-p 00000000 00:00 0
1ff1a000-1ff20000 r-xp 00000000 00:00 0          [vdso]
";
    let mut look = look();
    look.maps = format!("{PROGRAM}{mapped}{STACK}");
    look.limits.stack_bytes = None;
    let below = 1 // 00001000-00400000, 1023 pages
        + (0x01f8_e000 - 0x0052_e000) / PER_STACK
        + (0x1ff1_7000 - 0x0227_9000) / PER_STACK;
    let above = (0xbfbf_f000 - (1 << 20) - 0x4000_0000) / PER_STACK + 1;
    let searches =
        [(Direction::TopDown, 0x1ff2_0000, below), (Direction::BottomUp, 0x4000_0000, above)];
    assert_eq!(placed(&look), searches);
    // A guest created so many.
    assert_eq!(below + above, 1271);
}

#[test]
fn nothing_is_placed_below_a_third_of_the_addresses_in_the_bottom_up_layout() {
    let mapped = "\
40044000-4004a000 r-xp 00000000 00:00 0          [vdso]
4004a000-4004b000 ---p 00000000 00:00 0
4004b000-4004d000 rw-p 00000000 00:00 0
";
    let stacks = (0xbfbf_f000 - (1 << 20) - 0x4004_d000) / PER_STACK + 1;
    let legacy: [fn(&mut Snapshot); 2] = [
        |look| look.sysctls.legacy_va_layout = 1,
        |look| look.personality = libc::ADDR_COMPAT_LAYOUT.cast_unsigned(),
    ];
    for set in legacy {
        let mut look = look();
        look.maps = format!("{PROGRAM}{mapped}{STACK}");
        set(&mut look);
        assert_eq!(placed(&look), [(Direction::BottomUp, 0x4004_4000, stacks)]);
    }
    assert_eq!(stacks, 1020);
}

#[test]
fn a_gap_that_no_search_reaches_does_not_count_as_room() {
    let mut look = look();
    look.sysctls.legacy_va_layout = 1;
    let outcome = ThreadOutcome {
        holes: vec![(0x0227_9000, 0x4004_4000)],
        mapped_end: 0xbfff_0000,
        ..refused_thread()
    };
    assert_eq!(bound(&look, &outcome, Abi::I386, 2 << 20), Limit::AddressSpace);
    look.sysctls.legacy_va_layout = 0;
    assert_eq!(bound(&look, &outcome, Abi::I386, 2 << 20), Limit::None);
}

#[test]
fn each_limit_binds_when_it_is_the_lowest() {
    type Case = (Limit, u64, fn(&mut Snapshot));
    let cases: [Case; 8] = [
        (Limit::Memory, 0, |look| look.memory.total_bytes = 1 << 20),
        (Limit::ThreadsMax, 100 - 40, |look| look.sysctls.threads_max = 100),
        (Limit::PidMax, 301 - 61, |look| look.sysctls.pid_max = 301),
        (Limit::MaxMapCount, (100 - 2 - 5) / 2 + 1, |look| look.sysctls.max_map_count = 100),
        (Limit::Nofile, 64 - 4, |look| look.limits.nofile = Some(64)),
        (Limit::Nproc, 50 - 40, |look| {
            look.uid = 1000;
            look.limits.nproc = Some(50);
        }),
        (Limit::RlimitAs, 10, |look| look.limits.address_space_bytes = Some(24 << 20)),
        (Limit::RlimitData, 10, |look| look.limits.data_bytes = Some(24 << 20)),
    ];
    for (limit, threads, set) in cases {
        let mut look = look();
        set(&mut look);
        assert_eq!(predicted(&look), (threads, limit));
    }
}

#[test]
fn root_is_not_held_to_nproc() {
    let mut look = look();
    look.limits.nproc = Some(50);
    assert_eq!(predicted(&look).1, Limit::AddressSpace);
}

#[test]
fn the_page_vsyscall_is_not_counted() {
    let mut look = look();
    look.sysctls.max_map_count = 100;
    let without = predicted(&look);
    look.maps += "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n";
    assert_eq!(predicted(&look), without);
}

/// What a guest reports when the eleventh thread is refused.
fn refused_thread() -> ThreadOutcome {
    ThreadOutcome {
        threads: 10,
        sockets: 10,
        echoes: 10,
        failed: Failed { call: "pthread_create".into(), errno: 11, name: "EAGAIN".into() },
        elapsed_ns: 1,
        tasks: 50,
        pid_room: 1000,
        map_areas: 25,
        mapped_bytes: 1 << 20,
        data_bytes: 1 << 20,
        holes: vec![(0x1000, 0x10_0000), (0x4000_0000, 0x5000_0000)],
        mapped_end: 0xbff0_0000,
        open_files: 14,
        memory_available_bytes: 1 << 30,
    }
}

#[test]
fn what_stopped_them_is_told_by_evidence() {
    let outcome = |call: &str, name: &str| ThreadOutcome {
        failed: Failed { call: call.into(), errno: 0, name: name.into() },
        ..refused_thread()
    };
    let create = refused_thread;
    let told = |look: &Snapshot, outcome: &ThreadOutcome| bound(look, outcome, Abi::I386, 2 << 20);
    assert_eq!(told(&look(), &outcome("socket", "EMFILE")), Limit::Nofile);
    assert_eq!(told(&look(), &outcome("bind", "EADDRINUSE")), Limit::Port);
    assert_eq!(told(&look(), &outcome("socket", "ENOMEM")), Limit::Memory);
    assert_eq!(told(&look(), &create()), Limit::None, "a gap is left");
    let full = ThreadOutcome { holes: vec![(0x1000, 0x10_0000)], ..create() };
    assert_eq!(told(&look(), &full), Limit::AddressSpace);
    let room_above = ThreadOutcome { mapped_end: 0xbf00_0000, ..full };
    assert_eq!(told(&look(), &room_above), Limit::None);
    let mut little = look();
    little.memory.available_bytes = 1 << 16;
    assert_eq!(told(&little, &create()), Limit::Memory);
    assert_eq!(told(&look(), &outcome("socket", "ENFILE")), Limit::FileMax);
    let mut low = look();
    low.sysctls.threads_max = 50;
    assert_eq!(told(&low, &create()), Limit::ThreadsMax);
    assert_eq!(told(&look(), &ThreadOutcome { pid_room: 0, ..create() }), Limit::PidMax);
    let mut low = look();
    low.sysctls.max_map_count = 26;
    assert_eq!(told(&low, &create()), Limit::MaxMapCount);
}

#[test]
fn a_map_that_is_none_is_an_error() {
    let mut look = look();
    look.maps = "hello".to_string();
    assert!(predict(&look, Abi::I386, 2 << 20).is_err());
}
