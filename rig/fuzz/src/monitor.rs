//! Bytes on QEMU's monitor: its greeting, its answers, its events.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::LazyLock;

use nlrig::kernel::symbols::Symbols;
use nlrig_vm::fuzzing::{Monitor, PROCESSORS_MAX};

use crate::assert_fit_for_terminal;

/// The functions of a small kernel.
const SYSTEM_MAP: &str = "\
0000000000000000 T first
c1000000 T _text
c1000040 t spin
ffffffff81000000 T _text
ffffffff81000050 D data
ffffffff81000060 W weak
fffffffffffffff0 T last
";

static SYMBOLS: LazyLock<Symbols> = LazyLock::new(|| {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), SYSTEM_MAP).expect("the file can be written");
    Symbols::read(file.path()).expect("the map is sound")
});

/// Requests of an NMI in a row.
const NMIS: usize = 16;

/// Sends every request of the rig. The input answers all of them, and is all that
/// the monitor sends.
///
/// # Panics
/// The input breaks something.
pub fn check(input: &[u8]) {
    let (rig, qemu) = UnixStream::pair().expect("a pair of sockets");
    std::thread::scope(|scope| {
        let answers = &qemu;
        scope.spawn(move || {
            // The rig may hang up before the end.
            let _ = { answers }.write_all(input);
            let _ = answers.shutdown(Shutdown::Write);
        });
        let mut monitor = Monitor::new(rig).expect("a socket's deadlines can be set");
        if let Ok(pointers) = monitor.instruction_pointers() {
            assert!(pointers.len() <= PROCESSORS_MAX, "{} processors", pointers.len());
            for pointer in pointers {
                assert_fit_for_terminal("a place", &SYMBOLS.name(pointer));
            }
        }
        let _ = monitor.send_break("console");
        // A few only, because nobody reads the requests.
        for _ in 0..NMIS {
            let _ = monitor.inject_nmi();
        }
        drop(monitor);
    });
}
