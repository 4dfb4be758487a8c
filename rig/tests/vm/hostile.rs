//! Tests of hostile guests: they cannot reach the host, and their use of it is
//! bounded.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use libtest_mimic::{Failed, Trial};

use crate::exec::{Outcome, check, children_of, nlrig, says, start_sleeping};

pub fn tests() -> Vec<Trial> {
    let test = |name: &str, body: fn() -> Outcome| Trial::test(format!("hostile/{name}"), body);
    vec![
        test("x86_64/no-network", no_network),
        test("i386/folder-filled-without-end", filled_with_bytes),
        // Ignored: a hundred thousand links, and two requests to the daemon for each.
        test("x86_64/links-without-end", filled_with_links).with_ignored_flag(true),
        test("x86_64/names-that-lead-out", names_that_lead_out),
        test("x86_64/escape-codes", escape_codes),
        test("x86_64/temporary-folders-are-their-owners", temporary_folders),
        test("x86_64/qemu-and-daemons-are-confined", confined),
    ]
}

/// Runs a shell script in a guest with write access to `dir`.
fn script(dir: &Path, arguments: &[&str], script: &str) -> Result<Output, Failed> {
    let all = [arguments, &["--writable", "--", "sh", "-c", script]].concat();
    Ok(nlrig().args(all).current_dir(dir).output()?)
}

fn no_network() -> Outcome {
    let dir = tempfile::tempdir()?;
    let output = script(dir.path(), &[], "ls /sys/class/net; tail -n +3 /proc/net/dev")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> =
        text.split_whitespace().filter(|word| word.parse::<u64>().is_err()).collect();
    check("the script succeeds", output.status.success(), &output)?;
    check("only loopback devices exist", lines.iter().all(|word| word.starts_with("lo")), &output)
}

fn filled_with_bytes() -> Outcome {
    let dir = tempfile::tempdir()?;
    // A sparse file counts with its full size.
    let text = "echo fine > small && ! truncate -s 9G hole && ! dd if=/dev/zero of=big bs=1M seek=8191 count=2 \
                && echo still > other; cat small";
    let output = script(dir.path(), &["--abi", "i386"], text)?;
    check("files within the bound are kept", output.stdout == b"fine\n", &output)?;
    says(&output, "No space left on device")?;
    let size = |name: &str| fs::metadata(dir.path().join(name)).map_or(0, |meta| meta.len());
    check("the size is within the bound", size("hole") + size("big") <= 8 << 30, &output)
}

/// The guest removes each link at once, which must not return its share of the bound.
fn filled_with_links() -> Outcome {
    let dir = tempfile::tempdir()?;
    let program = "#include <stdio.h>\n#include <unistd.h>\nint main(void) { int n = 0; char name[16];\n\
                   do sprintf(name, \"l%d\", n); while (!symlink(\"/etc/passwd\", name) && !unlink(name) && ++n < 2000000);\n\
                   printf(\"%d\\n\", n); perror(\"symlink\"); return 0; }\n";
    fs::write(dir.path().join("a.c"), program)?;
    let compiled = Command::new("gcc").args(["-static", "a.c"]).current_dir(dir.path()).status()?;
    assert!(compiled.success());
    let output = script(dir.path(), &["--timeout", "10m"], "./a.out")?;
    says(&output, "No space left on device")?;
    check("exactly a hundred thousand links", output.stdout == b"100000\n", &output)
}

/// Links out of the shared folder, and `..` in paths, do not lead to files of the host.
fn names_that_lead_out() -> Outcome {
    let dir = tempfile::tempdir()?;
    let folder = dir.path().join("shared");
    fs::create_dir(&folder)?;
    fs::write(dir.path().join("secret"), "secret\n")?;
    let text = "ln -s ../secret up; ln -s /etc/hostname root; mkdir ../made; cat up root ../secret; \
                echo lost > ../written; mv up ../moved; ls ..";
    let output = script(&folder, &[], text)?;
    check(
        "no file of the host is read",
        output.stdout.windows(6).all(|part| part != b"secret"),
        &output,
    )?;
    let link = fs::read_link(folder.join("root"))?;
    check("the link is created as given", link == Path::new("/etc/hostname"), &output)?;
    let mut names: Vec<_> = fs::read_dir(dir.path())?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<std::io::Result<_>>()?;
    names.sort();
    check("no file is created outside of the folder", names == ["secret", "shared"], &output)
}

fn escape_codes() -> Outcome {
    let text = "printf '\\033[2J\\033]0;title\\007' > /dev/ttyS0; echo c > /proc/sysrq-trigger";
    let output = script(tempfile::tempdir()?.path(), &["-v"], text)?;
    says(&output, "panicked")?;
    check("no escape code", !output.stderr.contains(&0x1b), &output)
}

fn temporary_folders() -> Outcome {
    let dir = tempfile::tempdir()?;
    let (_rig, _) = start_sleeping(dir.path())?;
    let mut found = 0;
    for entry in fs::read_dir(dir.path())? {
        let entry = entry?;
        let mode = entry.metadata()?.permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", entry.path().display());
        found += 1;
    }
    if found > 0 { Ok(()) } else { Err("no temporary folder exists".into()) }
}

/// The real QEMU and the real daemons, as the host's kernel sees them.
fn confined() -> Outcome {
    let dir = tempfile::tempdir()?;
    let (_rig, processes) = start_sleeping(dir.path())?;
    let network = |id: &str| fs::read_link(format!("/proc/{id}/ns/net"));
    let (mut qemus, mut daemons) = (0, 0);
    for id in processes {
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_string()
        };
        let is_qemu = field("Name:").starts_with("qemu");
        // Outside of its namespaces it only waits.
        if !is_qemu && !children_of(id).is_empty() {
            continue;
        }
        let is_under = |what: &str, value: &str| match field(what) == value {
            true => Ok(()),
            false => Err(Failed::from(format!("{what} is not {value}: {status}"))),
        };
        is_under("Seccomp:", "2")?;
        is_under("NoNewPrivs:", "1")?;
        if is_qemu {
            is_under("CapEff:", "0000000000000000")?;
            // The launcher's filter and those of QEMU's own.
            let filters = field("Seccomp_filters:").parse::<u32>()?;
            if filters < 2 {
                return Err(format!("QEMU has no filter of its own: {status}").into());
            }
        }
        if network(&id.to_string())? == network("self")? {
            return Err(format!("it has the host's network: {status}").into());
        }
        if is_qemu { qemus += 1 } else { daemons += 1 }
    }
    match (qemus, daemons) {
        (1, 2) => Ok(()),
        found => Err(format!("not a QEMU and two daemons, but {found:?}").into()),
    }
}
