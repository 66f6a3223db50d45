//! Offline recovery: the redo of a backup applied to its pages by our own code, with no server at hand.
//!
//! ```text
//!   redo blocks ─► scan ─┬─► plan: every record, by page, in memory or spilled     ┐
//!                        ├─► spaces: how large, which keys, who is missing         ├─► Recovery, shared by threads
//!                        └─► metadata: the last word on AUTO_INCREMENT             ┘
//!   pages of a window ─► PageWorker: decrypt ► decompress ► check ► apply ► encrypt ─► pages to write
//!   end ─► finish: a clean redo log in which a server finds nothing to do
//! ```
//! Owns what redo means beyond a page: files, sizes, keys, order, the end of the log. What a record does to its page is
//! `innodb::apply`'s; where pages come from and go to is the caller's: a full copy, or the newest of several. Everything
//! that native recovery refuses, the scan refuses, before the caller has written a byte.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

pub mod finish;
pub mod growth;
pub mod metadata;
pub mod pages;
pub mod plan;
pub mod scan;
pub mod spaces;

mod log;
mod run;
mod spill;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use crate::innodb::FormatError;
use crate::innodb::apply::ApplyError;
use crate::innodb::ids::{PageId, SpaceId};
use crate::innodb::lsn::Lsn;
use crate::innodb::page::PageFault;
use crate::innodb::redo::{RecordKind, RedoError};

pub use finish::{CleanLog, clean_log};
pub use growth::Growth;
pub use metadata::TableMetadata;
pub use pages::{PageWorker, Tally};
pub use plan::ApplyPlan;
pub use scan::{Recovery, RedoScan, ScanCounts, ScanOptions};
pub use spaces::{CopiedSpace, Space};

/// Why a copy cannot be recovered here.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The log cannot be decoded.
    #[error(transparent)]
    Redo(#[from] RedoError),
    /// The log ends elsewhere than it should.
    #[error("the redo ends at LSN {at} ({why}), the backup at LSN {wanted}")]
    WrongEnd {
        /// Where it ends.
        at: Lsn,
        /// Where the backup ends.
        wanted: Lsn,
        /// Why it ends there.
        why: String,
    },
    /// Redo changes a tablespace that the backup does not have, and that was not deleted.
    #[error(
        "redo at LSN {lsn} ({kind}) changes space {space}, which the backup does not have and which was not deleted"
    )]
    MissingSpace {
        /// The tablespace.
        space: SpaceId,
        /// The first such record.
        lsn: Lsn,
        /// What it does.
        kind: RecordKind,
    },
    /// Redo deletes a tablespace that the backup has.
    #[error("redo at LSN {lsn} deletes space {space}, which the backup has")]
    Deleted {
        /// The tablespace.
        space: SpaceId,
        /// Where in the redo.
        lsn: Lsn,
    },
    /// Redo changes a page behind the end of its file.
    #[error("redo changes {page}, but the tablespace has {pages} pages")]
    BehindEnd {
        /// The page.
        page: PageId,
        /// Pages of the tablespace.
        pages: u32,
    },
    /// Native recovery cannot promise the result that the server's own would have.
    #[error(
        "redo at LSN {lsn} ({kind}) compresses {page} anew, as the server's compressor did: its zlib {zlib} is not known to \
         make the bytes that ours does"
    )]
    NotNative {
        /// Where in the redo.
        lsn: Lsn,
        /// The record.
        kind: RecordKind,
        /// The page.
        page: PageId,
        /// The server's zlib.
        zlib: String,
    },
    /// The key of a tablespace is not at hand, or is none.
    #[error("the key of space {space} cannot be opened: {source}")]
    Key {
        /// The tablespace.
        space: SpaceId,
        /// What is wrong.
        source: FormatError,
    },
    /// A stored page is not what it should be.
    #[error("{page}: {fault}")]
    BadPage {
        /// The page.
        page: PageId,
        /// What is wrong.
        fault: PageFault,
    },
    /// A page was changed after the end of the log.
    #[error("{page} was changed at LSN {lsn}, after the backup's end at LSN {end}")]
    NewerThanLog {
        /// The page.
        page: PageId,
        /// Its LSN.
        lsn: Lsn,
        /// The end.
        end: Lsn,
    },
    /// A record and its page do not fit each other.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The system has no memory for redo.
    #[error("the system gives no more memory for redo: use less (--memory)")]
    Memory {
        /// What the system said.
        source: io::Error,
    },
    /// Redo that did not fit into memory could not be kept on disk.
    #[error("cannot {act} the file for redo that does not fit into memory, in {}", dir.display())]
    Spill {
        /// What was tried.
        act: &'static str,
        /// Where the file is. It has no name.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The clean log cannot be made.
    #[error("cannot make a redo log that begins at LSN {at}: {source}")]
    Finish {
        /// The end of the backup.
        at: Lsn,
        /// What is wrong.
        source: FormatError,
    },
}
