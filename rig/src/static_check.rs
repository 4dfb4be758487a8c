//! Checks that need no VM: they search the kernel's source, or compile against its
//! headers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nlrig_build::environment;
use serde_json::{Value, json};

use crate::kernel::Kernel;
use crate::process::run_logged;
use crate::scratch::Scratch;

/// One file; a busy machine may take long all the same.
const COMPILE_LIMIT: Duration = Duration::from_secs(5 * 60);
/// No file of a kernel's source that is text is larger.
const SOURCE_MAX_BYTES: u64 = 16 << 20;

/// A check that needs no VM.
#[derive(Clone, Copy, Debug)]
pub enum StaticCheck {
    /// Compiles a source file as a module of this kernel, and links it. Evidence:
    /// `compiles`, and the first `error` of the compiler or of modpost.
    Compiles(&'static str),
    /// Counts the C files and headers with a word. Evidence: `files`, and their names
    /// in `where`.
    Mentions {
        /// An identifier.
        word: &'static str,
        /// Folders, or files.
        under: &'static [&'static str],
    },
    /// No check decides the question: there is no evidence.
    Nothing,
}

/// Runs a check for a kernel and returns its evidence.
///
/// # Errors
/// The source is gone or there is no compiler.
pub fn answer(check: &StaticCheck, kernel: &Kernel) -> Result<Value> {
    match check {
        StaticCheck::Compiles(text) => compiles(text, kernel),
        StaticCheck::Mentions { word, under } => mentions(word, under, &kernel.source_dir()),
        StaticCheck::Nothing => Ok(json!({})),
    }
}

/// The number of the first line of a source file that contains this text.
///
/// # Errors
/// The file cannot be read.
pub fn line_of(source: &Path, file: &str, text: &str) -> Result<Option<usize>> {
    let path = source.join(file);
    let content = fs::read_to_string(&path)
        .with_context(|| format!("cannot read the kernel's source {}", path.display()))?;
    Ok(content.lines().position(|line| line.contains(text)).map(|index| index + 1))
}

fn compiles(text: &str, kernel: &Kernel) -> Result<Value> {
    let dir = Scratch::new()?;
    fs::write(dir.path().join("Kbuild"), "obj-m := check.o\nccflags-y += -Werror\n")?;
    fs::write(dir.path().join("check.c"), text)?;
    let mut command = environment::make(&kernel.build_dir());
    command
        .arg(format!("ARCH={}", kernel.arch))
        .arg(format!("M={}", dir.path().display()))
        .arg("modules");
    let mut error = None;
    let log = dir.path().join("log");
    let ended = run_logged(command, "a compile test", &log, COMPILE_LIMIT, |line| {
        if error.is_none() {
            error = said_of_source(line).map(str::to_string);
        }
    });
    match (ended, error) {
        (Ok(()), _) => Ok(json!({ "compiles": true })),
        // The source is wrong; anything else is no answer.
        (Err(_), Some(error)) => Ok(json!({ "compiles": false, "error": error })),
        (Err(err), None) => Err(err.into()),
    }
}

/// What a line of a build says is wrong with the source: `check.c:3:1: error: …`,
/// or a symbol that the kernel does not export. That gcc itself was called
/// wrongly is not it.
fn said_of_source(line: &str) -> Option<&str> {
    if let Some(what) = line.strip_prefix("ERROR: modpost: ") {
        return Some(what);
    }
    let (place, what) = line.split_once(": error: ")?;
    (place.contains(".c:") || place.contains(".h:")).then_some(what)
}

fn mentions(word: &str, under: &[&str], source: &Path) -> Result<Value> {
    let mut found = Vec::new();
    for folder in under {
        let path = source.join(folder);
        fs::metadata(&path)
            .with_context(|| format!("cannot read the kernel's source {}", path.display()))?;
        search(&path, word, &mut found)?;
    }
    let mut names: Vec<_> = found
        .iter()
        .map(|path: &PathBuf| path.strip_prefix(source).unwrap_or(path).display().to_string())
        .collect();
    names.sort_unstable();
    names.dedup();
    Ok(json!({ "files": names.len(), "where": names.join(", ") }))
}

fn search(path: &Path, word: &str, found: &mut Vec<PathBuf>) -> Result<()> {
    crate::interrupt::check()?;
    let meta = fs::symlink_metadata(path)?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            search(&entry?.path(), word, found)?;
        }
        return Ok(());
    }
    let is_source = path.extension().is_some_and(|extension| extension == "c" || extension == "h");
    if is_source && meta.is_file() && meta.len() < SOURCE_MAX_BYTES {
        let content = fs::read(path)?;
        if has_word(&String::from_utf8_lossy(&content), word) {
            found.push(path.to_path_buf());
        }
    }
    Ok(())
}

/// Whether an identifier stands in a text, and not as a part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    text.match_indices(word).any(|(start, _)| {
        let (before, behind) = (&text[..start], &text[start + word.len()..]);
        !part(before.chars().next_back()) && !part(behind.chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_no_part_of_a_longer_one() {
        assert!(has_word("#define NLMSG_OVERRUN\t0x4", "NLMSG_OVERRUN"));
        assert!(has_word("NLMSG_OVERRUN", "NLMSG_OVERRUN"));
        assert!(!has_word("MY_NLMSG_OVERRUN NLMSG_OVERRUNS", "NLMSG_OVERRUN"));
        assert!(has_word("XNLMSG_DONE NLMSG_DONE", "NLMSG_DONE"));
    }

    #[test]
    fn what_is_wrong_with_the_source_is_told_from_what_is_wrong_with_the_call() {
        let wrong = "/tmp/x/check.c:9:20: error: 'struct s' has no member named 'pid'";
        assert_eq!(said_of_source(wrong), Some("'struct s' has no member named 'pid'"));
        let unknown = "ERROR: modpost: \"f\" [/tmp/x/check.ko] undefined!";
        assert_eq!(said_of_source(unknown), Some("\"f\" [/tmp/x/check.ko] undefined!"));
        assert_eq!(said_of_source("gcc: error: missing argument to '-Wframe-larger-than='"), None);
        assert_eq!(said_of_source("make[1]: *** [check.o] Error 1"), None);
    }

    #[test]
    fn a_line_and_the_files_with_a_word_are_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("net")).unwrap();
        fs::write(dir.path().join("net/a.c"), "first\n\tsecond(line);\nsecond(again);\n").unwrap();
        fs::write(dir.path().join("net/b.txt"), "second\n").unwrap();
        assert_eq!(line_of(dir.path(), "net/a.c", "second(").unwrap(), Some(2));
        assert_eq!(line_of(dir.path(), "net/a.c", "third").unwrap(), None);
        assert!(line_of(dir.path(), "net/c.c", "x").is_err());
        let found = mentions("second", &["net"], dir.path()).unwrap();
        assert_eq!(found, json!({ "files": 1, "where": "net/a.c" }));
        assert!(mentions("second", &["nowhere"], dir.path()).is_err());
    }
}
