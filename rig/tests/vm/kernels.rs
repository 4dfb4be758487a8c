//! The kernels that were built, held against `kernel-config/kernels.toml`.

use std::fs;

use libtest_mimic::{Failed, Trial};
use nlrig::abi::Arch;
use nlrig::command;
use nlrig::kernel::{self, flavour};
use nlrig::options::GuestOptions;

use crate::exec::{Outcome, check, nlrig, says};

pub fn tests() -> Vec<Trial> {
    vec![Trial::test("kernels/max-objects", max_objects), Trial::test("kernels/i386/image", image)]
}

/// A kernel that was built elsewhere boots; one that lacks a driver is refused by
/// the option's name, and so is a module's source, which only its build can use.
fn image() -> Outcome {
    let kernel = command::kernels(&GuestOptions::default())?.build(Arch::I386)?;
    let dir = tempfile::tempdir()?;
    let bytes = fs::read(kernel.image())?;
    fs::write(dir.path().join("my vmlinux"), &bytes)?;
    let exec = |arguments: &[&str]| nlrig().args(arguments).current_dir(dir.path()).output();
    let output = exec(&["--abi", "i386", "--kernel-image", "my vmlinux", "--", "uname", "-r"])?;
    check("it boots", output.status.success(), &output)?;
    check("it is this one", output.stdout == format!("{}\n", kernel.version).as_bytes(), &output)?;
    let output = exec(&["--kernel-image", "my vmlinux", "--", "true"])?;
    check("it is for one ABI", output.status.code() == Some(2), &output)?;
    says(&output, "choose another --abi")?;
    let module = ["--module", "rig", "--", "true"];
    let output = exec(&[&["--abi", "i386", "--kernel-image", "my vmlinux"], &module[..]].concat())?;
    check("no module is built for it", output.status.code() == Some(2), &output)?;
    says(&output, "give a .ko file")?;

    let name = b"\0virtio_fs_driver\0";
    let at = bytes.windows(name.len()).position(|part| part == name).ok_or("the symbol")?;
    let mut other = bytes;
    other[at + 1] = b'V';
    fs::write(dir.path().join("vmlinux"), other)?;
    let output = exec(&["--abi", "i386", "--kernel-image", "vmlinux", "--", "true"])?;
    check("it is refused", output.status.code() == Some(125), &output)?;
    says(&output, "lacks: VIRTIO_FS")
}

/// A kernel that compiles more objects than its flavour may is named. The default
/// flavour is built if it must be; the others count where they were built.
fn max_objects() -> Outcome {
    let kernels = command::kernels(&GuestOptions::default())?;
    let mut built = Vec::new();
    for arch in Arch::ALL {
        built.push(kernels.build(arch)?);
    }
    for flavour in flavour::all().iter().filter(|flavour| flavour.name != kernels.flavour) {
        let kernels = kernels.with_flavour(&flavour.name);
        for &arch in &flavour.arches {
            built.extend(kernels.built(arch)?);
        }
    }
    let mut wrong = Vec::new();
    for kernel in &built {
        let bound = kernel::max_objects(&kernel.flavour)?;
        if kernel.objects > bound {
            wrong.push(format!(
                "{} {} {}: {} objects, max_objects is {bound}",
                kernel.version, kernel.arch, kernel.flavour, kernel.objects
            ));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failed::from(wrong.join("\n"))) }
}
