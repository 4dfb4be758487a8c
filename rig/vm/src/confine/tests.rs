//! A stand-in in QEMU's place: this very test program, started again by the same
//! launcher, tries what a guest that has taken over its QEMU would.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nlrig_host::Result;
use nlrig_host::process::{self, Child};

use super::*;

/// The first argument of a stand-in; the second one is what it tries, the third
/// one with what.
const STAND_IN: &str = "--stand-in";

#[ctor::ctor(unsafe)]
fn become_stand_in() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.first().is_none_or(|first| first != STAND_IN) {
        return;
    }
    let (what, with) = (arguments[1].as_str(), arguments[2].as_str());
    let done = match what {
        "nothing" => Ok(()),
        "read" => File::open(with).map(drop),
        "read-descriptor" => fs::read(with).map(drop),
        "write" => File::options().write(true).open(with).map(drop),
        "create" => File::create(with).map(drop),
        "remove" => fs::remove_file(with),
        "chmod" => fs::set_permissions(with, fs::Permissions::from_mode(0o600)),
        "start" => Command::new(with).status().map(drop),
        "become" => Err(std::os::unix::process::CommandExt::exec(&mut Command::new(with))),
        "load" => {
            // The loader only has to read a program to run it.
            let mut command = Command::new("/lib64/ld-linux-x86-64.so.2");
            Err(std::os::unix::process::CommandExt::exec(command.arg(with)))
        }
        "tcp" => TcpStream::connect((Ipv4Addr::LOCALHOST, with.parse().unwrap())).map(drop),
        "udp" => UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map(drop),
        "unix" => UnixStream::connect(with).map(drop),
        "signal" => kill(Pid::from_raw(with.parse().unwrap()), Signal::SIGCONT)
            .map_err(std::io::Error::from),
        "thread" => std::thread::spawn(|| ()).join().map_err(|_| std::io::Error::other("panic")),
        "memory" => memory_file(with.parse().unwrap()),
        "wait" => {
            std::thread::sleep(Duration::from_secs(30));
            Ok(())
        }
        other => panic!("{other}"),
    };
    let word = if done.is_ok() { "done" } else { "denied" };
    let _ = writeln!(std::io::stdout(), "{word}");
    std::process::exit(0);
}

fn memory_file(bytes: i64) -> std::io::Result<()> {
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    let file = nix::sys::memfd::memfd_create(c"memory", flags)?;
    Ok(nix::unistd::ftruncate(file, bytes)?)
}

/// A stand-in's command, which tries this.
fn command(program: &Program, what: &str, with: &str) -> Command {
    let mut command = Command::new(program.path());
    command.args([STAND_IN, what, with]);
    command
}

fn tries_with(program: &Program, needs: &Needs<'_>, what: &str, with: &str) -> Result<String> {
    process::capture_with(command(program, what, with), Duration::from_secs(20), |command| {
        program.spawn(command, Vec::new(), needs)
    })
}

fn tries(program: &Program, what: &str, with: &str) -> String {
    tries_with(program, &Needs::default(), what, with).unwrap().trim_end().to_string()
}

/// A stand-in with the layers of this host.
fn stand_in() -> Program {
    let path = std::env::current_exe().unwrap();
    let does_nothing = |program: &Program| tries_with(program, &Needs::default(), "nothing", "");
    Program::find_layers(&path, does_nothing).unwrap().0
}

#[test]
fn a_stand_in_for_qemu_runs_and_has_what_qemu_needs() {
    let program = stand_in();
    assert!(program.has(Layer::Seccomp), "{:?}", program.confinement());
    assert_eq!(tries(&program, "nothing", ""), "done");
    assert_eq!(tries(&program, "thread", ""), "done");
    assert_eq!(tries(&program, "read", "/dev/urandom"), "done");
    assert_eq!(tries(&program, "write", "/dev/null"), "done");
    let needs = Needs { file_bytes: 1 << 20, ..Needs::default() };
    assert_eq!(tries_with(&program, &needs, "memory", "1048576").unwrap(), "done\n");
    // SIGXFSZ, before it says a word.
    assert!(tries_with(&program, &needs, "memory", "1048577").is_err());
}

