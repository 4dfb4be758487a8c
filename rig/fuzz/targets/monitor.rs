//! The target `monitor` for libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nlrig_fuzz::MONITOR.run(input));
