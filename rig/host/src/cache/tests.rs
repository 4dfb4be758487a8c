use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

fn key(text: &str) -> Key {
    Key::new().add("test", text)
}

#[test]
fn an_entry_is_built_once() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::at(root.path()).unwrap();
    let make = |dir: &Path| write(&dir.join("file"), "content");
    let first = cache.entry("thing", key("a"), make).unwrap();
    assert!(!first.from_cache && first.dir.join("file").is_file());
    let second = cache.entry("thing", key("a"), |_| panic!("built twice")).unwrap();
    assert!(second.from_cache);
    assert_eq!(first.dir, second.dir);
    assert!(!cache.entry("thing", key("b"), make).unwrap().from_cache);
}

#[test]
fn a_failed_build_leaves_no_entry() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::at(root.path()).unwrap();
    let half = |dir: &Path| {
        write(&dir.join("half"), "content")?;
        bail!("disk full")
    };
    assert!(cache.entry("thing", key("a"), half).is_err());
    let whole = cache.entry("thing", key("a"), |dir| write(&dir.join("file"), "")).unwrap();
    assert!(!whole.from_cache);
    assert!(!whole.dir.join("half").exists(), "files of the failed build remain");
}

#[test]
fn a_damaged_entry_is_rebuilt() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::at(root.path()).unwrap();
    let make = |dir: &Path| write(&dir.join("file"), "content");
    let file = cache.entry("image", key("a"), make).unwrap().dir.join("file");
    write(&file, "cut").unwrap();
    assert!(cache.find("image", key("a")).is_none());
    assert!(!cache.entry("image", key("a"), make).unwrap().from_cache);
    assert_eq!(fs::read_to_string(file).unwrap(), "content");
}

#[test]
fn gc_removes_entries_of_killed_runs_and_keeps_those_that_failed_or_run() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::at(root.path()).unwrap();
    let partial = |text: &str| cache.path("kernel", &key(text).finish()).with_extension(PARTIAL);
    fs::create_dir_all(partial("killed")).unwrap();
    cache.entry("kernel", key("failed"), |_| bail!("no")).unwrap_err();
    cache.entry("kernel", key("stopped"), |_| Err(interrupt::Interrupted.into())).unwrap_err();
    cache
        .entry("kernel", key("running"), |dir| {
            cache.gc();
            assert!(dir.is_dir());
            write(&dir.join("file"), "")
        })
        .unwrap();
    assert!(!partial("killed").exists() && !partial("stopped").exists());
    assert!(partial("failed").is_dir());
}

#[test]
fn two_runs_share_one_build() {
    let root = tempfile::tempdir().unwrap();
    let made = AtomicU32::new(0);
    let start = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let cache = Cache::at(root.path()).unwrap();
                cache
                    .entry("thing", key("a"), |dir| {
                        made.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(200));
                        write(&dir.join("file"), "")
                    })
                    .unwrap();
            });
        }
    });
    assert_eq!(made.load(Ordering::SeqCst), 1);
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_changed_file_has_another_hash() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::at(&root.path().join("cache")).unwrap();
    let file = root.path().join("file");
    write(&file, "abc").unwrap();
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(cache.file_sha256(&file).unwrap(), abc);
    write(&file, "abcd").unwrap();
    assert_ne!(cache.file_sha256(&file).unwrap(), abc);
}

#[test]
fn clear_leaves_other_files() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::at(root.path()).unwrap();
    cache.entry("image", key("a"), |dir| write(&dir.join("file"), "")).unwrap();
    cache.store("kvm-i386.json", &1).unwrap();
    write(&root.path().join("mine"), "").unwrap();
    cache.clear().unwrap();
    assert!(cache.find("image", key("a")).is_none());
    assert_eq!(cache.load::<u32>("kvm-i386.json"), None);
    assert!(root.path().join("mine").is_file());
}
