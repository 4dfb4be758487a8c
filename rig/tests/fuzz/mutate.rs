//! Changed copies of inputs: of their bytes, of their lines, and of the JSON in
//! a line.

use crate::bytes;
use crate::json;
use crate::random::Random;

/// An input is no longer than this: longer than any line may be, and short
/// enough to be tried often.
const INPUT_MAX_BYTES: usize = 1 << 20;
/// How often an input is changed, at most.
const CHANGES_MAX: usize = 8;

/// An input of a run: the same for the same seed, index and seeds.
pub fn input(seed: u64, index: u64, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut random = Random::new(seed, index);
    // Rather a short one: it is tried sooner, and a change of it means more.
    let (one, other) = (random.one_of(seeds), random.one_of(seeds));
    let mut input = if one.len() <= other.len() { one } else { other }.clone();
    for _ in 0..=random.below(CHANGES_MAX) {
        match random.below(8) {
            0 => lines(&mut random, &mut input),
            1..=2 => bytes::change(&mut random, &mut input, seeds),
            _ => in_a_line(&mut random, &mut input, seeds),
        }
        input.truncate(INPUT_MAX_BYTES);
    }
    input
}

/// Changes the JSON in one line, or its bytes if there is none.
fn in_a_line(random: &mut Random, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let (start, end) = *random.one_of(&bounds(input));
    match serde_json::from_slice(&input[start..end]) {
        Ok(mut value) => {
            json::change(random, &mut value);
            input.splice(start..end, value.to_string().into_bytes());
        }
        Err(_) => bytes::change(random, input, seeds),
    }
}

/// Drops, doubles, swaps or repeats whole lines.
fn lines(random: &mut Random, input: &mut Vec<u8>) {
    let bounds = bounds(input);
    let mut lines: Vec<&[u8]> = bounds.iter().map(|&(start, end)| &input[start..end]).collect();
    let (one, other) = (random.below(lines.len()), random.below(lines.len()));
    match random.below(4) {
        0 => drop(lines.remove(one)),
        1 => lines.insert(other, lines[one]),
        2 => lines.swap(one, other),
        _ => {
            let copies = vec![lines[one]; random.times(lines[one].len())];
            lines.splice(one..one, copies);
        }
    }
    *input = lines.join(&b'\n');
}

/// Where each line begins and ends, without the ends of lines. There is one at
/// least.
fn bounds(input: &[u8]) -> Vec<(usize, usize)> {
    let mut start = 0;
    input
        .split(|&byte| byte == b'\n')
        .map(|line| {
            let bounds = (start, start + line.len());
            start = bounds.1 + 1;
            bounds
        })
        .collect()
}

#[test]
fn the_same_seed_makes_the_same_inputs() {
    let seeds =
        vec![b"{\"a\":[1,2.5,null]}\n{\"b\":\"c\"}\n".to_vec(), b"[1.0] Oops: 1\n".to_vec()];
    let run = |seed| (0..200).map(|index| input(seed, index, &seeds)).collect::<Vec<_>>();
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
