//! The data of this crate is compiled in: a change to it must rebuild the crate. And
//! the experiment that CONTRIBUTING.md shows is compiled with the tests.

use std::path::Path;
use std::{env, fs};

/// Not there in a packaged crate.
const PAGE: &str = "../CONTRIBUTING.md";

fn main() {
    println!("cargo:rerun-if-changed=data");
    println!("cargo:rustc-check-cfg=cfg(has_template)");
    let Ok(page) = fs::read_to_string(PAGE) else { return };
    println!("cargo:rerun-if-changed={PAGE}");
    println!("cargo:rustc-cfg=has_template");
    // Documentation of a whole file cannot be included in another one.
    let template = template(&page).unwrap_or_default().replace("//!", "//");
    let folder = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&folder).join("template.rs"), template).expect("OUT_DIR is writable");
}

/// The first block of Rust in a page.
fn template(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once("```rust\n")?;
    let (template, _) = rest.split_once("```\n")?;
    Some(template)
}
