//! What the command says, to people and to programs.

mod closed;
pub(crate) mod dead_letter;
pub(crate) mod message;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::SystemTime,
};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

pub(crate) use self::closed::output_closed;
use crate::exit::Failure;

/// Clears a terminal and goes to its top.
pub(crate) const CLEAR: &str = "\x1b[2J\x1b[H";
/// What a list says that ends before everything is told.
pub(crate) const MORE: &str = "more are there: --limit 0 for all";

/// How to speak: results on standard output, everything else on standard error.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// JSON, one document a line.
    pub json: bool,
    /// Only results and errors.
    pub quiet: bool,
}

impl Output {
    /// One result: the JSON or the text.
    pub(crate) fn result(self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        self.line(&if self.json { json().to_string() } else { text() })
    }

    /// Rows under headings, or a JSON document for each.
    pub(crate) fn rows(self, headings: &[&str], rows: &[(Value, Vec<String>)]) -> Result<(), Failure> {
        if self.json {
            return rows.iter().try_for_each(|(json, _)| self.line(&json.to_string()));
        }
        if rows.is_empty() {
            self.note("nothing found");
            return Ok(());
        }
        self.line(&table(headings, rows.iter().map(|(_, row)| row.clone())))
    }

    /// A line on standard output, there at once.
    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|error| Failure::output(&error))
    }

    /// A remark for people, on standard error.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet && !self.json {
            eprintln!("{text}");
        }
    }

    /// Reports a failure and gives its exit code.
    pub(crate) fn fail(self, failure: &Failure) -> ExitCode {
        if matches!(failure, Failure::OutputClosed) {
            return ExitCode::from(failure.exit_code());
        }
        if self.json {
            let mut error = json!({
                "error": failure.to_string(), "code": failure.code(), "exit_code": failure.exit_code(),
            });
            if let Some(next) = failure.next() {
                error["next"] = next.into();
            }
            if let Some(tandem_client::Error::Refused(refusal)) = failure.broker() {
                error["grpc_code"] = format!("{:?}", refusal.code).into();
                error["field_violations"] = refusal
                    .field_violations
                    .iter()
                    .map(|v| json!({ "field": v.field, "description": v.description }))
                    .collect();
            }
            if let Failure::Problem(problem) = failure
                && !problem.fields.is_empty()
            {
                let fields = problem.fields.iter();
                error["field_violations"] =
                    fields.map(|(field, text)| json!({ "field": field, "description": text })).collect();
            }
            eprintln!("{error}");
        } else {
            eprintln!("error: {failure}\ncode: {}", failure.code());
            if let Some(next) = failure.next() {
                eprintln!("next: {next}");
            }
        }
        ExitCode::from(failure.exit_code())
    }
}

/// Columns without lines between them, to be read and to be cut by tools.
pub(crate) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(headings.iter().copied()).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    // Of a pipe each row is one line, however long.
    if let Some(width) = terminal_width() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// How many letters a line of the terminal has; None: standard output is none.
#[cfg(unix)]
fn terminal_width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

#[cfg(not(unix))]
fn terminal_width() -> Option<u16> {
    None
}

/// Whether a time is over, by the clock of this machine.
pub(crate) fn has_passed(time: Option<prost_types::Timestamp>) -> bool {
    time.and_then(|time| SystemTime::try_from(time).ok()).is_some_and(|time| time <= crate::clock::now())
}

/// A time as RFC 3339 in UTC with milliseconds; empty when it is not set.
pub(crate) fn time(time: Option<prost_types::Timestamp>) -> String {
    time.and_then(|time| SystemTime::try_from(time).ok())
        .map(|time| humantime::format_rfc3339_millis(time).to_string())
        .unwrap_or_default()
}

/// The name of a value in the contract, such as `EVENT_TYPE_INBOX_FULL`, as the command line writes it: `inbox-full`.
pub(crate) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain_columns() {
        let text =
            table(&["ID", "COUNT"], [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), String::new()]]);
        assert_eq!(text, "ID    COUNT\na     1\nlong");
    }

    #[test]
    fn words_are_as_options_take_them() {
        assert_eq!(word("EVENT_TYPE_INBOX_FULL", "EVENT_TYPE_"), "inbox-full");
        assert_eq!(word("OTHER", "EVENT_TYPE_"), "other");
    }

    #[test]
    fn times_are_rfc3339() {
        let at = prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 };
        assert_eq!(time(Some(at)), "2023-11-14T22:13:20.005Z");
        assert_eq!(time(None), "");
    }
}
