//! The file table: every tablespace, every other file, every directory of a backup.
//!
//! ```text
//!   spaces       id · flags · pages · pieces: where each file of it stands
//!   files        number · kind · bytes · where
//!   directories  where
//! ```
//! Paths are bytes and stay bytes. Decoding refuses paths that lead elsewhere than they say. (docs/format/filetable.md.)

use std::collections::BTreeSet;

use super::ArchiveError;
use super::table::{directory_key, sized_record, with_length};
use super::wire::{Input, Malformed, Output, to_u32};
use crate::innodb::ids::{PageNo, SpaceId};

/// The longest path, as on Linux.
const MAX_PATH_BYTES: usize = 4096;

/// Where a file stands. Bytes: a name may be any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Location {
    /// Below the data directory: a relative path.
    Datadir(Vec<u8>),
    /// Elsewhere: an absolute path.
    External(Vec<u8>),
}

impl Location {
    /// The path's bytes.
    pub fn path(&self) -> &[u8] {
        match self {
            Self::Datadir(path) | Self::External(path) => path,
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        let relative = match self {
            Self::Datadir(path) => path.as_slice(),
            Self::External(path) => path.strip_prefix(b"/").ok_or("an absolute path does not begin with /")?,
        };
        if relative.is_empty() || relative.len() > MAX_PATH_BYTES {
            return Err("a path is empty or longer than 4096 bytes");
        }
        if relative.contains(&0) || relative.split(|byte| *byte == b'/').any(|part| matches!(part, b"" | b"." | b".."))
        {
            return Err("a path has a zero byte, or an empty, . or .. part");
        }
        Ok(())
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(if matches!(self, Self::Datadir(_)) { 1 } else { 2 });
        bytes.put_sized(self.path());
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let kind = input.u8()?;
        let length = input.len_u32()?;
        let path = input.take(length)?.to_vec();
        let location = match kind {
            1 => Self::Datadir(path),
            2 => Self::External(path),
            other => return Err(Malformed::unsupported(format!("kind of place {other}"))),
        };
        location.check().map_err(Malformed::damaged)?;
        Ok(location)
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path().escape_ascii())
    }
}

/// All files of a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileTable {
    /// Tablespaces.
    pub spaces: Vec<SpaceEntry>,
    /// Other files.
    pub files: Vec<FileEntry>,
    /// Directories below the data directory that must exist, relative.
    pub directories: Vec<Vec<u8>>,
}

/// A tablespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceEntry {
    /// Its id.
    pub space: SpaceId,
    /// The raw flags of its first page.
    pub flags: u32,
    /// Its size.
    pub pages: u32,
    /// Its files, in order.
    pub pieces: Vec<PieceEntry>,
}

/// One file of a tablespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceEntry {
    /// Where it stands.
    pub location: Location,
    /// Its first page's number.
    pub first_page: PageNo,
    /// Its size.
    pub pages: u32,
}

/// A file that is no tablespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Its number in this table: its frames' stream.
    pub number: u32,
    /// Where it stands.
    pub location: Location,
    /// What it is.
    pub kind: StoredFileKind,
    /// Its size.
    pub bytes: u64,
}

/// What a stored file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoredFileKind {
    /// Of a table whose engine has no redo.
    NonTransactional,
    /// The same, of the server's own schemas.
    SystemTable,
    /// A table's definition, beside the table.
    Sdi,
    /// The end of the binary log.
    BinlogTail,
    /// The list of pages that warms the buffer pool up.
    BufferPool,
}

impl StoredFileKind {
    fn number(self) -> u8 {
        match self {
            Self::NonTransactional => 1,
            Self::SystemTable => 2,
            Self::Sdi => 3,
            Self::BinlogTail => 4,
            Self::BufferPool => 5,
        }
    }

    fn from_number(number: u8) -> Result<Self, Malformed> {
        [Self::NonTransactional, Self::SystemTable, Self::Sdi, Self::BinlogTail, Self::BufferPool]
            .into_iter()
            .find(|kind| kind.number() == number)
            .ok_or_else(|| Malformed::unsupported(format!("kind of file {number}")))
    }
}

impl SpaceEntry {
    fn check(&self) -> Result<(), &'static str> {
        let mut next = 0_u32;
        for piece in &self.pieces {
            piece.location.check()?;
            if piece.first_page.0 != next {
                return Err("its files do not join");
            }
            next = next.checked_add(piece.pages).ok_or("it has more pages than there are numbers")?;
        }
        if self.pieces.is_empty() || next != self.pages {
            return Err("its files do not add up to its pages");
        }
        Ok(())
    }
}

