use nlrig_guest::look::{Failed, Limits, Memory, Sysctls};

use super::*;

/// A static i386 program with a 2M stack, as seen in a guest.
const I386: &str = "\
08048000-08149000 r-xp 00000000 00:14 4          /run/nlrig/guest/workloads/threads
0976f000-09a13000 rw-p 00000000 00:00 0          [heap]
b7ef2000-b7ef6000 r--p 00000000 00:00 0          [vvar]
b7ef6000-b7ef8000 r-xp 00000000 00:00 0          [vdso]
bf87c000-bf89d000 rw-p 00000000 00:00 0          [stack]
";

fn look() -> Look {
    Look {
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
        limits: Limits {
            stack_bytes: Some(2 << 20),
            nofile: None,
            nproc: None,
            address_space_bytes: None,
            data_bytes: None,
        },
    }
}

fn predicted(look: &Look) -> (u64, Limit) {
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
#[test]
fn each_limit_binds_when_it_is_the_lowest() {
    type Case = (Limit, u64, fn(&mut Look));
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

#[test]
fn what_stopped_them_is_told_by_evidence() {
    let outcome = |call: &str, name: &str| Outcome {
        threads: 10,
        sockets: 10,
        echoes: 10,
        failed: Failed { call: call.into(), errno: 0, name: name.into() },
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
    };
    let create = || outcome("pthread_create", "EAGAIN");
    let told = |look: &Look, outcome: &Outcome| bound(look, outcome, Abi::I386, 2 << 20);
    assert_eq!(told(&look(), &outcome("socket", "EMFILE")), Limit::Nofile);
    assert_eq!(told(&look(), &outcome("bind", "EADDRINUSE")), Limit::Port);
    assert_eq!(told(&look(), &outcome("socket", "ENOMEM")), Limit::Memory);
    assert_eq!(told(&look(), &create()), Limit::Unknown, "a gap is left");
    let full = Outcome { holes: vec![(0x1000, 0x10_0000)], ..create() };
    assert_eq!(told(&look(), &full), Limit::AddressSpace);
    let room_above = Outcome { mapped_end: 0xbf00_0000, ..full };
    assert_eq!(told(&look(), &room_above), Limit::Unknown);
    let mut little = look();
    little.memory.available_bytes = 1 << 16;
    assert_eq!(told(&little, &create()), Limit::Memory);
    assert_eq!(told(&look(), &outcome("socket", "ENFILE")), Limit::FileMax);
    let mut low = look();
    low.sysctls.threads_max = 50;
    assert_eq!(told(&low, &create()), Limit::ThreadsMax);
    assert_eq!(told(&look(), &Outcome { pid_room: 0, ..create() }), Limit::PidMax);
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
