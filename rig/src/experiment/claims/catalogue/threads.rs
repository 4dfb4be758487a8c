//! How many threads a process can have, each with a socket.

use crate::experiment::claims::case::*;

pub const CASES: &[Case] = &[];
