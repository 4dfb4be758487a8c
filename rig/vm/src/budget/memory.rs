//! How much memory there is: for all, for this process, and right now.

use std::fs;
use std::path::{Path, PathBuf};

use nlrig_host::Result;

use nlrig_host::procfs::meminfo_bytes;

/// The memory that this process and its children may use at most, in bytes.
pub fn total_bytes(meminfo: &Path) -> Result<u64> {
    let installed = meminfo_bytes(meminfo, "MemTotal:")?;
    // A kernel without control groups has no such file.
    let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Ok(usable(installed, &cgroup, |path| fs::read_to_string(path).ok()))
}

/// What can be had without swapping, by the host's kernel, in bytes. It counts
/// the whole host, even in a control group.
pub fn available_bytes(meminfo: &Path) -> Result<u64> {
    meminfo_bytes(meminfo, "MemAvailable:")
}

/// The memory this process may use: what is installed, or the least limit of
/// its control groups. "max" is no number, and those that mean no limit are
/// larger than any memory.
fn usable(installed: u64, cgroup: &str, read: impl Fn(&Path) -> Option<String>) -> u64 {
    let limits =
        limit_files(cgroup).into_iter().filter_map(|path| read(&path)?.trim().parse().ok());
    limits.fold(installed, u64::min)
}

/// Where a limit of memory may be, by /proc/self/cgroup (cgroups(7)), at the
/// usual places of the file systems. In a container the path may be the host's
/// and lead nowhere; the root is then the container's own group.
fn limit_files(cgroup: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (mounts, file): (&[&str], _) = if controllers.is_empty() {
            (&["/sys/fs/cgroup", "/sys/fs/cgroup/unified"], "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (&["/sys/fs/cgroup/memory"], "memory.limit_in_bytes")
        } else {
            continue;
        };
        for folder in Path::new(path.trim_start_matches('/')).ancestors() {
            files.extend(mounts.iter().map(|mount| Path::new(mount).join(folder).join(file)));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_file_that_says_nothing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meminfo");
        let err = available_bytes(&path).unwrap_err();
        assert!(format!("{err:#}").contains("meminfo"), "{err:#}");
        fs::write(&path, "MemTotal: 1 kB\n").unwrap();
        let err = available_bytes(&path).unwrap_err();
        assert!(format!("{err:#}").contains("meminfo: no MemAvailable"), "{err:#}");
    }

    /// The memory of 16 GiB that is left by these limits.
    fn left(cgroup: &str, limits: &[(&str, &str)]) -> u64 {
        usable(16 * GIB, cgroup, |path| {
            let limit = limits.iter().find(|(file, _)| Path::new(file) == path);
            limit.map(|(_, text)| text.to_string())
        })
    }

    #[test]
    fn the_least_limit_up_to_the_root_counts() {
        let unified = "0::/user.slice/run-1.scope\n";
        let slice = "/sys/fs/cgroup/user.slice/memory.max";
        let scope = "/sys/fs/cgroup/user.slice/run-1.scope/memory.max";
        let (four, eight) = ("4294967296\n", "8589934592\n");
        assert_eq!(left(unified, &[(slice, four), (scope, eight)]), 4 * GIB);
        assert_eq!(left(unified, &[(slice, "max\n"), (scope, eight)]), 8 * GIB);
        // A container sees its own group as the root, and its path may be the host's.
        assert_eq!(left("0::/\n", &[("/sys/fs/cgroup/memory.max", four)]), 4 * GIB);
        assert_eq!(left("0::/../x\n", &[("/sys/fs/cgroup/memory.max", four)]), 4 * GIB);
        let legacy = "9:name=systemd:/\n4:cpu,memory:/docker/1:2\n3:cpuset:/x\n0::/\n";
        let root = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        let own = "/sys/fs/cgroup/memory/docker/1:2/memory.limit_in_bytes";
        assert_eq!(left(legacy, &[(root, four)]), 4 * GIB);
        assert_eq!(left(legacy, &[(root, "9223372036854771712\n"), (own, eight)]), 8 * GIB);
    }

    #[test]
    fn what_is_no_limit_changes_nothing() {
        let file = "/sys/fs/cgroup/memory.max";
        for text in ["max\n", "", "?", "9223372036854771712\n", "99999999999999999999999\n"] {
            assert_eq!(left("0::/\n", &[(file, text)]), 16 * GIB, "{text}");
        }
        for cgroup in ["", "\n", "0", "0::", "4:memory", ":::"] {
            assert_eq!(left(cgroup, &[]), 16 * GIB, "{cgroup}");
        }
    }

    #[test]
    fn this_host_has_memory() {
        let meminfo = Path::new("/proc/meminfo");
        assert!(total_bytes(meminfo).unwrap() > 1 << 20);
        assert!(available_bytes(meminfo).unwrap() > 1 << 20);
    }
}
