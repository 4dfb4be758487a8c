//! What the README says of the experiments, held against the experiments.
//!
//! `NLRIG_BLESS=1` writes the table anew.

use std::fs;
use std::path::Path;

use nlrig::command::list::experiments_table;

const BEGIN: &str = "<!-- experiments: from `list`, by rig/tests/pages.rs -->\n";
const END: &str = "<!-- end of experiments -->\n";

#[test]
fn the_readme_lists_every_experiment_as_list_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let page = fs::read_to_string(&path).expect("the README");
    let (before, rest) = page.split_once(BEGIN).expect("the table begins");
    let (table, after) = rest.split_once(END).expect("the table ends");
    let expected = format!("\n{}\n", experiments_table());
    if table != expected && std::env::var_os("NLRIG_BLESS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).expect("the README");
        return;
    }
    assert_eq!(table, expected, "NLRIG_BLESS=1 writes the table anew");
}
