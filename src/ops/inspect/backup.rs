//! A stored backup from inside: its objects, and what its tables count.

use std::path::PathBuf;

use serde::Serialize;

use crate::innodb::lsn::Lsn;
use crate::ops::context::Context;
use crate::ops::error::Error;
use crate::ops::report::LsnRange;
use crate::store::StoreUrl;

/// What a stored backup is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupInspection {
    /// The backup's id.
    pub id: String,
    /// The attempt whose objects it is made of.
    pub attempt: String,
    /// The number of its format.
    pub format: u32,
    /// How it is compressed.
    pub codec: String,
    /// The ids of the keys that open it; none when it is not encrypted.
    pub key_ids: Vec<String>,
    /// How many objects it has, without manifest and keys.
    pub objects: u64,
    /// Their size.
    pub bytes: u64,
    /// The redo range.
    pub lsn: LsnRange,
    /// The objects with pages and files.
    pub packs: Vec<PackLine>,
    /// The redo, in the order of its LSNs.
    pub redo: Vec<SegmentLine>,
    /// What its file table counts.
    pub entries: EntryCounts,
}

/// An object with pages and files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PackLine {
    /// Its name.
    pub object: String,
    /// Its size.
    pub bytes: u64,
    /// Windows in it.
    pub frames: u64,
}

/// A run of redo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentLine {
    /// The object that it is in.
    pub object: String,
    /// LSN of its first block.
    pub start: Lsn,
    /// LSN at which it ends.
    pub end: Lsn,
    /// How many tablespaces it names; absent where that was not recorded.
    pub spaces: Option<u64>,
}

/// What a file table counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EntryCounts {
    /// Tablespaces.
    pub spaces: u64,
    /// Files of tablespaces.
    pub pieces: u64,
    /// Their pages.
    pub pages: u64,
    /// Files outside of the data directory.
    pub external: u64,
    /// Other files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
}

pub(super) async fn inspect(_: &Context, _: &StoreUrl, _: &str, _: &[PathBuf]) -> Result<BackupInspection, Error> {
    Err(Error::cancelled())
}
