//! Room for a restore: on each file system that gets files, for those that it gets.
//!
//! ```text
//!   file ─► file system of its nearest folder that is there ─► sum of what goes there  ≤  what is free
//!   data directory's: the redo log and some more besides
//! ```
//! Pages that are all zero take no room, and how many of them each tablespace has is not known before it is read: a
//! file system needs room for all its tablespaces or for all pages that were copied, whichever is less.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::archive::filetable::FileTable;
use crate::archive::manifest::Manifest;
use crate::ops::error::{Error, ErrorKind};

use super::placement::Layout;
use super::target::{existing_ancestor, io_error};

/// What is made beside the backup's files: logs, temporary tablespaces, what recovery adds.
const BESIDE: u64 = 64 << 20;

/// A file system as seen from a path.
#[derive(Debug, Clone, Copy)]
pub struct FileSystem {
    /// Tells it from others.
    pub id: u64,
    /// Bytes that this user may still write.
    pub free: u64,
}

#[derive(Debug)]
struct Needs {
    /// A file or directory there, to name it.
    path: PathBuf,
    free: u64,
    pages: u64,
    other: u64,
}

/// Refuses when a file system has less room than what goes there takes. `given_back` bytes are in the data directory now,
/// and will not be.
pub fn check(
    datadir: &Path,
    given_back: u64,
    manifest: &Manifest,
    table: &FileTable,
    layout: &Layout,
) -> Result<(), Error> {
    let copied = manifest.pages.copied.saturating_mul(manifest.server.page_size.bytes().into());
    let redo = manifest.lsn.end.saturating_since(manifest.lsn.checkpoint);
    let own = look(datadir)?.id;
    let look_ahead = |path: &Path| {
        let system = look(path)?;
        let more = if system.id == own { given_back } else { 0 };
        Ok(FileSystem { free: system.free.saturating_add(more), ..system })
    };
    check_by(&look_ahead, datadir, copied, redo.saturating_add(BESIDE), layout, table)
}

fn check_by(
    look: &dyn Fn(&Path) -> Result<FileSystem, Error>,
    datadir: &Path,
    copied: u64,
    beside: u64,
    layout: &Layout,
    table: &FileTable,
) -> Result<(), Error> {
    let mut all = BTreeMap::new();
    add(&mut all, look(datadir)?, datadir, 0, beside);
    // Most files lie together: a folder is looked at once.
    let mut seen = BTreeMap::new();
    let pages = layout.space_files().map(|(path, bytes)| (path, bytes, 0));
    let other = layout.other_files(table).map(|(path, bytes)| (path, 0, bytes));
    for (path, pages, other) in pages.chain(other) {
        let place = path.parent().filter(|folder| !folder.starts_with(datadir)).unwrap_or(datadir);
        let system = match seen.get(place) {
            Some(system) => *system,
            None => *seen.entry(place.to_path_buf()).or_insert(look(place)?),
        };
        add(&mut all, system, place, pages, other);
    }
    for Needs { path, free, pages, other } in all.into_values() {
        let needed = pages.min(copied).saturating_add(other);
        if free < needed {
            let path = path.display();
            let message = format!("target {path} has {free} bytes free, and the restore needs {needed}");
            return Err(Error::new(ErrorKind::TargetTooSmall, message).advise(
                "free or add space there, or choose another place with --datadir, or with --external-files for what \
                 lies outside of it",
            ));
        }
    }
    Ok(())
}

fn add(all: &mut BTreeMap<u64, Needs>, system: FileSystem, place: &Path, pages: u64, other: u64) {
    let fresh = || Needs { path: place.to_path_buf(), free: system.free, pages: 0, other: 0 };
    let needs = all.entry(system.id).or_insert_with(fresh);
    needs.pages = needs.pages.saturating_add(pages);
    needs.other = needs.other.saturating_add(other);
}

/// The file system on which `path` would be made.
fn look(path: &Path) -> Result<FileSystem, Error> {
    let existing = existing_ancestor(path);
    let failed = |error| io_error("measure the space of", existing, error);
    let stat = rustix::fs::statvfs(existing).map_err(|error| failed(error.into()))?;
    let id = std::fs::metadata(existing).map_err(failed)?.dev();
    Ok(FileSystem { id, free: stat.f_bavail.saturating_mul(stat.f_frsize) })
}

#[cfg(test)]
mod tests {
    use super::super::placement::Placement;
    use super::*;
    use crate::archive::Location;
    use crate::archive::filetable::{FileEntry, PieceEntry, SpaceEntry, StoredFileKind};
    use crate::innodb::ids::{PageNo, SpaceId};
    use crate::ops::options::ExternalFiles;

    fn space(id: u32, path: &str, pages: u32) -> SpaceEntry {
        let location = match path.strip_prefix('/') {
            Some(_) => Location::External(path.into()),
            None => Location::Datadir(path.into()),
        };
        let piece = PieceEntry { location, first_page: PageNo(0), pages };
        SpaceEntry { space: SpaceId(id), flags: 0x4021, pages, pieces: vec![piece] }
    }

    /// 100 pages inside, 50 and a file of 1000 bytes on /ssd.
    fn table() -> FileTable {
        let location = Location::External(b"/ssd/db/binlog.000001".to_vec());
        FileTable {
            spaces: vec![space(5, "db/t.ibd", 100), space(6, "/ssd/db/u.ibd", 50)],
            files: vec![FileEntry { number: 0, location, kind: StoredFileKind::BinlogTail, bytes: 1000 }],
            ..FileTable::default()
        }
    }

    fn checked(data_free: u64, ssd_free: u64, copied_pages: u64) -> Result<(), Error> {
        let table = table();
        let layout = Layout::plan(&table, &Placement::new(Path::new("/new"), &ExternalFiles::Keep)).unwrap();
        let look = |path: &Path| {
            let is_ssd = path.starts_with("/ssd");
            Ok(FileSystem { id: is_ssd.into(), free: if is_ssd { ssd_free } else { data_free } })
        };
        check_by(&look, Path::new("/new"), copied_pages << 14, 7, &layout, &table)
    }

    #[test]
    fn each_file_system_needs_room_for_what_goes_there_and_no_more() {
        let (data, ssd) = ((100 << 14) + 7, (50 << 14) + 1000);
        checked(data, ssd, 1000).unwrap();
        let error = checked(data - 1, ssd, 1000).unwrap_err();
        assert_eq!(error.kind, ErrorKind::TargetTooSmall);
        assert!(error.message.contains("/new has") && error.message.contains(&data.to_string()), "{error}");
        let error = checked(u64::MAX, ssd - 1, 1000).unwrap_err();
        assert!(error.message.contains("/ssd/db has") && error.advice().contains("--external-files"), "{error}");
    }

    #[test]
    fn pages_of_zeros_take_no_room() {
        checked((10 << 14) + 7, (10 << 14) + 1000, 10).unwrap();
        assert!(checked((10 << 14) + 6, u64::MAX, 10).is_err());
    }

    #[test]
    fn the_space_of_a_place_that_is_not_there_yet_is_that_of_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        let (there, not_yet) = (look(dir.path()).unwrap(), look(&dir.path().join("not/there/yet")).unwrap());
        assert_eq!(there.id, not_yet.id);
        assert!(not_yet.free > 0);
    }
}
