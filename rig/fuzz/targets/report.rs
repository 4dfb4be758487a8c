//! The target `report` for libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nlrig_fuzz::REPORT.run(input));
