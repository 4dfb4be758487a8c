//! Tests of the kernels: `--kernel-image`, and the bounds in
//! `kernel-config/kernels.toml`.

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

/// `--kernel-image` boots a kernel that was built elsewhere.
///
/// An image without a required driver is rejected with the symbol's name. A module's
/// source is rejected, because its build needs the kernel's build folder.
fn image() -> Outcome {
    let kernel = command::kernels(&GuestOptions::default())?.build(Arch::I386)?;
    let dir = tempfile::tempdir()?;
    let bytes = fs::read(kernel.image())?;
    fs::write(dir.path().join("my vmlinux"), &bytes)?;
    let exec = |arguments: &[&str]| nlrig().args(arguments).current_dir(dir.path()).output();
    let output = exec(&["--abi", "i386", "--kernel-image", "my vmlinux", "--", "uname", "-r"])?;
    check("it boots", output.status.success(), &output)?;
    check(
        "the release is that of the image",
        output.stdout == format!("{}\n", kernel.version).as_bytes(),
        &output,
    )?;
    let output = exec(&["--kernel-image", "my vmlinux", "--", "true"])?;
    check("two ABIs are rejected", output.status.code() == Some(2), &output)?;
    says(&output, "choose another --abi")?;
    let module = ["--module", "rig", "--", "true"];
    let output = exec(&[&["--abi", "i386", "--kernel-image", "my vmlinux"], &module[..]].concat())?;
    check("a module's source is rejected", output.status.code() == Some(2), &output)?;
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

/// No kernel compiles more objects than its flavour's bound.
///
/// The default flavour is built if it is not in the cache; other flavours are checked
/// only if they are in the cache.
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
