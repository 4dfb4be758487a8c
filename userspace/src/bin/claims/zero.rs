//! Claims about port 0 as the client's port: the article's module then sends
//! its answers to the kernel itself.
//!
//! Each answer to port 0 calls the module's handler recursively. A case whose
//! guest must survive sets the number of answers to 0 after some levels: no
//! further level starts, and the existing ones return.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Cases;
use crate::client::Client;
use crate::evidence::{BoxError, Evidence};
use crate::module;
use crate::observe::state;
use crate::peers::FREE_PORT;
use crate::process::{CHILD_TIMEOUT, CloneOptions, ForkedChild};
use crate::state::State;

pub const CASES: Cases = &[
    ("A9.1", answers_go_to_the_kernel),
    ("A9.2", until_the_stack_overflows),
    ("A9.3", another_client_meanwhile),
    ("A9.4", the_client_is_in_state_d),
    ("A9.5", combinations_of_port_0),
    ("A9.6", with_answers_to_the_source_port),
];

/// The delay per level. A kernel stack has room for at least 15 levels, and
/// each level must be observed in time.
const DELAY: Duration = Duration::from_millis(150);
/// The number of levels to observe.
const LEVELS: u32 = 3;
/// The longest wait for the start of an operation.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// The process id of the observed client. A socket bound to port 0 gets this
/// port, which must differ from nlmsg_pid.
const CLIENT_PID: u32 = 20_000;

/// Starts a client process that greets once from port `bound` with nlmsg_pid
/// `named`, and reports its answers.
fn client(bound: u32, named: u32) -> Result<ForkedChild, BoxError> {
    let options = CloneOptions { pid: Some(CLIENT_PID), ..CloneOptions::default() };
    ForkedChild::start_with(options, move || {
        let client = Client::new(bound, named)?;
        let sending_ms = client.greet(0)?.as_millis() as u64;
        Ok(json!({ "answers": client.answers()?, "sending_ms": sending_ms }))
    })
}

fn answers(report: &Value) -> u64 {
    report.get("answers").and_then(Value::as_u64).unwrap_or(0)
}

/// The result of one greeting, stopped after some levels.
struct Greeting {
    /// The recursion depth of the handler; 1 without recursion.
    depth: u32,
    /// Answers that the client received.
    answers: u64,
    /// The module's counters.
    state: State,
}

/// Lets a client greet, and calls `meanwhile` while the handler runs.
fn greet(
    (bound, named): (u32, u32),
    meanwhile: impl FnOnce(&ForkedChild) -> Result<(), BoxError>,
) -> Result<Greeting, BoxError> {
    let client = client(bound, named)?;
    State::wait(|state| state.article.calls.total >= 1, START_TIMEOUT)?;
    let done = meanwhile(&client);
    let start = Instant::now();
    loop {
        let state = State::read()?;
        let over = state.article.calls.active == 0;
        if over || state.article.depth >= LEVELS || start.elapsed() > START_TIMEOUT {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    // Before anything else, to stop the recursion.
    module::set("article_replies", 0)?;
    done?;
    let report = client.wait(CHILD_TIMEOUT)?;
    let state = State::read()?;
    Ok(Greeting { depth: state.article.depth, answers: answers(&report), state })
}

/// Enables the module with one answer per message.
fn article() -> Result<(), BoxError> {
    module::article(1, DELAY)?;
    State::reset()?;
    Ok(())
}

fn answers_go_to_the_kernel(evidence: &mut Evidence) -> Result<(), BoxError> {
    article()?;
    let greeting = greet((0, 0), |_| Ok(()))?;
    evidence.note("greetings", 1);
    evidence.note("handler_calls", greeting.state.article.calls.total);
    evidence.note("depth", greeting.depth);
    evidence.note("last_sender", greeting.state.article.src_portid);
    evidence.note("answers_the_client_got", greeting.answers);
    Ok(())
}

fn another_client_meanwhile(evidence: &mut Evidence) -> Result<(), BoxError> {
    article()?;
    let mut other_got = 0;
    let mut depth = (0, 0);
    let greeting = greet((0, 0), |_| {
        depth.0 = State::read()?.article.depth;
        let other = Client::new(FREE_PORT, FREE_PORT)?;
        other.greet(0)?;
        other_got = other.answers()?;
        depth.1 = State::read()?.article.depth;
        Ok(())
    })?;
    evidence.note("depth_before", depth.0);
    evidence.note("answers_of_the_other_client", other_got);
    evidence.note("depth_after", depth.1);
    evidence.note("depth", greeting.depth);
    Ok(())
}

fn the_client_is_in_state_d(evidence: &mut Evidence) -> Result<(), BoxError> {
    article()?;
    let (mut samples, mut in_d) = (0, 0);
    let greeting = greet((0, 0), |client| {
        while State::read()?.article.depth < LEVELS && samples < 200 {
            samples += 1;
            in_d += u32::from(state(client.id(), client.id())? == 'D');
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    })?;
    evidence.note("depth", greeting.depth);
    evidence.note("in_d_percent", (in_d * 100).checked_div(samples).unwrap_or(0));
    Ok(())
}

/// Source port and nlmsg_pid: A and C in the article.
const PORT_PAIRS: [(u32, u32); 4] = [(100, 100), (0, 100), (0, 0), (100, 0)];

fn combinations_of_port_0(evidence: &mut Evidence) -> Result<(), BoxError> {
    for (bound, named) in PORT_PAIRS {
        article()?;
        let greeting = greet((bound, named), |_| Ok(()))?;
        let way = format!("{bound}_{named}");
        evidence.note(&format!("depth_{way}"), greeting.depth);
        evidence.note(&format!("answers_{way}"), greeting.answers);
        evidence.note(&format!("refused_{way}"), greeting.state.article.refused);
    }
    Ok(())
}

fn with_answers_to_the_source_port(evidence: &mut Evidence) -> Result<(), BoxError> {
    let mut least = u64::MAX;
    let mut deepest = 0;
    for (bound, named) in PORT_PAIRS {
        module::article(10, Duration::from_millis(10))?;
        module::set("article_reply_to_source", 1)?;
        State::reset()?;
        let report = client(bound, named)?.wait(CHILD_TIMEOUT)?;
        evidence.note(&format!("answers_{bound}_{named}"), answers(&report));
        least = least.min(answers(&report));
        deepest = deepest.max(State::read()?.article.depth);
    }
    evidence.note("answers_at_least", least);
    evidence.note("depth", deepest);
    Ok(())
}

/// Nothing stops the recursion. All observations are reported immediately,
/// because the guest may crash.
fn until_the_stack_overflows(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(2, Duration::from_millis(20))?;
    State::reset()?;
    let start = Instant::now();
    let client = client(0, 0)?;
    // Until the handler runs, the client may be in state D because its code is
    // read from the share.
    State::wait(|state| state.article.calls.total >= 1, START_TIMEOUT)?;
    let (mut depth, mut others) = (0, 0);
    while start.elapsed() < CHILD_TIMEOUT
        && matches!(state(client.id(), client.id()), Ok('D' | 'R'))
    {
        let other = Client::new(FREE_PORT, FREE_PORT)?;
        other.greet(0)?;
        others += other.answers()?;
        let now = State::read()?.article.depth;
        if now > depth {
            depth = now;
            evidence.note("depth", depth);
            evidence.note("after_ms", start.elapsed().as_millis() as u64);
            evidence.note("answers_of_other_clients", others);
        }
    }
    let left = state(client.id(), client.id()).unwrap_or('-');
    evidence.note("client_in_state", left.to_string());
    evidence.note("depth", State::read()?.article.depth);
    Ok(())
}
