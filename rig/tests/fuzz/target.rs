//! What is tried, and what must hold whatever comes.

pub mod console;
pub mod events;
pub mod look;
pub mod monitor;

use nlrig::ui::MESSAGE_MAX_BYTES;

/// The promise of `ui::sanitize`, for text that is printed as it is.
fn assert_fit_for_terminal(what: &str, text: &str) {
    let control = |c: char| c.is_control() && c != '\n' && c != '\t';
    if let Some(at) = text.find(control) {
        let around: String = text[at..].chars().take(20).collect();
        panic!("{what} has a control character: {around:?}");
    }
}

/// A reason is read by a person, and stands in a report and on a page.
fn assert_brief(what: &str, reason: &str) {
    // The words that say that it was cut, and a few of the rig's own around it.
    let most = MESSAGE_MAX_BYTES + 256;
    assert!(reason.len() <= most, "{what} has {} bytes", reason.len());
}
