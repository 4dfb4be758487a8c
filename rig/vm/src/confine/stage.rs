//! What a child does between fork and exec to confine itself.
//!
//! Everything that allocates or may block is done before the fork; what is left
//! are system calls.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nlrig_host::{Context, Error, Result};
use seccompiler::BpfProgram;

use super::filter;

/// What of the rig's environment the program keeps.
const ENVIRONMENT: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];
/// Descriptors that a QEMU may have: sockets and eventfds of its devices.
const OPEN_FILES: u64 = 1024;
/// More capabilities than a kernel has.
const CAPABILITIES: libc::c_ulong = 64;

/// All that a child needs to confine itself and become its program.
#[derive(Debug)]
pub(super) struct Stage {
    limits: [(Resource, u64); 3],
    namespaces: Option<IdMaps>,
    landlock: Option<OwnedFd>,
    filter: Option<BpfProgram>,
    program: Exec,
}

/// What a [`Stage`] is made from.
#[derive(Debug, Default)]
pub(super) struct Rights {
    /// The largest file it may make: the guest's memory is one.
    pub file_bytes: u64,
    /// Whether it gets a network namespace of its own.
    pub network_namespace: bool,
    /// Its Landlock rules.
    pub landlock: Option<OwnedFd>,
    /// Its filter of system calls, and the secret that lets it become its program.
    pub filter: Option<(BpfProgram, Secret)>,
}

/// Words that no program can guess. They stand in the argument registers that
/// execve(2) does not use, and the filter only lets a call with them through: so
/// the launcher can start a program that can start none.
pub(super) type Secret = [u64; 3];

impl Stage {
    /// The stage of this command, which keeps its arguments and streams.
    pub(super) fn new(command: &Command, rights: Rights) -> Result<Stage> {
        let Rights { file_bytes, network_namespace, landlock, filter } = rights;
        let (filter, secret) = filter.unzip();
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        let maps = IdMaps { uid: format!("{uid} {uid} 1"), gid: format!("{gid} {gid} 1") };
        Ok(Stage {
            limits: [
                (Resource::RLIMIT_CORE, 0),
                (Resource::RLIMIT_NOFILE, OPEN_FILES.min(open_files()?)),
                (Resource::RLIMIT_FSIZE, file_bytes),
            ],
            namespaces: network_namespace.then_some(maps),
            landlock,
            filter,
            program: Exec::new(command, secret.unwrap_or_default())?,
        })
    }

    /// Confines this process and becomes the program. It only returns an error.
    pub(super) fn enter(&self) -> io::Result<()> {
        for (resource, limit) in self.limits {
            setrlimit(resource, limit, limit)?;
        }
        if let Some(maps) = &self.namespaces {
            leave_network(maps)?;
        }
        drop_capabilities();
        // A new user namespace clears it.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        prctl::set_no_new_privs()?;
        if let Some(rules) = &self.landlock {
            restrict_self(rules.as_raw_fd())?;
        }
        if let Some(filter) = &self.filter {
            filter::install(filter)?;
        }
        Err(self.program.exec())
    }
}

/// The limit of open files that nobody here can exceed.
fn open_files() -> Result<u64> {
    Ok(nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE)?.1)
}

/// Lines of uid_map and gid_map, for a host where only a user namespace allows
/// the others.
#[derive(Debug)]
struct IdMaps {
    uid: String,
    gid: String,
}

fn leave_network(maps: &IdMaps) -> io::Result<()> {
    let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC;
    if unshare(flags).is_ok() {
        return Ok(());
    }
    unshare(flags | CloneFlags::CLONE_NEWUSER)?;
    write_to(c"/proc/self/setgroups", b"deny")?;
    write_to(c"/proc/self/uid_map", maps.uid.as_bytes())?;
    write_to(c"/proc/self/gid_map", maps.gid.as_bytes())
}

fn write_to(path: &CStr, text: &[u8]) -> io::Result<()> {
    // SAFETY: path and text outlive the calls; the descriptor is closed on exec.
    let written = unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd < 0 { -1 } else { libc::write(fd, text.as_ptr().cast(), text.len()) }
    };
    if written == text.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives up all capabilities, root's too, for good: the filter and Landlock need
/// no_new_privs, under which no program gets one back. Who has none to give up
/// gets errors, which mean nothing.
fn drop_capabilities() {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    // _LINUX_CAPABILITY_VERSION_3: two sets of three words.
    let header = Header { version: 0x2008_0522, pid: 0 };
    let none = [[0_u32; 3]; 2];
    // SAFETY: numbers and pointers to these two variables; only this process's own
    // rights change.
    unsafe {
        for capability in 0..CAPABILITIES {
            libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
        }
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr());
    }
}

/// Puts this thread under Landlock rules; it must have set no_new_privs.
///
/// # Errors
/// The rules are not such, or there are too many layers of them.
pub(crate) fn restrict_self(rules: RawFd) -> io::Result<()> {
    // SAFETY: a number, and no flags; only this thread's own rights change.
    match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The arguments of execve(2), ready to be used after a fork.
#[derive(Debug)]
struct Exec {
    path: CString,
    argv: Pointers,
    environment: Pointers,
    secret: Secret,
}

/// An array of C strings. The addresses are numbers, because a pointer would
/// make a closure with them unfit for another thread; the texts stay where they
/// are as long as this does.
#[derive(Debug)]
struct Pointers {
    _texts: Vec<CString>,
    addresses: Vec<usize>,
}

impl Pointers {
    fn new(texts: Vec<CString>) -> Pointers {
        let addresses = texts.iter().map(|text| text.as_ptr() as usize).chain([0]).collect();
        Pointers { _texts: texts, addresses }
    }
}

impl Exec {
    fn new(command: &Command, secret: Secret) -> Result<Exec> {
        let program = c_string(command.get_program())?;
        let arguments: Result<Vec<_>> = command.get_args().map(c_string).collect();
        let argv = [vec![program.clone()], arguments?].concat();
        let variables: Result<Vec<_>> = ENVIRONMENT
            .iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?)))
            .map(|(name, value)| {
                let mut text = OsString::from(format!("{name}="));
                text.push(value);
                c_string(&text)
            })
            .collect();
        let (argv, environment) = (Pointers::new(argv), Pointers::new(variables?));
        Ok(Exec { path: program, argv, environment, secret })
    }

    fn exec(&self) -> io::Error {
        let [first, second, third] = self.secret;
        // SAFETY: the strings and the arrays of their addresses, which end with a
        // null pointer, live as long as `self`.
        unsafe {
            libc::syscall(
                libc::SYS_execve,
                self.path.as_ptr(),
                self.argv.addresses.as_ptr(),
                self.environment.addresses.as_ptr(),
                first,
                second,
                third,
            )
        };
        io::Error::last_os_error()
    }
}

fn c_string(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes())
        .map_err(|err| Error::new(err.to_string()))
        .context("an argument of QEMU has a byte 0")
}
