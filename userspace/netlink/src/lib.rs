//! Netlink sockets and messages, for a rig that tests the kernel's netlink.
//!
//! - [`wire`]: constants, the message header, alignment.
//! - [`builder`]: builds well-formed and malformed messages.
//! - [`message`] and [`attribute`]: parsers. Malformed input is an error, never
//!   a panic.
//! - [`ack`]: acknowledgements and ends of dumps.
//! - [`socket`]: sockets, with one method per system call and its exact errno.
//! - [`request`]: one request with its whole answer.
//! - [`error`]: errnos and parse errors.
//!
//! A thread's first malloc changes the address space that some experiments
//! measure. Functions therefore do not allocate, unless their description says
//! "Allocates".

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
pub use builder::{Body, BuildError, MessageBuilder};
pub use error::{Errno, Malformed};
pub use message::{Message, Messages};
pub use request::{Dump, RequestError, RequestLimits, dump, request_ack};
pub use socket::{Address, Group, GroupMask, Received, Socket};
pub use wire::Header;
