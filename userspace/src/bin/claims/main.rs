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
mod crowd;
mod devices;
mod events;
mod evidence;
mod families;
mod files;
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

use evidence::{Evidence, Trouble};

/// The function that tests one case.
type Try = fn(&mut Evidence) -> Result<(), Trouble>;

/// Case ids with their functions.
type Rows = &'static [(&'static str, Try)];

const THEMES: [Rows; 22] = [
    api::ROWS,
    article::ROWS,
    buffers::ROWS,
    calls::ROWS,
    contexts::ROWS,
    devices::ROWS,
    families::ROWS,
    files::ROWS,
    formulas::ROWS,
    groups::ROWS,
    lifetime::ROWS,
    listing::ROWS,
    messages::ROWS,
    others::ROWS,
    paper::ROWS,
    peers::ROWS,
    ports::ROWS,
    speed::ROWS,
    senders::ROWS,
    threads::ROWS,
    timing::ROWS,
    zero::ROWS,
];

fn main() -> ExitCode {
    let id = std::env::args().nth(1).unwrap_or_default();
    let Some((_, attempt)) = THEMES.into_iter().flatten().find(|(known, _)| *known == id) else {
        eprintln!("claims: no row is called \"{id}\"");
        return ExitCode::from(2);
    };
    let mut evidence = Evidence::new();
    match attempt(&mut evidence) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            evidence.note("error", trouble.to_string());
            ExitCode::FAILURE
        }
    }
}
