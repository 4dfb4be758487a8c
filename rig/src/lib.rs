//! nlrig: a test rig for netlink and kernel modules.
//!
//! One trial flows one way, and so do the modules:
//!
//! - **plan**: [`cli`] and [`options`] read what is asked, [`experiment`] makes trials of it;
//! - **build**: [`artifact`] brings together [`kernel`], [`module`],
//!   [`userspace`], [`busybox`] and [`image`], all kept in [`cache`];
//! - **boot**: [`lab`] chooses an accelerator with [`accel`] and starts a
//!   [`guest`] with [`qemu`]'s arguments and its [`share`]s;
//! - **observe**: [`guest`] runs the job and collects its events;
//! - **judge**: [`experiment`] again, with [`limits`] for predictions;
//! - **report**: [`report`] writes and renders.
//!
//! What needs no machine is answered at the [`desk`].
//!
//! [`run`] is that line from end to end; [`command::exec`] is its short cut for
//! one command, and [`bench`] times the rig itself. The rest serves all:
//! [`process`], [`procfs`], [`scratch`], [`interrupt`], [`say`], [`error`],
//! [`units`], [`abi`], [`project`].

pub mod abi;
pub mod accel;
pub mod artifact;
pub mod bench;
pub mod budget;
pub mod busybox;
pub mod cache;
pub mod cli;
pub mod command;
pub mod desk;
pub mod error;
pub mod experiment;
pub mod guest;
pub mod image;
pub mod interrupt;
pub mod kernel;
pub mod lab;
pub mod limits;
pub mod module;
pub mod options;
pub mod process;
pub mod procfs;
pub mod project;
pub mod qemu;
pub mod report;
pub mod run;
pub mod say;
pub mod scratch;
pub mod share;
pub mod toolchain;
pub mod units;
pub mod userspace;
pub mod yardstick;
