//! Claims about the article's module as printed, and about its protocol number.

use std::time::Duration;

use nlrig_guest::uapi::*;
use nlrig_netlink::Socket;
use serde_json::{Value, json};

use crate::Cases;
use crate::client::{ANSWER, Client, PORTID};
use crate::evidence::{BoxError, Evidence};
use crate::module;
use crate::process::{CHILD_TIMEOUT, ForkedChild};
use crate::state::State;

pub const CASES: Cases = &[
    ("A27.1", writing_into_a_literal),
    ("A27.2", writing_into_a_literal),
    ("A30.1", an_unassigned_protocol_number),
    ("A30.2", a_protocol_number_without_module),
];

/// The article's module terminates each answer by writing into a string
/// literal.
fn writing_into_a_literal(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(10, Duration::from_millis(50))?;
    State::reset()?;
    module::set("article_writes_literal", 1)?;
    evidence.note("answers", 0);
    let client = ForkedChild::start(|| {
        let client = Client::new(PORTID, PORTID)?;
        client.greet(0)?;
        let mut right = 0;
        while client.answer(Duration::ZERO)?.is_some_and(|text| text == ANSWER) {
            right += 1;
        }
        Ok(json!({ "answers": right }))
    })?;
    let report = client.wait(CHILD_TIMEOUT);
    evidence.note("client_reported", report.is_ok());
    let answers = report.ok().and_then(|report| report.get("answers").and_then(Value::as_u64));
    evidence.note("answers", answers.unwrap_or(0));
    evidence.note("kernel_sent", State::read()?.article.sent);
    Ok(())
}

fn an_unassigned_protocol_number(evidence: &mut Evidence) -> Result<(), BoxError> {
    module::article(1, Duration::ZERO)?;
    evidence.note("number", NETLINK_NLRIG_ARTICLE);
    evidence.outcome("socket", &Socket::new(NETLINK_NLRIG_ARTICLE as i32));
    let client = Client::new(PORTID, PORTID)?;
    client.greet(0)?;
    evidence.note("answers", client.answers()?);
    Ok(())
}

fn a_protocol_number_without_module(evidence: &mut Evidence) -> Result<(), BoxError> {
    evidence.outcome("socket", &Socket::new(30));
    Ok(())
}
