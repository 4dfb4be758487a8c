//! `list`: what there is.

use anyhow::Result;
use serde_json::json;

use super::kernels;
use crate::abi::{Abi, Arch};
use crate::error;
use crate::experiment;
use crate::kernel;
use crate::options::{GuestOptions, ListOptions};
use crate::say;

/// Prints experiments and kernels.
///
/// # Errors
/// The kernels' data cannot be read.
pub fn list(options: &ListOptions) -> Result<u8> {
    let mut kernel_rows = Vec::new();
    let builder = kernels(&GuestOptions::default())?;
    for known in kernel::known()? {
        let builder = kernel::Builder { known: known.clone(), ..builder.clone() };
        for arch in Arch::ALL {
            let built = builder.built(arch).ok().flatten();
            kernel_rows.push(json!({
                "version": known.version,
                "arch": arch,
                "flavour": builder.flavour,
                "source": known.source,
                "built": built.is_some(),
                "release": built.map(|kernel| kernel.version),
            }));
        }
    }
    let experiments: Vec<_> = experiment::ALL
        .iter()
        .map(|experiment| {
            let parameters: Vec<_> = experiment
                .parameters()
                .iter()
                .map(|(name, meaning)| json!({"name": name, "meaning": meaning}))
                .collect();
            let entries: Vec<_> = experiment
                .cases()
                .iter()
                .map(|(name, shows)| json!({"name": name, "shows": shows}))
                .collect();
            json!({
                "name": experiment.name(),
                "shows": experiment.summary(),
                "abis": experiment.abis(),
                "by_default": experiment.by_default(),
                "parameters": parameters,
                "entries": entries,
            })
        })
        .collect();

    if options.json {
        let document = json!({ "experiments": experiments, "kernels": kernel_rows });
        say::result(&serde_json::to_string_pretty(&document)?)?;
        return Ok(error::OK);
    }
    say::result("Experiments:")?;
    for experiment in experiment::ALL {
        say::result(&format!("  {:<10} {}", experiment.name(), experiment.summary()))?;
        let abis: Vec<_> = experiment.abis().iter().map(Abi::to_string).collect();
        let by_name = if experiment.by_default() { "" } else { "; only if it is named" };
        say::result(&format!("  {:<10} on {}{by_name}", "", abis.join(", ")))?;
        for (name, meaning) in experiment.parameters() {
            say::result(&format!("  {:<10} --set {name}: {meaning}", ""))?;
        }
        for (name, shows) in experiment.cases() {
            say::result(&format!("  {:<10} {name:<6} {shows}", ""))?;
        }
    }
    say::result("Kernels:")?;
    for row in kernel_rows {
        let text = |key: &str| row[key].as_str().unwrap_or("-").to_string();
        let built = if row["built"] == true { "built" } else { "not built" };
        say::result(&format!(
            "  {:<6} {:<8} {:<10} {built}",
            text("version"),
            text("arch"),
            text("flavour")
        ))?;
    }
    Ok(error::OK)
}

/// The experiments as a table of Markdown, for pages.
pub fn experiments_table() -> String {
    let mut table = String::from("| experiment | runs | what it shows |\n|---|---|---|\n");
    for experiment in experiment::ALL {
        let (name, summary) = (experiment.name(), experiment.summary());
        let runs = if experiment.by_default() { "by default" } else { "by name" };
        table.push_str(&format!("| `{name}` | {runs} | {summary} |\n"));
    }
    table
}
