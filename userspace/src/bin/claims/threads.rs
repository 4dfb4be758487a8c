use crate::Rows;

pub const ROWS: Rows = &[];
