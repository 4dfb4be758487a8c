//! How a share's daemon is confined to its folder, and what it says of it.
//!
//! The best root is that of virtiofsd's own sandbox: namespaces of its own, in
//! which the folder is all there is. Where a host refuses these, chroot(2) or
//! Landlock keeps the daemon in its folder, or it does not run.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{chdir, chroot, getegid, geteuid};
use nlrig_host::scratch::Scratch;
use nlrig_host::{Context, Error, Result, bail, procfs};
use serde::{Deserialize, Serialize};
use vhost::vhost_user::Listener;
use virtiofsd::sandbox::{Error as SandboxError, Sandbox, SandboxMode};

use super::{Access, Folder, Share};
use crate::confine::{
    self, Confinement, Layer, Missing, NO_LANDLOCK, landlock_version, restrict_self,
    why_no_namespaces,
};

/// What a daemon needs at least: 640 descriptors for itself, the others for the
/// files that a guest has open.
const OPEN_FILES_MIN: u64 = 1024;
/// CAP_SYS_RESOURCE of linux/capability.h.
const CAP_SYS_RESOURCE: u32 = 24;
/// How long a daemon that is only tried may take to end.
const CHECK_LIMIT: Duration = Duration::from_secs(20);

/// What keeps a daemon in its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// virtiofsd's own sandbox: mount, process and network namespaces.
    Namespaces,
    /// chroot(2), in a user namespace unless it is root's.
    Chroot,
    /// Landlock alone.
    Folder,
}

impl Root {
    /// The best one first.
    pub(super) const ALL: [Root; 3] = [Root::Namespaces, Root::Chroot, Root::Folder];

    pub(super) fn layer(self) -> Layer {
        match self {
            Root::Namespaces => Layer::Namespaces,
            Root::Chroot => Layer::Chroot,
            Root::Folder => Layer::Landlock,
        }
    }

    /// Why this host refuses it, from what the kernel answered.
    pub(super) fn why_not(self, answer: &str) -> String {
        let why = match self {
            Root::Chroot if geteuid().is_root() => {
                "chroot takes the capability CAP_SYS_CHROOT".to_string()
            }
            _ => why_no_namespaces(),
        };
        format!("{why} ({answer})")
    }
}

/// A daemon's first and only word.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said {
    Confined(Confinement),
    Refused(Refusal),
}

/// Why a daemon did not get its root.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub reason: String,
    /// Whether no other root would do.
    pub is_final: bool,
}

/// What a daemon that is only tried does in place of serving: each is what its
/// confinement has to prevent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Attempt {
    /// Opens a file.
    Open(PathBuf),
    /// Opens a file on the way that its descriptor of /proc may lead.
    OpenThroughProc(PathBuf),
    /// Starts a program.
    Start,
    /// Connects to a port of this machine.
    Connect(u16),
}

impl Attempt {
    /// Whether it was prevented.
    pub(super) fn is_prevented(&self, descriptors: &File) -> bool {
        match self {
            Attempt::Open(path) => File::open(path).is_err(),
            Attempt::OpenThroughProc(path) => {
                let path = path.strip_prefix("/").unwrap_or(path);
                let up = Path::new("../../../../../../..").join(path);
                open_at(descriptors.as_raw_fd(), &up).is_err()
            }
            Attempt::Start => Command::new("/proc/self/exe").status().is_err(),
            Attempt::Connect(port) => TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_err(),
        }
    }
}

fn open_at(folder: RawFd, path: &Path) -> nix::Result<File> {
    use nix::fcntl::{OFlag, openat};
    use std::os::fd::BorrowedFd;
    // SAFETY: the caller holds the file of this descriptor.
    let folder = unsafe { BorrowedFd::borrow_raw(folder) };
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    openat(folder, path, flags, nix::sys::stat::Mode::empty()).map(File::from)
}

