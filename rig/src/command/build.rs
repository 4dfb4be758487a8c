//! `build`: builds what is out of date, and prints the paths.

use anyhow::Result;

use super::{abis, prepare_with_rig_module};
use crate::options::BuildOptions;
use crate::{error, ui};

/// The parts to build; each depends on the ones before it.
const KINDS: [&str; 4] = ["kernel", "module", "userspace", "image"];

/// Builds and prints each artifact.
///
/// # Errors
/// An artifact cannot be built.
pub fn build(options: &BuildOptions) -> Result<u8> {
    let (mut workshop, _) = prepare_with_rig_module(&options.guest)?;
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
