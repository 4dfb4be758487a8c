//! The target `console` for libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nlrig_fuzz::CONSOLE.run(input));
