//! Patterns that are written as the kernel's format strings.

/// A format string, taken apart.
///
/// `%d` stands for decimal digits, `%x` for hexadecimal ones, and `%s` for any
/// text up to the next literal. A pattern matches the start of a text.
#[derive(Clone, Debug)]
pub struct Pattern(Vec<Part>);

#[derive(Clone, Copy, Debug)]
enum Part {
    Literal(&'static str),
    Digits(fn(&u8) -> bool),
    /// `%s` and the literal behind it.
    UpTo(&'static str),
}

impl Pattern {
    /// Takes a format string apart.
    pub fn new(format: &'static str) -> Pattern {
        let mut pieces = format.split('%');
        let mut parts = Vec::new();
        if let Some(literal) = pieces.next().filter(|literal| !literal.is_empty()) {
            parts.push(Part::Literal(literal));
        }
        for piece in pieces {
            let (conversion, literal) = piece.split_at(piece.len().min(1));
            match conversion {
                "s" => {
                    parts.push(Part::UpTo(literal));
                    continue;
                }
                "d" => parts.push(Part::Digits(u8::is_ascii_digit)),
                "x" => parts.push(Part::Digits(u8::is_ascii_hexdigit)),
                _ => {}
            }
            if !literal.is_empty() {
                parts.push(Part::Literal(literal));
            }
        }
        Pattern(parts)
    }

    /// Whether a text begins with what the format string prints. There is no
    /// backtracking: the time is linear in the text.
    pub fn matches(&self, text: &str) -> bool {
        let mut rest = text;
        for part in &self.0 {
            let behind = match part {
                Part::Literal(literal) => rest.strip_prefix(literal),
                Part::Digits(kind) => {
                    let count = rest.bytes().take_while(kind).count();
                    (count > 0).then(|| &rest[count..])
                }
                Part::UpTo(literal) => rest.find(literal).map(|at| &rest[at + literal.len()..]),
            };
            match behind {
                Some(behind) => rest = behind,
                None => return false,
            }
        }
        true
    }

    /// The byte that every text it matches begins with, if there is one.
    pub fn first_byte(&self) -> Option<u8> {
        match self.0.first() {
            Some(Part::Literal(literal)) => literal.bytes().next(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(format: &'static str, text: &str) -> bool {
        Pattern::new(format).matches(text)
    }

    #[test]
    fn a_pattern_is_anchored_at_the_start_and_open_at_the_end() {
        assert!(matches("BUG: spinlock ", "BUG: spinlock bad magic on CPU#0"));
        assert!(!matches("BUG: ", "DEBUG: x"));
        assert!(!matches("BUG: ", "a BUG: x"));
        assert!(matches("", "anything"));
    }

    #[test]
    fn conversions_match_what_printf_prints() {
        let warn = "WARNING: CPU: %d PID: %d at ";
        assert!(matches(warn, "WARNING: CPU: 1 PID: 61 at net/core/dev.c:1"));
        assert!(!matches(warn, "WARNING: CPU: x PID: 61 at net/core/dev.c:1"));
        assert!(!matches(warn, "WARNING: CPU: 1"));
        assert!(matches("%s: %x [#%d]", "divide error: 0000 [#1] SMP"));
        let failure = "%s: page allocation failure: order:%d";
        assert!(matches(failure, "a: b: page allocation failure: order:4"));
        assert!(!matches(failure, "a: page allocation failure"));
    }

    #[test]
    fn the_first_byte_is_known_where_a_literal_begins() {
        assert_eq!(Pattern::new("BUG: %s").first_byte(), Some(b'B'));
        assert_eq!(Pattern::new("%s: x").first_byte(), None);
    }
}
