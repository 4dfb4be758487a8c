//! Netlink, as netlink(7) and the kernel know it, for a rig that tests it.
//!
//! - [`wire`]: the numbers, the header of a message, and alignment.
//! - [`builder`]: messages put together, right ones and wrong ones.
//! - [`message`] and [`attribute`]: messages and attributes taken apart. Any
//!   bytes at all are taken: what does not add up is an error, never a panic.
//! - [`ack`]: what an acknowledgement and the end of a dump say.
//! - [`socket`]: sockets, a method a system call, each with its exact errno.
//! - [`request`]: a request and all of its answer, on top of those.
//! - [`error`]: an errno, and what can be wrong with bytes.
//!
//! A thread's first malloc changes the address space that some experiments
//! measure. So nothing here allocates unless its description says that it does.

pub mod ack;
pub mod attribute;
pub mod builder;
pub mod error;
pub mod message;
pub mod request;
pub mod socket;
pub mod wire;

pub use ack::{Ack, Done};
pub use attribute::{Attribute, Attributes};
pub use builder::{Body, BuildError, Builder};
pub use error::{Errno, Malformed};
pub use message::{Message, Messages};
pub use request::{Dump, Limits, RequestError, dump, request_ack};
pub use socket::{Address, Group, GroupMask, Received, Socket};
pub use wire::Header;
