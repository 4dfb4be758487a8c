//! How many threads a process can have, each with a socket.

use crate::experiment::claims::row::*;

pub const ROWS: &[Row] = &[];
