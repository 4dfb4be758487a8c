//! The counters of the kernel module, read with NLRIG_MSG_STATE.

use std::time::{Duration, Instant};

use nlrig_guest::uapi::*;
use nlrig_netlink::attribute::{Attribute, Attributes};
use nlrig_netlink::wire::NLM_F_REQUEST;
use nlrig_netlink::{Address, Header, MessageBuilder, Messages, Socket};

use crate::evidence::BoxError;

/// The reply to one NLRIG_MSG_STATE. A counter that the reply lacks is zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// The last NLRIG_MSG_SEND.
    pub send: SendResult,
    /// The input callback of NETLINK_NLRIG.
    pub input: CallCounters,
    /// The article's protocol.
    pub article: ArticleCounters,
    /// The paper's protocol.
    pub paper: PaperCounters,
}

/// Attributes of enum nlrig_send_result_attr.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendResult {
    pub sent: u32,
    pub failed: u32,
    pub first_failed: u32,
    pub errno: u32,
    pub done: bool,
    pub elapsed_us: u32,
    pub contexts: u32,
}

/// Attributes of enum nlrig_calls_attr.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallCounters {
    pub total: u32,
    pub active: u32,
    pub peak: u32,
}

/// Attributes of enum nlrig_article_attr.
#[derive(Clone, Copy, Debug, Default)]
pub struct ArticleCounters {
    pub calls: CallCounters,
    pub depth: u32,
    pub length: u32,
    pub src_portid: u32,
    pub nlmsg_pid: u32,
    pub sent: u32,
    pub refused: u32,
    pub errno: u32,
}

/// Attributes of enum nlrig_paper_attr.
#[derive(Clone, Copy, Debug, Default)]
pub struct PaperCounters {
    pub received: u32,
    pub dropped: u32,
    pub done: u32,
    pub queued: u32,
    pub charged: u32,
}

impl State {
    /// Reads the counters.
    pub fn read() -> Result<State, BoxError> {
        State::request(false)
    }

    /// Reads the counters and clears them.
    pub fn reset() -> Result<State, BoxError> {
        State::request(true)
    }

    /// Waits until the counters meet a condition; false if that takes too long.
    pub fn wait(condition: impl Fn(&State) -> bool, limit: Duration) -> Result<bool, BoxError> {
        let deadline = Instant::now() + limit;
        loop {
            if condition(&State::read()?) {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn request(reset: bool) -> Result<State, BoxError> {
        let socket = Socket::new(NETLINK_NLRIG as i32)?;
        let mut request = MessageBuilder::new();
        request.message(Header::new(NLRIG_MSG_STATE as u16, NLM_F_REQUEST, 1), |body| {
            if reset {
                body.flag(NLRIG_A_STATE_RESET as u16);
            }
        });
        socket.send_to(request.bytes()?, Address::KERNEL, 0)?;
        let mut buffer = [0; 4096];
        // The module queues the reply before send returns.
        let length = socket.recv(&mut buffer, libc::MSG_DONTWAIT)?;
        let reply = Messages::new(&buffer[..length]).next().ok_or("an empty reply")??;
        if u32::from(reply.header.kind) != NLRIG_MSG_STATE_REPLY {
            return Err(format!(
                "expected the state, received a message of type {}",
                reply.header.kind
            )
            .into());
        }
        Ok(State::parse(reply.attributes(0)))
    }

    fn parse(attributes: Attributes<'_>) -> State {
        let mut state = State::default();
        for_each(attributes, |kind, nest| match kind {
            NLRIG_A_STATE_SEND => state.send = SendResult::parse(nest.nested()),
            NLRIG_A_STATE_INPUT => state.input = CallCounters::parse(nest.nested()),
            NLRIG_A_STATE_ARTICLE => state.article = ArticleCounters::parse(nest.nested()),
            NLRIG_A_STATE_PAPER => state.paper = PaperCounters::parse(nest.nested()),
            _ => {}
        });
        state
    }
}

impl SendResult {
    fn parse(attributes: Attributes<'_>) -> SendResult {
        let mut result = SendResult::default();
        for_each(attributes, |kind, attribute| match kind {
            NLRIG_A_RESULT_SENT => result.sent = value(attribute),
            NLRIG_A_RESULT_FAILED => result.failed = value(attribute),
            NLRIG_A_RESULT_FIRST_FAILED => result.first_failed = value(attribute),
            NLRIG_A_RESULT_ERRNO => result.errno = value(attribute),
            NLRIG_A_RESULT_DONE => result.done = value(attribute) == 1,
            NLRIG_A_RESULT_ELAPSED_US => result.elapsed_us = value(attribute),
            NLRIG_A_RESULT_CONTEXTS => result.contexts = value(attribute),
            _ => {}
        });
        result
    }
}

impl CallCounters {
    fn parse(attributes: Attributes<'_>) -> CallCounters {
        let mut calls = CallCounters::default();
        for_each(attributes, |kind, attribute| match kind {
            NLRIG_A_CALLS_TOTAL => calls.total = value(attribute),
            NLRIG_A_CALLS_ACTIVE => calls.active = value(attribute),
            NLRIG_A_CALLS_PEAK => calls.peak = value(attribute),
            _ => {}
        });
        calls
    }
}

impl ArticleCounters {
    fn parse(attributes: Attributes<'_>) -> ArticleCounters {
        let mut article = ArticleCounters::default();
        for_each(attributes, |kind, attribute| match kind {
            NLRIG_A_ARTICLE_CALLS => article.calls = CallCounters::parse(attribute.nested()),
            NLRIG_A_ARTICLE_DEPTH => article.depth = value(attribute),
            NLRIG_A_ARTICLE_LENGTH => article.length = value(attribute),
            NLRIG_A_ARTICLE_SRC_PORTID => article.src_portid = value(attribute),
            NLRIG_A_ARTICLE_NLMSG_PID => article.nlmsg_pid = value(attribute),
            NLRIG_A_ARTICLE_SENT => article.sent = value(attribute),
            NLRIG_A_ARTICLE_REFUSED => article.refused = value(attribute),
            NLRIG_A_ARTICLE_ERRNO => article.errno = value(attribute),
            _ => {}
        });
        article
    }
}

impl PaperCounters {
    fn parse(attributes: Attributes<'_>) -> PaperCounters {
        let mut paper = PaperCounters::default();
        for_each(attributes, |kind, attribute| match kind {
            NLRIG_A_PAPER_RECEIVED => paper.received = value(attribute),
            NLRIG_A_PAPER_DROPPED => paper.dropped = value(attribute),
            NLRIG_A_PAPER_DONE => paper.done = value(attribute),
            NLRIG_A_PAPER_QUEUED => paper.queued = value(attribute),
            NLRIG_A_PAPER_CHARGED => paper.charged = value(attribute),
            _ => {}
        });
        paper
    }
}

fn for_each<'a>(attributes: Attributes<'a>, mut visit: impl FnMut(u32, Attribute<'a>)) {
    for attribute in attributes.flatten() {
        visit(u32::from(attribute.kind()), attribute);
    }
}

fn value(attribute: Attribute<'_>) -> u32 {
    attribute.u32().unwrap_or(0)
}
