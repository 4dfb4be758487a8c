//! Makes Rust constants of the module's UAPI header, the one source of the
//! protocol's numbers: each `#define NAME number` becomes `pub const NAME: u32`.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

const HEADER: &str = "../module/uapi/nlrig.h";

fn main() {
    println!("cargo:rerun-if-changed={HEADER}");
    let header = fs::read_to_string(HEADER).unwrap_or_else(|err| panic!("{HEADER}: {err}"));
    let mut constants = String::new();
    for line in header.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("#define") {
            continue;
        }
        let (Some(name), Some(value), None) = (words.next(), words.next(), words.next()) else {
            continue; // The include guard, which has no value.
        };
        let value: u32 =
            value.parse().unwrap_or_else(|_| panic!("{HEADER}: {name} is not a plain number"));
        writeln!(
            constants,
            "/// `{name}` of `module/uapi/nlrig.h`.\npub const {name}: u32 = {value};"
        )
        .expect("writing to a string");
    }
    assert!(!constants.is_empty(), "{HEADER} defines no number");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("uapi.rs"), constants).expect("writing to OUT_DIR");
}
