//! The report as a page.

use std::fmt::Write;

use super::{Report, Section};
use crate::say::printable;

/// The whole page: what it ran on, every table with its words, and what failed.
pub fn page(report: &Report, sections: &[Section]) -> String {
    let mut page = String::from("# nlrig report\n\n");
    let environment = &report.environment;
    let host = &environment.host;
    let well = report.trials.iter().filter(|trial| trial.verdict.is_well()).count();
    // Writing to a string does not fail.
    let _ = writeln!(
        page,
        "{}, {:.0} s, revision {}: {well} of {} trials came out as expected.\n",
        report.started_at,
        report.duration_s,
        environment.revision,
        report.trials.len()
    );
    let memory_gib = host.memory_bytes as f64 / f64::from(1 << 30);
    let _ = writeln!(
        page,
        "Host: {}, {} cores, {memory_gib:.0} GiB, {}; QEMU {}.\n",
        host.cpu, host.cores, host.os, environment.qemu
    );
    for (arch, choice) in &environment.accel {
        let _ =
            writeln!(page, "- {arch} guests ran under {}: {}", choice.used.name(), choice.reason);
    }
    for kernel in &environment.kernels {
        let _ = writeln!(
            page,
            "- Linux {} {} ({}), {} objects, configuration {:.12}, image {:.12}, {}",
            kernel.version,
            kernel.arch,
            kernel.flavour,
            kernel.objects,
            kernel.config_sha256,
            kernel.image_sha256,
            kernel.compiler
        );
    }
    for section in sections {
        page.push_str(&table(section));
    }
    let failed: Vec<_> = report.trials.iter().filter(|trial| !trial.verdict.is_well()).collect();
    if !failed.is_empty() {
        page.push_str("\n## What did not come out as expected\n\n");
        for trial in failed {
            let reason = trial.reason.as_deref().unwrap_or("no reason");
            let _ =
                writeln!(page, "- `{}`: {}: {}", trial.name, trial.verdict.name(), cell(reason));
        }
    }
    page
}

fn table(section: &Section) -> String {
    let row = |cells: &[String]| {
        let cells: Vec<_> = cells.iter().map(|text| cell(text)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut text = format!("\n## {}\n\n{}", section.title, row(&section.columns));
    text.push_str(&row(&section.columns.iter().map(|_| "---".to_string()).collect::<Vec<_>>()));
    for cells in &section.rows {
        text.push_str(&row(cells));
    }
    format!("{text}\n{}\n", section.words)
}

/// Text that cannot end a cell or begin markup: some of it comes from a guest.
fn cell(text: &str) -> String {
    printable(text)
        .chars()
        .map(|c| match c {
            '|' => "\\|".to_string(),
            '<' => "&lt;".to_string(),
            '\n' | '\r' => " ".to_string(),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_markdown() {
        let text = table(&Section {
            title: "T".into(),
            columns: vec!["a".into(), "b".into()],
            rows: vec![vec!["1|2".into(), "<x>".into()]],
            words: "Words.".into(),
        });
        assert_eq!(text, "\n## T\n\n| a | b |\n| --- | --- |\n| 1\\|2 | &lt;x> |\n\nWords.\n");
    }
}
