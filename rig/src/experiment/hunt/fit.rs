//! How well counts fit what the paper prints: pure arithmetic.

use std::fmt;

use crate::units::show_size;

/// What the paper prints at 2M.
pub const PAPER: u64 = 1449;
/// The stack size it prints that for.
pub const PAPER_STACK: u64 = 2 << 20;
/// What a 32-bit program can address on a 32-bit kernel, in the paper's words.
const SPACE_BYTES: u64 = 3 << 30;

/// What was counted for one size of stack, over all starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountRange {
    /// The size.
    pub stack_bytes: u64,
    /// The smallest count.
    pub least: u64,
    /// The largest.
    pub most: u64,
}

/// How counts fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// Threads from the nearest count at 2M to 1449, with its sign.
    pub distance: Option<i64>,
    /// The count at another size that is farthest from theory, in percent of it.
    pub worst_percent: Option<f64>,
    /// What follows.
    pub finding: FitFinding,
}

/// What follows from counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FitFinding {
    /// 1449 is among the counts at 2M, and the others are as near to theory as the
    /// paper's own 1449 is.
    Fits,
    /// These sizes speak against it.
    Refuted(Vec<u64>),
    /// There is no count at 2M, or none at another size.
    Incomplete,
}

impl fmt::Display for FitFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FitFinding::Fits => f.write_str("fits"),
            FitFinding::Incomplete => f.write_str("not counted in full"),
            FitFinding::Refuted(sizes) => {
                let sizes: Vec<_> = sizes.iter().map(|&bytes| show_size(bytes)).collect();
                write!(f, "refuted: {}", sizes.join(", "))
            }
        }
    }
}

/// The paper's theory: the address space over the stack.
pub fn theory(stack_bytes: u64) -> u64 {
    SPACE_BYTES.checked_div(stack_bytes).unwrap_or(0)
}

/// What "agrees with theory" may mean at least: 1449 of 1536 does, says the paper.
pub fn least_that_agrees(stack_bytes: u64) -> u64 {
    theory(stack_bytes) * PAPER / theory(PAPER_STACK)
}

/// Holds counts against the paper.
pub fn fit(seen: &[CountRange]) -> Fit {
    let paper = seen.iter().find(|seen| seen.stack_bytes == PAPER_STACK);
    let others = || seen.iter().filter(|seen| seen.stack_bytes != PAPER_STACK);
    let distance = paper.map(|seen| {
        let nearest = PAPER.clamp(seen.least, seen.most.max(seen.least));
        i64::try_from(nearest).unwrap_or(i64::MAX) - PAPER as i64
    });
    let percent = |seen: &CountRange| {
        let theory = theory(seen.stack_bytes).max(1) as f64;
        [seen.least, seen.most].map(|count| (count as f64 - theory) / theory * 100.0)
    };
    let worst_percent = others().flat_map(percent).max_by(|a, b| a.abs().total_cmp(&b.abs()));
    let agrees = |seen: &CountRange| {
        (least_that_agrees(seen.stack_bytes)..=theory(seen.stack_bytes)).contains(&seen.most)
    };
    let mut against: Vec<u64> =
        others().filter(|seen| !agrees(seen)).map(|seen| seen.stack_bytes).collect();
    let finding = match distance {
        None => FitFinding::Incomplete,
        Some(_) if worst_percent.is_none() => FitFinding::Incomplete,
        Some(0) if against.is_empty() => FitFinding::Fits,
        Some(0) => FitFinding::Refuted(against),
        Some(_) => {
            against.insert(0, PAPER_STACK);
            FitFinding::Refuted(against)
        }
    };
    Fit { distance, worst_percent, finding }
}

impl Fit {
    /// What a table is sorted by: the best first.
    pub fn rank(&self) -> (bool, u64, u64) {
        let distance = self.distance.map_or(u64::MAX, i64::unsigned_abs);
        let worst = self.worst_percent.map_or(u64::MAX, |percent| (percent.abs() * 1000.0) as u64);
        (self.finding != FitFinding::Fits, distance, worst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(counts: [(u64, u64, u64); 4]) -> Vec<CountRange> {
        counts.map(|(mib, least, most)| CountRange { stack_bytes: mib << 20, least, most }).to_vec()
    }

    #[test]
    fn the_papers_own_numbers_fit() {
        let fit = fit(&seen([(2, 1449, 1449), (4, 768, 768), (8, 384, 384), (16, 192, 192)]));
        assert_eq!(fit.finding, FitFinding::Fits);
        assert_eq!((fit.distance, fit.worst_percent), (Some(0), Some(0.0)));
    }

    #[test]
    fn its_tolerance_is_what_it_calls_agreement_at_2m() {
        assert_eq!([2, 4, 8, 16].map(|mib| least_that_agrees(mib << 20)), [1449, 724, 362, 181]);
        let at_the_edge = seen([(2, 1447, 1450), (4, 724, 724), (8, 362, 362), (16, 181, 181)]);
        assert_eq!(fit(&at_the_edge).finding, FitFinding::Fits);
        let beyond = seen([(2, 1447, 1450), (4, 724, 724), (8, 361, 361), (16, 181, 181)]);
        assert_eq!(fit(&beyond).finding.to_string(), "refuted: 8M");
    }

    #[test]
    fn what_is_off_says_by_how_much_and_where() {
        let ia32 = fit(&seen([(2, 2038, 2042), (4, 1018, 1021), (8, 507, 510), (16, 253, 254)]));
        assert_eq!(ia32.finding.to_string(), "refuted: 2M, 4M, 8M, 16M");
        assert_eq!(ia32.distance, Some(589));
        assert_eq!(ia32.worst_percent.map(f64::round), Some(33.0));
        let below = fit(&seen([(2, 1440, 1446), (4, 764, 764), (8, 381, 381), (16, 189, 189)]));
        assert_eq!(below.distance, Some(-3));
        assert!(below.rank() < ia32.rank());
    }

    #[test]
    fn what_was_not_counted_is_no_fit() {
        assert_eq!(fit(&[]).finding, FitFinding::Incomplete);
        assert_eq!(fit(&seen([(2, 1449, 1449); 4])[..1]).finding, FitFinding::Incomplete);
    }
}
