//! InnoDB's formats: bytes to types and back.
//!
//! Owns every fact about pages, tablespaces and the redo log. Does no I/O, reads no clock, writes no log line; all
//! input is untrusted, so nothing here indexes, casts or adds without a check.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

pub mod apply;
pub mod check;
pub mod checksum;
pub mod cursor;
pub mod fuzzing;
pub mod ids;
pub mod keyring;
pub mod lsn;
pub mod page;
pub mod redo;
pub mod rows;
pub mod space;
pub mod version;

/// Bytes that are not what InnoDB writes, or not what is supported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// There are too few bytes.
    #[error("{what} needs {needed} bytes, there are {got}")]
    Truncated {
        /// What was being decoded.
        what: &'static str,
        /// Bytes it takes.
        needed: usize,
        /// Bytes there are.
        got: usize,
    },
    /// A number, flag or kind that this version of the tool does not know.
    #[error("{what} {found} is not supported")]
    Unsupported {
        /// What was being decoded.
        what: &'static str,
        /// What was found.
        found: String,
    },
    /// The checksum does not fit the bytes.
    #[error("{what} has checksum {stored:#010x}, its bytes have {computed:#010x}")]
    Checksum {
        /// What was being decoded.
        what: &'static str,
        /// As written.
        stored: u32,
        /// As computed.
        computed: u32,
    },
    /// The bytes contradict themselves.
    #[error("{what} is invalid: {why}")]
    Invalid {
        /// What was being decoded.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A master key that is needed is not in the keyring.
    #[error("master key {key_id} is not in the keyring")]
    KeyMissing {
        /// Its id in the keyring.
        key_id: String,
    },
}
