//! Where each file of a backup goes: pure, so that every refusal comes before the first byte.
//!
//! ```text
//!   below the data directory:  db/t.ibd          ─► <datadir>/db/t.ibd
//!   outside, keep:             /ssd/db/t.ibd     ─► /ssd/db/t.ibd
//!   outside, inside:           /ssd/db/t.ibd     ─► <datadir>/db/t.ibd      (schema kept: a table's own file)
//!                              /ssd/undo_3.ibu   ─► <datadir>/undo_3.ibu    (no schema: tablespace of its own)
//!   outside, /ssd=/new:        /ssd/db/t.ibd     ─► /new/db/t.ibd
//! ```
//! The server finds moved files by their tablespace id, as long as the directory is its data directory or one of
//! `innodb_directories` (MySQL 9.7; tablespace-files reference, section 8).

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::archive::Location;
use crate::archive::filetable::{FileTable, PieceEntry, StoredFileKind};
use crate::innodb::ids::{PageNo, SpaceId};
use crate::innodb::space::TablespaceFlags;
use crate::ops::error::{Error, ErrorKind};
use crate::ops::options::ExternalFiles;

use super::target::{self, Target, io_error};
use crate::util::names::printable;

/// The rule for one restore.
#[derive(Debug)]
pub struct Placement<'a> {
    datadir: &'a Path,
    external: &'a ExternalFiles,
}

impl<'a> Placement<'a> {
    /// A rule for files that go to `datadir`, and elsewhere as `external` says.
    pub fn new(datadir: &'a Path, external: &'a ExternalFiles) -> Self {
        Self { datadir, external }
    }

    /// The path for a file that was at `location`; `in_schema` when its parent directory names its schema.
    pub fn place(&self, location: &Location, in_schema: bool) -> Result<PathBuf, Error> {
        match location {
            Location::Datadir(relative) => {
                Ok(self.datadir.join(safe_relative(Path::new(OsStr::from_bytes(relative)))?))
            }
            Location::External(path) => self.place_external(Path::new(OsStr::from_bytes(path)), in_schema),
        }
    }

    /// Refuses to keep a file outside of the data directory that has not the name of one that servers keep there. Without keys,
    /// whoever can write to the store can make a backup that names any place of the machine, as this process' user.
    fn check_name(&self, location: &Location, is_such: impl Fn(&str) -> bool) -> Result<(), Error> {
        let (Location::External(path), ExternalFiles::Keep) = (location, self.external) else { return Ok(()) };
        let name = Path::new(OsStr::from_bytes(path)).file_name().and_then(OsStr::to_str).unwrap_or_default();
        if is_such(name) {
            return Ok(());
        }
        let message = format!("{} is not put back where it was: it has no usual name for such a file", printable(path));
        Err(Error::new(ErrorKind::Preflight, message)
            .advise("say where it is to go, with --external-files OLD=NEW, or choose inside"))
    }

    fn place_external(&self, path: &Path, in_schema: bool) -> Result<PathBuf, Error> {
        if !path.is_absolute() {
            return Err(unsafe_path(path));
        }
        let below_root = safe_relative(path.strip_prefix("/").unwrap_or(path))?;
        match self.external {
            ExternalFiles::Keep => Ok(path.to_path_buf()),
            ExternalFiles::Inside => {
                let parts: Vec<_> = below_root.components().collect();
                let kept = if in_schema { 2 } else { 1 };
                let tail = parts.get(parts.len().saturating_sub(kept)..).unwrap_or_default();
                Ok(self.datadir.join(tail.iter().collect::<PathBuf>()))
            }
            ExternalFiles::Map(pairs) => pairs
                .iter()
                .find_map(|(from, to)| path.strip_prefix(from).ok().map(|rest| to.join(rest)))
                .ok_or_else(|| {
                    let message =
                        format!("{} lies outside of the data directory and no mapping covers it", path.display());
                    Error::new(ErrorKind::Preflight, message)
                        .advise("add its directory to --external-files OLD=NEW, or choose keep or inside")
                }),
        }
    }
}

/// The place of every file of one backup on the target.
#[derive(Debug, Default)]
pub struct Layout {
    spaces: HashMap<SpaceId, Vec<PiecePlace>>,
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
    outside: Vec<PathBuf>,
}

/// A file of a tablespace, and the pages that are in it.
#[derive(Debug)]
pub struct PiecePlace {
    /// The file.
    pub path: PathBuf,
    /// Its first page.
    pub first_page: PageNo,
    /// How many there are.
    pub pages: u32,
    /// Bytes of a page.
    pub page_bytes: u32,
}

