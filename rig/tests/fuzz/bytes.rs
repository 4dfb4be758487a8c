//! Changes of bytes, without regard for what they mean.

use crate::random::Random;

/// What parsers look for, or should look out for.
const WORDS: &[&[u8]] = &[
    // Terminals.
    b"\x1b[2J",
    b"\x1b]0;title\x07",
    b"\xc2\x9b31m",
    b"\r",
    b"\x08",
    b"\x7f",
    b"\0",
    b"\t",
    "\u{202e}".as_bytes(),
    // UTF-8 that is none: cut, too long, a surrogate.
    b"\xff\xfe",
    b"\xf0\x9f\x92",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    // JSON.
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b",",
    b":",
    b"\\u009b",
    b"\\ud800",
    b"null",
    b"-1",
    b"1e400",
    b"-0.0",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775809",
    b"\"event\":\"end\",",
    b"\"threads\":0,",
    // Consoles.
    b"[    1.234567] ",
    b"[nan] ",
    b"Kernel panic - not syncing: ",
    b"BUG: ",
    b"Oops: ",
    b"WARNING: ",
    b"traps: ",
    b"RIP: 0010:",
    b"---[ end trace",
    b"+0x1/0x2",
    b" [nlrig]",
    b"Out of memory: Killed process 61 (threads)",
    // Registers and addresses.
    b"RIP=ffffffffffffffff ",
    b"EIP=",
    b"ffffffffffffffff",
    b"8000000000000000",
    b"-",
    b"\n",
    b"\\n",
];

/// Changes something, perhaps with a piece of another seed.
pub fn change(random: &mut Random, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    match random.below(8) {
        0 => flip(random, input),
        1 => set(random, input),
        2 => cut(random, input),
        3 => input.truncate(random.below(input.len() + 1)),
        4 => repeat(random, input),
        5 => splice(random, input, seeds),
        _ => insert(random, input),
    }
}

fn flip(random: &mut Random, input: &mut [u8]) {
    let at = random.below(input.len());
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

fn set(random: &mut Random, input: &mut [u8]) {
    let at = random.below(input.len());
    if let Some(byte) = input.get_mut(at) {
        *byte = random.next() as u8;
    }
}

fn cut(random: &mut Random, input: &mut Vec<u8>) {
    let (start, end) = random.piece(input.len());
    input.drain(start..end);
}

fn repeat(random: &mut Random, input: &mut Vec<u8>) {
    let (start, end) = random.piece(input.len());
    let piece = input[start..end].to_vec();
    let times = random.times(piece.len());
    input.splice(end..end, piece.repeat(times));
}

/// The beginning of this one, and the end of another.
fn splice(random: &mut Random, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let other = random.one_of(seeds);
    let (start, end) = random.piece(other.len());
    let at = random.below(input.len() + 1);
    if random.one_in(2) {
        input.truncate(at);
        input.extend_from_slice(&other[start..]);
    } else {
        input.splice(at..at, other[start..end].iter().copied());
    }
}

fn insert(random: &mut Random, input: &mut Vec<u8>) {
    let at = random.below(input.len() + 1);
    let word = *random.one_of(WORDS);
    // In its place, as often as not.
    let end = if random.one_in(2) { at } else { input.len().min(at + word.len()) };
    input.splice(at..end, word.iter().copied());
}
