//! How long to wait for a guest, and for what: pure arithmetic on moments.

use std::time::{Duration, Instant};

/// Without a word from the guest for so long, it is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(10);
/// How long a program may go on once its kernel has oopsed: it may hang on what
/// the oops has left locked.
const OOPS_GRACE: Duration = Duration::from_secs(10);

/// How long a job may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Without a sign of life of the program.
    pub silence: Duration,
    /// In all, however lively it is.
    pub total: Duration,
    /// For the guest itself to answer when it is asked.
    pub answer: Duration,
}

impl Limits {
    /// These for the program, and the usual ones for the guest: PID 1 answers
    /// in milliseconds, but on a busy host, beside thousands of threads that all
    /// end at once, it may have to wait for seconds.
    pub const fn new(silence: Duration, total: Duration) -> Limits {
        Limits { silence, total, answer: Duration::from_secs(20) }
    }

    /// This long for the program, be it silent or not, and the usual for the
    /// guest on a machine that is so many times slower.
    pub fn fixed(limit: Duration, slowdown: u32) -> Limits {
        let Limits { answer, .. } = Limits::new(limit, limit);
        Limits { silence: limit, total: limit, answer: answer * slowdown }
    }

    /// The same with everything so many times as long, for a slow machine.
    pub fn times(self, factor: u32) -> Limits {
        let Limits { silence, total, answer } = self;
        Limits { silence: silence * factor, total: total * factor, answer: answer * factor }
    }
}

/// The state of one wait for a job.
#[derive(Debug)]
pub struct Watch {
    limits: Limits,
    start: Instant,
    /// When the program last gave a sign of life.
    last_sign: Instant,
    /// When anything last came from the machine, on any channel.
    last_heard: Instant,
    /// Since when an answer is due.
    asked: Option<Instant>,
    /// When a program whose kernel has oopsed is late.
    doom: Option<Instant>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Wait, at most this long.
    Wait(Duration),
    /// Ask the guest whether it is there.
    Ask,
    /// The program is late.
    Late,
    /// Nobody answers.
    Dead,
}

impl Watch {
    /// Begins now.
    pub fn new(limits: Limits, now: Instant) -> Watch {
        Watch { limits, start: now, last_sign: now, last_heard: now, asked: None, doom: None }
    }

    /// What to do at this moment.
    pub fn due(&self, now: Instant) -> Due {
        let late = (self.last_sign + self.limits.silence).min(self.start + self.limits.total);
        let late = self.doom.map_or(late, |doom| doom.min(late));
        if now >= late {
            return Due::Late;
        }
        let next = match self.asked {
            Some(asked) if now >= asked + self.limits.answer => return Due::Dead,
            Some(asked) => asked + self.limits.answer,
            None if now >= self.last_heard + PING_AFTER => return Due::Ask,
            None => self.last_heard + PING_AFTER,
        };
        Due::Wait(next.min(late) - now)
    }

    /// The program gave a sign of life.
    pub fn sign(&mut self, now: Instant) {
        self.last_sign = now;
        self.last_heard = now;
    }

    /// Something came, from whomever.
    pub fn heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// The guest was asked.
    pub fn asked(&mut self, now: Instant) {
        self.asked = Some(now);
    }

    /// The guest has answered, or cannot.
    pub fn answered(&mut self, now: Instant) {
        self.last_heard = now;
        self.asked = None;
    }

    /// The kernel has oopsed; only the first time counts.
    pub fn doom(&mut self, now: Instant) {
        self.doom.get_or_insert(now + OOPS_GRACE);
    }

    /// How long it has been.
    pub fn passed(&self, now: Instant) -> Duration {
        now - self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn watch() -> (Watch, Instant) {
        let limits = Limits { silence: 60 * S, total: 100 * S, answer: 20 * S };
        let now = Instant::now();
        (Watch::new(limits, now), now)
    }

    #[test]
    fn a_silent_guest_is_asked_and_then_given_up() {
        let (mut watch, start) = watch();
        assert_eq!(watch.due(start), Due::Wait(10 * S));
        assert_eq!(watch.due(start + 10 * S), Due::Ask);
        watch.asked(start + 10 * S);
        assert_eq!(watch.due(start + 10 * S), Due::Wait(20 * S));
        // Words that are no answer do not save it.
        watch.heard(start + 29 * S);
        assert_eq!(watch.due(start + 30 * S), Due::Dead);
    }

    #[test]
    fn a_guest_that_answers_gets_its_programs_time_and_no_more() {
        let (mut watch, start) = watch();
        watch.asked(start + 10 * S);
        watch.answered(start + 12 * S);
        assert_eq!(watch.due(start + 12 * S), Due::Wait(10 * S));
        assert_eq!(watch.due(start + 60 * S), Due::Late);
    }

    #[test]
    fn signs_of_life_extend_it_up_to_a_cap() {
        let (mut watch, start) = watch();
        watch.sign(start + 59 * S);
        assert_ne!(watch.due(start + 61 * S), Due::Late);
        watch.sign(start + 99 * S);
        assert_eq!(watch.due(start + 99 * S), Due::Wait(S));
        assert_eq!(watch.due(start + 100 * S), Due::Late);
    }

    #[test]
    fn an_oops_leaves_little_time() {
        let (mut watch, start) = watch();
        watch.doom(start + S);
        watch.doom(start + 5 * S);
        assert_eq!(watch.due(start + 10 * S), Due::Ask);
        assert_eq!(watch.due(start + 11 * S), Due::Late);
    }
}
