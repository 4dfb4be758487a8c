//! Folders of the host that a guest sees: a daemon process a share.
//!
//! The `virtiofsd` library owns its process (it sets the umask and may exit),
//! so it gets one: the program that uses this crate, started again under another
//! name. The rig binds the socket, connects QEMU's end and removes the name, so
//! nobody else can connect; the daemon confines itself to its folder, serves one
//! connection and ends with it.

mod bounded;
mod confined;
mod daemon;

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nlrig_host::{Context, Error, Result, bail};

use crate::confine::{Confinement, Missing};
use confined::{Attempt, Refusal, Said};
pub use confined::{Root, check, check_limits};
use nlrig_host::interrupt;
use nlrig_host::process::{self, Child};
use nlrig_host::procfs;
use nlrig_host::ui::{self, sanitize};

/// How long a daemon may take to confine itself.
const CONFINED_LIMIT: Duration = Duration::from_secs(30);

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
    /// QEMU's end of the connection.
    socket: Option<OwnedFd>,
    /// What the daemon says.
    log: PathBuf,
    child: Child,
    /// What the daemon says of its confinement.
    report: PipeReader,
    /// Kept until the daemon is confined: another one may have to take its place.
    retry: Option<Retry>,
}

/// What a daemon is started with.
#[derive(Debug)]
struct Retry {
    listener: OwnedFd,
    options: daemon::Options,
}

/// The roots that daemons of this process were refused, the best one first.
static REFUSED: Mutex<Vec<Missing>> = Mutex::new(Vec::new());

impl Share {
    /// Starts the daemon of a share: this very program again, which
    /// `daemon::become_daemon` takes over. `scratch` is a folder of this user's
    /// alone for the socket.
    ///
    /// # Errors
    /// The folder does not exist, or the daemon cannot be started.
    pub fn start(folder: &Folder, scratch: &Path, log: &Path) -> Result<Share> {
        Share::start_with(folder, scratch, log, None)
    }

    fn start_with(
        folder: &Folder,
        scratch: &Path,
        log: &Path,
        attempt: Option<Attempt>,
    ) -> Result<Share> {
        let refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner).len();
        let root = Root::ALL.get(refused).copied().unwrap_or(Root::Folder);
        Share::start_as(folder, scratch, log, attempt, root)
    }

    fn start_as(
        folder: &Folder,
        scratch: &Path,
        log: &Path,
        attempt: Option<Attempt>,
        root: Root,
    ) -> Result<Share> {
        let path = folder
            .path
            .canonicalize()
            .with_context(|| format!("cannot share {}", folder.path.display()))?;
        let (listener, socket) = connect(scratch, &folder.tag)
            .with_context(|| format!("cannot make a socket in {}", scratch.display()))?;
        std::fs::write(log, "").with_context(|| format!("cannot write {}", log.display()))?;
        let options = daemon::Options {
            // Each daemon has its own.
            listener: -1,
            report: -1,
            root,
            read_only: folder.access != Access::ReadWrite,
            unchanging: folder.access == Access::Unchanging,
            folder: path.into_os_string().into_vec(),
            attempt,
        };
        let retry = Retry { listener, options };
        let (child, report) = retry.start(log)?;
        Ok(Share {
            tag: folder.tag.clone(),
            socket: Some(socket),
            log: log.to_path_buf(),
            child,
            report,
            retry: Some(retry),
        })
    }

    /// QEMU's end of the connection, the first time.
    pub fn take_socket(&mut self) -> Option<OwnedFd> {
        self.socket.take()
    }

    /// Waits until the daemon has confined itself, and starts it anew with another
    /// root if this host refuses the better one. Requests wait in the socket.
    ///
    /// # Errors
    /// No root is left; an interruption.
    pub fn wait_until_confined(&mut self) -> Result<Confinement> {
        while let Some(mut retry) = self.retry.take() {
            let refusal = match self.said()? {
                Said::Confined(mut confinement) => {
                    let refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
                    confinement.missing.splice(0..0, refused.iter().cloned());
                    return Ok(confinement);
                }
                Said::Refused(refusal) => refusal,
            };
            retry.options.root = refuse(retry.options.root, refusal)?;
            (self.child, self.report) = retry.start(&self.log)?;
            self.retry = Some(retry);
        }
        Err(Error::new("a daemon is waited for once"))
    }

    /// What the daemon said before it served, or died.
    fn said(&mut self) -> Result<Said> {
        let deadline = Instant::now() + CONFINED_LIMIT;
        let mut line = Vec::new();
        // To the end of the line: the process outside of the namespaces keeps the
        // pipe open.
        while !line.ends_with(b"\n") {
            interrupt::check()?;
            if Instant::now() > deadline {
                bail!("the daemon of the share {} did not confine itself in time", self.tag);
            }
            if !process::readable_soon(&[self.report.as_fd()])? {
                continue;
            }
            let mut chunk = [0; 4096];
            match self.report.read(&mut chunk)? {
                0 => break,
                length => line.extend_from_slice(&chunk[..length]),
            }
        }
        if let Ok(said) = serde_json::from_slice(&line) {
            return Ok(said);
        }
        // It died on the way, in the library's own code.
        self.child.wait_for(CONFINED_LIMIT)?;
        let reason = self.last_words().unwrap_or_else(|| "it gave no reason".to_string());
        Ok(Said::Refused(Refusal { reason, is_final: false }))
    }

    /// The daemon's number among processes.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The processes of the daemon: one in its namespaces serves, another waits
    /// for it outside.
    pub fn processes(&self) -> Vec<u32> {
        [vec![self.id()], procfs::children(self.id())].concat()
    }

    /// Why the daemon ended, if it did in any other way than with its guest.
    pub fn failure(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten().filter(|status| !status.success())?;
        let why = self.last_words().map(|line| format!(": {line}")).unwrap_or_default();
        Some(format!("the daemon of the share {} died ({status}){}", self.tag, sanitize(&why)))
    }

    fn last_words(&self) -> Option<String> {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).lines().last().map(str::to_string)
    }
}

