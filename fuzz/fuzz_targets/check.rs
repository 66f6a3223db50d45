//! libFuzzer's door to `check`: any bytes, no panic, bounded time and memory.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stillframe::innodb::fuzzing::fuzz_check(bytes));
