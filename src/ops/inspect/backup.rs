//! A stored backup from inside: its objects, its redo, and what its tables count.
//!
//! ```text
//!   manifest ─► keys ─► ArchiveReader ─┬─ list of objects ─► objects
//!                                      ├─ redo table ──────► redo
//!                                      └─ file table ──────► entries
//! ```
//! Reads the tables only, not the packs: whether all bytes are right is the business of `verify`.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::archive::manifest::Manifest;
use crate::archive::{ArchiveReader, FileTable, Location, RedoRef};
use crate::innodb::lsn::Lsn;
use crate::ops::context::Context;
use crate::ops::error::Error;
use crate::ops::report::LsnRange;
use crate::ops::{blocking, stored};
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
    /// Its pages and files in so many windows.
    pub frames: u64,
    /// Size of all objects.
    pub bytes: u64,
    /// The redo range.
    pub lsn: LsnRange,
    /// Its objects, without manifest and keys.
    pub objects: Vec<ObjectLine>,
    /// The redo, in the order of its LSNs.
    pub redo: Vec<SegmentLine>,
    /// What its file table counts.
    pub entries: EntryCounts,
}

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectLine {
    /// Its name in the attempt.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Windows of pages in it, where it is a pack.
    pub frames: Option<u32>,
}

/// A run of redo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentLine {
    /// LSN of its first block.
    pub start: Lsn,
    /// LSN at which it ends.
    pub end: Lsn,
    /// Log blocks in it, in bytes.
    pub bytes: u64,
    /// How many tablespaces it names; absent where that was not recorded: it may name any.
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
    /// Files of both kinds outside of the data directory.
    pub external: u64,
    /// Other files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
}

/// Reads the tables of a backup.
pub(super) async fn inspect(
    ctx: &Context,
    store: &StoreUrl,
    backup: &str,
    key_files: &[PathBuf],
) -> Result<BackupInspection, Error> {
    let found = stored::find(store, backup).await?;
    let reader = found.open(key_files, &ctx.cancel).await?;
    ctx.check()?;
    blocking(move || {
        let table = reader.file_table()?;
        Ok(report(&found.manifest, &reader, &table))
    })
    .await
}

fn report(manifest: &Manifest, reader: &ArchiveReader, table: &FileTable) -> BackupInspection {
    BackupInspection {
        id: manifest.id.to_string(),
        attempt: manifest.attempt.to_string(),
        format: manifest.format,
        codec: manifest.codec.to_string(),
        key_ids: manifest.cipher.as_ref().map(|cipher| cipher.key_ids.clone()).unwrap_or_default(),
        frames: manifest.contents.frame_count,
        bytes: manifest.contents.total_bytes,
        lsn: LsnRange { checkpoint: manifest.lsn.checkpoint, end: manifest.lsn.end },
        objects: objects(reader),
        redo: segments(reader),
        entries: count_entries(table),
    }
}

fn objects(reader: &ArchiveReader) -> Vec<ObjectLine> {
    let packs: HashMap<String, u32> = reader.packs().into_iter().map(|pack| (pack.name, pack.frames)).collect();
    let frames = |name: &str| packs.get(name).copied();
    let all = reader.objects().into_iter();
    all.map(|(name, bytes)| ObjectLine { frames: frames(&name), name, bytes }).collect()
}

fn segments(reader: &ArchiveReader) -> Vec<SegmentLine> {
    let line = |segment: &RedoRef| SegmentLine {
        start: segment.start,
        end: segment.end,
        bytes: segment.log_bytes(),
        spaces: segment.spaces.as_ref().map(|spaces| length(spaces)),
    };
    reader.redo_segments().iter().map(line).collect()
}

fn count_entries(table: &FileTable) -> EntryCounts {
    let mut counts = EntryCounts {
        spaces: length(&table.spaces),
        files: length(&table.files),
        directories: length(&table.directories),
        ..EntryCounts::default()
    };
    for space in &table.spaces {
        counts.pieces += length(&space.pieces);
        counts.pages += u64::from(space.pages);
    }
    let pieces = table.spaces.iter().flat_map(|space| &space.pieces).map(|piece| &piece.location);
    let places = pieces.chain(table.files.iter().map(|file| &file.location));
    counts.external = u64::try_from(places.filter(|place| matches!(place, Location::External(_))).count()).unwrap_or(0);
    counts
}

fn length<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{FileEntry, PieceEntry, SpaceEntry, StoredFileKind};
    use crate::innodb::ids::{PageNo, SpaceId};

    #[test]
    fn the_file_table_is_counted() {
        let piece = |location| PieceEntry { location, first_page: PageNo(0), pages: 7 };
        let space = |id, location| SpaceEntry { space: SpaceId(id), flags: 0, pages: 7, pieces: vec![piece(location)] };
        let table = FileTable {
            spaces: vec![
                space(5, Location::Datadir(b"shop/t.ibd".to_vec())),
                space(6, Location::External(b"/ext/shop/u.ibd".to_vec())),
            ],
            files: vec![FileEntry {
                number: 0,
                location: Location::Datadir(b"shop/m.MYD".to_vec()),
                kind: StoredFileKind::NonTransactional,
                bytes: 3,
            }],
            directories: vec![b"shop".to_vec()],
        };
        let wanted = EntryCounts { spaces: 2, pieces: 2, pages: 14, external: 1, files: 1, directories: 1 };
        assert_eq!(count_entries(&table), wanted);
    }
}
