//! Bytes on the event port, as the life of a machine reads them.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nlrig::guest::autopsy;
use nlrig::guest::events::Lines;
use nlrig::outcome::VmFailure;
use nlrig::report::Verdict;
use nlrig_guest::protocol::{Event, LINE_MAX_BYTES};
use nlrig_splat::Taint;

use super::{assert_brief, assert_fit_for_terminal};

/// In pieces as large as these they come, by the input's length.
const PIECES: [usize; 4] = [64 << 10, 4096, 997, 64];

/// A machine that sends nonsense is listened to for seconds, by the clock; each
/// line takes a few microseconds.
const NONSENSE_MAX: usize = 50_000;

/// Reads to the end, past whatever is no event: so a machine that has sent
/// nonsense is listened to for what its console still says.
pub fn check(dir: &Path, input: &[u8]) {
    let file = dir.join("events.jsonl");
    let (mut guest, host) = UnixStream::pair().unwrap();
    let mut lines = Lines::new(host, &file).unwrap();
    let mut nonsense = 0;
    let piece = PIECES[input.len() % PIECES.len()].max(input.len() / 2048);
    for piece in input.chunks(piece) {
        guest.write_all(piece).unwrap();
        assert!(lines.read().unwrap());
        nonsense += take(&mut lines, piece);
        if nonsense > NONSENSE_MAX {
            break;
        }
    }
    drop(guest);
    while nonsense <= NONSENSE_MAX && lines.read().unwrap() {
        nonsense += take(&mut lines, input);
    }
    let kept = fs::read(file).unwrap();
    assert!(kept.len() <= input.len(), "{} bytes are kept of {}", kept.len(), input.len());
    let longest = kept.split(|&byte| byte == b'\n').map(<[u8]>::len).max().unwrap();
    assert!(longest <= LINE_MAX_BYTES, "a line of {longest} bytes is taken");
}

/// Takes all events that came with this piece; how many lines were none?
fn take(lines: &mut Lines, piece: &[u8]) -> usize {
    let mut nonsense = 0;
    let ends = piece.iter().filter(|&&byte| byte == b'\n').count();
    // Each has an end in this piece, but for one that is too long.
    for _ in 0..=ends + 1 {
        match lines.next_event() {
            Ok(Some(event)) => look_at(&event),
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

/// Does what the rig does with what an event says.
fn look_at(event: &Event) {
    let longest = serde_json::to_vec(event).unwrap().len();
    // Written anew it may be longer: 1e9 becomes 1000000000.0.
    assert!(longest <= 16 * LINE_MAX_BYTES, "an event of {longest} bytes");
    match event {
        Event::Tasks { tasks, .. } => {
            assert_fit_for_terminal("the tasks' file", &autopsy::show(tasks));
            let summary = autopsy::summary(tasks);
            assert_fit_for_terminal("the tasks' summary", &summary);
            assert!(!summary.contains('\n'), "the summary has lines: {summary:?}");
            let frames: usize = tasks.iter().map(|task| task.stack.len()).sum();
            let paragraphs = autopsy::show(tasks).lines().count();
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
