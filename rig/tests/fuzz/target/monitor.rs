//! Bytes on QEMU's monitor: its greeting, its answers, its events.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use nlrig::guest::monitor::{Monitor, PROCESSORS_MAX};
use nlrig::kernel::symbols::Symbols;

use super::assert_fit_for_terminal;

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

/// How often it is asked for an interrupt.
const ASKED: usize = 16;

/// Reads them.
pub fn symbols() -> Symbols {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("System.map");
    std::fs::write(&path, SYSTEM_MAP).unwrap();
    Symbols::read(&path).unwrap()
}

/// Asks everything that is asked of a monitor; it answers with the input and
/// says no more.
pub fn check(symbols: &Symbols, input: &[u8]) {
    let (rig, qemu) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        let answers = &qemu;
        scope.spawn(move || {
            // The rig may have had enough before the end.
            let _ = { answers }.write_all(input);
            let _ = answers.shutdown(Shutdown::Write);
        });
        let mut monitor = Monitor::new(rig).unwrap();
        if let Ok(pointers) = monitor.instruction_pointers() {
            assert!(pointers.len() <= PROCESSORS_MAX, "{} processors", pointers.len());
            for pointer in pointers {
                assert_fit_for_terminal("a place", &symbols.name(pointer));
            }
        }
        let _ = monitor.send_break("console");
        // Not for ever: nobody reads what it is asked.
        for _ in 0..ASKED {
            let _ = monitor.inject_nmi();
        }
        drop(monitor);
    });
}
