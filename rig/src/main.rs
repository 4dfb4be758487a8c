//! `nlrig`, the program.

use std::process::ExitCode;

fn main() -> ExitCode {
    match nlrig::cli::run() {
        Ok(status) => ExitCode::from(status),
        Err(err) => {
            // `#` prints the whole chain of causes on one line.
            nlrig::ui::error(&format!("{err:#}"));
            ExitCode::from(nlrig::error::status(&err))
        }
    }
}