impl Layout {
    /// Places everything in `table`. Refuses what would leave the target, or fall together.
    pub fn plan(table: &FileTable, placement: &Placement<'_>) -> Result<Self, Error> {
        let mut layout = Self::default();
        for entry in &table.spaces {
            let flags = TablespaceFlags::decode(entry.flags).map_err(|error| {
                Error::new(ErrorKind::UnsupportedFormat, format!("space {}: {error}", entry.space)).caused_by(error)
            })?;
            let place = |piece: &PieceEntry| {
                placement.check_name(&piece.location, |name| is_tablespace(entry.space, name))?;
                // A table's own file is in its schema's directory, also where it was moved while the server was down.
                let is_tables_own = !flags.is_shared() && piece.location.path().ends_with(b".ibd");
                Ok(PiecePlace {
                    path: placement.place(&piece.location, flags.has_data_dir() || is_tables_own)?,
                    first_page: piece.first_page,
                    pages: piece.pages,
                    page_bytes: flags.physical_size().bytes(),
                })
            };
            let pieces = entry.pieces.iter().map(place).collect::<Result<Vec<_>, Error>>()?;
            let _ = layout.spaces.insert(entry.space, pieces);
        }
        for file in &table.files {
            let is_such = |name: &str| file.kind == StoredFileKind::BinlogTail && is_binlog(name);
            placement.check_name(&file.location, is_such)?;
            layout.files.push(placement.place(&file.location, false)?);
        }
        for name in &table.directories {
            layout.directories.push(placement.place(&Location::Datadir(name.clone()), false)?);
        }
        check_distinct(layout.paths())?;
        layout.outside =
            layout.paths().filter(|path| !path.starts_with(placement.datadir)).map(Path::to_path_buf).collect();
        Ok(layout)
    }

    /// Every file of a tablespace, and its full size.
    pub fn space_files(&self) -> impl Iterator<Item = (&Path, u64)> {
        let size = |piece: &PiecePlace| u64::from(piece.pages).saturating_mul(u64::from(piece.page_bytes));
        self.spaces.values().flatten().map(move |piece| (piece.path.as_path(), size(piece)))
    }

    /// Every other file of the backup, and its size.
    pub fn other_files<'a>(&'a self, table: &'a FileTable) -> impl Iterator<Item = (&'a Path, u64)> {
        self.files.iter().zip(&table.files).map(|(path, entry)| (path.as_path(), entry.bytes))
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        self.spaces.values().flatten().map(|piece| piece.path.as_path()).chain(self.files.iter().map(PathBuf::as_path))
    }

    /// The files of a tablespace, in the order of their pages.
    pub fn pieces(&self, space: SpaceId) -> impl Iterator<Item = &Path> {
        self.spaces.get(&space).into_iter().flatten().map(|piece| piece.path.as_path())
    }

    /// The file that holds a page.
    pub fn piece_of(&self, space: SpaceId, page: PageNo) -> Option<&PiecePlace> {
        self.spaces
            .get(&space)?
            .iter()
            .find(|piece| page.0.checked_sub(piece.first_page.0).is_some_and(|within| within < piece.pages))
    }

    /// The place of a file by its number.
    pub fn file(&self, number: u32) -> Option<&Path> {
        self.files.get(usize::try_from(number).ok()?).map(PathBuf::as_path)
    }

    /// Adds a file that is made for the restore, not brought back: outside, it must not be there either.
    pub fn add_made(&mut self, path: PathBuf, datadir: &Path) {
        if !path.starts_with(datadir) {
            self.outside.push(path);
        }
    }

    /// Makes a tablespace as large as it will be: its last file grows.
    pub fn grow(&mut self, space: SpaceId, pages: u32) {
        if let Some(last) = self.spaces.get_mut(&space).and_then(|pieces| pieces.last_mut()) {
            last.pages = last.pages.max(pages.saturating_sub(last.first_page.0));
        }
    }

    /// Makes a tablespace that was created as large as it must be: zeros behind its last file, if that is too short.
    pub fn extend(&self, space: SpaceId, pages: u32) -> Result<(), Error> {
        let Some(last) = self.spaces.get(&space).and_then(|pieces| pieces.last()) else { return Ok(()) };
        let needed = pages.saturating_sub(last.first_page.0);
        if needed <= last.pages {
            return Ok(());
        }
        let bytes = u64::from(needed).saturating_mul(u64::from(last.page_bytes));
        let file = File::options().write(true).open(&last.path);
        file.and_then(|file| file.set_len(bytes)).map_err(|error| io_error("set the size of", &last.path, error))
    }

    /// Files that lie outside of the data directory.
    pub fn outside(&self) -> impl Iterator<Item = &Path> {
        self.outside.iter().map(PathBuf::as_path)
    }

    /// Files outside of the data directory must not be there yet: they may be those of the server that was backed up.
    /// The remains of an interrupted restore are named in its marker, and may be replaced.
    pub fn check_outside_is_free(&self, overwrite_incomplete: bool, datadir: &Path) -> Result<(), Error> {
        let ours = if overwrite_incomplete { target::marked_files(datadir) } else { Vec::new() };
        match self.outside.iter().find(|path| path.exists() && !ours.contains(path)) {
            None => Ok(()),
            Some(path) => {
                let message = format!("{} exists already, outside of the data directory", path.display());
                Err(Error::new(ErrorKind::TargetNotEmpty, message)
                    .advise("choose --external-files inside, or --external-files OLD=NEW to put such files elsewhere"))
            }
        }
    }

    /// Creates all directories, and all files in their full size without a byte in them. Returns how many files.
    pub fn create_all(&self, target: &Target, table: &FileTable) -> Result<u64, Error> {
        for directory in &self.directories {
            target.create_dir(directory)?;
        }
        let mut count = 0_u64;
        for (path, bytes) in self.space_files().chain(self.other_files(table)) {
            target.create_file(path, bytes)?;
            count = count.saturating_add(1);
        }
        Ok(count)
    }
}

