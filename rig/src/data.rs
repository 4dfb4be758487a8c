//! Embedded sources: the kernel module, the guest programs, and the C program
//! that `bench` measures against.

use include_dir::{Dir, include_dir};
use nlrig_build::module::{ModuleOrigin, ModuleSource};
use nlrig_build::programs::{CrateSource, GuestCrate, init_source};
use nlrig_build::sources::Tree;
use nlrig_host::Result;

static MODULE: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/data/module");
static WORKLOADS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/data/crates/guest");
static NETLINK: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/data/crates/netlink");
static REFERENCE: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/data/reference");

/// The name of the rig's own kernel module.
pub const MODULE_NAME: &str = "nlrig";

/// Returns the source of the rig's own kernel module.
pub fn module() -> ModuleSource {
    ModuleSource {
        label: MODULE_NAME.to_string(),
        origin: ModuleOrigin::Sources(Tree::Embedded(&MODULE)),
        make: Vec::new(),
        warnings_are_errors: true,
    }
}

/// Returns the folder with the module's UAPI header, `nlrig.h`.
pub fn uapi() -> Option<Tree> {
    MODULE.get_dir("uapi").map(Tree::Embedded)
}

/// Returns the source of the reference: the workload `threads` in C.
pub fn reference() -> Tree {
    Tree::Embedded(&REFERENCE)
}

/// Returns the sources of the programs that experiments run in guests.
///
/// # Errors
/// A crate's own data is incomplete.
pub fn workloads() -> Result<GuestCrate> {
    Ok(GuestCrate {
        package: "nlrig-guest",
        crates: vec![
            init_source()?,
            CrateSource {
                folder: "userspace/netlink",
                manifest: include_str!("../data/crates/netlink.toml"),
                source: &NETLINK,
            },
            CrateSource {
                folder: "userspace",
                manifest: include_str!("../data/crates/guest.toml"),
                source: &WORKLOADS,
            },
        ],
    })
}
