//! QEMU's arguments. Nothing else in the rig knows them.
//!
//! [`arguments`] is pure: a [`Machine`] goes in, words come out, and tests look
//! at them without a VM. [`find`] looks for the program and for the layers that
//! confine it on this host.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nlrig_host::{Context, Result, bail};

use crate::accel::Accel;
use crate::confine::{Layer, Needs, Program};
use nlrig_build::Arch;
use nlrig_host::process;

/// The oldest QEMU that has all we ask of it: `-M microvm,rtc=on` with
/// PVH and `vhost-user-fs-device` on virtio-mmio, as measured on 7.2.
pub const OLDEST: (u32, u32) = (7, 2);

/// One virtual machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What it is.
    pub arch: Arch,
    /// What runs its instructions.
    pub accel: Accel,
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// The kernel: an ELF image with a PVH entry point.
    pub kernel: PathBuf,
    /// The archive that becomes its first file system.
    pub initramfs: PathBuf,
    /// The kernel's command line.
    pub command_line: String,
    /// Whether QEMU confines itself further (`-sandbox`).
    pub sandbox: bool,
    /// Shares: the name by which the guest mounts it, and the number of the
    /// inherited socket that is connected to its daemon.
    pub shares: Vec<(String, i32)>,
    /// The inherited socket that is the other end of the serial console.
    pub console: i32,
    /// The inherited socket at which QEMU's monitor answers.
    pub monitor: i32,
    /// Ports: the name by which the guest finds it, and the number of the
    /// inherited socket at the host's end.
    pub ports: Vec<(String, i32)>,
}

/// The name of the program that emulates this architecture.
pub fn program(arch: Arch) -> &'static str {
    match arch {
        Arch::I386 => "qemu-system-i386",
        Arch::X86_64 => "qemu-system-x86_64",
    }
}

/// Everything after the program's name.
pub fn arguments(machine: &Machine) -> Vec<OsString> {
    let mut arguments = if machine.sandbox { words(&SANDBOX) } else { Vec::new() };
    arguments.extend(board(machine));
    arguments.extend(kernel(machine));
    arguments.extend(console(machine.console));
    arguments.extend(monitor(machine.monitor));
    for (index, (tag, socket)) in machine.shares.iter().enumerate() {
        arguments.extend(share(index, tag, *socket));
    }
    arguments.extend(ports(&machine.ports));
    arguments
}

/// All that QEMU can deny itself. A violation ends it.
const SANDBOX: [&str; 2] =
    ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"];

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn board(machine: &Machine) -> Vec<OsString> {
    let memory = machine.memory_bytes;
    let mut arguments = words(&[
        // Without ACPI the kernel finds the virtio devices on its command line.
        // PIT and PIC stay on: under TCG a machine without them never boots.
        // The RTC stays on too: without it the kernel waits a second for a clock
        // chip that reads as all ones (mc146818_get_time's timeout), and the
        // guest's date begins in 1970 or later.
        "-machine",
        "microvm,acpi=off,rtc=on,memory-backend=memory",
        // Neither a configuration of the user's nor devices we did not ask for.
        "-no-user-config",
        "-nodefaults",
        "-display",
        "none",
        // The guest ends by a triple fault (see the guest's PID 1); this makes
        // it the end of QEMU too.
        "-no-reboot",
        "-cpu",
        cpu(machine),
    ]);
    arguments.extend(match machine.accel {
        // One host thread a processor.
        Accel::Tcg => words(&["-accel", "tcg,thread=multi"]),
        // No list to fall back through: that is the rig's decision.
        Accel::Kvm => words(&["-accel", "kvm"]),
    });
    arguments.extend(words(&[
        "-smp",
        &machine.cpus.to_string(),
        "-m",
        &format!("size={memory}B"),
        // The share daemons map the guest's memory.
        "-object",
        &format!("memory-backend-memfd,id=memory,size={memory}B,share=on"),
    ]));
    arguments
}

/// Under TCG `host` is an error; under KVM `max` is the host's. QEMU's own `max`
/// says that it is an Athlon of 2001, which was not sold for two sockets: a
/// 32-bit kernel warns of that and is tainted from its first second. So there it
/// says that it is what QEMU's `qemu64` is, and can do as much as before.
fn cpu(machine: &Machine) -> &'static str {
    match (machine.arch, machine.accel) {
        (Arch::I386, Accel::Tcg) => "max,family=15,model=107,stepping=1",
        _ => "max",
    }
}

fn kernel(machine: &Machine) -> Vec<OsString> {
    vec![
        "-kernel".into(),
        machine.kernel.clone().into(),
        "-initrd".into(),
        machine.initramfs.clone().into(),
        "-append".into(),
        machine.command_line.clone().into(),
    ]
}

/// QEMU's name for the serial console.
pub const CONSOLE: &str = "console";

fn console(fd: i32) -> Vec<OsString> {
    // A socket, not QEMU's standard streams: a break can be sent on it.
    let chardev = format!("socket,id={CONSOLE},fd={fd}");
    words(&["-chardev", &chardev, "-serial", &format!("chardev:{CONSOLE}")])
}

fn monitor(fd: i32) -> Vec<OsString> {
    let chardev = format!("socket,id=monitor,fd={fd}");
    words(&["-chardev", &chardev, "-mon", "chardev=monitor,mode=control"])
}

fn share(index: usize, tag: &str, socket: i32) -> Vec<OsString> {
    words(&[
        "-chardev",
        &format!("socket,id=share{index},fd={socket}"),
        "-device",
        &format!("vhost-user-fs-device,chardev=share{index},tag={tag}"),
    ])
}

