//! Changes of JSON values that keep them JSON.

use serde_json::{Map, Value, json};

use crate::random::Random;

/// Numbers at which something ends: types, pages, halves of address spaces, ids.
const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    299,
    300,
    4095,
    4096,
    32768,
    65530,
    u32::MAX as u64,
    1 << 32,
    0xc000_0000,
    0xffff_e000,
    0x7fff_ffff_f000,
    (1 << 53) + 1,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 4096,
    u64::MAX - 1,
    u64::MAX,
];

/// Strings that are trouble: terminals, names with a meaning, a map of memory.
const STRINGS: &[&str] = &[
    "",
    "\u{1b}[2J\u{9b}31m\r\u{7f}\u{0}",
    "|<b>\n# `x`|",
    "\u{202e}\u{fffd}\u{10ffff}",
    "pthread_create",
    "socket",
    "EAGAIN",
    "EMFILE",
    "ENOMEM",
    "address-space",
    "18446744073709551615",
    "0-ffffffffffffffff rw-p 00000000 00:00 0 [heap]\n",
    "0-1 ---p 0 0 0\n1-2 rw-p 0 0 0 [heap]\n2-3 rw-p 0 0 0 [stack]\n",
    "7fffffffe000-8000000000000001 rw-p 0 0 0 [stack]\n",
    "2000-1000 r--p 0 0 0\n",
    "1000-3000 r--p 0 0 0\n2000-4000 r--p 0 0 0\n",
];

/// Addresses for a line of a memory map.
const ADDRESSES: &[&str] = &[
    "0",
    "1",
    "1000",
    "bffff000",
    "7ffffffff000",
    "8000000000000000",
    "fffffffffffff000",
    "ffffffffffffffff",
    "10000000000000000",
    "",
    "-1",
];

/// Deeper than this serde_json does not read.
const DEPTH_MAX: usize = 140;

/// Changes one value somewhere in this one.
pub fn change(random: &mut Random, value: &mut Value) {
    let chosen = random.below(count(value));
    let other = random.below(count(value));
    let donor = nth(value, &mut { other }).cloned().unwrap_or(Value::Null);
    // A list of many numbers must not hide the few that stand alone.
    let place =
        if random.one_in(3) { nth(value, &mut { chosen }) } else { Some(inside(random, value)) };
    if let Some(value) = place {
        change_here(random, value, donor);
    }
}

/// A value somewhere inside: each step is to any of the next values alike.
fn inside<'a>(random: &mut Random, value: &'a mut Value) -> &'a mut Value {
    let length = match &*value {
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    if length == 0 || random.one_in(12) {
        return value;
    }
    let at = random.below(length);
    match value {
        Value::Array(items) => inside(random, &mut items[at]),
        Value::Object(map) => inside(random, map.values_mut().nth(at).unwrap()),
        leaf => leaf,
    }
}

/// How many values there are in one, itself included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

/// The value with this number, counted from the outside.
fn nth<'a>(value: &'a mut Value, left: &mut usize) -> Option<&'a mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, left)),
        Value::Object(map) => map.values_mut().find_map(|item| nth(item, left)),
        _ => None,
    }
}

fn change_here(random: &mut Random, value: &mut Value, donor: Value) {
    match (random.below(8), &mut *value) {
        (0, _) => *value = donor,
        (1, _) => *value = other_type(random),
        (2, _) => nest(random, value),
        (_, Value::Number(_)) => *value = number(random, value),
        (_, Value::String(text)) => *value = string(random, text).into(),
        (_, Value::Array(items)) => array(random, items, donor),
        (_, Value::Object(map)) => object(random, map, donor),
        _ => *value = other_type(random),
    }
}

fn other_type(random: &mut Random) -> Value {
    match random.below(7) {
        0 => Value::Null,
        1 => json!(random.one_in(2)),
        2 => json!([]),
        3 => json!({}),
        4 => json!(*random.one_of(STRINGS)),
        _ => number(random, &Value::Null),
    }
}

/// A number near this one, or at an end.
fn number(random: &mut Random, old: &Value) -> Value {
    let old = old.as_u64().unwrap_or_default();
    let extreme = *random.one_of(NUMBERS);
    match random.below(12) {
        0 => json!(old.wrapping_add(1)),
        1 => json!(old.wrapping_sub(1)),
        2 => json!(old.wrapping_mul(2)),
        3 => json!(old ^ (1 << random.below(64))),
        4 => json!(-1),
        5 => json!(i64::MIN),
        6 => json!(*random.one_of(&[f64::MAX, f64::MIN, f64::MIN_POSITIVE, -0.0, 0.5, 1e19])),
        7 => json!(random.next()),
        _ => json!(extreme),
    }
}

fn nest(random: &mut Random, value: &mut Value) {
    for _ in 0..=if random.one_in(8) { DEPTH_MAX } else { random.below(3) } {
        let inner = value.take();
        *value = if random.one_in(2) { json!([inner]) } else { json!({ "look": inner }) };
    }
}

/// Another string; one with lines, which is a memory map, is changed by lines.
fn string(random: &mut Random, old: &str) -> String {
    let mut lines: Vec<String> = old.lines().map(str::to_string).collect();
    if lines.len() < 2 || random.one_in(8) {
        return match random.below(4) {
            0 => old.repeat(random.times(old.len())),
            1 => format!("{old}{}", random.one_of(STRINGS)),
            2 => old.chars().skip(1).collect(),
            _ => random.one_of(STRINGS).to_string(),
        };
    }
    let (one, other) = (random.below(lines.len()), random.below(lines.len()));
    match random.below(6) {
        0 => drop(lines.remove(one)),
        1 => lines.insert(other, lines[one].clone()),
        2 => lines.swap(one, other),
        3 => {
            let piece = lines[one].clone();
            let times = random.times(piece.len());
            lines.splice(one..one, vec![piece; times]);
        }
        4 => {
            lines[one] =
                format!("{}{}", lines[one], random.one_of(&["[vdso]", "[stack]", "[heap]"]))
        }
        _ => lines[one] = moved(random, &lines[one]),
    }
    lines.join("\n") + "\n"
}

/// A line of a memory map with another address.
fn moved(random: &mut Random, line: &str) -> String {
    let (range, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (start, end) = range.split_once('-').unwrap_or((range, ""));
    let address = random.one_of(ADDRESSES);
    match random.below(3) {
        0 => format!("{address}-{end} {rest}"),
        1 => format!("{start}-{address} {rest}"),
        _ => format!("{end}-{start} {rest}"),
    }
}

fn array(random: &mut Random, items: &mut Vec<Value>, donor: Value) {
    let at = random.below(items.len());
    match random.below(4) {
        0 if !items.is_empty() => drop(items.remove(at)),
        1 => items.extend(items.clone()),
        // Copies of something large would be more than any line holds.
        2 if count(&donor) < 16 => items.extend(vec![donor; random.below(256)]),
        _ => items.push(donor),
    }
}

fn object(random: &mut Random, map: &mut Map<String, Value>, donor: Value) {
    let keys: Vec<String> = map.keys().cloned().collect();
    let Some(key) = (!keys.is_empty()).then(|| random.one_of(&keys).clone()) else { return };
    match random.below(4) {
        0 => drop(map.shift_remove(&key)),
        1 => drop(map.insert(key, donor)),
        2 => {
            let value = map.shift_remove(&key).unwrap_or_default();
            map.insert(random.one_of(STRINGS).to_string(), value);
        }
        _ => {
            let other = random.one_of(&keys).clone();
            let (one, two) = (map[&key].clone(), map[&other].clone());
            map.insert(key, two);
            map.insert(other, one);
        }
    }
}
