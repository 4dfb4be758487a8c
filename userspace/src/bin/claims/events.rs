//! poll() on a file.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::evidence::{BoxError, Evidence};

/// The longest wait for an expected event.
pub const EVENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits for `events`, at most for `limit`. Returns the events.
pub fn wait_for(
    file: &impl AsFd,
    events: PollFlags,
    limit: Duration,
) -> Result<PollFlags, BoxError> {
    let mut fds = [PollFd::new(file.as_fd(), events)];
    poll(&mut fds, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX))?;
    Ok(fds[0].revents().unwrap_or(PollFlags::empty()) & events)
}

/// Notes whether an event is pending before `cause` is called, and whether and
/// when one arrives afterwards.
pub fn woken_by<T>(
    evidence: &mut Evidence,
    file: &impl AsFd,
    events: PollFlags,
    cause: impl FnOnce() -> Result<T, BoxError>,
) -> Result<(), BoxError> {
    evidence.note("event_before", !wait_for(file, events, Duration::ZERO)?.is_empty());
    let start = Instant::now();
    // Kept alive, because dropping it may kill the process that causes the
    // event.
    let cause = cause()?;
    evidence.note("woken", !wait_for(file, events, EVENT_TIMEOUT)?.is_empty());
    evidence.note("waited_ms", start.elapsed().as_millis() as u64);
    drop(cause);
    Ok(())
}
