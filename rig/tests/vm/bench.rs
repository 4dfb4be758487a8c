//! Tests that every bound of `nlrig bench` holds on this host.

use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

pub fn tests() -> Vec<Trial> {
    // Ignored: creates 16 or 32 thousand threads a dozen times.
    vec![Trial::test("bench/bounds", bounds_hold).with_ignored_flag(true)]
}

fn bounds_hold() -> Result<(), Failed> {
    let output = Command::new(env!("CARGO_BIN_EXE_nlrig"))
        .args(["bench", "--json", "-"])
        .stdin(Stdio::null())
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    if output.status.code() != Some(0) {
        return Err(format!("{}: {stderr}\n{stdout}", output.status).into());
    }
    let document: Value = serde_json::from_str(&stdout)?;
    if document["schema"] != "nlrig.bench/1" {
        return Err(format!("unexpected schema: {stdout}").into());
    }
    Ok(())
}
