//! The workload `claims`: tests one claim and reports evidence. The host
//! decides what the evidence means for the claim.
//!
//! Each topic is a file, with a counterpart of the same name in
//! `rig/src/experiment/claims/ledger`.

mod api;
mod article;
mod buffers;
mod calls;
mod chardev;
mod client;
mod contexts;
mod devices;
mod events;
mod evidence;
mod families;
mod files;
mod formula_group;
mod formulas;
mod groups;
mod lifetime;
mod listing;
mod messages;
mod module;
mod observe;
mod others;
mod paper;
mod peers;
mod ports;
mod process;
mod senders;
mod speed;
mod state;
mod threads;
mod timing;
mod zero;

use std::process::ExitCode;

use evidence::{BoxError, Evidence};

/// The function that tests one case.
type CaseFn = fn(&mut Evidence) -> Result<(), BoxError>;

/// Case ids with their functions.
type Cases = &'static [(&'static str, CaseFn)];

const TOPICS: [Cases; 22] = [
    api::CASES,
    article::CASES,
    buffers::CASES,
    calls::CASES,
    contexts::CASES,
    devices::CASES,
    families::CASES,
    files::CASES,
    formulas::CASES,
    groups::CASES,
    lifetime::CASES,
    listing::CASES,
    messages::CASES,
    others::CASES,
    paper::CASES,
    peers::CASES,
    ports::CASES,
    speed::CASES,
    senders::CASES,
    threads::CASES,
    timing::CASES,
    zero::CASES,
];

fn main() -> ExitCode {
    let id = std::env::args().nth(1).unwrap_or_default();
    let Some((_, case)) = TOPICS.into_iter().flatten().find(|(known, _)| *known == id) else {
        eprintln!("claims: unknown case \"{id}\"");
        return ExitCode::from(2);
    };
    let mut evidence = Evidence::new();
    match case(&mut evidence) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            evidence.note("error", error.to_string());
            ExitCode::FAILURE
        }
    }
}