/// Confines a daemon on a folder of its own, as a run would, and lets it try to
/// open a file outside of it.
///
/// # Errors
/// No daemon can be confined on this host, or the file could be opened.
pub fn check() -> Result<Confinement> {
    check_limits()?;
    let scratch = Scratch::new()?;
    let (shared, outside) = (scratch.path().join("shared"), scratch.path().join("outside"));
    fs::create_dir(&shared).with_context(|| format!("cannot make {}", shared.display()))?;
    nlrig_host::cache::write(&outside, "")?;
    let (confinement, prevented) = attempt(&shared, &scratch, Attempt::Open(outside))?;
    if !prevented {
        bail!("a share daemon can open files outside of its share");
    }
    Ok(confinement)
}

/// Starts a daemon that makes an attempt; true if that was prevented.
pub(super) fn attempt(
    folder: &Path,
    scratch: &Scratch,
    attempt: Attempt,
) -> Result<(Confinement, bool)> {
    let folder =
        Folder { tag: "check".to_string(), path: folder.to_path_buf(), access: Access::ReadWrite };
    let log = scratch.path().join("check.log");
    let mut share = Share::start_with(&folder, scratch.path(), &log, Some(attempt))?;
    let confinement = share.wait_until_confined()?;
    let status = share.child.wait_for(CHECK_LIMIT)?;
    let status = status.context("a share daemon that was only tried does not end")?;
    Ok((confinement, status.code() != Some(super::daemon::NOT_PREVENTED)))
}

/// Refuses a host whose limit of open files no daemon could live with.
///
/// # Errors
/// The limit is too low, and this user may not raise it.
pub fn check_limits() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < OPEN_FILES_MIN && !procfs::is_capable(CAP_SYS_RESOURCE) {
        bail!(
            "the hard limit of open files (RLIMIT_NOFILE) is {hard}, and a share daemon needs {OPEN_FILES_MIN}; raise it where it was set: `ulimit -n` of a shell, LimitNOFILE= of a service"
        );
    }
    Ok(())
}

/// Between fork and exec: a daemon leaves no core file.
pub(super) fn limit_core() -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, 0)?)
}

/// A daemon in its folder.
pub(super) struct Confined {
    /// A folder with this process's descriptors by number.
    pub descriptors: File,
    /// The folder, as this process sees it.
    pub root_dir: &'static str,
    pub listener: Listener,
}

/// Confines this process to a folder for good, and writes what it gets into
/// `report`. The process must have one thread.
///
/// # Errors
/// The root is refused, which `report` says too.
pub(super) fn confine(
    folder: &Path,
    root: Root,
    read_only: bool,
    listener: Listener,
    mut report: File,
) -> Result<Confined> {
    let confined = enter(folder, root, listener).and_then(|(confined, mut layers)| {
        let missing = restrict(&confined, root, read_only, &mut layers)?;
        Ok((confined, Confinement { layers, missing }))
    });
    let (confined, said) = match confined {
        Ok((confined, confinement)) => (Ok(confined), Said::Confined(confinement)),
        Err(err) => {
            let reason = format!("{err:#}");
            (Err(err), Said::Refused(Refusal { reason, is_final: root == Root::Folder }))
        }
    };
    let mut line = serde_json::to_vec(&said)?;
    line.push(b'\n');
    report.write_all(&line)?;
    confined
}

/// Makes the folder all that this process sees.
fn enter(folder: &Path, root: Root, listener: Listener) -> Result<(Confined, Vec<Layer>)> {
    // By its own name below: a path need not be UTF-8.
    chdir(folder).with_context(|| format!("cannot enter {}", folder.display()))?;
    let mut layers = vec![Layer::Limits];
    match root {
        Root::Namespaces => {
            let mut sandbox =
                Sandbox::new(".".to_string(), SandboxMode::Namespace, Vec::new(), Vec::new());
            let listener = sandbox.enter(listener).map_err(refused)?;
            let descriptors = sandbox.get_proc_self_fd().context("the sandbox has no /proc")?;
            layers.push(Layer::Namespaces);
            Ok((Confined { descriptors, root_dir: "/", listener }, layers))
        }
        Root::Chroot => {
            let is_root = geteuid().is_root();
            let (uid, gid) = (geteuid(), getegid());
            if !is_root {
                unshare(CloneFlags::CLONE_NEWUSER)?;
                fs::write("/proc/self/setgroups", "deny")?;
                fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
                fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
            }
            if unshare(CloneFlags::CLONE_NEWNET).is_ok() {
                layers.push(Layer::NetworkNamespace);
            }
            let descriptors = own_descriptors()?;
            chroot(".")?;
            chdir("/")?;
            layers.push(Layer::Chroot);
            Ok((Confined { descriptors, root_dir: "/", listener }, layers))
        }
        Root::Folder => {
            if landlock_version() == 0 {
                bail!("{}; {NO_LANDLOCK}", why_no_namespaces());
            }
            Ok((Confined { descriptors: own_descriptors()?, root_dir: ".", listener }, layers))
        }
    }
}

