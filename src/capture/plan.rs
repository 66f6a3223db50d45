//! What a backup copies: every tablespace by its id, every other file by what it is. How that is found is `scan`'s.
//!
//! ```text
//!   SourceLayout  where a server's files are ─► scan ─► CopyPlan ─┬─ PlannedSpace ─ SpacePiece …   one file, or some
//!   RegisteredFile  what the server knows of ──┘                  └─ PlannedFile  kind: when it is copied
//! ```
//! Names are opaque bytes.

use std::path::PathBuf;

use crate::innodb::ids::{PageNo, PageSize, SpaceId};
use crate::innodb::space::TablespaceFlags;

/// Where a server's files are, seen from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLayout {
    /// The data directory.
    pub datadir: PathBuf,
    /// `innodb_data_home_dir`.
    pub data_home: PathBuf,
    /// `innodb_data_file_path`, in order.
    pub system_files: Vec<SystemFile>,
    /// `innodb_undo_directory`.
    pub undo_dir: PathBuf,
    /// `innodb_directories`.
    pub directories: Vec<PathBuf>,
    /// `#innodb_redo`.
    pub redo_dir: PathBuf,
    /// `innodb_page_size`.
    pub page_size: PageSize,
}

/// One file of the system tablespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemFile {
    /// Where it is.
    pub path: PathBuf,
}

/// A tablespace file that the server knows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredFile {
    /// Its id.
    pub space: SpaceId,
    /// Its path, seen from here.
    pub path: PathBuf,
}

/// Everything that a backup copies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyPlan {
    /// The tablespaces, by id.
    pub spaces: Vec<PlannedSpace>,
    /// All other files.
    pub files: Vec<PlannedFile>,
    /// The schemas' directories below the data directory, empty ones included.
    pub directories: Vec<Vec<u8>>,
}

/// A tablespace to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedSpace {
    /// Its id.
    pub space: SpaceId,
    /// Its flags.
    pub flags: TablespaceFlags,
    /// Its files, in the order of their pages: one, but for the system tablespace.
    pub pieces: Vec<SpacePiece>,
}

/// A file of a tablespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpacePiece {
    /// Where it is read.
    pub path: PathBuf,
    /// Its path below the data directory, if it is there.
    pub relative: Option<Vec<u8>>,
    /// Number of its first page in the tablespace.
    pub first_page: PageNo,
    /// Whole pages in it.
    pub pages: u32,
}

/// A file that is no tablespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFile {
    /// Where it is read.
    pub path: PathBuf,
    /// Its path below the data directory, if it is there.
    pub relative: Option<Vec<u8>>,
    /// What it is.
    pub kind: FileKind,
}

/// Kinds of files that are no tablespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Data of a user's table whose engine has no redo.
    NonTransactional,
    /// The same of the server's log tables, which nothing depends on.
    SystemTable,
    /// Dictionary information of a table that is not in InnoDB.
    Sdi,
}

impl CopyPlan {
    /// Bytes of all tablespaces.
    pub fn space_bytes(&self) -> u64 {
        self.spaces.iter().map(PlannedSpace::bytes).sum()
    }

    /// True when a user's table has an engine without redo.
    pub fn has_non_transactional(&self) -> bool {
        self.files.iter().any(|file| file.kind == FileKind::NonTransactional)
    }
}

impl PlannedSpace {
    /// Number of pages over all files.
    pub fn pages(&self) -> u32 {
        self.pieces.iter().map(|piece| piece.pages).sum()
    }

    /// Bytes over all files.
    pub fn bytes(&self) -> u64 {
        u64::from(self.pages()) * u64::from(self.flags.physical_size().bytes())
    }
}
