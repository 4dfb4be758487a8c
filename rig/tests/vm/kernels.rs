//! The kernels that were built, held against `kernel-config/kernels.toml`.

use libtest_mimic::{Failed, Trial};
use nlrig::abi::Arch;
use nlrig::command;
use nlrig::kernel::{self, flavour};
use nlrig::options::GuestOptions;

use crate::exec::Outcome;

pub fn tests() -> Vec<Trial> {
    vec![Trial::test("kernels/max-objects", max_objects)]
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
