//! One line of a console, and the prefixes in front of the kernel's text.

/// Who wrote a line, as far as its prefixes show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A printk() record: it has a time stamp, a caller id or a log level.
    Kernel,
    /// The line has no prefix.
    Bare,
    /// The prefix names a program or a facility that is not the kernel's.
    Program,
}

/// A line without its prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsoleLine<'a> {
    /// What was printed.
    pub text: &'a str,
    /// The task or processor that printed it, with CONFIG_PRINTK_CALLER.
    pub caller: Option<&'a str>,
    /// Who printed it.
    pub origin: Origin,
}

/// A line may have this many prefixes: CI, syslog, level, stamp, caller, TAP.
const PREFIXES_MAX: usize = 8;
/// Where a record that is glued to a program's words, or torn by them, may
/// begin at the latest.
const GLUED_MAX_BYTES: usize = 320;
/// The longest bracket of a time stamp, torn ones included.
const BRACKET_MAX_BYTES: usize = 48;

/// The text of a line without time stamp and other prefixes.
pub fn text_of(line: &str) -> &str {
    parse(line).text
}

/// Takes a line's prefixes away.
pub fn parse(line: &str) -> ConsoleLine<'_> {
    let whole = strip(line);
    if whole.origin != Origin::Bare {
        return whole;
    }
    match behind_last_stamp(whole.text) {
        Some(rest) => ConsoleLine { origin: Origin::Kernel, ..strip(rest) },
        None => whole,
    }
}

fn strip(line: &str) -> ConsoleLine<'_> {
    let mut parsed = ConsoleLine { text: line.trim_start(), caller: None, origin: Origin::Bare };
    for _ in 0..PREFIXES_MAX {
        let stripped = match parsed.text.bytes().next() {
            Some(b'[') => bracket(parsed.text, &mut parsed.caller),
            Some(b'<') => level(parsed.text),
            Some(b'0'..=b'9') => level(parsed.text).or_else(|| syslog(parsed.text)),
            Some(b'a'..=b'z') => facility(parsed.text),
            _ => syslog(parsed.text),
        };
        let stripped = stripped.or_else(|| kernel_tag(parsed.text, parsed.origin));
        let (origin, rest) = match stripped {
            Some(stripped) => stripped,
            // A TAP producer quotes the log as a diagnostic.
            None => match parsed.text.strip_prefix("# ") {
                Some(rest) => (parsed.origin, rest),
                None => break,
            },
        };
        parsed.text = rest.trim_start();
        // A program's line stays a program's, whatever it quotes.
        parsed.origin = match (parsed.origin, origin) {
            (Origin::Program, _) | (_, Origin::Program) => Origin::Program,
            (Origin::Kernel, _) | (_, Origin::Kernel) => Origin::Kernel,
            (Origin::Bare, Origin::Bare) => Origin::Bare,
        };
    }
    parsed
}

/// The priority of a record is its facility times eight and its level.
fn of_priority(digits: &str) -> Option<Origin> {
    let priority: u32 = digits.parse().ok()?;
    Some(if priority < 8 { Origin::Kernel } else { Origin::Program })
}

/// `<4>`, or the head of a record as read from /dev/kmsg: `4,339,5140900,-;`.
fn level(text: &str) -> Option<(Origin, &str)> {
    if let Some((digits, rest)) = text.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        return Some((of_priority(digits)?, rest));
    }
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (head, rest) = text.split_once(';')?;
    let mut fields = head.split(',');
    let origin = of_priority(fields.next()?)?;
    let is_number = |field: &str| !field.is_empty() && field.bytes().all(|b| b.is_ascii_digit());
    let numbers = fields.by_ref().take(2).filter(|field| is_number(field)).count();
    (numbers == 2 && fields.next().is_some()).then_some((origin, rest))
}

/// The kinds of bracket in front of a record.
enum Bracket {
    Stamp,
    Caller,
}

fn bracket_kind(content: &str) -> Option<Bracket> {
    let content = content.trim();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if let Some((seconds, fraction)) = content.split_once('.') {
        return (digits(seconds) && digits(fraction)).then_some(Bracket::Stamp);
    }
    if content.strip_prefix(['T', 'C']).is_some_and(digits) {
        return Some(Bracket::Caller);
    }
    // dmesg -T: a date that ends with the year.
    let (date, year) = content.rsplit_once(' ')?;
    (digits(year) && year.len() == 4 && date.matches(':').count() == 2).then_some(Bracket::Stamp)
}

