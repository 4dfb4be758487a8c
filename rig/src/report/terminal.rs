//! Tables on the terminal.

use comfy_table::{ContentArrangement, Table, presets};

use super::Section;
use crate::ui::sanitize;

/// So many entries are shown below their table.
const ENTRIES_MAX: usize = 5;

/// One section as text, lines no longer than the reader's eye; whatever its cells
/// hold, fit for a terminal.
pub fn section(section: &Section) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(&section.columns);
    for row in &section.rows {
        table.add_row(row);
    }
    let words: Vec<_> = section.words.split("\n\n").map(|words| wrap(words, 100)).collect();
    let words = words.join("\n\n");
    let table = match section.columns.is_empty() {
        true => String::new(),
        false => format!("{table}\n\n"),
    };
    let mut text = format!("{}\n\n{table}{words}\n", section.title);
    // The page has all of them.
    if section.entries.len() <= ENTRIES_MAX {
        for entry in &section.entries {
            let fields =
                entry.fields.iter().map(|(name, what)| wrap(&format!("{name}: {what}"), 100));
            let fields: Vec<_> =
                fields.map(|text| format!("  {}", text.replace('\n', "\n    "))).collect();
            text.push_str(&format!("\n{}\n{}\n", entry.title, fields.join("\n")));
        }
    }
    sanitize(&text)
}

/// Breaks a paragraph into lines.
pub fn wrap(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Detail;

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrap("one two  three\nfour", 9), "one two\nthree\nfour");
        assert_eq!(wrap("", 9), "");
    }

    #[test]
    fn a_section_has_its_title_its_cells_and_its_words() {
        let text = section(&Section {
            title: "Table 3".into(),
            columns: vec!["stack".into(), "threads".into()],
            rows: vec![vec!["2M".into(), "1529".into()]],
            words: "As predicted.\n\nAnd so\non.".into(),
            entries: vec![Detail { title: "E1".into(), fields: vec![("why", "so".into())] }],
            figure: None,
        });
        for part in ["Table 3", "stack", "1529", "As predicted.\n\nAnd so on.", "E1", "why: so"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
