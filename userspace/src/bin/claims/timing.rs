//! Claims about timing: the sender, the module's handler, and other clients
//! waiting for each other.

use std::process;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nlrig_guest::uapi::*;
use nlrig_netlink::Socket;
use serde_json::{Value, json};

use crate::Cases;
use crate::client::{CallPair, Client, PORTID};
use crate::evidence::{BoxError, Evidence};
use crate::module::{self, SendRequest};
use crate::observe::{KmsgReader, state};
use crate::process::{CHILD_TIMEOUT, ForkedChild};
use crate::state::State;

pub const CASES: Cases = &[
    ("A1", sending_takes_as_long_as_the_handler),
    ("A2.1", demo),
    ("A2.2", duration_of_reading_answers),
    ("A3.1", the_client_is_in_state_d),
    ("A3.2", kill_during_the_wait),
    ("A3.3", another_thread_meanwhile),
    ("A3.4", the_check_for_hung_tasks),
    ("A4.1", the_handler_sleeps_for_a_program),
    ("A4.2", |evidence| the_handler_sleeps_for_the_kernel(evidence, NLRIG_CONTEXT_THREAD, 200)),
    ("A4.3", |evidence| the_handler_sleeps_for_the_kernel(evidence, NLRIG_CONTEXT_TIMER, 30)),
    ("A5.1", eight_clients),
    ("A5.2", two_threads_with_one_socket),
    ("B18", sending_waits_for_the_handler),
];

/// The longest wait for the start of an operation.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest observation of a handler. The slowest one works for 30 s.
const WATCH_TIMEOUT: Duration = Duration::from_secs(90);

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round()
}

/// Enables the article's module like [`module::article`], and clears its
/// counters.
fn article(replies: u32, delay: Duration) -> Result<(), BoxError> {
    module::article(replies, delay)?;
    State::reset()?;
    Ok(())
}

fn sending_takes_as_long_as_the_handler(evidence: &mut Evidence) -> Result<(), BoxError> {
    article(1, Duration::ZERO)?;
    let client = Client::new(PORTID, PORTID)?;
    let mut points = Vec::new();
    for delay_ms in [0, 100, 200, 300] {
        module::set("article_delay_ms", delay_ms)?;
        // The minimum of three measurements, because load on the host can only
        // add time.
        let mut took = client.greet(0)?;
        for _ in 1..3 {
            took = took.min(client.greet(0)?);
        }
        let took_ms = took.as_secs_f64() * 1000.0;
        evidence.note(&format!("took_ms_at_{delay_ms}"), took_ms.round());
        points.push((f64::from(delay_ms), took_ms));
    }
    evidence.note("slope", (slope(&points) * 100.0).round() / 100.0);
    Ok(())
}

/// The slope of the least-squares line through `points`.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    covariance / points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>()
}

/// The article's demonstration with its own parameters. Both clients run at the
/// same time, because each takes half a minute.
fn demo(evidence: &mut Evidence) -> Result<(), BoxError> {
    const CLIENTS: [(&str, CallPair, u32); 2] =
        [("sendmsg", CallPair::Message, PORTID), ("sendto", CallPair::Address, PORTID + 1)];
    article(10, Duration::from_secs(3))?;
    let mut log = KmsgReader::from_now()?;
    let clients = CLIENTS
        .map(|(_, calls, portid)| ForkedChild::start(move || demo_client(calls, portid)))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let first = clients.first().map_or(0, ForkedChild::id);
    evidence.note("in_d_percent", percent_in_d(first, Duration::from_millis(250))?);
    let lines = log.lines();
    for ((name, _, portid), client) in CLIENTS.into_iter().zip(clients) {
        let report = client.wait(CHILD_TIMEOUT)?;
        for key in ["sending_s", "answers", "text", "all_read_after_ms"] {
            evidence.note(&format!("{name}_{key}"), report.get(key).cloned().unwrap_or_default());
        }
        let to_it = format!("to pid {portid}");
        let sent: Vec<u64> = lines
            .iter()
            .flatten()
            .filter(|line| {
                line.text.contains("article: send message") && line.text.ends_with(&to_it)
            })
            .map(|line| line.at_us)
            .collect();
        let gaps = sent.windows(2).map(|pair| pair[1].saturating_sub(pair[0]) / 1000);
        evidence.note(&format!("{name}_kernel_sent"), sent.len());
        evidence.note(&format!("{name}_gap_min_ms"), gaps.clone().min().unwrap_or(0));
        evidence.note(&format!("{name}_gap_max_ms"), gaps.max().unwrap_or(0));
    }
    Ok(())
}

