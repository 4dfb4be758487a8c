//! `clean`: removes results and the build cache.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::{error, project, ui};

/// Removes the results, and the build cache if `cache` is set.
///
/// # Errors
/// A file or folder cannot be removed.
pub fn clean(cache: bool) -> Result<u8> {
    remove(&project::results())?;
    if cache {
        Cache::open()?.clear()?;
    }
    Ok(error::OK)
}

/// Removes a folder if it exists.
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
