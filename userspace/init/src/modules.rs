//! The modules of a guest: `/etc/modules`, which the rig writes, has one a line,
//! its path and then its parameters.

use std::ffi::CString;
use std::fs;
use std::path::Path;

use nix::kmod::init_module;
use nlrig_init::protocol::{RefusedModule, SKIP_MODULES};

use crate::kmsg::KernelLog;

/// Where the list is.
const LIST: &str = "/etc/modules";
/// How many of the newest lines of the log are kept of a refused module.
const LINES_KEPT: usize = 8;

/// Loads the modules of the list up to the first that the kernel refuses, which
/// it returns. What cannot be read is a fault of the host's share, not of the
/// module.
pub fn load(faults: &mut Vec<String>) -> Vec<RefusedModule> {
    if std::env::var_os(SKIP_MODULES).is_some() {
        return Vec::new();
    }
    let list = match fs::read_to_string(LIST) {
        Ok(list) => list,
        Err(err) => {
            faults.push(format!("{LIST}: {err}"));
            return Vec::new();
        }
    };
    for line in list.lines().filter(|line| !line.is_empty()) {
        let (path, parameters) = line.split_once(' ').unwrap_or((line, ""));
        // Not finit_module(): its error may be the share's as well.
        let image = match fs::read(path) {
            Ok(image) => image,
            Err(err) => {
                faults.push(format!("module {path}: {err}"));
                continue;
            }
        };
        let Ok(parameters) = CString::new(parameters) else {
            faults.push(format!("module {path}: its parameters have a zero byte"));
            continue;
        };
        let log = KernelLog::from_now();
        if let Err(errno) = init_module(&image, &parameters) {
            let name = Path::new(path).file_stem().unwrap_or_default();
            // The others may depend on this one.
            return vec![RefusedModule {
                name: name.to_string_lossy().into_owned(),
                errno: errno as i32,
                log: log.newest_lines(LINES_KEPT),
            }];
        }
    }
    Vec::new()
}
