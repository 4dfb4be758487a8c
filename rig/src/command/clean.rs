//! `clean`: remove what was built and reported.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::{error, project, ui};

/// Removes results, and the cache if asked to.
///
/// # Errors
/// Something cannot be removed.
pub fn clean(cache: bool) -> Result<u8> {
    remove(&project::results())?;
    if cache {
        Cache::open()?.clear()?;
    }
    Ok(error::OK)
}

/// Removes a folder, if it is there.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Ok(()) => ui::status(&format!("removed {}", folder.display())),
        Err(err) if err.kind() == ErrorKind::NotFound => {}
        Err(err) => {
            return Err(err).with_context(|| format!("cannot remove {}", folder.display()));
        }
    }
    Ok(())
}
