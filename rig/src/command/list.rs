//! `list`: prints experiments and kernels.

use anyhow::Result;
use serde_json::json;

use super::kernels;
use crate::abi::Abi;
use crate::error;
use crate::experiment;
use crate::kernel::{self, flavour::Flavour};
use crate::options::{GuestOptions, ListOptions};
use crate::ui;

/// Prints experiments and kernels.
///
/// # Errors
/// The kernels' data cannot be read.
pub fn list(options: &ListOptions) -> Result<u8> {
    let mut kernel_rows = Vec::new();
    let builder = kernels(&GuestOptions::default())?;
    let flavours = kernel::flavour::all();
    let mut kernels = Vec::new();
    for known in kernel::known()? {
        for flavour in &flavours {
            kernels.extend(flavour.arches.iter().map(|&arch| (known.clone(), flavour, arch)));
        }
    }
    for (known, flavour, arch) in kernels {
        let builder =
            kernel::Builder { known: known.clone(), ..builder.with_flavour(&flavour.name) };
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
        let document =
            json!({ "experiments": experiments, "flavours": flavours, "kernels": kernel_rows });
        ui::result(&serde_json::to_string_pretty(&document)?)?;
        return Ok(error::OK);
    }
    ui::result("Experiments:")?;
    for experiment in experiment::ALL {
        ui::result(&format!("  {:<10} {}", experiment.name(), experiment.summary()))?;
        let abis: Vec<_> = experiment.abis().iter().map(Abi::to_string).collect();
        let by_name = if experiment.by_default() { "" } else { "; only if it is named" };
        ui::result(&format!("  {:<10} on {}{by_name}", "", abis.join(", ")))?;
        for (name, meaning) in experiment.parameters() {
            ui::result(&format!("  {:<10} --set {name}: {meaning}", ""))?;
        }
        for (name, shows) in experiment.cases() {
            ui::result(&format!("  {:<10} {name:<6} {shows}", ""))?;
        }
    }
    ui::result("Flavours:")?;
    for Flavour { name, summary, arches } in &flavours {
        let arches: Vec<_> = arches.iter().map(|arch| arch.name()).collect();
        ui::result(&format!("  {name:<12} {summary} ({})", arches.join(", ")))?;
    }
    ui::result("Kernels:")?;
    for row in kernel_rows {
        let text = |key: &str| row[key].as_str().unwrap_or("-").to_string();
        let built = if row["built"] == true { "built" } else { "not built" };
        ui::result(&format!(
            "  {:<6} {:<8} {:<12} {built}",
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
