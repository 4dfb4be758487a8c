//! Code shared by the guest's programs, and by the rig on the host.
//!
//! The workloads are in `src/bin`; PID 1 is in the crate `nlrig-init`.
//!
//! - [`protocol`]: the protocol between host and guest.
//! - [`snapshot`]: the limits and resource usage of a workload, before and
//!   after.
//! - [`maps`] and [`pids`]: arithmetic on address spaces and task ids, for
//!   guest and host.
//! - [`netlink`]: one echo with the module.
//! - [`ports`]: netlink ports computed by threads.
//! - [`clone`] and [`futex`]: process creation and thread synchronisation.
//! - [`workers`]: threads that each hold a socket.
//! - [`hunt`]: the protocol of the workload `hunt`.
//! - [`uapi`]: the module's constants.
//! - [`kmemleak`]: the kernel's leak detector.

pub mod clone;
pub mod futex;

pub mod hunt;
pub mod kmemleak;
pub mod maps;
pub mod netlink;
pub mod pids;
pub mod ports;
pub mod snapshot;
pub mod uapi;
pub mod workers;

pub use nlrig_init::protocol;