/// `[   12.345678]`, `[   T61]`, `[Thu Nov 26 03:49:29 2026]`.
fn bracket<'a>(text: &'a str, caller: &mut Option<&'a str>) -> Option<(Origin, &'a str)> {
    let (content, rest) = text.strip_prefix('[')?.split_once(']')?;
    if let Bracket::Caller = bracket_kind(content)? {
        *caller = Some(content.trim());
    }
    Some((Origin::Kernel, rest))
}

const FACILITIES: [&str; 13] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "local",
];
const LEVELS: [&str; 10] =
    ["emerg", "alert", "crit", "err", "error", "warn", "warning", "notice", "info", "debug"];

/// `kern.err: ` and `kern  :err   : `, as loggers and `dmesg -x` print them.
fn facility(text: &str) -> Option<(Origin, &str)> {
    let end = text.find(|c: char| !c.is_ascii_lowercase())?;
    let (facility, rest) = text.split_at(end);
    if !FACILITIES.contains(&facility) {
        return None;
    }
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    let rest = rest.strip_prefix(['.', ':'])?;
    let end = rest.find(|c: char| !c.is_ascii_lowercase())?;
    let (level, rest) = rest.split_at(end);
    if !LEVELS.contains(&level) {
        return None;
    }
    let rest = rest.trim_start();
    let origin = if facility == "kern" { Origin::Kernel } else { Origin::Program };
    Some((origin, rest.strip_prefix(':').unwrap_or(rest)))
}

/// The head of a line of syslog, of the journal or of a CI's log: a date, then
/// host and tag, or the console's own line.
fn syslog(text: &str) -> Option<(Origin, &str)> {
    let rest = behind_date(text)?.trim_start();
    if rest.starts_with(['[', '<']) || facility(rest).is_some() {
        return Some((Origin::Bare, rest));
    }
    let (first, behind_first) = rest.split_once(' ').unwrap_or((rest, ""));
    let (tag, behind_tag) = match first.strip_suffix(':') {
        Some(tag) => (tag, behind_first),
        None => {
            let (second, behind_second) = behind_first.split_once(' ')?;
            (second.strip_suffix(':').unwrap_or(""), behind_second)
        }
    };
    let is_tag = !tag.is_empty() && tag.bytes().all(|b| b.is_ascii_graphic());
    match tag {
        "kernel" => Some((Origin::Kernel, behind_tag)),
        // "BUG:" and "WARNING:" behind a date are the console's own line.
        _ if is_tag && tag.contains(|c: char| c.is_ascii_lowercase()) => {
            Some((Origin::Program, behind_tag))
        }
        _ => Some((Origin::Bare, rest)),
    }
}

/// The text behind `Nov 26 03:49:29`, `Thu Nov 26 03:49:29 2026` or
/// `2026-11-26T03:49:29.123456Z`.
fn behind_date(text: &str) -> Option<&str> {
    if text.as_bytes().get(10) == Some(&b'T') && text.starts_with(|c: char| c.is_ascii_digit()) {
        let (date, rest) = text.split_once(' ')?;
        let is_date = date.bytes().all(|b| b.is_ascii_digit() || b"-:.+TZ,".contains(&b));
        return is_date.then_some(rest);
    }
    const MONTHS: &str = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec";
    const DAYS: &str = "Mon Tue Wed Thu Fri Sat Sun";
    let is_of = |names: &str, word: &str| word.len() == 3 && names.contains(word);
    let (mut word, mut rest) = text.split_once(' ')?;
    if is_of(DAYS, word) {
        (word, rest) = rest.trim_start().split_once(' ')?;
    }
    if !is_of(MONTHS, word) {
        return None;
    }
    let (day, rest) = rest.trim_start().split_once(' ')?;
    let (time, rest) = rest.split_once(' ')?;
    if day.parse::<u8>().is_err() || time.matches(':').count() != 2 {
        return None;
    }
    match rest.split_once(' ') {
        Some((year, behind)) if year.len() == 4 && year.parse::<u16>().is_ok() => Some(behind),
        _ => Some(rest),
    }
}

/// `kernel: ` or `host kernel: ` behind a monotonic stamp of the journal's.
fn kernel_tag(text: &str, origin: Origin) -> Option<(Origin, &str)> {
    if let Some(rest) = text.strip_prefix("kernel: ") {
        return Some((Origin::Kernel, rest));
    }
    let (host, rest) = text.split_once(' ').filter(|_| origin == Origin::Kernel)?;
    let is_host = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let rest = rest.strip_prefix("kernel: ").filter(|_| is_host)?;
    Some((Origin::Kernel, rest))
}

