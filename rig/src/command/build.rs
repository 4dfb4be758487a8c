//! `build`: make what is stale, and say where it is.

use anyhow::Result;

use super::{abis, prepare};
use crate::options::BuildOptions;
use crate::{error, ui};

/// Everything there is to build, in the order in which one needs the other.
const KINDS: [&str; 4] = ["kernel", "module", "userspace", "image"];

/// Builds and prints each artifact.
///
/// # Errors
/// Something cannot be built.
pub fn build(options: &BuildOptions) -> Result<u8> {
    let (mut workshop, _) = prepare(&options.guest)?;
    let abis = abis(&options.guest);
    let mut artifacts = Vec::new();
    for kind in KINDS {
        if options.what.is_empty() || options.what.iter().any(|what| what == kind) {
            artifacts.extend(workshop.artifacts(kind, &abis)?);
        }
    }
    if options.json {
        ui::result(&serde_json::to_string_pretty(&artifacts)?)?;
    } else {
        for artifact in &artifacts {
            let how = if artifact.from_cache { "cached" } else { "built" };
            ui::result(&format!(
                "{:<9} {:<7} {how:<6} {}",
                artifact.kind,
                artifact.of,
                artifact.path.display()
            ))?;
        }
    }
    ui::detail(&format!("{} artifacts", artifacts.len()));
    Ok(error::OK)
}
