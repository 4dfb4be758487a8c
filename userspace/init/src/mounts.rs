//! The mount table: `/etc/fstab` in the initramfs, in fstab(5) format. The rig
//! writes it from the image's manifest.

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};

/// Path of the table.
pub const TABLE: &str = "/etc/fstab";

/// Mounts all entries in order, creating mount points. Continues after a
/// failure, and returns all failures.
pub fn mount_all(table: &Path) -> Vec<String> {
    let text = match fs::read_to_string(table) {
        Ok(text) => text,
        Err(err) => return vec![format!("{}: {err}", table.display())],
    };
    let mut faults = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if let Err(reason) = mount_line(line) {
            faults.push(format!("mount \"{line}\": {reason}"));
        }
    }
    faults
}

fn mount_line(line: &str) -> Result<(), String> {
    let mut words = line.split_whitespace();
    let (Some(source), Some(target), Some(kind)) = (words.next(), words.next(), words.next())
    else {
        return Err("not a line of fstab(5)".to_string());
    };
    let (flags, data) = options(words.next().unwrap_or("defaults"));
    fs::create_dir_all(target).map_err(|err| format!("mkdir: {err}"))?;
    let data = (!data.is_empty()).then_some(data.as_str());
    mount(Some(source), target, Some(kind), flags, data).map_err(|err| err.to_string())
}

/// Splits mount options into flags and file system data.
fn options(words: &str) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for word in words.split(',') {
        match word {
            "defaults" | "rw" => {}
            "ro" => flags |= MsFlags::MS_RDONLY,
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_flags_or_data() {
        assert_eq!(
            options("ro,nosuid,size=4m,mode=0700"),
            (MsFlags::MS_RDONLY | MsFlags::MS_NOSUID, "size=4m,mode=0700".to_string())
        );
        assert_eq!(options("defaults"), (MsFlags::empty(), String::new()));
    }

    #[test]
    fn a_malformed_line_is_an_error() {
        assert!(mount_line("proc /proc").is_err());
    }
}
