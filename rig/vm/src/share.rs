//! Folders of the host that a guest sees: a daemon process a share.
//!
//! The `virtiofsd` library owns its process (it sets the umask and may exit),
//! so it gets one: the program that uses this crate, started again under another
//! name. The rig binds the socket and passes it on, so there is no race for it; the
//! daemon confines itself to its folder, serves one connection and ends with
//! it.

mod bounded;
mod daemon;

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nlrig_host::{Context, Result};

use nlrig_host::process::{self, Child};
use nlrig_host::ui::sanitize;

/// A folder to share, and what the guest may do with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// The name by which the guest mounts it.
    pub tag: String,
    /// The folder on the host.
    pub path: PathBuf,
    /// Whether the guest may write.
    pub access: Access,
}

/// What a guest may do with a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Look only, at what nobody changes: the guest need not look twice.
    Unchanging,
    /// Look only.
    ReadOnly,
    /// Everything.
    ReadWrite,
}

/// A share with its daemon, which lives as long as this does.
#[derive(Debug)]
pub struct Share {
    /// The name by which the guest mounts it.
    pub tag: String,
    /// The socket that QEMU connects to.
    pub socket: PathBuf,
    /// What the daemon says.
    log: PathBuf,
    child: Child,
}

impl Share {
    /// Starts the daemon of a share: this very program again, which
    /// `daemon::become_daemon` takes over. `scratch` is a folder of this user's
    /// alone for the socket.
    ///
    /// # Errors
    /// The folder does not exist, or the daemon cannot be started.
    pub fn start(folder: &Folder, scratch: &Path, log: &Path) -> Result<Share> {
        let path = folder
            .path
            .canonicalize()
            .with_context(|| format!("cannot share {}", folder.path.display()))?;
        let socket = scratch.join(format!("{}.sock", folder.tag));
        let listener = OwnedFd::from(
            UnixListener::bind(&socket)
                .with_context(|| format!("cannot make the socket {}", socket.display()))?,
        );
        let log_file = std::fs::File::create(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let options = daemon::Options {
            listener: process::number(&listener),
            read_only: folder.access != Access::ReadWrite,
            unchanging: folder.access == Access::Unchanging,
            folder: path.into_os_string().into_vec(),
        };
        // Not the program's path: that may name a newer build by now.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0(daemon::PROGRAM)
            .arg(serde_json::to_string(&options)?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file);
        let child = Child::spawn(command, vec![listener])?;
        Ok(Share { tag: folder.tag.clone(), socket, log: log.to_path_buf(), child })
    }

    /// The daemon's number among processes.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Why the daemon ended, if it did in any other way than with its guest.
    pub fn failure(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten().filter(|status| !status.success())?;
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let why = log.lines().last().map(|line| format!(": {line}")).unwrap_or_default();
        Some(format!("the daemon of the share {} died ({status}){}", self.tag, sanitize(&why)))
    }
}
