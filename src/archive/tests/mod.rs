//! Whole archives: round trips, what must not become complete, tampering, golden bytes.

mod disagree;
mod golden;
mod round_trip;
pub(crate) mod sample;
mod tamper;
mod writing;
