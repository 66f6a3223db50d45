//! The hot copy of a live data directory: files that change while they are read, and the redo that makes up for it.
//!
//! ```text
//!   scan ────► CopyPlan: every tablespace by id, every other file
//!   copier ──► windows of verified pages ──► WindowSink (whoever stores them)
//!   follower ► redo blocks from the checkpoint on ──► memory, spool ──► RedoSegment … cut exactly at the given LSN
//! ```
//! Runs on plain threads. Knows no SQL (it is told paths and the LSN to stop at) and no archive (it hands over
//! windows, segments and spooled files).

mod ahead;
pub mod copier;
pub mod follower;
pub mod keys;
mod owner;
pub mod plan;
pub mod polite;
pub mod read;
pub mod redo_dir;
pub mod scan;
pub mod segment;
pub mod spool;
pub mod throttle;
pub mod window;
mod worker;

#[cfg(test)]
mod encrypted_redo_tests;

use std::io;
use std::path::{Path, PathBuf};

use crate::innodb::FormatError;
use crate::innodb::ids::{PageNo, SpaceId};
use crate::innodb::lsn::Lsn;
use crate::innodb::page::PageFault;

pub use copier::{CopyObserver, CopyOptions, CopySummary, copy_spaces};
pub use follower::{CapturedRedo, FollowOptions, RedoFollower};
pub use keys::{redo_master_key, space_master_keys};
pub use plan::{CopyPlan, FileKind, PlannedFile, PlannedSpace, RegisteredFile, SourceLayout, SpacePiece, SystemFile};
pub use polite::{Activity, LEAST_PACE, Politeness};
pub use read::PassingFile;
pub use scan::plan_copy;
pub use segment::{MEMORY_BYTES, RedoSegment, SegmentBlocks};
pub use spool::{Spool, SpooledFile, check_room, spool_files};
pub use throttle::Throttle;
pub use window::{SinkError, WINDOW_BYTES, Window, WindowSink};

/// Why a hot copy ended.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A file or directory could not be used.
    #[error("cannot {act} {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes of a file are of a kind that is not known.
    #[error("{}: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: FormatError,
    },
    /// A page stayed bad however often it was read.
    #[error("{} (space {space}), page {page} of {owner}: {fault}; read {reads} times", path.display())]
    CorruptPage {
        /// The file.
        path: PathBuf,
        /// Its tablespace.
        space: SpaceId,
        /// The page.
        page: PageNo,
        /// The table that it belongs to, or what is known where many share the file.
        owner: String,
        /// What is wrong with it.
        fault: PageFault,
        /// How often it was read.
        reads: u32,
    },
    /// A tablespace is encrypted and its key is not at hand.
    #[error("{} (space {space}) is encrypted: {why}", path.display())]
    KeyMissing {
        /// The file.
        path: PathBuf,
        /// Its tablespace.
        space: SpaceId,
        /// What is missing.
        why: String,
    },
    /// The server knows of a file that is not there.
    #[error("the server uses {} (space {space}), which is not there", path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
        /// Its tablespace.
        space: SpaceId,
    },
    /// The server was at making an undo tablespace anew when it broke off: its file is no tablespace until it starts again.
    #[error("{} says that an undo tablespace is being truncated or made, which the backup lock should exclude", path.display())]
    UndoUnderConstruction {
        /// The server's note.
        path: PathBuf,
    },
    /// Two files claim to be one tablespace.
    #[error("{} and {} both say that they are space {space}", first.display(), second.display())]
    DuplicateSpace {
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// The id.
        space: SpaceId,
    },
    /// A file became shorter than it was when the copy was planned.
    #[error("{} was cut short while it was copied", path.display())]
    FileShrank {
        /// The file.
        path: PathBuf,
    },
    /// The server reused the place of redo that was not captured yet.
    #[error("redo from LSN {wanted} on was overwritten before it was captured; the log starts at LSN {found} now")]
    RedoOverwritten {
        /// The first LSN that is lost.
        wanted: Lsn,
        /// What stands in its place.
        found: Lsn,
    },
    /// Redo logging is switched off: no copy taken meanwhile can be recovered.
    #[error("redo logging is disabled (flags {flags:#x} in {})", path.display())]
    RedoDisabled {
        /// The redo file that says so.
        path: PathBuf,
        /// Its flags.
        flags: u32,
    },
    /// The log is not the one that was followed so far.
    #[error("the redo log was replaced: its uuid was {expected} and is {found}")]
    RedoReplaced {
        /// Log uuid at the start.
        expected: u32,
        /// Log uuid now.
        found: u32,
    },
    /// The wanted redo did not appear.
    #[error("redo up to LSN {wanted} did not appear within {seconds} s; captured up to LSN {position}")]
    RedoStalled {
        /// Where the capture was to end.
        wanted: Lsn,
        /// How far it came.
        position: Lsn,
        /// How long it waited.
        seconds: u64,
    },
    /// The local spool has no room left.
    #[error("the spool {} is full: {limit} bytes", path.display())]
    SpoolFull {
        /// Its directory.
        path: PathBuf,
        /// Its size.
        limit: u64,
    },
    /// Whoever stores the windows failed.
    #[error("cannot store what was copied")]
    Sink(#[source] SinkError),
    /// A thread of the copy ended without a word.
    #[error("a thread of the copy panicked")]
    Panicked,
    /// The copy was told to stop.
    #[error("the copy was cancelled")]
    Cancelled,
}

impl CaptureError {
    /// For `map_err`: names act and path of an I/O failure.
    pub(crate) fn io(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { act, path, source }
    }

    /// For `map_err`: names the file of a format failure.
    pub(crate) fn format(path: &Path) -> impl FnOnce(FormatError) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Format { path, source }
    }
}