/// Refuses two files of one backup that would become one on the target.
pub fn check_distinct<'p>(paths: impl Iterator<Item = &'p Path>) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for path in paths {
        if !seen.insert(path) {
            let message = format!("two files of the backup would both become {}", path.display());
            return Err(Error::new(ErrorKind::Preflight, message)
                .advise("give each external directory a place of its own with --external-files OLD=NEW"));
        }
    }
    Ok(())
}

/// Directories outside of `datadir` that the server must be told of by `innodb_directories`.
pub fn external_directories<'p>(datadir: &Path, paths: impl Iterator<Item = &'p Path>) -> Vec<PathBuf> {
    let outside = paths.filter(|path| !path.starts_with(datadir)).filter_map(Path::parent);
    outside.map(Path::to_path_buf).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Names that a tablespace's file has. Those of the system tablespace are free; this is the usual one.
fn is_tablespace(space: SpaceId, name: &str) -> bool {
    let ends = |suffix: &str| name.len() > suffix.len() && name.ends_with(suffix);
    let numbered = |name: &str| name.ends_with(|last: char| last.is_ascii_digit());
    match space {
        SpaceId::SYSTEM => name.starts_with("ibdata") && numbered(name),
        _ => ends(".ibd") || ends(".ibu") || (name.starts_with("undo_") && numbered(name)),
    }
}

/// `binlog.000002`.
fn is_binlog(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(base, number)| {
        !base.is_empty() && number.len() >= 6 && number.bytes().all(|digit| digit.is_ascii_digit())
    })
}

/// A stored path is input: it may name a place below a directory and nothing else.
fn safe_relative(path: &Path) -> Result<&Path, Error> {
    let normal = path.components().all(|part| matches!(part, Component::Normal(_)));
    if normal && path.components().next().is_some() && !path.as_os_str().as_bytes().contains(&0) {
        Ok(path)
    } else {
        Err(unsafe_path(path))
    }
}

