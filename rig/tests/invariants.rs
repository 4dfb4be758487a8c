//! Checks the invariants of ARCHITECTURE.md on the whole tree.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The library crates, which know neither experiments nor reports nor the command
/// line, each with the workspace crates that it may depend on.
const LIBRARIES: [(&str, &[&str]); 5] = [
    ("nlrig-host", &[]),
    ("nlrig-splat", &[]),
    ("nlrig-init", &[]),
    ("nlrig-build", &["nlrig-host"]),
    ("nlrig-vm", &["nlrig-host", "nlrig-splat", "nlrig-init", "nlrig-build"]),
];
/// Crates that no library may depend on: those for the command line and reports.
const PROGRAMS_ONLY: [&str; 4] = ["clap", "anyhow", "comfy-table", "plotters"];
/// The longest source file, in lines.
const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the checkout exists")
}

/// Returns git's files whose names have one of the endings.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git starts");
    let text = String::from_utf8(output.stdout).expect("file names are UTF-8");
    let files: Vec<_> = text
        .split('\0')
        .filter(|name| endings.iter().any(|ending| name.ends_with(ending)))
        .map(|name| root().join(name))
        .filter(|path| path.is_file() && !path.is_symlink())
        .collect();
    assert!(!files.is_empty(), "no files {endings:?}");
    files
}

#[test]
fn libraries_depend_on_permitted_crates_only() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo starts");
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("the metadata is JSON");
    let packages = metadata["packages"].as_array().expect("the metadata has packages");
    for (library, allowed) in LIBRARIES {
        let package = packages.iter().find(|package| package["name"] == library);
        let package = package.unwrap_or_else(|| panic!("no package {library}"));
        for dependency in package["dependencies"].as_array().expect("a package has dependencies") {
            let name = dependency["name"].as_str().expect("a dependency has a name");
            assert!(!PROGRAMS_ONLY.contains(&name), "{library} depends on {name}");
            let ours = name.starts_with("nlrig");
            assert!(!ours || allowed.contains(&name), "{library} depends on {name}");
        }
    }
}

#[test]
fn no_source_file_is_too_long() {
    let long: Vec<_> = files(&[".rs", ".c", ".h"])
        .into_iter()
        .filter_map(|path| {
            let text = fs::read_to_string(&path).ok()?;
            let generated = text.lines().take(3).any(|line| line.contains("generated"));
            let lines = text.lines().count();
            (!generated && lines > LINES_MAX).then(|| format!("{}: {lines}", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines:\n{}", long.join("\n"));
}

/// Returns the name of the public type that a line of Rust defines.
fn public_type(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub ")?;
    let rest =
        ["struct ", "enum ", "trait ", "union "].iter().find_map(|kind| rest.strip_prefix(kind))?;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    Some(&rest[..end.unwrap_or(rest.len())])
}

#[test]
fn names_of_public_types_are_unique() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in files(&[".rs"]) {
        let text = fs::read_to_string(&path).expect("the source file is readable");
        for name in text.lines().filter_map(public_type) {
            places.entry(name.to_string()).or_default().push(path.display().to_string());
        }
    }
    places.remove("Error");
    let shared: Vec<_> = places
        .iter()
        .filter(|(_, places)| places.len() > 1)
        .map(|(name, places)| format!("{name}: {}", places.join(", ")))
        .collect();
    assert!(shared.is_empty(), "several types have the same name:\n{}", shared.join("\n"));
}

/// Returns the rig's command lines in a page: the lines of code blocks, and the
/// text between backticks.
fn commands(page: &str) -> Vec<Vec<String>> {
    const START: &str = "cargo xtask rig";
    let mut commands = Vec::new();
    for line in page.lines() {
        let spans: Vec<&str> = if line.contains('`') {
            line.split('`').skip(1).step_by(2).collect()
        } else {
            vec![line.trim()]
        };
        for span in spans.into_iter().filter(|span| span.starts_with(START)) {
            let words = shlex::split(span).unwrap_or_else(|| panic!("{span}: unbalanced quotes"));
            commands.push(words.into_iter().skip(3).collect());
        }
    }
    commands
}

#[test]
fn all_commands_in_the_pages_parse() {
    let mut tried = 0;
    for page in ["README.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root().join(page)).expect("the page is readable");
        for words in commands(&text) {
            let arguments = ["nlrig".to_string()].into_iter().chain(words.clone());
            if let Err(err) = nlrig::cli::definition().try_get_matches_from(arguments) {
                panic!("{page}: cargo xtask rig {}: {err}", words.join(" "));
            }
            tried += 1;
        }
    }
    assert!(tried > 20, "found only {tried} commands");
}
