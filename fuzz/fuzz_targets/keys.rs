//! libFuzzer's door to the decoder of `keys`: any bytes, no panic, bounded memory.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stillframe::archive::fuzzing::fuzz_keys(bytes));
