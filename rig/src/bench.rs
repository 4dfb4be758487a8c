//! Measures the rig's own cost and compares it with bounds.
//!
//! There are three measurements:
//!
//! - the time from the start of the user's command to the start of its first VM,
//!   with everything built ([`start`]);
//! - the time to create threads in a guest, at two counts, by the workload and by
//!   the reference in C, alternately in one guest ([`job`]);
//! - the peak memory of the host that the guest took.
//!
//! This module has the statistics and the bounds.

pub mod job;
pub mod start;

use serde::Serialize;

use crate::report::Section;
use job::Round;

/// The bound on the time from the command's start to that of its first VM, in
/// seconds.
const FIRST_VM_MOST_S: f64 = 2.0;
/// The bound on the ratio of the times for 32 Ki and 16 Ki threads: the cost of a
/// thread is nearly constant.
const GROWTH_MOST: f64 = 2.3;
/// The excess over one that the median of a ratio may have.
///
/// Two medians of the same program differ by more, even on an idle host, so the
/// bound needs a second condition: see [`Quantity::no_more_than_one`].
const NOISE: f64 = 0.02;
/// The bound on memory, in bytes: a small CI machine can spare this.
const MEMORY_MOST_BYTES: f64 = (4_u64 << 30) as f64;

/// The raw measurements.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The time from the command's start to that of its first VM, in seconds, per
    /// round.
    pub first_vm_s: Vec<f64>,
    /// The thread creation times, per round.
    pub rounds: Vec<Round>,
    /// The peak memory of the rig and the guest on the host, in bytes.
    pub peak_memory_bytes: u64,
}

/// A measured quantity, as in the document of `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quantity {
    /// The name, which ends in the unit if there is one.
    pub name: &'static str,
    /// A short description.
    pub what: String,
    /// The median.
    pub median: f64,
    /// The minimum.
    pub min: f64,
    /// The maximum.
    pub max: f64,
    /// The values, one per round.
    pub values: Vec<f64>,
    /// The bound, if there is one.
    pub bound: Option<UpperBound>,
}

/// An upper bound on a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct UpperBound {
    /// The largest permitted median.
    pub most: f64,
    /// Whether the median is within the bound; `rust_over_c_32k` also holds if any
    /// pair of runs had a ratio of at most one.
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
        self.bound = Some(UpperBound { most, holds: self.median <= most });
        self
    }

    /// Sets the bound of a ratio that should be at most one.
    ///
    /// Noise alone must not exceed the bound. So the ratio of each pair of runs
    /// must be above one, those of `another` count included, and the median must
    /// exceed one by more than [`NOISE`]. The order within a pair is reversed at
    /// the other count, so a host that gets busier cannot exceed the bound.
    fn no_more_than_one(mut self, another: &Quantity) -> Quantity {
        let most = 1.0 + NOISE;
        let in_doubt = self.min <= 1.0 || another.min <= 1.0;
        self.bound = Some(UpperBound { most, holds: self.median <= most || in_doubt });
        self
    }

    /// Returns an error message if the bound does not hold.
    pub fn excess(&self) -> Option<String> {
        let bound = self.bound.filter(|bound| !bound.holds)?;
        let show = |value| self.show(value);
        let (median, most) = (show(self.median), show(bound.most));
        Some(format!("{}: {median} exceeds the bound of {most}", self.what))
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

/// Computes the quantities and their bounds.
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

/// Renders the quantities as a table with an explanation.
pub fn section(quantities: &[Quantity], rounds: u32, command: &str) -> Section {
    let columns = ["quantity", "median", "min", "max", "bound", "verdict"];
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
        title: format!("Cost of the rig ({rounds} rounds)"),
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
        "With everything built, `{command}` starts its first VM after {}. Twice the threads take \
         {} times as long. The workload takes {} times as long as the same program in C; below \
         one, the workload is faster. Both programs ran alternately in one guest, so a busy host \
         slows both. The bound is exceeded only if Rust was slower in each pair of runs, at both \
         counts, and by more than {:.0} % in the median. Memory is the sum of the peaks (VmHWM) \
         of QEMU, its share daemons and the rig: {}. Guest pages that a daemon touched count \
         twice.",
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
    fn the_median_is_the_middle_value_or_the_mean_of_two() {
        let show = |values: &[f64]| {
            let Quantity { median, min, max, .. } = quantity(values);
            (median, min, max)
        };
        assert_eq!(show(&[3.0, 1.0, 2.0]), (2.0, 1.0, 3.0));
        assert_eq!(show(&[4.0, 1.0, 2.0, 3.0]), (2.5, 1.0, 4.0));
        assert_eq!(show(&[7.0]), (7.0, 7.0, 7.0));
    }

    #[test]
    fn a_bound_without_values_does_not_hold() {
        assert!(quantity(&[]).at_most(2.0).excess().is_some());
        let nothing = quantity(&[f64::NAN]);
        assert!(nothing.clone().no_more_than_one(&nothing).excess().is_some());
    }

    #[test]
    fn slower_means_slower_in_each_pair_and_by_more_than_noise() {
        let holds_with = |values: &[f64], another: &[f64]| {
            quantity(values).no_more_than_one(&quantity(another)).excess().is_none()
        };
        let holds = |values: &[f64]| holds_with(values, &[1.1]);
        assert!(holds(&[0.97, 0.98, 0.99]));
        assert!(holds(&[1.01, 1.02, 1.015]), "in each pair, but within noise");
        assert!(holds(&[0.99, 1.05, 1.06]), "not in each round");
        assert!(!holds(&[1.01, 1.03, 1.04]));
        assert!(holds(&[1.019]));
        assert!(!holds(&[1.03]));
        assert!(holds_with(&[1.03], &[0.99]), "not at the other count");
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
    fn an_excess_has_the_quantity_its_median_and_its_bound() {
        let excesses = |rust_32k_s| -> Vec<String> {
            quantities(&measured(rust_32k_s)).iter().filter_map(Quantity::excess).collect()
        };
        assert_eq!(excesses(20.0), Vec::<String>::new());
        let found = excesses(24.0);
        assert_eq!(
            found,
            [
                "time of 32 Ki over 16 Ki, Rust: 2.400 exceeds the bound of 2.300",
                "time of Rust over C, 32 Ki: 1.200 exceeds the bound of 1.020",
            ]
        );
    }

    #[test]
    fn the_table_has_a_row_per_quantity_and_marks_exceeded_bounds() {
        let quantities = quantities(&measured(24.0));
        let section = section(&quantities, 1, "nlrig run smoke");
        assert_eq!(section.rows.len(), quantities.len());
        assert!(section.rows.iter().all(|row| row.len() == section.columns.len()));
        let exceeded = section.rows.iter().filter(|row| row[5] == "EXCEEDED").count();
        assert_eq!(exceeded, 2);
        assert!(section.words.contains("nlrig run smoke") && section.words.contains("2048 MiB"));
    }
}
