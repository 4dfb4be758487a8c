//! What runs in the guest, and what the host must know of it.
//!
//! The programs are in `src/bin`: `init`, which is PID 1, and the workloads.
//! This library is what they share, and what the rig on the host shares with
//! them: [`protocol`], the words host and guest exchange; [`look`], what a
//! workload sees of its own limits; [`maps`] and [`pids`], the parts of that
//! which need arithmetic on both sides; [`netlink`], one echo with the module;
//! [`ports`], what is reported of ports that threads compute; [`birth`] and
//! [`futex`], how processes come to be and threads wait;
//! [`workers`], threads that hold a socket each; [`hunt`], the words of that workload;
//! [`uapi`], the module's numbers; [`kmemleak`], the kernel's search for lost memory.

pub mod birth;
pub mod futex;

pub mod hunt;
pub mod kmemleak;
pub mod look;
pub mod maps;
pub mod netlink;
pub mod pids;
pub mod ports;
pub mod uapi;
pub mod workers;

pub use nlrig_init::protocol;
