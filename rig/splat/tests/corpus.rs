//! Excerpts of console logs, each with the kind of fault that it reports.
//!
//! `corpus/expected.tsv` has a line for each excerpt: file, severity, kind, the
//! innermost function of the call trace. `-` stands for none. With
//! `NLRIG_SPLAT_LOGS=DIR` the logs of another folder are read too; its
//! `expected.tsv` needs file and severity only.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nlrig_splat::{KINDS, Splat, classify};

struct Expected {
    file: String,
    severity: String,
    kind: Option<String>,
    function: Option<String>,
}

fn expected_of(dir: &Path) -> Vec<Expected> {
    let table = fs::read_to_string(dir.join("expected.tsv")).unwrap();
    let rows = table.lines().filter(|line| !line.starts_with('#') && !line.starts_with("file\t"));
    rows.map(|row| {
        let mut fields = row.split('\t').map(str::to_string);
        Expected {
            file: fields.next().unwrap(),
            severity: fields.next().unwrap(),
            kind: fields.next(),
            function: fields.next(),
        }
    })
    .collect()
}

fn splat_of(dir: &Path, file: &str) -> Option<Splat> {
    classify(&fs::read(dir.join(file)).unwrap_or_else(|err| panic!("{file}: {err}")))
}

fn severity_of(splat: Option<&Splat>) -> &'static str {
    splat.map_or("none", |splat| splat.severity().name())
}

fn corpus() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

#[test]
fn each_excerpt_has_its_kind_and_its_function() {
    let mut wrong = Vec::new();
    for expected in expected_of(&corpus()) {
        let splat = splat_of(&corpus(), &expected.file);
        let kind = splat.as_ref().map_or("-", |splat| splat.kind.name);
        let trace = splat.as_ref().map(|splat| splat.trace.as_slice()).unwrap_or_default();
        let function = trace.first().map_or("-", |frame| frame.split('+').next().unwrap());
        if severity_of(splat.as_ref()) != expected.severity
            || Some(kind) != expected.kind.as_deref()
            || Some(function) != expected.function.as_deref()
        {
            wrong.push(format!("{}: {kind} in {function}: {splat:#?}", expected.file));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_kind_has_an_excerpt_and_every_excerpt_a_row() {
    let rows = expected_of(&corpus());
    let kinds: BTreeSet<_> = rows.iter().filter_map(|row| row.kind.as_deref()).collect();
    for kind in KINDS {
        assert!(kinds.contains(kind.name), "no excerpt for {}", kind.name);
    }
    let files: BTreeSet<_> = rows.iter().map(|row| row.file.as_str()).collect();
    for entry in fs::read_dir(corpus()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "expected.tsv" || files.contains(name.as_str()), "no row for {name}");
    }
}

#[test]
fn the_logs_of_another_folder_have_their_severity() {
    let Some(dir) = std::env::var_os("NLRIG_SPLAT_LOGS") else {
        println!("NLRIG_SPLAT_LOGS is not set: only the project's own excerpts are read");
        return;
    };
    let mut wrong = Vec::new();
    for expected in expected_of(Path::new(&dir)) {
        let splat = splat_of(Path::new(&dir), &expected.file);
        println!("{}: {}", expected.file, splat.as_ref().map_or("-".into(), Splat::describe));
        if severity_of(splat.as_ref()) != expected.severity {
            wrong.push(format!("{} is {}: {splat:?}", expected.file, expected.severity));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
