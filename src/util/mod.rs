//! Leaf helpers: small, pure where they can be, and knowing nothing of the rest of the crate.

pub mod arena;
pub mod backoff;
pub mod clock;
pub mod direct;
pub mod fs;
pub mod names;
pub mod priority;
pub mod units;
pub mod zlib;