fn demo_client(calls: CallPair, portid: u32) -> Result<Value, BoxError> {
    let client = Client::new(portid, portid)?.with(calls);
    let sending = client.greet(0)?;
    let (start, mut read_after) = (Instant::now(), Duration::ZERO);
    let (mut answers, mut text) = (0, String::new());
    // One more than expected.
    while answers <= 10
        && let Some(answer) = client.answer(Duration::from_secs(1))?
    {
        (answers, text, read_after) = (answers + 1, answer, start.elapsed());
    }
    Ok(json!({
        "sending_s": (sending.as_secs_f64() * 10.0).round() / 10.0,
        "answers": answers,
        "text": text,
        "all_read_after_ms": ms(read_after),
    }))
}

/// The percentage of samples in which the client is in state D, while the
/// article's handler works for it.
fn percent_in_d(client: u32, every: Duration) -> Result<u32, BoxError> {
    State::wait(|state| state.article.calls.active >= 1, START_TIMEOUT)?;
    let (start, mut samples, mut in_d) = (Instant::now(), 0, 0);
    while State::read()?.article.calls.active > 0 && start.elapsed() < WATCH_TIMEOUT {
        samples += 1;
        in_d += u32::from(state(client, client)? == 'D');
        thread::sleep(every);
    }
    Ok((in_d * 100).checked_div(samples).unwrap_or(0))
}

/// The answers are read first by the thread that sent, then by another one.
fn duration_of_reading_answers(evidence: &mut Evidence) -> Result<(), BoxError> {
    let delay = Duration::from_millis(100);
    article(10, delay)?;
    let client = Client::new(PORTID, PORTID)?;
    let handler = client.greet(0)?;
    let alone = spread(&client, 10)?;
    let (handler_again, together) = thread::scope(|scope| {
        let reader = scope.spawn(|| spread(&client, 10).map_err(|err| err.to_string()));
        let sent = client.greet(0);
        let spread = reader.join().map_err(|_| "the reader thread panicked")??;
        Ok::<_, BoxError>((sent?, spread))
    })?;
    let percent =
        |spread: Duration, of: Duration| (spread.as_secs_f64() / of.as_secs_f64() * 100.0).round();
    evidence.note("handler_ms", ms(handler));
    evidence.note("by_the_sender_ms", ms(alone));
    evidence.note("by_the_sender_percent", percent(alone, handler));
    evidence.note("by_a_reader_ms", ms(together));
    evidence.note("by_a_reader_percent", percent(together, handler_again));
    Ok(())
}

/// Reads `answers` answers and returns the time from the first to the last.
fn spread(client: &Client, answers: u32) -> Result<Duration, BoxError> {
    let mut first = None;
    for _ in 0..answers {
        client.answer(START_TIMEOUT)?.ok_or("an answer is missing")?;
        first.get_or_insert_with(Instant::now);
    }
    Ok(first.map_or(Duration::ZERO, |first| first.elapsed()))
}

fn the_client_is_in_state_d(evidence: &mut Evidence) -> Result<(), BoxError> {
    article(10, Duration::from_millis(60))?;
    let client = ForkedChild::start(|| {
        let client = Client::new(PORTID, PORTID)?;
        Ok(json!({ "sending_ms": ms(client.greet(0)?) }))
    })?;
    let in_d = percent_in_d(client.id(), Duration::from_millis(10))?;
    let report = client.wait(CHILD_TIMEOUT)?;
    evidence.note("sending_ms", report.get("sending_ms").cloned().unwrap_or_default());
    evidence.note("in_d_percent", in_d);
    Ok(())
}

