//! The report as a page.

use std::fmt::Write;

use super::{KernelAccel, Report, Section};
use crate::accel::AccelChoice;
use crate::ui::sanitize;

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
    for (arch, accel) in &environment.accel {
        if accel.kernels.is_empty() {
            let _ = writeln!(page, "- {arch} guests ran under {}", under_accel(&accel.choice));
        }
        for kernel in &accel.kernels {
            let KernelAccel { version, flavour, choice, .. } = kernel;
            let choice = under_accel(choice);
            let _ =
                writeln!(page, "- {arch} guests of Linux {version} ({flavour}) ran under {choice}");
        }
    }
    for (kind, confinement) in &environment.confinement {
        let _ = writeln!(page, "- Confinement of {kind}: {}", confinement.describe());
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
    page.push_str(&failures(report));
    page.push_str(&second_tries(report));
    page.push_str(&shared_boots(report));
    page
}

/// `TCG. KVM does not work here: there is no /dev/kvm.`
fn under_accel(choice: &AccelChoice) -> String {
    format!("{}. {}.", choice.used.name().to_uppercase(), sentence(&choice.reason))
}

/// The text with a capital letter.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// What did not come out as expected, each with the end of its console.
fn failures(report: &Report) -> String {
    let mut text = String::new();
    for trial in report.trials.iter().filter(|trial| !trial.verdict.is_well()) {
        let reason = trial.reason.as_deref().unwrap_or("no reason");
        let _ = writeln!(text, "- `{}`: {}: {}", trial.name, trial.verdict.name(), cell(reason));
        if !trial.console_tail.is_empty() {
            // Indented text is code, whatever is in it.
            text.push('\n');
            for line in &trial.console_tail {
                let _ = writeln!(text, "      {}", sanitize(line));
            }
            text.push('\n');
        }
    }
    under("What did not come out as expected", text)
}

/// Which machines were lost and tried again.
fn second_tries(report: &Report) -> String {
    let mut text = String::new();
    for trial in &report.trials {
        if let Some(loss) = &trial.first_loss {
            let _ = writeln!(text, "- `{}`: {}", trial.name, cell(loss));
        }
    }
    under("Lost machines, and second tries", text)
}

/// Which trials ran in one machine, one after the other.
fn shared_boots(report: &Report) -> String {
    let mut machines: Vec<(&str, Vec<&str>)> = Vec::new();
    for trial in report.trials.iter().filter(|trial| !trial.vm.is_empty()) {
        match machines.iter_mut().find(|(vm, _)| *vm == trial.vm) {
            Some((_, names)) => names.push(&trial.name),
            None => machines.push((&trial.vm, vec![&trial.name])),
        }
    }
    let mut text = String::new();
    for (vm, names) in machines.iter().filter(|(_, names)| names.len() > 1) {
        let _ = writeln!(text, "- {vm}: `{}`", names.join("`, `"));
    }
    under("Trials that shared a boot", text)
}

/// A heading with its text, or nothing.
fn under(heading: &str, text: String) -> String {
    if text.is_empty() { text } else { format!("\n## {heading}\n\n{text}") }
}

fn table(section: &Section) -> String {
    let row = |cells: &[String]| {
        let cells: Vec<_> = cells.iter().map(|text| cell(text)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut text = format!("\n## {}\n", section.title);
    if !section.columns.is_empty() {
        let _ = write!(text, "\n{}", row(&section.columns));
        text.push_str(&row(&section.columns.iter().map(|_| "---".to_string()).collect::<Vec<_>>()));
        for cells in &section.rows {
            text.push_str(&row(cells));
        }
    }
    if let Some(figure) = &section.figure {
        let _ = writeln!(text, "\n![{}]({})", cell(&figure.title), figure.file);
    }
    let _ = writeln!(text, "\n{}", section.words);
    for entry in &section.entries {
        let _ = writeln!(text, "\n### {}\n", cell(&entry.title));
        for (name, what) in &entry.fields {
            let _ = writeln!(text, "- **{name}:** {}", cell(what));
        }
    }
    text
}

/// Text that cannot end a cell or begin markup: some of it comes from a guest.
fn cell(text: &str) -> String {
    sanitize(text)
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
    use crate::report::{Detail, Figure};

    #[test]
    fn a_table_of_markdown() {
        let text = table(&Section {
            title: "T".into(),
            columns: vec!["a".into(), "b".into()],
            rows: vec![vec!["1|2".into(), "<x>".into()]],
            words: "Words.".into(),
            entries: vec![Detail { title: "E".into(), fields: vec![("f", "<y>".into())] }],
            figure: Some(Figure { file: "f.svg".into(), title: "F".into(), svg: String::new() }),
        });
        let table =
            "\n## T\n\n| a | b |\n| --- | --- |\n| 1\\|2 | &lt;x> |\n\n![F](f.svg)\n\nWords.\n";
        assert_eq!(text, format!("{table}\n### E\n\n- **f:** &lt;y>\n"));
    }
}