fn ports(ports: &[(String, i32)]) -> Vec<OsString> {
    let mut arguments = words(&["-device", "virtio-serial-device,max_ports=8"]);
    for (index, (name, fd)) in ports.iter().enumerate() {
        arguments.extend(words(&[
            "-chardev",
            &format!("socket,id=port{index},fd={fd}"),
            "-device",
            // Port 0 is reserved for a console.
            &format!("virtserialport,nr={},chardev=port{index},name={name}", index + 1),
        ]));
    }
    arguments
}

/// The QEMU of this host for an architecture.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// Its version, as it prints it.
    pub version: String,
    /// Where it is, and what confines it.
    pub program: Program,
}

/// Finds the QEMU for this architecture. Its version is read under the layers
/// that will confine it, so a layer that this host refuses shows here.
///
/// # Errors
/// There is none, or it is too old; the message says which package to install.
pub fn find(arch: Arch) -> Result<Qemu> {
    let name = program(arch);
    let Some(path) = process::find(name) else {
        bail!("there is no {name}: install the package qemu-system-x86");
    };
    // The name in a relative PATH, a link's target: one place for all.
    let path = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
    let path = behind_script(&path).unwrap_or(path);
    let (program, text) = Program::find_layers(&path, ask_version)?;
    let line = text.lines().next().unwrap_or_default();
    let (major, minor) = parse_version(line)
        .with_context(|| format!("{name} --version says \"{line}\": that is no QEMU"))?;
    if (major, minor) < OLDEST {
        bail!(
            "{name} is version {major}.{minor}; the rig needs {}.{} or newer",
            OLDEST.0,
            OLDEST.1
        );
    }
    let version = line.trim_start_matches("QEMU emulator version ").to_string();
    Ok(Qemu { version, program })
}

/// The program that a script of a distribution starts: Debian 12 has one before
/// its 32-bit QEMU, for the sake of Xen. A confined process starts no program.
fn behind_script(path: &Path) -> Option<PathBuf> {
    let mut start = [0; 2];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).ok()?;
    let behind = path.parent()?.parent()?.join("libexec").join(path.file_name()?);
    (start == *b"#!" && behind.is_file()).then_some(behind)
}

fn ask_version(program: &Program) -> Result<String> {
    let mut command = Command::new(program.path());
    if program.has(Layer::QemuSandbox) {
        command.args(SANDBOX);
    }
    command.arg("--version");
    process::capture_with(command, Duration::from_secs(20), |command| {
        program.spawn(command, Vec::new(), &Needs::default())
    })
}

fn parse_version(line: &str) -> Option<(u32, u32)> {
    let rest = line.strip_prefix("QEMU emulator version ")?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(arch: Arch, accel: Accel) -> Machine {
        Machine {
            arch,
            accel,
            cpus: 2,
            memory_bytes: 512 << 20,
            kernel: "/cache/vmlinux".into(),
            initramfs: "/cache/initramfs.cpio".into(),
            command_line: "console=ttyS0 panic=-1".into(),
            sandbox: true,
            shares: vec![("guest".into(), 4)],
            console: 5,
            monitor: 6,
            ports: vec![("nlrig.events".into(), 7)],
        }
    }

    fn line(machine: &Machine) -> String {
        process::show(program(machine.arch), &arguments(machine))
    }

    #[test]
    fn the_whole_line() {
        assert_eq!(
            line(&machine(Arch::I386, Accel::Tcg)),
            "qemu-system-i386 \
             -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
             -machine microvm,acpi=off,rtc=on,memory-backend=memory \
             -no-user-config -nodefaults -display none -no-reboot -cpu max,family=15,model=107,stepping=1 \
             -accel tcg,thread=multi -smp 2 -m size=536870912B \
             -object memory-backend-memfd,id=memory,size=536870912B,share=on \
             -kernel /cache/vmlinux -initrd /cache/initramfs.cpio \
             -append 'console=ttyS0 panic=-1' \
             -chardev socket,id=console,fd=5 -serial chardev:console \
             -chardev socket,id=monitor,fd=6 -mon chardev=monitor,mode=control \
             -chardev socket,id=share0,fd=4 \
             -device vhost-user-fs-device,chardev=share0,tag=guest \
             -device virtio-serial-device,max_ports=8 \
             -chardev socket,id=port0,fd=7 \
             -device virtserialport,nr=1,chardev=port0,name=nlrig.events"
        );
    }

    #[test]
    fn kvm_is_never_a_mode_with_a_fallback() {
        let mut machine = machine(Arch::X86_64, Accel::Kvm);
        machine.sandbox = false;
        let line = line(&machine);
        assert!(line.contains("qemu-system-x86_64") && line.contains(" -accel kvm "), "{line}");
        assert!(!line.contains("tcg"), "{line}");
    }

    #[test]
    fn a_script_of_a_distribution_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let [script, program] = ["bin", "libexec"].map(|folder| {
            let folder = dir.path().join(folder);
            std::fs::create_dir(&folder).unwrap();
            folder.join("qemu")
        });
        std::fs::write(&script, "#! /bin/sh\nexec ...\n").unwrap();
        assert_eq!(behind_script(&script), None, "there is nothing behind it");
        std::fs::write(&program, "\x7fELF").unwrap();
        assert_eq!(behind_script(&script), Some(program.clone()));
        std::fs::write(&script, "\x7fELF").unwrap();
        assert_eq!(behind_script(&script), None, "it is no script");
    }

    #[test]
    fn versions() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)";
        assert_eq!(parse_version(debian), Some((7, 2)));
        assert_eq!(parse_version("QEMU emulator version 10.0.2"), Some((10, 0)));
        assert_eq!(parse_version("hello"), None);
    }
}
