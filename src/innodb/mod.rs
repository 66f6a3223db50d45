//! InnoDB's formats: bytes to types and back.
//!
//! Owns every fact about pages, tablespaces and the redo log. Does no I/O, reads no clock, writes no log line; all
//! input is untrusted, so nothing here indexes, casts or adds without a check.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

pub mod checksum;
pub mod cursor;
pub mod ids;
pub mod keyring;
pub mod lsn;
pub mod page;
pub mod redo;
pub mod space;
pub mod version;
