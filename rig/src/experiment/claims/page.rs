//! The ledger as a page: a summary, a line a claim, and everything about each.

use super::case::{Case, Condition, Finding};
use super::{Claims, Evidence, Scalar, catalogue};
use crate::abi::Abi;
use crate::experiment::TrialResult;
use crate::report::{Detail, Section, SourceLine, Verdict};

type Tried<'a> = TrialResult<'a, Claims>;

/// What the two texts are.
const TEXTS: &str = "A is an article that is copied all over the net with its module and its two \
                     clients (NETLINK_TEST, protocol 25); B is Xiong, Ding and Luo, \"Netlink in \
                     multi-threaded programs\" (2017, DOI 10.11907/rjdk.172576). The claims are \
                     in our own words.";

/// All rows that were tried.
pub fn section(trials: &[&Tried<'_>]) -> Section {
    let mut abis: Vec<Abi> = trials.iter().map(|trial| trial.report.abi).collect();
    abis.sort_unstable();
    abis.dedup();
    let rows: Vec<_> = catalogue::cases()
        .map(|row| (row, trials_of(row, trials)))
        .filter(|(_, trials)| !trials.is_empty())
        .collect();
    let mut columns = vec!["claim".to_string(), "says".to_string()];
    columns.extend(abis.iter().map(Abi::to_string));
    columns.push("as expected".to_string());
    Section {
        title: "Claims: what two texts say of netlink, and what is so".to_string(),
        columns,
        rows: rows.iter().map(|(row, trials)| line(row, trials, &abis)).collect(),
        words: words(&rows),
        entries: rows.iter().map(|(row, trials)| entry(row, trials)).collect(),
        ..Section::default()
    }
}

/// A condition for a person.
pub fn show_conditions(conditions: &[Condition]) -> String {
    match conditions {
        [] => "no evidence".to_string(),
        some => some.iter().map(Condition::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// Evidence for a person.
pub fn show_evidence(evidence: &Evidence) -> String {
    let pairs = evidence.iter().map(|(key, value)| match value {
        Scalar::Text(text) => format!("{key} {text}"),
        other => format!("{key} {other}"),
    });
    let text = pairs.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "none".to_string() } else { text }
}

fn trials_of<'a>(row: &Case, trials: &[&'a Tried<'a>]) -> Vec<&'a Tried<'a>> {
    trials.iter().copied().filter(|trial| trial.params.id == row.id).collect()
}

fn finding(trial: &Tried<'_>) -> Finding {
    trial.measured.as_ref().map_or(Finding::Undecided, |result| result.finding)
}

/// What is found on all of them; what differs between them depends.
fn of_all(trials: &[&Tried<'_>]) -> Finding {
    let mut findings = trials.iter().map(|trial| finding(trial));
    let first = findings.next().unwrap_or(Finding::Undecided);
    if findings.all(|finding| finding == first) { first } else { Finding::Depends }
}

fn line(row: &Case, trials: &[&Tried<'_>], abis: &[Abi]) -> Vec<String> {
    let mut cells = vec![row.id.to_string(), row.claim.to_string()];
    cells.extend(abis.iter().map(|abi| {
        let of_abi: Vec<_> =
            trials.iter().copied().filter(|trial| trial.report.abi == *abi).collect();
        if of_abi.is_empty() { "-".to_string() } else { of_all(&of_abi).name().to_string() }
    }));
    let well = trials.iter().all(|trial| trial.report.verdict == Verdict::Pass);
    cells.push(if well { "yes" } else { "NO" }.to_string());
    cells
}

fn words(rows: &[(&Case, Vec<&Tried<'_>>)]) -> String {
    let count = |wanted| rows.iter().filter(|(_, trials)| of_all(trials) == wanted).count();
    let not_so = rows
        .iter()
        .filter(|(_, trials)| trials.iter().any(|trial| trial.report.verdict != Verdict::Pass))
        .map(|(row, _)| row.id)
        .collect::<Vec<_>>();
    let expected = match not_so.as_slice() {
        [] => "All came out as the ledger expects of this kernel.".to_string(),
        some => format!("NOT as the ledger expects of this kernel: {}.", some.join(", ")),
    };
    format!(
        "{} confirmed, {} refuted, {} depend, {} undecided. {expected} {TEXTS}",
        count(Finding::Confirmed),
        count(Finding::Refuted),
        count(Finding::Depends),
        count(Finding::Undecided),
    )
}

fn entry(row: &Case, trials: &[&Tried<'_>]) -> Detail {
    let mut fields = vec![("said by", row.text().to_string()), ("tried", row.tried.to_string())];
    for (name, conditions) in
        [("confirmed if", row.confirms), ("refuted if", row.refutes), ("depends if", row.depends)]
    {
        if !conditions.is_empty() {
            fields.push((name, show_conditions(conditions)));
        }
    }
    fields.push(("finding", found(row, trials)));
    fields.extend(evidence(trials).map(|told| ("evidence", told)));
    for trial in trials.iter().filter(|trial| trial.report.verdict != Verdict::Pass) {
        let reason = trial.report.reason.as_deref().unwrap_or("no reason");
        fields.push(("NOT as expected", format!("{}: {reason}", trial.report.name)));
    }
    fields.push(("why", row.because.to_string()));
    if let Some(trial) = trials.first().filter(|trial| !trial.report.source_lines.is_empty()) {
        let lines: Vec<_> = trial.report.source_lines.iter().map(show_line).collect();
        fields.push((
            "kernel source",
            format!("{} (Linux {})", lines.join("; "), trial.report.kernel),
        ));
    }
    Detail { title: format!("{} {}", row.id, row.claim), fields }
}

fn found(row: &Case, trials: &[&Tried<'_>]) -> String {
    let all = of_all(trials);
    let each =
        trials.iter().map(|trial| format!("{} on {}", finding(trial).name(), trial.report.abi));
    match all {
        Finding::Depends if trials.iter().all(|trial| finding(trial) == all) => {
            format!("depends on {}", row.depends_on)
        }
        Finding::Depends => format!("depends: {}", each.collect::<Vec<_>>().join(", ")),
        same => same.name().to_string(),
    }
}

/// Each architecture's evidence; once if it is the same, and with how many
/// repetitions have it if there are some.
fn evidence(trials: &[&Tried<'_>]) -> impl Iterator<Item = String> {
    let mut told: Vec<(String, Vec<(Abi, usize)>)> = Vec::new();
    for trial in trials {
        let result = trial.measured.as_ref();
        let text = result.map_or("none".to_string(), |result| show_evidence(&result.evidence));
        let index = told.iter().position(|(known, _)| *known == text).unwrap_or_else(|| {
            told.push((text, Vec::new()));
            told.len() - 1
        });
        let abis = &mut told[index].1;
        match abis.iter_mut().find(|(abi, _)| *abi == trial.report.abi) {
            Some((_, count)) => *count += 1,
            None => abis.push((trial.report.abi, 1)),
        }
    }
    told.into_iter().map(|(text, abis)| {
        let abis = abis.iter().map(|(abi, count)| match count {
            1 => abi.to_string(),
            some => format!("{some} of {abi}"),
        });
        format!("{text} ({})", abis.collect::<Vec<_>>().join(", "))
    })
}

fn show_line(line: &SourceLine) -> String {
    match line.line {
        Some(number) => format!("{}:{number} `{}`", line.file, line.text),
        None => format!("{} (not in this source: `{}`)", line.file, line.text),
    }
}
