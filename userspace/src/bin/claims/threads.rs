use crate::Cases;

pub const CASES: Cases = &[];
