//! Patterns that are written as the kernel's format strings.

/// Whether a text begins with what the format string `pattern` prints.
///
/// `%d` stands for decimal digits, `%x` for hexadecimal ones, and `%s` for any
/// text up to the next literal of the pattern. There is no backtracking: the
/// time is linear in the text.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.as_bytes(), text.as_bytes());
    loop {
        match pattern {
            [] => return true,
            [b'%', b'd', rest @ ..] => match skip(text, u8::is_ascii_digit) {
                Some(behind) => (pattern, text) = (rest, behind),
                None => return false,
            },
            [b'%', b'x', rest @ ..] => match skip(text, u8::is_ascii_hexdigit) {
                Some(behind) => (pattern, text) = (rest, behind),
                None => return false,
            },
            [b'%', b's', rest @ ..] => {
                let end = rest.iter().position(|&byte| byte == b'%').unwrap_or(rest.len());
                match find(text, &rest[..end]) {
                    Some(at) => (pattern, text) = (&rest[end..], &text[at + end..]),
                    None => return false,
                }
            }
            [byte, rest @ ..] => match text {
                [first, behind @ ..] if first == byte => (pattern, text) = (rest, behind),
                _ => return false,
            },
        }
    }
}

/// The text behind one or more bytes of a kind.
fn skip(text: &[u8], kind: fn(&u8) -> bool) -> Option<&[u8]> {
    let count = text.iter().take_while(|byte| kind(byte)).count();
    (count > 0).then(|| &text[count..])
}

fn find(text: &[u8], literal: &[u8]) -> Option<usize> {
    let first = *literal.first()?;
    let mut from = 0;
    while let Some(at) = text[from..].iter().position(|&byte| byte == first) {
        if text[from + at..].starts_with(literal) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(matches("%s: page allocation failure: order:%d", "a: b: page allocation failure: order:4"));
        assert!(!matches("%s: page allocation failure: order:%d", "a: page allocation failure"));
    }
}
