//! What the rig itself costs, and the bounds it is held against.
//!
//! Three things are measured: how long it takes from the start of the user's
//! command to the start of its first machine when everything is built
//! ([`start`]); how long a guest takes to create threads, at two sizes, with
//! the workload and with the same in C, in turn in one guest ([`job`]); and
//! the most memory that the guest took of the host. The arithmetic is here.

pub mod job;
pub mod start;

use serde::Serialize;

use crate::report::Section;
use job::Round;

/// From the start of the command to the start of its first machine, in seconds.
const FIRST_VM_MOST_S: f64 = 2.0;
/// Twice the threads may take this many times as long, and no more: each thread
/// costs the same, but for a little.
const GROWTH_MOST: f64 = 2.3;
/// What the median of a ratio may be above one. On a host that does nothing else
/// two medians of one program differ by more than that, so it is not all that
/// is asked: see [`Quantity::no_more_than_one`].
const NOISE: f64 = 0.02;
/// What a small machine for CI can spare, in bytes.
const MEMORY_MOST_BYTES: f64 = (4_u64 << 30) as f64;

/// Everything that was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// From the start of the command to the start of its first machine, in
    /// seconds, a value a round.
    pub first_vm_s: Vec<f64>,
    /// Threads created.
    pub rounds: Vec<Round>,
    /// The most memory of the host that the rig and the guest took, in bytes.
    pub peak_memory_bytes: u64,
}

/// One thing that was measured, as the document of `--json` has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quantity {
    /// Its name, which ends in its unit if it has one.
    pub name: &'static str,
    /// What it is, for a person.
    pub what: String,
    /// The value in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// A value a round.
    pub values: Vec<f64>,
    /// What it is held against, if it is.
    pub bound: Option<Bound>,
}

/// A bound, and whether it holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bound {
    /// The most that the median may be.
    pub most: f64,
    /// Whether it is no more than that; for `rust_over_c_32k`, whether not every
    /// pair of runs, at both sizes, says that it is more.
    pub holds: bool,
}

impl Quantity {
    fn new(name: &'static str, what: impl Into<String>, values: Vec<f64>) -> Quantity {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) && middle > 0 {
            (at(middle - 1) + at(middle)) / 2.0
        } else {
            at(middle)
        };
        let (min, max) = (at(0), at(sorted.len().saturating_sub(1)));
        Quantity { name, what: what.into(), median, min, max, values, bound: None }
    }

    fn at_most(mut self, most: f64) -> Quantity {
        self.bound = Some(Bound { most, holds: self.median <= most });
        self
    }

    /// For a ratio of two programs that should be one or less: what noise alone
    /// can make of it is no excess. It is one only if every pair of runs says
    /// so, those of `another` size too, and the median by more than [`NOISE`].
    /// The order within a pair is another at the other size, so a host that
    /// grows busier does not make it one.
    fn no_more_than_one(mut self, another: &Quantity) -> Quantity {
        let most = 1.0 + NOISE;
        let in_doubt = self.min <= 1.0 || another.min <= 1.0;
        self.bound = Some(Bound { most, holds: self.median <= most || in_doubt });
        self
    }

    /// One line, if its bound does not hold.
    pub fn excess(&self) -> Option<String> {
        let bound = self.bound.filter(|bound| !bound.holds)?;
        let show = |value| self.show(value);
        Some(format!("{}: {}, the bound is {}", self.what, show(self.median), show(bound.most)))
    }

    fn show(&self, value: f64) -> String {
        match self.name {
            name if name.ends_with("_bytes") => format!("{:.0} MiB", value / f64::from(1 << 20)),
            name if name.ends_with("_per_s") => format!("{value:.0}/s"),
            name if name.ends_with("_s") => format!("{value:.2} s"),
            _ => format!("{value:.3}"),
        }
    }
}

/// What was measured, with bounds.
pub fn quantities(measured: &Measured) -> Vec<Quantity> {
    let each = |value: fn(&Round) -> f64| measured.rounds.iter().map(value).collect::<Vec<_>>();
    let rust_over_c_16k = Quantity::new(
        "rust_over_c_16k",
        "time of Rust over C, 16 Ki",
        each(|round| round.rust_16k.elapsed_s / round.c_16k.elapsed_s),
    );
    let rust_over_c_32k = Quantity::new(
        "rust_over_c_32k",
        "time of Rust over C, 32 Ki",
        each(|round| round.rust_32k.elapsed_s / round.c_32k.elapsed_s),
    )
    .no_more_than_one(&rust_over_c_16k);
    vec![
        Quantity::new("first_vm_s", "start to first VM", measured.first_vm_s.clone())
            .at_most(FIRST_VM_MOST_S),
        Quantity::new("rust_16k_s", "16 Ki threads, Rust", each(|round| round.rust_16k.elapsed_s)),
        Quantity::new("c_16k_s", "16 Ki threads, C", each(|round| round.c_16k.elapsed_s)),
        Quantity::new("rust_32k_s", "32 Ki threads, Rust", each(|round| round.rust_32k.elapsed_s)),
        Quantity::new("c_32k_s", "32 Ki threads, C", each(|round| round.c_32k.elapsed_s)),
        Quantity::new("rust_16k_per_s", "16 Ki, Rust", each(|round| round.rust_16k.rate())),
        Quantity::new("c_16k_per_s", "16 Ki, C", each(|round| round.c_16k.rate())),
        Quantity::new("rust_32k_per_s", "32 Ki, Rust", each(|round| round.rust_32k.rate())),
        Quantity::new("c_32k_per_s", "32 Ki, C", each(|round| round.c_32k.rate())),
        Quantity::new(
            "rust_32k_over_16k",
            "time of 32 Ki over 16 Ki, Rust",
            each(|round| round.rust_32k.elapsed_s / round.rust_16k.elapsed_s),
        )
        .at_most(GROWTH_MOST),
        rust_over_c_16k,
        rust_over_c_32k,
        Quantity::new(
            "peak_memory_bytes",
            "peak memory of the host",
            vec![measured.peak_memory_bytes as f64],
        )
        .at_most(MEMORY_MOST_BYTES),
    ]
}

