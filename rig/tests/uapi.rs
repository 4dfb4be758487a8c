//! Checks that `userspace/src/uapi.rs` matches `module/uapi/nlrig.h`.
//!
//! The tests need neither bindgen nor libclang. The hash shows that the header has
//! not changed since the file was generated, and gcc shows that the file was not
//! edited.

use std::fmt::Write as _;
use std::io::Write as _;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nlrig_guest::uapi;
use sha2::{Digest, Sha256};

const GENERATED: &str = include_str!("../../userspace/src/uapi.rs");

/// The structures of the file with size, alignment and field offsets.
macro_rules! structs {
    ($($name:ident { $($field:ident),* })*) => {
        vec![$((
            stringify!($name),
            [size_of::<uapi::$name>(), align_of::<uapi::$name>()],
            vec![$((stringify!($field), offset_of!(uapi::$name, $field))),*],
        )),*]
    };
}

fn headers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../module/uapi")
}

/// Returns `NAME` and `VALUE` of each `pub const NAME: TYPE = VALUE;` that is a
/// number.
fn constants() -> Vec<(&'static str, u32)> {
    let parse = |line: &'static str| {
        let (name, rest) = line.strip_prefix("pub const ")?.split_once(": ")?;
        let value = rest.split_once(" = ")?.1.strip_suffix(';')?;
        Some((name, value.trim_end_matches("u8").parse().ok()?))
    };
    GENERATED.lines().filter_map(parse).collect()
}

/// Compiles static assertions on the header; an error has gcc's output.
fn compile(assertions: &str, width: &str) -> Result<(), String> {
    let mut gcc = Command::new("gcc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", width, "-I"])
        .arg(headers())
        .args(["-x", "c", "-"])
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|err| format!("cannot run gcc: {err}"))?;
    let program = format!("#include \"nlrig.h\"\n{assertions}");
    let mut stdin = gcc.stdin.take().expect("standard input is a pipe");
    stdin.write_all(program.as_bytes()).expect("gcc reads its input");
    drop(stdin);
    let output = gcc.wait_with_output().expect("gcc ends");
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn the_file_was_generated_from_this_header() {
    let header = std::fs::read(headers().join("nlrig.h")).unwrap();
    let hash: String = Sha256::digest(header).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hash,
        uapi::HEADER_SHA256,
        "module/uapi/nlrig.h has changed; run ci/generate-uapi and commit userspace/src/uapi.rs"
    );
}

#[test]
fn constants_and_layouts_match_c_on_both_word_sizes() {
    let constants = constants();
    let numbers = GENERATED.matches("pub const ").count() - 1; // HEADER_SHA256 is a string.
    assert!(numbers > 50, "{numbers}");
    assert_eq!(constants.len(), numbers, "a constant is not a number");
    let structs = structs! {
        nlrig_echo { cookie, portid, reserved }
        nlrig_fault { kind, reserved }
        nlrig_exchange { value, count }
    };
    assert_eq!(GENERATED.matches("pub struct ").count(), structs.len(), "a structure is missing");

    let mut program = String::new();
    for (name, value) in constants {
        writeln!(program, "_Static_assert({name} == {value}u, \"{name}\");").unwrap();
    }
    for (name, [size, align], fields) in structs {
        writeln!(program, "_Static_assert(sizeof(struct {name}) == {size}, \"size\");").unwrap();
        writeln!(program, "_Static_assert(_Alignof(struct {name}) == {align}, \"align\");")
            .unwrap();
        for (field, offset) in fields {
            writeln!(
                program,
                "_Static_assert(__builtin_offsetof(struct {name}, {field}) == {offset}, \"{field}\");"
            )
            .unwrap();
        }
    }
    for width in ["-m64", "-m32"] {
        compile(&program, width).unwrap_or_else(|err| panic!("{width}: {err}"));
    }
}

#[test]
fn a_wrong_constant_does_not_compile() {
    for (assertion, right) in
        [("NLRIG_MSG_ECHO == 16u", true), ("NLRIG_MSG_ECHO == 17u", false), ("NLRIG_X == 0", false)]
    {
        let program = format!("_Static_assert({assertion}, \"\");");
        assert_eq!(compile(&program, "-m64").is_ok(), right, "{assertion}");
    }
}