fn unsafe_path(path: &Path) -> Error {
    Error::new(
        ErrorKind::DamagedBackup,
        format!("the backup names the file {}, which would leave the target", printable(path.as_os_str().as_bytes())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn external(path: &str) -> Location {
        Location::External(path.as_bytes().to_vec())
    }

    #[test]
    fn files_inside_stay_where_they_were() {
        let rule = Placement::new(Path::new("/new"), &ExternalFiles::Keep);
        let odd = Location::Datadir(b"d@0023/t\xff#p#p0.ibd".to_vec());
        assert_eq!(rule.place(&odd, true).unwrap().as_os_str().as_bytes(), b"/new/d@0023/t\xff#p#p0.ibd");
    }

    #[test]
    fn external_files_follow_the_option() {
        let at = |choice: &ExternalFiles, path: &str, in_schema| {
            Placement::new(Path::new("/new"), choice).place(&external(path), in_schema)
        };
        assert_eq!(at(&ExternalFiles::Keep, "/ssd/db/t.ibd", true).unwrap(), Path::new("/ssd/db/t.ibd"));
        assert_eq!(at(&ExternalFiles::Inside, "/ssd/db/t.ibd", true).unwrap(), Path::new("/new/db/t.ibd"));
        assert_eq!(at(&ExternalFiles::Inside, "/ssd/undo_3.ibu", false).unwrap(), Path::new("/new/undo_3.ibu"));
        let map = ExternalFiles::Map(vec![("/ssd".into(), "/fast".into())]);
        assert_eq!(at(&map, "/ssd/db/t.ibd", true).unwrap(), Path::new("/fast/db/t.ibd"));
        assert_eq!(at(&map, "/hdd/db/t.ibd", true).unwrap_err().kind, ErrorKind::Preflight);
    }

    #[test]
    fn a_tables_own_file_keeps_its_schema_wherever_it_was_moved() {
        let entry = |space, flags, path: &str| crate::archive::filetable::SpaceEntry {
            space: SpaceId(space),
            flags,
            pages: 7,
            pieces: vec![PieceEntry { location: external(path), first_page: PageNo(0), pages: 7 }],
        };
        let table = FileTable {
            spaces: vec![
                entry(5, 0x4021, "/ssd/db/moved.ibd"),
                entry(6, 0x4800, "/ssd/shared/general.ibd"),
                entry(0xFFFF_FFEF, 0, "/ssd/undo/undo_001"),
            ],
            ..FileTable::default()
        };
        let layout = Layout::plan(&table, &Placement::new(Path::new("/new"), &ExternalFiles::Inside)).unwrap();
        let place = |space| layout.pieces(SpaceId(space)).next().unwrap();
        assert_eq!(place(5), Path::new("/new/db/moved.ibd"));
        assert_eq!(place(6), Path::new("/new/general.ibd"));
        assert_eq!(place(0xFFFF_FFEF), Path::new("/new/undo_001"));
    }

    #[test]
    fn paths_that_would_leave_the_target_are_refused() {
        let rule = Placement::new(Path::new("/new"), &ExternalFiles::Keep);
        for bad in ["../etc/passwd", "/etc/passwd", "a/../../b", "", "a\0b"] {
            let error = rule.place(&Location::Datadir(bad.as_bytes().to_vec()), true).unwrap_err();
            assert_eq!(error.kind, ErrorKind::DamagedBackup, "{bad:?}");
        }
        assert!(rule.place(&external("relative"), true).is_err());
        assert!(rule.place(&external("/ssd/../etc/x"), true).is_err());
    }

    #[test]
    fn only_what_servers_keep_elsewhere_is_put_back_there() {
        let table = |space, path: &str| FileTable {
            spaces: vec![crate::archive::filetable::SpaceEntry {
                space: SpaceId(space),
                flags: 0,
                pages: 7,
                pieces: vec![PieceEntry { location: external(path), first_page: PageNo(0), pages: 7 }],
            }],
            ..FileTable::default()
        };
        let file = |kind, path: &str| FileTable {
            files: vec![crate::archive::filetable::FileEntry { number: 0, location: external(path), kind, bytes: 9 }],
            ..FileTable::default()
        };
        let plan = |table: &FileTable, choice: &ExternalFiles| {
            Layout::plan(table, &Placement::new(Path::new("/new"), choice)).map(drop).map_err(|error| error.kind)
        };
        let good = [
            table(5, "/ssd/db/t#p#p0.ibd"),
            table(7, "/ssd/more.ibu"),
            table(0xFFFF_FFEF, "/ssd/undo_001"),
            table(0, "/ssd/ibdata2"),
            file(StoredFileKind::BinlogTail, "/logs/mysql-bin.000002"),
        ];
        for good in &good {
            assert_eq!(plan(good, &ExternalFiles::Keep), Ok(()), "{good:?}");
        }
        let bad = [
            table(5, "/home/dba/.ssh/authorized_keys"),
            table(0, "/etc/cron.d/job1"),
            table(0, "/ssd/sys1"),
            file(StoredFileKind::BinlogTail, "/etc/cron.d/job"),
            file(StoredFileKind::BufferPool, "/logs/binlog.000002"),
        ];
        for bad in &bad {
            assert_eq!(plan(bad, &ExternalFiles::Keep), Err(ErrorKind::Preflight), "{bad:?}");
            assert_eq!(plan(bad, &ExternalFiles::Inside), Ok(()), "{bad:?}");
        }
    }

    #[test]
    fn collisions_and_outside_directories_are_seen() {
        let paths = [PathBuf::from("/new/a.ibu"), PathBuf::from("/ssd/db/t.ibd"), PathBuf::from("/ssd/db/u.ibd")];
        check_distinct(paths.iter().map(PathBuf::as_path)).unwrap();
        let outside = external_directories(Path::new("/new"), paths.iter().map(PathBuf::as_path));
        assert_eq!(outside, [PathBuf::from("/ssd/db")]);
        let twice = [Path::new("/a"), Path::new("/a")];
        assert_eq!(check_distinct(twice.into_iter()).unwrap_err().kind, ErrorKind::Preflight);
    }
}
