//! The kernel's taint mask.

use crate::Severity;

/// The bits of /proc/sys/kernel/tainted from the lowest, with the letter and the
/// meaning that Documentation/admin-guide/tainted-kernels.rst gives each.
const BITS: [(char, &str); 20] = [
    ('P', "proprietary module"),
    ('F', "module loaded by force"),
    ('S', "processor out of specification"),
    ('R', "module unloaded by force"),
    ('M', "machine check"),
    ('B', "bad page"),
    ('U', "set by a program"),
    ('D', "oops"),
    ('A', "ACPI table overridden"),
    ('W', "warning"),
    ('C', "staging driver"),
    ('I', "firmware bug worked around"),
    ('O', "module from outside of the kernel's tree"),
    ('E', "unsigned module"),
    ('L', "soft lockup"),
    ('K', "live patch"),
    ('X', "auxiliary"),
    ('T', "structures laid out at random"),
    ('N', "in-kernel test"),
    ('J', "fwctl debug command"),
];

/// Loading a module or running an in-kernel test sets these; no fault does.
const NEVER_JUDGED: [char; 6] = ['O', 'E', 'P', 'C', 'K', 'N'];

/// The judgement of a taint mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// The severity of the fault that set a bit; none if only bits are set that
    /// no fault report sets.
    pub severity: Option<Severity>,
    /// The bits that count, by letter and meaning.
    pub names: String,
}

impl Taint {
    /// Judges the bits of `mask` that are not in `baseline`, the mask before the
    /// test. None if no such bit counts.
    ///
    /// ```
    /// use nlrig_splat::{Severity, Taint};
    /// let (out_of_tree, warning) = (1 << 12, 1 << 9);
    /// assert_eq!(Taint::of(out_of_tree, 0), None);
    /// let taint = Taint::of(out_of_tree | warning, 0).unwrap();
    /// assert_eq!(taint.severity, Some(Severity::Warning));
    /// assert_eq!(Taint::of(out_of_tree | warning, warning), None);
    /// ```
    pub fn of(mask: u64, baseline: u64) -> Option<Taint> {
        let new: Vec<usize> = (0..64)
            .filter(|bit| (mask & !baseline) >> bit & 1 == 1)
            .filter(|&bit| letter(bit).is_none_or(|letter| !NEVER_JUDGED.contains(&letter)))
            .collect();
        if new.is_empty() {
            return None;
        }
        let has = |wanted: char| new.iter().any(|&bit| letter(bit) == Some(wanted));
        let severity = match () {
            () if has('D') => Some(Severity::Oops),
            () if has('W') || has('L') || has('B') => Some(Severity::Warning),
            () => None,
        };
        let names: Vec<_> = new.into_iter().map(name).collect();
        Some(Taint { severity, names: names.join(", ") })
    }
}

fn letter(bit: usize) -> Option<char> {
    BITS.get(bit).map(|(letter, _)| *letter)
}

fn name(bit: usize) -> String {
    match BITS.get(bit) {
        Some((letter, meaning)) => format!("{letter}: {meaning}"),
        None => format!("bit {bit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bit(letter: char) -> u64 {
        1 << BITS.iter().position(|(known, _)| *known == letter).unwrap()
    }

    #[test]
    fn what_a_module_or_an_in_kernel_test_sets_is_never_judged() {
        for letter in NEVER_JUDGED {
            assert_eq!(Taint::of(bit(letter), 0), None, "{letter}");
        }
        assert_eq!(Taint::of(0, 0), None);
    }

    #[test]
    fn each_other_bit_has_its_severity() {
        for (letter, _) in BITS {
            let severity = match letter {
                letter if NEVER_JUDGED.contains(&letter) => continue,
                'D' => Some(Severity::Oops),
                'W' | 'L' | 'B' => Some(Severity::Warning),
                _ => None,
            };
            let taint = Taint::of(bit(letter), 0).unwrap();
            assert_eq!(taint.severity, severity, "{letter}");
            assert!(taint.names.starts_with(letter), "{taint:?}");
        }
        let both = Taint::of(bit('O') | bit('D') | bit('W'), 0).unwrap();
        assert_eq!(both.severity, Some(Severity::Oops));
        assert_eq!(both.names, "D: oops, W: warning");
        assert_eq!(Taint::of(1 << 63, 0).unwrap().names, "bit 63");
    }

    #[test]
    fn a_bit_of_the_baseline_is_not_the_tests() {
        assert_eq!(Taint::of(bit('W') | bit('S'), bit('W') | bit('S')), None);
        let taint = Taint::of(bit('W') | bit('D'), bit('W')).unwrap();
        assert_eq!(taint.names, "D: oops");
    }
}
