//! `classify`: prints the most severe kernel report of a console log.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};
use nlrig_splat::{Reader, Splat};
use serde_json::{Value, json};

use crate::error;
use crate::interrupt;
use crate::options::ClassifyOptions;
use crate::ui;

/// The size of a read.
const PIECE_BYTES: usize = 64 << 10;

/// Prints the most severe kernel report in a log; the exit status is 1 if there is
/// one.
///
/// # Errors
/// The log cannot be read.
pub fn classify(options: &ClassifyOptions) -> Result<u8> {
    let file = options.file.as_deref().filter(|file| *file != Path::new("-"));
    let splat = match file {
        Some(path) => {
            let file = File::open(path).with_context(|| cannot_read(path))?;
            worst(file).with_context(|| cannot_read(path))?
        }
        None => worst(io::stdin().lock()).context("cannot read standard input")?,
    };
    let text = if options.json {
        serde_json::to_string_pretty(&document(splat.as_ref()))?
    } else {
        page(splat.as_ref())
    };
    ui::result(&text)?;
    Ok(if splat.is_some() { error::TRIAL_FAILED } else { error::OK })
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

/// Reads a log and returns its most severe report.
fn worst(mut log: impl Read) -> Result<Option<Splat>> {
    let mut reader = Reader::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        interrupt::check()?;
        match log.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => reader.bytes(&piece[..length]),
            // A signal interrupted the read; check() tells whether to stop.
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err.into()),
        }
    }
    reader.end();
    Ok(reader.worst())
}

/// Returns the document of `--json`, whose keys are a stable interface.
fn document(splat: Option<&Splat>) -> Value {
    json!({
        "verdict": splat.map_or("none", |splat| splat.severity().name()),
        "kind": splat.map(|splat| splat.kind.name),
        "line": splat.map(|splat| &splat.line),
        "message": splat.and_then(|splat| splat.message.as_ref()),
        "trace": splat.map(|splat| splat.trace.as_slice()).unwrap_or_default(),
        "source": splat.map(|splat| splat.kind.source),
        "cause": splat.and_then(|splat| splat.cause.as_deref()).map(|cause| document(Some(cause))),
    })
}

/// Returns the report as text.
fn page(splat: Option<&Splat>) -> String {
    let Some(splat) = splat else {
        return "none: the log reports no fault of the kernel".to_string();
    };
    let mut text = format!("{}: {} ({})\n", splat.severity(), splat.kind.what, splat.kind.source);
    text.push_str(&format!("  {}\n", splat.line));
    if let Some(message) = &splat.message {
        text.push_str(&format!("  {message}\n"));
    }
    for frame in &splat.trace {
        text.push_str(&format!("    {frame}\n"));
    }
    if splat.kind.timing {
        text.push_str("  a busy host can cause this, above all under TCG\n");
    }
    if let Some(cause) = &splat.cause {
        text.push_str(&format!("after {}", page(Some(cause))));
    }
    text.trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"[    1.0] ------------[ cut here ]------------\n\
        [    1.0] demo: the count is 3\n\
        [    1.0] WARNING: CPU: 0 PID: 61 at demo.c:42 demo+0x1/0x2\n\
        [    1.0] EIP: demo+0x1/0x2\n\
        [    2.0] Kernel panic - not syncing: panic_on_warn set ...\n";

    #[test]
    fn a_document_has_the_contracts_keys() {
        let none = document(worst(&b"[    1.0] Linux version 6.1.0\n"[..]).unwrap().as_ref());
        assert_eq!(none["verdict"], "none");
        assert_eq!((&none["kind"], &none["line"]), (&Value::Null, &Value::Null));
        assert_eq!(none["trace"], json!([]));

        let document = document(worst(LOG).unwrap().as_ref());
        assert_eq!((&document["verdict"], &document["kind"]), (&json!("panic"), &json!("panic")));
        assert_eq!(document["line"], "Kernel panic - not syncing: panic_on_warn set ...");
        assert!(document["source"].as_str().unwrap().starts_with("kernel/panic.c"));
        assert_eq!(document["cause"]["trace"], json!(["demo+0x1/0x2"]));
    }

    #[test]
    fn a_page_has_the_line_the_trace_and_the_cause() {
        let page = page(worst(LOG).unwrap().as_ref());
        for words in
            ["panic: ", "panic_on_warn", "after warning: ", "the count is 3", "demo+0x1/0x2"]
        {
            assert!(page.contains(words), "{words} is missing: {page}");
        }
    }
}