/// The library's error, with the words of the kernel where it is likely to say no.
fn refused(err: SandboxError) -> Error {
    let (what, err) = match err {
        SandboxError::Unshare(err) => ("unshare", err),
        SandboxError::MountProc(err) => ("mount of /proc", err),
        SandboxError::DropSupplementalGroups(err) => ("setgroups", err),
        SandboxError::PivotRoot(err) => ("pivot_root", err),
        other => return Error::new(other.to_string()),
    };
    Error::new(format!("{what}: {err}"))
}

/// The host's own /proc/self/fd, where no other can be mounted.
fn own_descriptors() -> Result<File> {
    let open = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/proc/self/fd");
    open.context("cannot open /proc/self/fd")
}

/// Gives up the rights that serving does not take; gives back what is missing.
fn restrict(
    confined: &Confined,
    root: Root,
    read_only: bool,
    layers: &mut Vec<Layer>,
) -> Result<Vec<Missing>> {
    let mut missing = Vec::new();
    keep_capabilities(match (geteuid().is_root(), read_only) {
        (true, true) => OF_READERS,
        (true, false) => OF_WRITERS,
        (false, _) => &[],
    })?;
    // A new user namespace and changed capabilities clear it.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    prctl::set_no_new_privs()?;
    let too_old = landlock_version() < confine::RENAMES_SINCE && !read_only;
    let rules = confine::share_ruleset(Path::new(confined.root_dir), read_only)?;
    match rules.filter(|_| !too_old || root == Root::Folder) {
        Some(rules) => {
            restrict_self(rules.as_raw_fd())?;
            layers.push(Layer::Landlock);
        }
        None => {
            let reason = match landlock_version() {
                0 => NO_LANDLOCK,
                _ => "the kernel's Landlock cannot rename between folders (Linux 5.19 or newer)",
            };
            missing.push(Missing { layer: Layer::Landlock, reason: reason.to_string() });
        }
    }
    let filter = confine::share_daemon()?;
    match confine::install(&filter) {
        Ok(()) => layers.push(Layer::Seccomp),
        Err(err) => {
            let reason = format!("this kernel refuses filters of system calls ({err})");
            missing.push(Missing { layer: Layer::Seccomp, reason });
        }
    }
    layers.push(Layer::Names);
    Ok(missing)
}

/// What serving files as their owners takes; no device nodes, no way out of a
/// changed root.
const OF_WRITERS: &[&str] =
    &["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID", "SETFCAP"];
/// What reading them takes.
const OF_READERS: &[&str] = &["DAC_OVERRIDE"];

/// Keeps what of these this process has; root in a container may lack some.
fn keep_capabilities(names: &[&str]) -> Result<()> {
    let has = |name: &&str| {
        let number = capng::name_to_capability(name);
        number.is_ok_and(|number| capng::have_capability(capng::Type::EFFECTIVE, number))
    };
    let names: Vec<_> = names.iter().copied().filter(has).collect();
    // CAP_SETPCAP: without it the bounding set stays, and no_new_privs makes it
    // worth nothing.
    let sets = match has(&"SETPCAP") {
        true => capng::Set::BOTH,
        false => capng::Set::CAPS,
    };
    capng::clear(capng::Set::BOTH);
    if !names.is_empty() {
        capng::updatev(capng::Action::ADD, capng::Type::PERMITTED | capng::Type::EFFECTIVE, names)
            .map_err(|err| Error::new(format!("cannot choose capabilities: {err}")))?;
    }
    capng::apply(sets).map_err(|err| Error::new(format!("cannot drop capabilities: {err}")))
}

#[cfg(test)]
mod tests;