/// All of it as a table with words.
pub fn section(quantities: &[Quantity], rounds: u32, command: &str) -> Section {
    let columns = ["what", "median", "min", "max", "bound", "verdict"];
    let row = |quantity: &Quantity| {
        let bound = quantity.bound.map(|bound| format!("<= {}", quantity.show(bound.most)));
        let verdict = match quantity.bound {
            None => "",
            Some(bound) if bound.holds => "holds",
            Some(_) => "EXCEEDED",
        };
        let cells = [quantity.median, quantity.min, quantity.max].map(|value| quantity.show(value));
        let mut row = vec![quantity.what.clone()];
        row.extend(cells);
        row.extend([bound.unwrap_or_default(), verdict.to_string()]);
        row
    };
    Section {
        title: format!("What the rig costs ({rounds} rounds)"),
        columns: columns.map(str::to_string).to_vec(),
        rows: quantities.iter().map(row).collect(),
        words: words(quantities, command),
        ..Section::default()
    }
}

fn words(quantities: &[Quantity], command: &str) -> String {
    let median = |name: &str| {
        let found = quantities.iter().find(|quantity| quantity.name == name);
        found.map(|quantity| quantity.show(quantity.median)).unwrap_or_default()
    };
    format!(
        "With everything built, `{command}` starts its first machine {} after it was started \
         itself. Twice the threads take {} times as long. The workload takes {} times as long as \
         the same program in C; below one it is the faster. Both ran in turn in one guest, so that \
         what slows the host down slows both; the bound is exceeded only if Rust was the slower \
         in every pair of runs, at both sizes, and by more than {:.0} % in the median. Memory is the sum of the peaks \
         (VmHWM) of QEMU, its share daemons and the rig, {}; pages of the guest's that a daemon \
         touched count twice.",
        median("first_vm_s"),
        median("rust_32k_over_16k"),
        median("rust_over_c_32k"),
        NOISE * 100.0,
        median("peak_memory_bytes"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::job::Creation;

    fn quantity(values: &[f64]) -> Quantity {
        Quantity::new("ratio", "a ratio", values.to_vec())
    }

    #[test]
    fn a_median_is_in_the_middle() {
        let show = |values: &[f64]| {
            let Quantity { median, min, max, .. } = quantity(values);
            (median, min, max)
        };
        assert_eq!(show(&[3.0, 1.0, 2.0]), (2.0, 1.0, 3.0));
        assert_eq!(show(&[4.0, 1.0, 2.0, 3.0]), (2.5, 1.0, 4.0));
        assert_eq!(show(&[7.0]), (7.0, 7.0, 7.0));
    }

    #[test]
    fn nothing_measured_meets_no_bound() {
        assert!(quantity(&[]).at_most(2.0).excess().is_some());
        let nothing = quantity(&[f64::NAN]);
        assert!(nothing.clone().no_more_than_one(&nothing).excess().is_some());
    }

    #[test]
    fn slower_is_what_every_pair_says_by_more_than_noise() {
        let holds_with = |values: &[f64], another: &[f64]| {
            quantity(values).no_more_than_one(&quantity(another)).excess().is_none()
        };
        let holds = |values: &[f64]| holds_with(values, &[1.1]);
        assert!(holds(&[0.97, 0.98, 0.99]));
        assert!(holds(&[1.01, 1.02, 1.015]), "each, but within noise");
        assert!(holds(&[0.99, 1.05, 1.06]), "not in every round");
        assert!(!holds(&[1.01, 1.03, 1.04]));
        assert!(holds(&[1.019]));
        assert!(!holds(&[1.03]));
        assert!(holds_with(&[1.03], &[0.99]), "not at the other size");
    }

    fn measured(rust_32k_s: f64) -> Measured {
        let creation = |threads, elapsed_s| Creation { threads, elapsed_s };
        let round = Round {
            rust_16k: creation(16000, 10.0),
            c_16k: creation(16000, 9.9),
            rust_32k: creation(32000, rust_32k_s),
            c_32k: creation(32000, 20.0),
        };
        Measured { first_vm_s: vec![0.5], rounds: vec![round], peak_memory_bytes: 1 << 31 }
    }

    #[test]
    fn an_excess_names_what_and_how_much() {
        let excesses = |rust_32k_s| -> Vec<String> {
            quantities(&measured(rust_32k_s)).iter().filter_map(Quantity::excess).collect()
        };
        assert_eq!(excesses(20.0), Vec::<String>::new());
        let found = excesses(24.0);
        assert_eq!(
            found,
            [
                "time of 32 Ki over 16 Ki, Rust: 2.400, the bound is 2.300",
                "time of Rust over C, 32 Ki: 1.200, the bound is 1.020",
            ]
        );
    }

    #[test]
    fn the_table_has_a_row_each_and_says_what_is_exceeded() {
        let quantities = quantities(&measured(24.0));
        let section = section(&quantities, 1, "nlrig run smoke");
        assert_eq!(section.rows.len(), quantities.len());
        assert!(section.rows.iter().all(|row| row.len() == section.columns.len()));
        let exceeded = section.rows.iter().filter(|row| row[5] == "EXCEEDED").count();
        assert_eq!(exceeded, 2);
        assert!(section.words.contains("nlrig run smoke") && section.words.contains("2048 MiB"));
    }
}
