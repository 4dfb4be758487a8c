//! Sizes with units, `64K` or `2M`.

/// Parses a size: a number of bytes, or one with `K`, `M`, `G` or `T` (powers of
/// 1024).
///
/// # Errors
/// The text is not a size, or the size is zero or over 2^64.
pub fn size(text: &str) -> Result<u64, String> {
    let bad = |reason: &str| format!("size \"{text}\" {reason}; write 64K, 2M or 1G");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| bad("is not a number with a unit"))?;
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return Err(bad("has an unknown unit")),
    };
    match number.checked_mul(1 << shift) {
        Some(0) => Err(bad("is zero")),
        Some(bytes) => Ok(bytes),
        None => Err(bad("is too large")),
    }
}

/// Formats a size in the largest unit that divides it: `2M`, `64K`, `1000`.
pub fn show_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
        if bytes != 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two() {
        for (text, bytes) in [("64K", 65536), ("2M", 2 << 20), ("1G", 1 << 30), ("4096", 4096)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
            assert_eq!(size(&show_size(bytes)), Ok(bytes), "{text}");
        }
        assert_eq!(show_size(2 << 20), "2M");
        assert_eq!(show_size(1000), "1000");
    }

    #[test]
    fn an_error_quotes_the_text_and_has_a_reason() {
        for (text, reason) in [
            ("2X", "unknown unit"),
            ("0", "is zero"),
            ("0M", "is zero"),
            ("", "not a number"),
            ("M", "not a number"),
            ("-1M", "not a number"),
            ("99999999999T", "too large"),
            ("2é", "unknown unit"),
        ] {
            let err = size(text).unwrap_err();
            assert!(err.contains(reason) && err.contains(text), "{text}: {err}");
        }
    }
}
