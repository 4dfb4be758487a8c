use std::process::{Command, Stdio};
use std::sync::mpsc;

use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A host of this size in a folder of its own, with all of its memory
/// available and little patience.
fn host(memory_bytes: u64, cores: u32) -> (tempfile::TempDir, Budget) {
    let dir = tempfile::tempdir().unwrap();
    let meminfo = dir.path().join("meminfo");
    let budget = Budget {
        total_bytes: memory_bytes,
        memory_bytes,
        cores,
        folder: dir.path().to_path_buf(),
        meminfo,
        runs_limit: Duration::from_secs(30),
        programs_limit: Duration::from_millis(300),
    };
    set_available(&budget, memory_bytes);
    (dir, budget)
}

fn set_available(budget: &Budget, bytes: u64) {
    // Renamed, because others may be reading it.
    let new = budget.meminfo.with_extension("new");
    std::fs::write(&new, format!("MemAvailable: {} kB\n", bytes / 1024)).unwrap();
    std::fs::rename(&new, &budget.meminfo).unwrap();
}

fn claim(memory_bytes: u64, cores: u32) -> Claim {
    Claim { memory_bytes, cores }
}

fn take(budget: &Budget, memory_bytes: u64, cores: u32) -> Held {
    budget.take(&claim(memory_bytes, cores), || panic!("has to wait")).unwrap()
}

/// Whether a claim would have to wait now. Every look opens the files anew, and
/// with these locks that is what tells processes from each other: what holds
/// between two descriptions in one process holds between two processes.
fn waits(budget: &Budget, memory_bytes: u64, cores: u32) -> bool {
    let impatient = Budget { runs_limit: Duration::ZERO, ..budget.clone() };
    impatient.take(&claim(memory_bytes, cores), || {}).is_err()
}

#[test]
fn emulated_machines_claim_two_cores_and_none_more_than_there_are() {
    for (accel, cpus, host, claimed) in [
        (Accel::Tcg, 1, 8, 2),
        (Accel::Tcg, 2, 8, 2),
        (Accel::Tcg, 4, 8, 4),
        (Accel::Tcg, 4, 2, 2),
        (Accel::Tcg, 1, 1, 1),
        (Accel::Kvm, 1, 8, 1),
        (Accel::Kvm, 4, 8, 4),
        (Accel::Kvm, 4, 2, 2),
    ] {
        assert_eq!(cores(accel, cpus, host), claimed, "{accel:?}, {cpus} on {host}");
    }
}

#[test]
fn a_claim_has_room_for_qemu() {
    let (_dir, budget) = host(4 * GIB, 2);
    assert_eq!(budget.claim(Accel::Tcg, 1, 512 * MIB), claim(768 * MIB, 2));
    assert!(budget.lacks(&budget.claim(Accel::Kvm, 1, u64::MAX)).is_some());
}

#[test]
fn what_can_never_fit_says_why_and_is_not_waited_for() {
    let (_dir, mut budget) = host(GIB / 10 * 34, 4);
    budget.total_bytes = 4 * GIB;
    let large = claim(GIB / 10 * 52, 2);
    let lack = budget.lacks(&large).unwrap();
    assert_eq!(
        lack,
        "the guest needs 5.2 GiB of memory with its QEMU; this host can give 3.4 of its 4.0 GiB"
    );
    let err = budget.take(&large, || panic!("waits")).unwrap_err();
    assert_eq!(err.to_string(), lack);
    let wide = budget.lacks(&claim(GIB, 8)).unwrap();
    assert_eq!(wide, "the guest needs 8 cores; this host has 4");
    assert_eq!(budget.lacks(&claim(3 * GIB, 4)), None);
}