/// One record of the stored table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileRecord {
    /// A tablespace.
    Space(SpaceEntry),
    /// Another file.
    File(FileEntry),
    /// A directory.
    Directory(Vec<u8>),
}

impl FileRecord {
    /// Reads a record.
    pub fn decode(input: &mut Input<'_>) -> Result<Self, Malformed> {
        sized_record(input, "entry of the file table", |input| {
            let kind = input.u8()?;
            input.zeros(3)?;
            let id = input.u32()?;
            match kind {
                1 => decode_space(SpaceId(id), input).map(Self::Space),
                2 => {
                    let (kind, bytes) = (StoredFileKind::from_number(input.u8()?)?, input.u64()?);
                    Ok(Self::File(FileEntry { number: id, location: Location::decode(input)?, kind, bytes }))
                }
                3 => match Location::decode(input)? {
                    Location::Datadir(path) => Ok(Self::Directory(path)),
                    Location::External(_) => Err(Malformed::damaged("a directory outside of the data directory")),
                },
                other => Err(Malformed::unsupported(format!("kind of entry {other}"))),
            }
        })
    }
}

fn decode_space(space: SpaceId, input: &mut Input<'_>) -> Result<SpaceEntry, Malformed> {
    let (flags, pages, count) = (input.u32()?, input.u32()?, input.u32()?);
    let mut pieces = Vec::new();
    for _ in 0..count {
        let location = Location::decode(input)?;
        pieces.push(PieceEntry { location, first_page: PageNo(input.u32()?), pages: input.u32()? });
    }
    let entry = SpaceEntry { space, flags, pages, pieces };
    entry.check().map_err(|why| Malformed::damaged(format!("space {space}: {why}")))?;
    Ok(entry)
}

impl FileTable {
    /// Checks that the table names nothing twice and leads nowhere else.
    pub fn check(&self) -> Result<(), ArchiveError> {
        let bad = |what: String, why: &str| Err(ArchiveError::BadInput { what, why: why.to_owned() });
        let mut spaces = BTreeSet::new();
        let mut numbers = BTreeSet::new();
        let mut places = BTreeSet::new();
        for space in &self.spaces {
            if let Err(why) = space.check() {
                return bad(format!("space {}", space.space), why);
            }
            if !spaces.insert(space.space) || space.pieces.iter().any(|piece| !places.insert(&piece.location)) {
                return bad(format!("space {}", space.space), "its id or one of its files is there twice");
            }
        }
        for file in &self.files {
            if let Err(why) = file.location.check() {
                return bad(format!("file {}", file.location), why);
            }
            if !numbers.insert(file.number) || !places.insert(&file.location) {
                return bad(format!("file {}", file.location), "its number or its place is there twice");
            }
        }
        for path in &self.directories {
            let location = Location::Datadir(path.clone());
            if let Err(why) = location.check() {
                return bad(format!("directory {location}"), why);
            }
        }
        Ok(())
    }

    /// All records with their keys, sorted.
    pub(super) fn encode(&self) -> Vec<([u8; 16], Vec<u8>)> {
        let mut records = Vec::new();
        for space in &self.spaces {
            let mut bytes = start_record(1, space.space.0);
            bytes.put_u32(space.flags);
            bytes.put_u32(space.pages);
            bytes.put_u32(to_u32(space.pieces.len()));
            for piece in &space.pieces {
                piece.location.encode(&mut bytes);
                bytes.put_u32(piece.first_page.0);
                bytes.put_u32(piece.pages);
            }
            records.push(bytes);
        }
        for file in &self.files {
            let mut bytes = start_record(2, file.number);
            bytes.push(file.kind.number());
            bytes.put_u64(file.bytes);
            file.location.encode(&mut bytes);
            records.push(bytes);
        }
        for (number, path) in self.directories.iter().enumerate() {
            let mut bytes = start_record(3, to_u32(number));
            Location::Datadir(path.clone()).encode(&mut bytes);
            records.push(bytes);
        }
        let keyed = |record: Vec<u8>| (directory_key(record.get(..8).unwrap_or_default()), with_length(&record));
        let mut keyed: Vec<_> = records.into_iter().map(keyed).collect();
        keyed.sort_by_key(|(key, _)| *key);
        keyed
    }

    /// Puts a table together from its records.
    pub(super) fn from_records(records: Vec<FileRecord>) -> Result<Self, Malformed> {
        let mut table = Self::default();
        for record in records {
            match record {
                FileRecord::Space(space) => table.spaces.push(space),
                FileRecord::File(file) => table.files.push(file),
                FileRecord::Directory(path) => table.directories.push(path),
            }
        }
        table.check().map_err(|error| Malformed::damaged(error.to_string()))?;
        Ok(table)
    }
}

