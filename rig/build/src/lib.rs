//! What a test guest boots: kernel, modules, programs and image, for the word
//! sizes i386 and x86_64.
//!
//! A [`BuildContext`] brings the parts together, each built once and kept in the
//! cache by the hash of its inputs:
//!
//! - [`kernel`]: a source and fragments of configuration become an image;
//! - [`module`]: modules for that kernel;
//! - [`programs`]: PID 1 and further programs, static, compiled by cargo with a
//!   [`toolchain`] for the word size;
//! - [`busybox`]: the guest's shell and tools;
//! - [`environment`]: what the builds of all of these inherit;
//! - [`image`]: an initramfs and a share, made by a recipe.
//!
//! Fragments, recipes and the source of PID 1 are data that the crate carries:
//! it needs no checkout.

pub mod abi;
pub mod artifact;
pub mod busybox;
pub mod environment;
pub mod image;
pub mod kernel;
pub mod module;
pub mod programs;
pub mod sources;
pub mod toolchain;

pub use abi::{Abi, Arch};
pub use artifact::{Artifact, BuildContext, Built};
