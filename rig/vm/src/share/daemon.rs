//! The inside of a share daemon: confine, then serve.
//!
//! virtiofsd opens below its root safely, but passes the names of mkdir,
//! unlink, rename and symlink on as they come, and a hostile guest kernel can
//! send `..`. Its own program relies on a sandbox, which [`confine`] enters too;
//! [`Bounded`] refuses such names before they get that far, and what would fill
//! the host's disk.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nlrig_host::{Context, Error, Result};
use vhost::vhost_user::{Error as VhostError, Listener};
use vhost_user_backend::{Error::HandleRequest, VhostUserDaemon};
use virtiofsd::filesystem::{FileSystem, SerializableFileSystem};
use virtiofsd::passthrough::read_only::PassthroughFsRo;
use virtiofsd::passthrough::{CachePolicy, Config, PassthroughFs};
use virtiofsd::vhost_user::VhostUserFsBackendBuilder;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use serde::{Deserialize, Serialize};

use super::bounded::{Bounded, Bounds};
use super::confined::{Attempt, Confined, Root, confine};

/// The name under which a program that uses this crate is started again to be
/// the daemon of a share.
pub(super) const PROGRAM: &str = "nlrig-share-daemon";

/// Descriptors that the daemon keeps for itself: queues, events, the folder.
const OWN_FILES: u64 = 640;

/// What a guest may add to a share. A trial writes kilobytes; a command of the
/// user's may fill a folder with results, for which this is ample. A disk that
/// has room for the rig's builds has room for it, and `rm -r` is done with so
/// many names in seconds.
const BOUNDS: Bounds = Bounds { bytes: 8 << 30, entries: 100_000 };

/// What a daemon is told: its one argument, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Options {
    /// The number of the inherited socket that it listens on.
    pub listener: RawFd,
    /// The number of the inherited pipe into which it writes how it is confined.
    pub report: RawFd,
    /// What keeps it in its folder.
    pub root: Root,
    /// Whether every change is refused.
    pub read_only: bool,
    /// Whether nobody changes the folder.
    pub unchanging: bool,
    /// The folder, as bytes: a path need not be UTF-8.
    pub folder: Vec<u8>,
    /// What it tries in place of serving.
    pub attempt: Option<Attempt>,
}

/// The status of a daemon whose attempt was not prevented.
pub(super) const NOT_PREVENTED: i32 = 3;

/// Runs before `main` of every program that uses this crate: a program started
/// under the daemon's name serves a share and ends, and does nothing else.
#[ctor::ctor(unsafe)]
fn become_daemon() {
    let mut arguments = std::env::args_os();
    if arguments.next().is_none_or(|name| name != PROGRAM) {
        return;
    }
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        // It warns that an ordinary user is not root.
        .filter_module("virtiofsd::sandbox", log::LevelFilter::Error)
        .init();
    let options = arguments.next().unwrap_or_default();
    let served = serde_json::from_slice(options.as_encoded_bytes())
        .context("a daemon takes its options from the rig")
        .and_then(|options| serve(&options));
    match served {
        Ok(()) => std::process::exit(0),
        Err(err) => {
            eprintln!("error: {err:#}");
            std::process::exit(1);
        }
    }
}

/// Runs until the guest is gone.
///
/// # Errors
/// The folder cannot be entered, or the connection broke.
fn serve(options: &Options) -> Result<()> {
    let files = virtiofsd::limits::setup_rlimit_nofile(None)
        .map_err(|err| Error::new(format!("cannot raise the limit of open files: {err:?}")))?;
    let folder = Path::new(OsStr::from_bytes(&options.folder));
    // SAFETY: the rig passed these descriptors to be ours alone.
    let (listener, report) =
        unsafe { (Listener::from_raw_fd(options.listener), OwnedFd::from_raw_fd(options.report)) };
    let report = File::from(report);
    let Confined { descriptors, root_dir, listener } =
        confine(folder, options.root, options.read_only, listener, report)?;
    if let Some(attempt) = &options.attempt {
        let status = if attempt.is_prevented(&descriptors) { 0 } else { NOT_PREVENTED };
        std::process::exit(status);
    }
    // Auto: what the host changes is seen a second later at the latest, and
    // ESTALE does not happen. But each open() drops the file's pages, and to start
    // a program from new ones takes a tenth of a second under TCG: QEMU finds code
    // in those that they replace, and forgets it page by page.
    let (cache_policy, looks_again) = match options.unchanging {
        true => (CachePolicy::Always, Duration::from_secs(24 * 60 * 60)),
        false => (CachePolicy::Auto, Duration::from_secs(1)),
    };
    let config = Config {
        root_dir: root_dir.to_string(),
        proc_sfd_rawfd: Some(descriptors),
        cache_policy,
        entry_timeout: looks_again,
        attr_timeout: looks_again,
        guest_fd_limit: files.saturating_sub(OWN_FILES),
        ..Config::default()
    };
    if options.read_only {
        answer(PassthroughFsRo::new(config)?, listener)
    } else {
        answer(PassthroughFs::new(config)?, listener)
    }
}

fn answer<F>(file_system: F, mut listener: Listener) -> Result<()>
where
    F: FileSystem<Inode = u64> + SerializableFileSystem + Send + Sync + 'static,
{
    // No tag here: one that the daemon advertises crashes QEMU 7.1 to 8.0. QEMU
    // has its own option for it.
    let backend = VhostUserFsBackendBuilder::default()
        .set_thread_pool_size(0)
        // The read-only one too: for its names. What it is to add it refuses.
        .build(Bounded::new(file_system, BOUNDS))
        .map_err(|err| Error::new(format!("cannot make the backend: {err}")))?;
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let mut daemon = VhostUserDaemon::new("nlrig-share".to_string(), Arc::new(backend), memory)
        .map_err(|err| Error::new(format!("cannot make the daemon: {err:?}")))?;
    daemon.start(&mut listener).map_err(|err| Error::new(format!("cannot start: {err:?}")))?;
    match daemon.wait() {
        // The normal end: QEMU has closed the connection.
        Ok(()) | Err(HandleRequest(VhostError::Disconnected)) => Ok(()),
        Err(err) => Err(Error::new(format!("the connection broke: {err:?}"))),
    }
}
