//! The rows, a file a theme; each file has its counterpart of the same name
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

use super::row::Row;

/// Every row, by its number: A1, A2, A2.1, …
pub fn rows() -> impl Iterator<Item = &'static Row> {
    static SORTED: std::sync::LazyLock<Vec<&'static Row>> = std::sync::LazyLock::new(|| {
        let themes: [&[Row]; 22] = [
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
        let mut rows: Vec<_> = themes.into_iter().flatten().collect();
        rows.sort_by_key(|row| number(row.id));
        rows
    });
    SORTED.iter().copied()
}

/// `A9.2` as what it sorts by.
fn number(id: &str) -> (char, u32, u32) {
    let text = id.chars().next().unwrap_or(' ');
    let mut numbers = id.get(1..).unwrap_or("").split('.').map(|part| part.parse().unwrap_or(0));
    (text, numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