fn kill_during_the_wait(evidence: &mut Evidence) -> Result<(), BoxError> {
    article(10, Duration::from_millis(200))?;
    let client = ForkedChild::start(|| {
        let client = Client::new(PORTID, PORTID)?;
        Ok(json!({ "sending_ms": ms(client.greet(0)?) }))
    })?;
    State::wait(|state| state.article.calls.active >= 1, START_TIMEOUT)?;
    let start = Instant::now();
    kill(Pid::from_raw(client.id() as i32), Signal::SIGKILL)?;
    evidence.note("answers_before_the_kill", State::read()?.article.sent);
    while state(client.id(), client.id())? != 'Z' {
        if start.elapsed() > CHILD_TIMEOUT {
            return Err("timed out waiting for the client to die".into());
        }
        thread::sleep(Duration::from_millis(2));
    }
    evidence.note("dead_after_ms", ms(start.elapsed()));
    evidence.note("answers_before_its_death", State::read()?.article.sent);
    Ok(())
}

/// A second thread of the client observes the first one while it sends.
fn another_thread_meanwhile(evidence: &mut Evidence) -> Result<(), BoxError> {
    article(10, Duration::from_millis(100))?;
    let client = Client::new(PORTID, PORTID)?;
    let seen = thread::scope(|scope| {
        let other = scope.spawn(|| meanwhile(&client).map_err(|err| err.to_string()));
        let sent = client.greet(0);
        let seen = other.join().map_err(|_| "the other thread panicked")??;
        sent?;
        Ok::<_, BoxError>(seen)
    })?;
    evidence.note("exchanges_meanwhile", seen.exchanges);
    evidence.note("sender_in_d", seen.in_d);
    evidence.note("answers_read_meanwhile", seen.answers);
    evidence.note("answers_read_afterwards", client.answers()?);
    Ok(())
}

/// The observations of the second thread.
#[derive(Default)]
struct Meanwhile {
    /// Exchanges with the kernel on its own socket.
    exchanges: u32,
    /// Samples in which the first thread was in state D.
    in_d: u32,
    /// Answers read from the socket on which the first thread is sending.
    answers: u32,
}

