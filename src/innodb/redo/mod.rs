//! The redo log: files, blocks, checkpoints. What the records in it mean is not decoded here yet.

pub mod block;
pub mod file;
