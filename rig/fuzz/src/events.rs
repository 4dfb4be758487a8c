//! Bytes on the event port, as the life of a machine reads them.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;

use nlrig_guest::protocol::{Event, LINE_MAX_BYTES};
use nlrig_splat::Taint;
use nlrig_vm::fuzzing::{Lines, show, summary};
use nlrig_vm::{Verdict, VmFailure};
use tempfile::NamedTempFile;

use crate::{assert_brief, assert_fit_for_terminal};

/// Sizes of the pieces in which the input comes, chosen by its length.
const PIECES: [usize; 4] = [64 << 10, 4096, 997, 64];

/// Lines that are no events, at most. The rig reads nonsense for a few seconds of
/// the clock; a line takes a few microseconds.
const NONSENSE_MAX: usize = 50_000;

/// Reads to the end, past all that is no event, as the rig does to learn what the
/// console of a failing machine still prints.
///
/// # Panics
/// The input breaks something.
pub fn check(input: &[u8]) {
    let file = NamedTempFile::new().expect("a temporary file");
    let (mut guest, host) = UnixStream::pair().expect("a pair of sockets");
    let mut lines = Lines::new(host, file.path()).expect("the file can be written");
    let mut nonsense = 0;
    let piece = PIECES[input.len() % PIECES.len()].max(input.len() / 2048);
    for piece in input.chunks(piece) {
        guest.write_all(piece).expect("the rig reads");
        assert!(lines.read().expect("the file can be written"));
        nonsense += take(&mut lines, piece);
        if nonsense > NONSENSE_MAX {
            break;
        }
    }
    drop(guest);
    while nonsense <= NONSENSE_MAX && lines.read().expect("the file can be written") {
        nonsense += take(&mut lines, input);
    }
    let kept = fs::read(file.path()).expect("the file can be read");
    assert!(kept.len() <= input.len(), "{} bytes are kept of {}", kept.len(), input.len());
    let longest = kept.split(|&byte| byte == b'\n').map(<[u8]>::len).max().unwrap_or(0);
    assert!(longest <= LINE_MAX_BYTES, "a line of {longest} bytes is taken");
}

/// Takes all events that came with this piece. Returns how many lines were none.
fn take(lines: &mut Lines, piece: &[u8]) -> usize {
    let mut nonsense = 0;
    let ends = piece.iter().filter(|&&byte| byte == b'\n').count();
    // Each has an end in this piece, but for one that is too long.
    for _ in 0..=ends + 1 {
        match lines.next_event() {
            Ok(Some(event)) => assert_event(&event),
            Ok(None) => return nonsense,
            Err(err) => {
                nonsense += 1;
                let loss: &VmFailure = err.vm_failure().expect("the guest's own fault is a loss");
                assert_eq!(loss.verdict, Verdict::LostVm);
                assert_brief("a loss", &loss.reason);
            }
        }
    }
    panic!("more events than lines: the same nonsense comes again and again");
}

/// Renders an event as the rig does.
fn assert_event(event: &Event) {
    let longest = serde_json::to_vec(event).expect("an event is JSON").len();
    // Written anew it may be longer: 1e9 becomes 1000000000.0.
    assert!(longest <= 16 * LINE_MAX_BYTES, "an event of {longest} bytes");
    match event {
        Event::Tasks { tasks, .. } => {
            assert_fit_for_terminal("the tasks' file", &show(tasks));
            let summary = summary(tasks);
            assert_fit_for_terminal("the tasks' summary", &summary);
            assert!(!summary.contains('\n'), "the summary has lines: {summary:?}");
            let frames: usize = tasks.iter().map(|task| task.stack.len()).sum();
            let paragraphs = show(tasks).lines().count();
            assert_eq!(paragraphs, 1 + tasks.len() + frames, "a name makes lines of its own");
        }
        Event::Ready { taint, .. } | Event::Exited { taint, .. } => {
            if let Some(Taint { names, .. }) = Taint::of(*taint, 0) {
                assert_fit_for_terminal("a taint", &names);
            }
        }
        _ => {}
    }
}