/// The text behind the last time stamp or caller id of a line that begins with
/// something else: the kernel's record is glued to a program's words without a
/// newline, or the two wrote to the line at once and the stamp is torn.
fn behind_last_stamp(text: &str) -> Option<&str> {
    let mut found = None;
    let mut from = 0;
    while let Some(open) = text[from..].find('[').map(|at| from + at) {
        if open > GLUED_MAX_BYTES {
            break;
        }
        let content = &text[open + 1..];
        let close = content.bytes().take(BRACKET_MAX_BYTES).position(|byte| b"[]".contains(&byte));
        if let Some(close) = close
            && content.as_bytes()[close] == b']'
            && is_stamp_or_torn(&content[..close])
        {
            // Of a stamp and the caller id behind it the parser takes both.
            let begins_run = found.is_none_or(|(_, end)| end != open);
            found = if begins_run { Some((open, open + close + 2)) } else { found };
        }
        from = open + 1;
    }
    let (open, end) = found?;
    let whole = strip(&text[open..]);
    Some(if whole.origin == Origin::Bare { &text[end..] } else { &text[open..] })
}

/// Whether a bracket holds a time stamp, a caller id, or what is left of a stamp
/// when a program's characters stand between its digits.
fn is_stamp_or_torn(content: &str) -> bool {
    /// Six digits of microseconds and one of seconds.
    const STAMP_MIN_DIGITS: usize = 7;
    match bracket_kind(content) {
        Some(Bracket::Caller) => true,
        Some(Bracket::Stamp) => {
            content.bytes().filter(u8::is_ascii_digit).count() >= STAMP_MIN_DIGITS
        }
        None => {
            content.contains('.')
                && content.starts_with(' ')
                && content.bytes().filter(u8::is_ascii_digit).count() >= STAMP_MIN_DIGITS
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_prefix_is_taken_away() {
        for prefix in [
            "[    5.140900] ",
            "[1.0] ",
            "[   12.345678][   T61] ",
            "[   12.345678][    C0]  ",
            "[    T1] ",
            "<4>[   12.345678] ",
            "<4>",
            "4,339,5140900,-;",
            "4,339,5140900,-,caller=T1;",
            "kern.err: [ 1242.102011] ",
            "kern  :warn  : [   12.345678] ",
            "[Thu Nov 26 03:49:29 2026] ",
            "Nov 26 03:49:29 host kernel: [   12.345678] ",
            "Nov  6 03:49:29 host kernel: ",
            "Thu Nov 26 03:49:29 2026 kern.err kernel: [ 1242.102011] ",
            "2026-11-26T03:49:29.123456+00:00 host kernel: ",
            "2026-11-26T03:49:29.1234567Z [   12.345678] ",
            "[   12.345678] kernel: ",
            "[   12.345678] host kernel: ",
            "    # [   12.345678][   T61] ",
            "progress 42%[   12.345678] ",
            "Fai[ l  1e.d2 3t4o5 67][    T1] ",
            "Fai[ l  1e.d2 3t4o5 67]o[    T1] ",
            "Fai[ l  1e.d2 3t4o5 67] ",
        ] {
            let line = format!("{prefix}BUG: x");
            let parsed = parse(&line);
            assert_eq!((parsed.text, parsed.origin), ("BUG: x", Origin::Kernel), "{line}");
        }
    }

    #[test]
    fn a_programs_line_is_known_by_its_tag_or_facility() {
        for line in [
            "<12>BUG: x",
            "12,339,5140900,-;BUG: x",
            "user.err: BUG: x",
            "user  :warn  : [   12.345678] BUG: x",
            "daemon.info BUG: x",
            "Nov 26 03:49:29 host tester[61]: BUG: x",
            "Nov 26 03:49:29 host tester: BUG: x",
            "2026-11-26T03:49:29.123456+00:00 host tester[61]: BUG: x",
        ] {
            assert_eq!(parse(line).origin, Origin::Program, "{line}");
        }
    }

    #[test]
    fn other_brackets_are_text() {
        for line in
            ["[ BUG: x ]", "[ 1804]    89", "[<c1234567>] f", "a [nginx 1.2] b", "1;2", "", "["]
        {
            let parsed = parse(line);
            assert_eq!((parsed.text, parsed.origin), (line, Origin::Bare));
        }
    }

    #[test]
    fn a_caller_is_named() {
        assert_eq!(parse("[   12.345678][   T61] x").caller, Some("T61"));
        assert_eq!(parse("[   12.345678] x").caller, None);
    }
}