impl Retry {
    fn start(&self, log: &Path) -> Result<(Child, PipeReader)> {
        let (report, their_report) = io::pipe()?;
        let (listener, their_report) = (self.listener.try_clone()?, OwnedFd::from(their_report));
        let options = daemon::Options {
            listener: process::number(&listener),
            report: process::number(&their_report),
            ..self.options.clone()
        };
        let log_file = File::options()
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        // Not the program's path: that may name a newer build by now.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0(daemon::PROGRAM)
            .arg(serde_json::to_string(&options)?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file);
        let pass = vec![listener, their_report];
        Ok((Child::spawn_confined(command, pass, confined::limit_core)?, report))
    }
}

/// Remembers that a root is refused, for all daemons to come; gives back the next
/// one.
fn refuse(root: Root, refusal: Refusal) -> Result<Root> {
    let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    let at = Root::ALL.iter().position(|other| *other == root).unwrap_or_default();
    let next = Root::ALL.get(at + 1).copied().filter(|_| !refusal.is_final);
    let Some(next) = next else {
        bail!("the share daemon cannot be confined: {}", refusal.reason);
    };
    if refused.len() == at {
        let missing = Missing { layer: root.layer(), reason: root.why_not(&refusal.reason) };
        ui::status(&format!(
            "share daemons run without {}: {}",
            missing.layer.name(),
            missing.reason
        ));
        refused.push(missing);
    }
    Ok(next)
}

/// A listening socket with one connection in its queue, and the other end of
/// that. The socket has no name any more: nobody else connects.
fn connect(scratch: &Path, tag: &str) -> io::Result<(OwnedFd, OwnedFd)> {
    let folder = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(scratch)?;
    // However long the folder's path is: that of a socket has 108 bytes at most.
    let path = PathBuf::from(format!("/proc/self/fd/{}/{tag}", folder.as_raw_fd()));
    let listener = UnixListener::bind(&path)?;
    let socket = UnixStream::connect(&path)?;
    std::fs::remove_file(&path)?;
    Ok((listener.into(), socket.into()))
}