#[test]
fn as_many_fit_as_the_scarcer_allows() {
    let (_dir, budget) = host(4 * GIB, 8);
    assert_eq!(budget.at_once(&claim(GIB, 1)), 4);
    assert_eq!(budget.at_once(&claim(GIB, 4)), 2);
    assert_eq!(budget.at_once(&claim(GIB + 1, 1)), 3, "a token begun is a token");
    assert_eq!(budget.at_once(&claim(8 * GIB, 1)), 1, "one is always tried");
    assert_eq!(budget.at_once(&claim(0, 0)), 8);
    // And it is what take grants.
    let held: Vec<_> = (0..3).map(|_| take(&budget, GIB + 1, 1)).collect();
    assert!(waits(&budget, GIB + 1, 1));
    drop(held);
}

#[test]
fn this_host_can_be_asked() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path()).unwrap();
    let budget = Budget::of_host(&cache).unwrap();
    assert!(budget.memory_bytes < budget.total_bytes && budget.cores > 0, "{budget:?}");
    let small = claim(TOKEN_BYTES, 1);
    let held = budget.take(&small, || {}).unwrap();
    use std::os::unix::fs::PermissionsExt;
    for name in [MEMORY, CORES, TURN] {
        let mode = dir.path().join("lock").join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // Neither kind of cleaning removes a file that is held, or waits for it.
    cache.gc();
    cache.clear().unwrap();
    let all = Budget { runs_limit: Duration::ZERO, ..budget.clone() };
    assert!(all.take(&claim(0, budget.cores), || {}).is_err(), "it is still held");
    drop(held);
    budget.take(&claim(0, budget.cores), || panic!("waits")).unwrap();
}

#[test]
fn two_run_together_and_a_third_waits_for_one_to_end() {
    let (_dir, budget) = host(4 * GIB, 8);
    let first = take(&budget, 2 * GIB, 2);
    let second = take(&budget, 2 * GIB, 2);
    let (say, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        let third = scope.spawn(|| {
            let held = budget.take(&claim(2 * GIB, 2), || say.send("waiting").unwrap());
            say.send("started").unwrap();
            held.unwrap()
        });
        assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok("waiting"));
        assert!(heard.recv_timeout(Duration::from_millis(300)).is_err(), "says it once");
        drop(first);
        assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok("started"));
        drop(third.join().unwrap());
    });
    drop(second);
    drop(take(&budget, 4 * GIB, 8));
}

#[test]
fn cores_are_counted_as_memory_is() {
    let (_dir, budget) = host(64 * GIB, 4);
    let first = take(&budget, GIB, 2);
    let _second = take(&budget, GIB, 2);
    assert!(waits(&budget, GIB, 1), "no core is left");
    drop(first);
    assert!(waits(&budget, GIB, 3), "two are");
    // Who waited in vain holds nothing.
    let _third = take(&budget, GIB, 2);
    assert!(waits(&budget, 0, 1) && !waits(&budget, 62 * GIB, 0));
}

#[test]
fn tokens_need_not_be_neighbours() {
    let (_dir, budget) = host(5 * GIB, 5);
    let mut held: Vec<_> = (0..5).map(|_| Some(take(&budget, GIB, 1))).collect();
    for gap in [0, 2, 4] {
        held[gap] = None;
    }
    assert!(waits(&budget, 3 * GIB + 1, 1) && waits(&budget, GIB, 4));
    let _scattered = take(&budget, 3 * GIB, 3);
    assert!(waits(&budget, 1, 0) && waits(&budget, 0, 1));
}

#[test]
fn a_small_claim_does_not_pass_a_large_one_that_waits() {
    let (_dir, budget) = host(4 * GIB, 4);
    let first = take(&budget, GIB, 1);
    let (say, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        let large =
            scope.spawn(|| budget.take(&claim(4 * GIB, 4), || say.send(()).unwrap()).unwrap());
        heard.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(waits(&budget, GIB, 1));
        drop(first);
        drop(large.join().unwrap());
    });
    drop(take(&budget, GIB, 1));
}

#[test]
fn many_threads_never_hold_more_than_there_is() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let (_dir, budget) = host(4 * GIB, 3);
    let (now, most) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let held = budget.take(&claim(GIB, 1), || {}).unwrap();
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(50));
                now.fetch_sub(1, Ordering::SeqCst);
                drop(held);
            });
        }
    });
    assert!((1..=3).contains(&most.into_inner()));
}

