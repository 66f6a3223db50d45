//! The backup's own format: streams of pages, files and redo in, objects out, and back.
//!
//! ```text
//!   ArchiveWriter ─┬─ PackWriter (one a thread) ─ frame ► compress ► seal ► pack-000001 …  ─┐
//!                  ├─ redo_segment ───────────────────────────────────► redo-000001 …       ├─► ObjectSink
//!                  └─ finish ─────────────────────────► index-0001 … objects redo-table files ┘
//!   Manifest ◄── Contents                                              (whose manifest is one more object)
//!
//!   ArchiveReader ◄── Manifest + keys + ObjectSource: packs one by one, front to back; or one frame by the index
//! ```
//! The layout is written down in `docs/format/`. Knows nothing of stores, servers or threads: it is handed a sink or
//! a source of objects and called from plain threads.

mod bitmap;
mod cipher;
pub mod codec;
mod container;
pub mod digest;
mod error;
pub mod filetable;
pub mod frame;
pub mod fuzzing;
pub mod id;
mod index;
mod index_reader;
pub mod keys;
pub mod manifest;
#[cfg(test)]
pub(crate) mod memory;
pub mod object;
mod object_reader;
mod object_writer;
mod packs;
pub mod reader;
pub mod redo;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod verify;
mod wire;
pub mod writer;

use crate::innodb::ids::SpaceId;

pub use codec::Codec;
pub use digest::Digest;
pub use error::ArchiveError;
pub use filetable::{FileEntry, FileTable, Location, PieceEntry, SpaceEntry, StoredFileKind};
pub use frame::{FILE_UNIT, Frame, FrameInput, Run, WINDOW_BYTES, ZeroRun};
pub use id::{AttemptId, BackupId};
pub use keys::{ArchiveKeys, RecipientKey, WrappedKey};
pub use manifest::{Contents, Manifest};
pub use object::{ObjectError, ObjectSink, ObjectSource, ObjectWriter};
pub use object_reader::BlockRange;
pub use packs::PackRef;
pub use reader::{ArchiveReader, FrameDecoder, FrameRef, OpenPack};
pub use redo::RedoRef;
pub use table::TableRef;
pub use verify::{TableCheck, TableProblem};
pub use writer::{ArchiveWriter, DEFAULT_PACK_BYTES, PackWriter, WriterOptions};

/// The number of the format that this code writes.
pub const FORMAT: u16 = 1;

/// What a frame is a window of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamId {
    /// A tablespace, all its files one after another.
    Space(SpaceId),
    /// Another file, by its number in the file table.
    File(u32),
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Space(space) => write!(f, "space {space}"),
            Self::File(number) => write!(f, "file {number}"),
        }
    }
}
