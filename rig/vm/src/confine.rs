//! The confinement of the two kinds of processes that a guest talks to: QEMU and
//! the share daemons.
//!
//! A guest that takes over its QEMU or its share daemon has the rights of that
//! process. So each gives up all it can before it sees a byte from the guest:
//! QEMU between fork and exec ([`Stage`]), the daemon in its first steps
//! (`share/daemon`). A host may refuse a layer. Then the others remain, and the
//! report names the one that is missing.

mod access;
mod filter;
mod program;
mod stage;

#[cfg(test)]
mod tests;

use std::fs;

use nlrig_host::procfs;
use serde::{Deserialize, Serialize};

pub(crate) use access::{RENAMES_SINCE, landlock_version, share_ruleset};
pub(crate) use filter::{install, share_daemon};
pub(crate) use program::Needs;
pub use program::Program;
pub(crate) use stage::restrict_self;

/// One thing that holds a process back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// No descriptor but those it was passed, no core file, no capability that it
    /// does without, bounded files.
    Limits,
    /// A network namespace of its own, in which nothing is up.
    NetworkNamespace,
    /// Mount, process and network namespaces of its own; the share is the root.
    Namespaces,
    /// The share is the root, by chroot(2).
    Chroot,
    /// No file but those that Landlock leaves; no TCP.
    Landlock,
    /// No system call that it does without; none that starts a program or opens a
    /// socket.
    Seccomp,
    /// `-sandbox on` of QEMU's own, with all denied that can be.
    QemuSandbox,
    /// Names from the guest are single components; what it adds is bounded.
    Names,
}

impl Layer {
    /// Its name, as in the report.
    pub fn name(self) -> &'static str {
        match self {
            Layer::Limits => "limits",
            Layer::NetworkNamespace => "network-namespace",
            Layer::Namespaces => "namespaces",
            Layer::Chroot => "chroot",
            Layer::Landlock => "landlock",
            Layer::Seccomp => "seccomp",
            Layer::QemuSandbox => "qemu-sandbox",
            Layer::Names => "names",
        }
    }
}

/// A layer that this host refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The layer.
    pub layer: Layer,
    /// Why, and the sysctl or capability that decides.
    pub reason: String,
}

/// What holds one kind of process back on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The layers in force.
    pub layers: Vec<Layer>,
    /// The layers that this host refuses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
}

impl Confinement {
    /// One line: the layers, and what is missing.
    pub fn describe(&self) -> String {
        let names: Vec<_> = self.layers.iter().map(|layer| layer.name()).collect();
        let mut text = names.join(", ");
        for Missing { layer, reason } in &self.missing {
            text.push_str(&format!("; without {}: {reason}", layer.name()));
        }
        text
    }
}

/// CAP_SYS_ADMIN of linux/capability.h.
const CAP_SYS_ADMIN: u32 = 21;

/// Why this host does not let a process have namespaces of its own, and the way
/// out, as far as its settings tell.
pub(crate) fn why_no_namespaces() -> String {
    let setting = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_string();
    if nix::unistd::geteuid().is_root() && !procfs::is_capable(CAP_SYS_ADMIN) {
        return "namespaces take the capability CAP_SYS_ADMIN".to_string();
    }
    if setting("/proc/sys/user/max_user_namespaces") == "0" {
        return "user namespaces are off; sysctl user.max_user_namespaces=10000 allows them".into();
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        return "user namespaces are root's; sysctl kernel.unprivileged_userns_clone=1 allows them"
            .into();
    }
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        return "AppArmor restricts user namespaces; sysctl kernel.apparmor_restrict_unprivileged_userns=0 allows them".into();
    }
    "this host, or the container that the rig runs in, forbids namespaces".to_string()
}

/// Why Landlock is not there.
pub(crate) const NO_LANDLOCK: &str =
    "this kernel has no Landlock (Linux 5.13 or newer, with landlock among lsm=)";
