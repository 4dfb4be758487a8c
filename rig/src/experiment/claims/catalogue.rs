//! The cases, a file a theme; each file has its counterpart of the same name
//! among the programs of the guest, in `userspace/src/bin/claims`.

mod api;
mod article;
mod buffers;
mod calls;
mod contexts;
mod devices;
mod families;
mod files;
mod formulas;
mod groups;
mod lifetime;
mod listing;
mod messages;
mod others;
mod paper;
mod peers;
mod ports;
mod senders;
mod speed;
mod threads;
mod timing;
mod zero;

use super::case::Case;

/// Every case, by its number: A1, A2, A2.1, …
pub fn cases() -> impl Iterator<Item = &'static Case> {
    static SORTED: std::sync::LazyLock<Vec<&'static Case>> = std::sync::LazyLock::new(|| {
        let themes: [&[Case]; 22] = [
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
        let mut cases: Vec<_> = themes.into_iter().flatten().collect();
        cases.sort_by_key(|case| number(case.id));
        cases
    });
    SORTED.iter().copied()
}

/// `A9.2` as what it sorts by.
fn number(id: &str) -> (char, u32, u32) {
    let text = id.chars().next().unwrap_or(' ');
    let mut numbers = id.get(1..).unwrap_or("").split('.').map(|part| part.parse().unwrap_or(0));
    (text, numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