fn start_record(kind: u8, id: u32) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.put_zeros(3);
    bytes.put_u32(id);
    bytes
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::super::table::decode_records;
    use super::*;

    fn reencode(table: &FileTable) -> Result<FileTable, Malformed> {
        let records = table.encode();
        let body: Vec<u8> = records.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        let count = to_u32(records.len()).to_be_bytes();
        FileTable::from_records(decode_records(&count, &body, FileRecord::decode)?)
    }

    fn space(id: u32, path: &[u8]) -> SpaceEntry {
        let location = Location::Datadir(path.to_vec());
        SpaceEntry {
            space: SpaceId(id),
            flags: 0x4021,
            pages: 7,
            pieces: vec![PieceEntry { location, first_page: PageNo(0), pages: 7 }],
        }
    }

    proptest! {
        #[test]
        fn any_names_come_back(
            names in prop::collection::btree_set(prop::collection::vec(1_u8..=255, 1..60), 0..20),
            external in any::<bool>(),
            kind in 1_u8..=5,
        ) {
            let names: Vec<Vec<u8>> = names.into_iter().filter(|name| !matches!(name.as_slice(), b"." | b".."))
                .filter(|name| !name.contains(&b'/')).collect();
            let mut table = FileTable::default();
            for (number, name) in (0_u32..).zip(&names) {
                let path = [b"db/", name.as_slice()].concat();
                table.spaces.push(space(number * 7, &path));
                let place = [b"/else/", name.as_slice()].concat();
                table.files.push(FileEntry {
                    number,
                    location: if external { Location::External(place) } else { Location::Datadir(name.clone()) },
                    kind: StoredFileKind::from_number(kind).unwrap(),
                    bytes: u64::from(number) << 33,
                });
                table.directories.push(name.clone());
            }
            prop_assert_eq!(reencode(&table).unwrap(), table);
        }
    }

    #[test]
    fn several_files_of_one_space_must_join() {
        let piece = |path: &[u8], first, pages| PieceEntry {
            location: Location::External(path.to_vec()),
            first_page: PageNo(first),
            pages,
        };
        let good = SpaceEntry {
            space: SpaceId(0),
            flags: 0,
            pages: 1000,
            pieces: vec![piece(b"/a/ibdata1", 0, 768), piece(b"/b/ibdata2", 768, 232)],
        };
        assert!(good.check().is_ok());
        for pieces in [
            vec![],
            vec![piece(b"/a/ibdata1", 0, 768)],
            vec![piece(b"/a/ibdata1", 0, 768), piece(b"/b/ibdata2", 769, 232)],
            vec![piece(b"/a/ibdata1", 0, u32::MAX), piece(b"/b/ibdata2", u32::MAX, 5)],
        ] {
            assert!(SpaceEntry { pieces, ..good.clone() }.check().is_err());
        }
    }

    #[test]
    fn no_path_leads_elsewhere() {
        for bad in [&b""[..], b"/etc/passwd", b"../x", b"a/../../x", b"a//b", b"a/.", b"a\0b", b"a/", &[b'a'; 5000]] {
            let table = FileTable { spaces: vec![space(1, bad)], ..FileTable::default() };
            assert!(table.check().is_err(), "{}", bad.escape_ascii());
            assert!(reencode(&table).is_err(), "{}", bad.escape_ascii());
            let table = FileTable { directories: vec![bad.to_vec()], ..FileTable::default() };
            assert!(reencode(&table).is_err(), "{}", bad.escape_ascii());
        }
        for bad in [&b"relative"[..], b"/", b"/a/../b"] {
            assert!(Location::External(bad.to_vec()).check().is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn nothing_is_there_twice() {
        let twice = FileTable { spaces: vec![space(1, b"a"), space(1, b"b")], ..FileTable::default() };
        assert!(twice.check().is_err());
        let twice = FileTable { spaces: vec![space(1, b"a"), space(2, b"a")], ..FileTable::default() };
        assert!(twice.check().is_err());
    }

    #[test]
    fn a_table_of_100_000_spaces_is_small() {
        let spaces =
            (0..100_000_u32).map(|id| space(id, format!("shop_{:03}/orders_{id:06}.ibd", id % 100).as_bytes()));
        let table = FileTable { spaces: spaces.collect(), ..FileTable::default() };
        let bytes: usize = table.encode().iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes <= 9 << 20, "docs/format/README.md promises 9 MB, it takes {bytes}");
        assert_eq!(reencode(&table).unwrap().spaces.len(), 100_000);
    }
}
