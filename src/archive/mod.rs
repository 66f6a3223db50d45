//! The backup's own format.

pub mod id;
#[cfg(test)]
pub(crate) mod memory;
pub mod object;