#[test]
fn a_wait_without_end_says_for_what() {
    let (_dir, mut budget) = host(4 * GIB, 4);
    budget.runs_limit = Duration::from_secs(1);
    let _held = take(&budget, 3 * GIB, 1);
    let mut calls = 0;
    let err = budget.take(&claim(2 * GIB, 2), || calls += 1).unwrap_err().to_string();
    for part in ["2.0 GiB of memory and 2 cores", "other virtual machines", "4.0 GiB and 4 cores"] {
        assert!(err.contains(part), "{err}");
    }
    assert_eq!(calls, 1);
}

#[test]
fn memory_that_other_programs_hold_is_waited_for_a_moment() {
    let (_dir, budget) = host(4 * GIB, 4);
    set_available(&budget, GIB);
    let err = budget.take(&claim(2 * GIB, 1), || {}).unwrap_err();
    let text = err.to_string();
    for part in ["needs 2.0 GiB", "1.0 GiB are available", "other programs"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(err.kind(), nlrig_host::ErrorKind::Host);
    drop(take(&budget, GIB, 4));
    // As soon as they give it back it goes on.
    let give_back = || set_available(&budget, 4 * GIB);
    drop(budget.take(&claim(2 * GIB, 1), give_back).unwrap());
}

#[test]
fn memory_that_the_rigs_own_machines_use_is_waited_for_longer() {
    let (_dir, budget) = host(4 * GIB, 4);
    let first = take(&budget, GIB, 1);
    set_available(&budget, GIB);
    let (say, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        let second =
            scope.spawn(|| budget.take(&claim(2 * GIB, 1), || say.send(()).unwrap()).unwrap());
        heard.recv_timeout(Duration::from_secs(10)).unwrap();
        std::thread::sleep(2 * budget.programs_limit);
        assert!(!second.is_finished(), "it gave up");
        set_available(&budget, 4 * GIB);
        drop(first);
        drop(second.join().unwrap());
    });
}

#[test]
fn a_removed_file_over_commits_and_does_no_more() {
    let (dir, budget) = host(4 * GIB, 4);
    let before = take(&budget, 4 * GIB, 4);
    for name in [MEMORY, CORES, TURN] {
        std::fs::remove_file(dir.path().join(name)).unwrap();
    }
    let after = take(&budget, 4 * GIB, 4);
    drop(before);
    assert!(waits(&budget, GIB, 1), "the new files count");
    drop(after);
    drop(take(&budget, 4 * GIB, 4));
}

#[test]
fn a_file_that_cannot_be_locked_is_named() {
    let (dir, budget) = host(4 * GIB, 4);
    std::fs::create_dir(dir.path().join(CORES)).unwrap();
    let err = budget.take(&claim(GIB, 1), || {}).unwrap_err();
    assert!(format!("{err:#}").contains(CORES), "{err:#}");
}

/// The folder that [`a_process_that_holds_all`] takes all of, in that process.
const FOLDER: &str = "NLRIG_TEST_BUDGET";

/// No test of its own: the other process of the next one.
#[test]
fn a_process_that_holds_all() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let (_dir, mut budget) = host(4 * GIB, 4);
    budget.folder = folder.into();
    let _held = take(&budget, 4 * GIB, 4);
    std::fs::write(budget.folder.join("held"), "").unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_killed_process_gives_back_what_it_had() {
    let (dir, budget) = host(4 * GIB, 4);
    let mut other = Command::new(std::env::current_exe().unwrap());
    other.args(["--exact", "budget::tests::a_process_that_holds_all"]);
    // What it cannot clear up goes with this test's own folder.
    other.env(FOLDER, dir.path()).env("TMPDIR", dir.path()).stdout(Stdio::null());
    let mut other = nlrig_host::process::Child::spawn(other, Vec::new()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !dir.path().join("held").exists() {
        assert!(Instant::now() < deadline && other.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(waits(&budget, GIB, 1));
    other.kill();
    drop(take(&budget, 4 * GIB, 4));
}
