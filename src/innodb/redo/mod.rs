//! The redo log: files, blocks, checkpoints, and the records in it.
//!
//! ```text
//!   file ─► block ─► stream: payload with LSNs ─► mtr: groups ─► record: type, page, bytes ─► body: meaning
//!                    └──────────────────── decoder: feed and poll ───────────────────┘
//! ```

pub mod block;
pub mod body;
pub mod decoder;
pub mod file;
pub mod mtr;
pub mod record;
pub mod spaces;
pub mod stream;

pub use body::Body;
pub use decoder::{EndOfLog, Poll, RedoDecoder, RedoError};
pub use mtr::MiniTransaction;
pub use record::{RecordKind, RedoRecord};
pub use spaces::{SpacesNamed, spaces_named};
pub use stream::EndReason;

#[cfg(test)]
mod tests;