fn meanwhile(client: &Client) -> Result<Meanwhile, BoxError> {
    let (start, mut seen) = (Instant::now(), Meanwhile::default());
    State::wait(|state| state.article.calls.active >= 1, START_TIMEOUT)?;
    while State::read()?.article.calls.active > 0 && start.elapsed() < WATCH_TIMEOUT {
        seen.exchanges += 1;
        seen.in_d += u32::from(state(process::id(), process::id())? == 'D');
        seen.answers += u32::from(client.answer(Duration::ZERO)?.is_some());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(seen)
}

/// Requires a hung task timeout of one second. Many short waits come first,
/// then a longer one.
fn the_check_for_hung_tasks(evidence: &mut Evidence) -> Result<(), BoxError> {
    for (key, replies, delay_ms) in [("short_waits", 60, 50), ("long_wait", 1, 4000)] {
        article(replies, Duration::from_millis(delay_ms))?;
        let mut log = KmsgReader::from_now()?;
        let client = ForkedChild::start(|| {
            let client = Client::new(PORTID, PORTID)?;
            Ok(json!({ "sending_ms": ms(client.greet(0)?) }))
        })?;
        let named = format!(":{} blocked for more than", client.id());
        let report = client.wait(CHILD_TIMEOUT)?;
        evidence.note(&format!("{key}_ms"), report.get("sending_ms").cloned().unwrap_or_default());
        evidence.note(&format!("reports_of_{key}"), log.count(&named)?);
    }
    Ok(())
}

/// The number of kernel warnings about sleeping in atomic context.
fn count_reports(log: &mut KmsgReader) -> Result<usize, BoxError> {
    let lines = log.lines()?;
    let is_report = |text: &str| {
        text.contains("scheduling while atomic") || text.contains("sleeping function called")
    };
    Ok(lines.iter().filter(|line| is_report(&line.text)).count())
}

fn the_handler_sleeps_for_a_program(evidence: &mut Evidence) -> Result<(), BoxError> {
    article(1, Duration::from_millis(200))?;
    let mut log = KmsgReader::from_now()?;
    let client = Client::new(PORTID, PORTID)?;
    evidence.note("handler_ms", ms(client.greet(0)?));
    evidence.note("answers", client.answers()?);
    evidence.note("complaints", count_reports(&mut log)?);
    Ok(())
}

/// A message from the kernel names port 0, so the handler's answer goes to the
/// handler again. The number of answers is set to 0 before that, if this thread
/// still runs: an interrupt may have put it to sleep.
fn the_handler_sleeps_for_the_kernel(
    evidence: &mut Evidence,
    context: u32,
    delay_ms: u64,
) -> Result<(), BoxError> {
    article(1, Duration::from_millis(delay_ms))?;
    let mut log = KmsgReader::from_now()?;
    let requester = Socket::new(NETLINK_NLRIG as i32)?;
    let send = SendRequest {
        count: 1,
        portid: Some(0),
        context,
        protocol: Some(NETLINK_NLRIG_ARTICLE),
        ..SendRequest::default()
    };
    send.submit(&requester)??;
    let called = State::wait(|state| state.article.calls.total >= 1, START_TIMEOUT)?;
    evidence.note("handler_was_called", called);
    thread::sleep(Duration::from_millis(150));
    module::set("article_replies", 0)?;
    evidence.note("returned", State::wait(|state| state.send.done, START_TIMEOUT)?);
    let state = State::read()?;
    evidence.note("handler_ms", state.send.elapsed_us / 1000);
    evidence.note("in_softirq", state.send.contexts & NLRIG_IN_SOFTIRQ != 0);
    evidence.note("complaints", count_reports(&mut log)?);
    Ok(())
}

fn eight_clients(evidence: &mut Evidence) -> Result<(), BoxError> {
    let (one, _, _) = clients(1)?;
    let (eight, at_once, answers) = clients(8)?;
    evidence.note("one_ms", ms(one));
    evidence.note("eight_ms", ms(eight));
    evidence.note("ratio", (eight.as_secs_f64() / one.as_secs_f64() * 10.0).round() / 10.0);
    evidence.note("handlers_at_once", at_once);
    evidence.note("answers", answers);
    Ok(())
}

/// Starts `count` processes that greet at the same time, each from its own
/// port. Returns the duration, the peak number of concurrent handlers, and the
/// number of answers.
fn clients(count: u32) -> Result<(Duration, u32, u64), BoxError> {
    article(10, Duration::from_millis(60))?;
    let start = Instant::now();
    let greet = |portid| {
        move || {
            let client = Client::new(portid, portid)?;
            client.greet(0)?;
            Ok(json!({ "answers": client.answers()? }))
        }
    };
    let children: Vec<_> =
        (0..count).map(|n| ForkedChild::start(greet(PORTID + n))).collect::<Result<_, _>>()?;
    let mut answers = 0;
    for child in children {
        answers += child.wait(CHILD_TIMEOUT)?["answers"].as_u64().unwrap_or(0);
    }
    Ok((start.elapsed(), State::read()?.article.calls.peak, answers))
}

fn two_threads_with_one_socket(evidence: &mut Evidence) -> Result<(), BoxError> {
    article(10, Duration::from_millis(50))?;
    let client = Client::new(PORTID, PORTID)?;
    let one = client.greet(0)?;
    client.answers()?;
    State::reset()?;
    let start = Instant::now();
    thread::scope(|scope| {
        let other = scope.spawn(|| client.greet(0));
        client.greet(0)?;
        other.join().map_err(|_| "the other thread panicked")??;
        Ok::<_, BoxError>(())
    })?;
    let two = start.elapsed();
    evidence.note("one_ms", ms(one));
    evidence.note("two_ms", ms(two));
    evidence.note("handlers_at_once", State::read()?.article.calls.peak);
    evidence.note("answers", client.answers()?);
    Ok(())
}

fn sending_waits_for_the_handler(evidence: &mut Evidence) -> Result<(), BoxError> {
    article(1, Duration::from_millis(300))?;
    let client = Client::new(PORTID, PORTID)?;
    evidence.note("handler_waits_ms", 300);
    evidence.note("sending_ms", ms(client.greet(0)?));
    evidence.note("answers_by_then", client.answers()?);
    evidence.note("sending_nonblocking_ms", ms(client.greet(libc::MSG_DONTWAIT)?));
    Ok(())
}