#[test]
fn a_stand_in_for_qemu_opens_no_file_but_those_it_was_given() {
    let program = stand_in();
    let dir = tempfile::tempdir().unwrap();
    let (given, other) = (dir.path().join("given"), dir.path().join("other"));
    for path in [&given, &other] {
        fs::write(path, "text").unwrap();
    }
    let file = File::open(&given).unwrap();
    let readable = [file.as_fd()];
    let needs = Needs { readable: &readable, ..Needs::default() };
    let tries_file = |what, path: &Path| {
        tries_with(&program, &needs, what, path.to_str().unwrap()).unwrap().trim_end().to_string()
    };
    assert_eq!(tries_file("read", &given), "done");
    for path in [&other, Path::new("/etc/passwd"), Path::new("/proc/self/environ")] {
        assert_eq!(tries_file("read", path), "denied", "{}", path.display());
    }
    for what in ["write", "remove", "chmod"] {
        assert_eq!(tries_file(what, &given), "denied", "{what}");
    }
    assert_eq!(tries_file("create", &dir.path().join("new")), "denied");
    assert_eq!(fs::read(&given).unwrap(), b"text");
}

#[test]
fn a_stand_in_for_qemu_starts_no_program() {
    let program = stand_in();
    for what in ["start", "become", "load"] {
        assert_eq!(tries(&program, what, "/bin/true"), "denied", "{what}");
    }
    let itself = program.path().to_str().unwrap();
    assert_eq!(tries(&program, "become", itself), "denied", "not even itself");
}

#[test]
fn a_stand_in_for_qemu_reaches_no_network_and_no_other_process() {
    let program = stand_in();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let (tcp, _unix) =
        (TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), UnixListener::bind(&path).unwrap());
    let port = tcp.local_addr().unwrap().port().to_string();
    assert_eq!(tries(&program, "tcp", &port), "denied");
    assert_eq!(tries(&program, "udp", ""), "denied");
    assert_eq!(tries(&program, "unix", path.to_str().unwrap()), "denied");
    assert_eq!(tries(&program, "signal", &std::process::id().to_string()), "denied");
}

/// As the kernel sees it, not as the process does.
#[test]
fn a_stand_in_for_qemu_has_no_rights_and_no_descriptors_left() {
    let program = stand_in();
    // Left open by whoever started the rig: not closed on exec.
    let leaked = File::open("/dev/null").unwrap();
    let flags = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty());
    nix::fcntl::fcntl(&leaked, flags).unwrap();
    let (theirs, _ours) = process::socket_pair().unwrap();
    let number = process::number(&theirs);
    let child = waiting(&program, vec![theirs]);
    let proc = format!("/proc/{}", child.id());
    let status = fs::read_to_string(format!("{proc}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_string()
    };
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("NoNewPrivs:"), "1");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    if program.has(Layer::NetworkNamespace) {
        let network = |proc: &str| fs::read_link(format!("{proc}/ns/net")).unwrap();
        assert_ne!(network(&proc), network("/proc/self"));
    }
    let limits = fs::read_to_string(format!("{proc}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let mut open: Vec<i32> = fs::read_dir(format!("{proc}/fd"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .collect();
    open.sort_unstable();
    assert_eq!(open, [0, 1, 2, number]);
}

/// A stand-in that has become its program.
fn waiting(program: &Program, pass: Vec<OwnedFd>) -> Child {
    let mut command = command(program, "wait", "");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    program.spawn(command, pass, &Needs::default()).unwrap()
}

#[test]
fn a_wrapper_runs_without_the_layer_that_it_cannot_have() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wrapper");
    fs::write(&path, "#!/bin/sh\n/bin/true\nexec /bin/echo \"$@\"\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let run = |program: &Program| {
        let mut command = Command::new(program.path());
        command.arg("word");
        process::capture_with(command, Duration::from_secs(20), |command| {
            program.spawn(command, Vec::new(), &Needs::default())
        })
    };
    let (program, text) = Program::find_layers(&path, run).unwrap();
    assert_eq!(text, "word\n");
    let missing: Vec<_> =
        program.confinement().missing.iter().map(|missing| missing.layer).collect();
    assert!(missing.contains(&Layer::Seccomp), "{missing:?}");
    assert_eq!(program.has(Layer::Landlock), landlock_version() > 0);
}

#[test]
fn a_program_that_fails_without_any_layer_fails_with_its_own_words() {
    let path = Path::new("/bin/sh");
    let run = |program: &Program| {
        let mut command = Command::new(program.path());
        command.args(["-c", "echo libfoo.so.1: cannot open >&2; exit 127"]);
        process::capture_with(command, Duration::from_secs(20), |command| {
            program.spawn(command, Vec::new(), &Needs::default())
        })
    };
    let err = Program::find_layers(path, run).unwrap_err();
    assert!(format!("{err:#}").contains("libfoo.so.1: cannot open"), "{err:#}");
}
