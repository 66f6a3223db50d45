//! Checks that the tables of an archive agree: index, packs' own directories, redo table, file table.
//!
//! ```text
//!   index, in order ─► no window twice ─► windows of each stream without a hole, units as the file table says
//!        └─ per pack: number and sum of record digests ═══ the same from the pack's own directory
//!   redo table ─► blocks of each segment ═══ directory of its redo pack
//! ```
//! Memory: a few bytes a pack and a page of each index object. What blocks hold is `read_pack`'s and `read_redo`'s to
//! check; whole objects are looked at there.

use std::collections::HashMap;

use super::codec::Decompressor;
use super::container::{Entry, Kind};
use super::digest::Digest;
use super::filetable::FileTable;
use super::frame::{FILE_UNIT, FrameKey};
use super::index::IndexRecord;
use super::manifest::BackupType;
use super::packs::{PackRef, object_name};
use super::reader::ArchiveReader;
use super::redo::part_key;
use super::wire::{Input, to_len};
use super::{ArchiveError, StreamId};

/// Problems that are kept; all are counted.
const MAX_PROBLEMS: usize = 1000;

/// What [`ArchiveReader::verify_tables`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableCheck {
    /// Frames that the index has.
    pub frames: u64,
    /// Packs and redo packs whose directory was read.
    pub packs: u64,
    /// What is wrong, the first of it.
    pub problems: Vec<TableProblem>,
    /// How much is wrong.
    pub problem_count: u64,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableProblem {
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
}

impl TableCheck {
    fn problem(&mut self, object: &str, what: impl Into<String>) {
        self.problem_count += 1;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(TableProblem { object: object.to_owned(), what: what.into() });
        }
    }

    /// Takes an error as a problem, if it says something of the backup.
    fn failed(&mut self, object: &str, error: ArchiveError) -> Result<(), ArchiveError> {
        if !error.is_damage() {
            return Err(error);
        }
        let what = match &error {
            ArchiveError::Damaged { what, .. } => what.clone(),
            other => other.to_string(),
        };
        self.problem(error.object().unwrap_or(object), what);
        Ok(())
    }
}

/// What the records of one pack add up to, in any order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Fingerprint {
    records: u64,
    sum: u128,
}

impl Fingerprint {
    fn add(&mut self, record: &IndexRecord) {
        self.records += 1;
        self.sum = self.sum.wrapping_add(Digest::of(&record.encode()).0);
    }
}

impl ArchiveReader {
    /// Checks that the tables agree and that no page is missing. Goes on after a problem; only a cancellation ends it.
    pub fn verify_tables(&self) -> Result<TableCheck, ArchiveError> {
        let mut check = TableCheck::default();
        let table = match self.file_table() {
            Ok(table) => Some(table),
            Err(error) => check.failed(self.files_name(), error).map(|()| None)?,
        };
        let mut failed = |object: &str, error| check.failed(object, error);
        self.index.check_headers(&*self.source, &self.owner, &mut failed)?;
        let told = match self.walk_index(&mut check, table.as_ref()) {
            Ok(told) => Some(told),
            Err(error) => check.failed("index", error).map(|()| None)?,
        };
        self.verify_directories(&mut check, told.as_ref())?;
        Ok(check)
    }

    fn walk_index(
        &self,
        check: &mut TableCheck,
        table: Option<&FileTable>,
    ) -> Result<HashMap<u32, Fingerprint>, ArchiveError> {
        let mut told: HashMap<u32, Fingerprint> = HashMap::new();
        let mut streams = table.map(|table| Streams::new(table, self.backup_type == BackupType::Full));
        let mut walk = self.index.walk(&*self.source, &self.owner, None)?;
        while let Some(record) = walk.next()? {
            check.frames += 1;
            told.entry(record.pack).or_default().add(&record);
            if let Some(streams) = &mut streams {
                streams.take(&record, check);
            }
        }
        if let Some(streams) = streams {
            streams.finish(check);
        }
        Ok(told)
    }

    fn verify_directories(
        &self,
        check: &mut TableCheck,
        told: Option<&HashMap<u32, Fingerprint>>,
    ) -> Result<(), ArchiveError> {
        let mut decompressor = Decompressor::new()?;
        for pack in &self.objects {
            match self.open_object(pack, &mut decompressor) {
                Ok(object) => {
                    check.packs += 1;
                    match (pack.kind, told) {
                        (Kind::RedoPack, _) => {
                            // Redo is read by its blocks, so nobody else looks at the header.
                            if let Err(error) = object.check_header(&*self.source) {
                                check.failed(&pack.name, error)?;
                            }
                            self.verify_redo(check, pack, object.entries());
                        }
                        (_, Some(told)) => verify_frames(check, pack, object.entries(), told.get(&pack.number)),
                        _ => {}
                    }
                }
                Err(error) => check.failed(&pack.name, error)?,
            }
        }
        let known = |number: &u32| self.pack(Kind::Pack, *number).is_ok();
        for number in told.into_iter().flat_map(HashMap::keys).filter(|number| !known(number)) {
            check.problem("index", format!("it names {}, which is not there", object_name(Kind::Pack, *number)));
        }
        Ok(())
    }

    fn verify_redo(&self, check: &mut TableCheck, pack: &PackRef, entries: &[Entry]) {
        let mut next = 0;
        for segment in self.redo_segments().iter().filter(|segment| segment.pack == pack.number) {
            let blocks = entries.iter().skip(to_len(segment.first_block)).take(to_len(segment.blocks));
            let bytes: u64 = blocks.clone().map(|entry| u64::from(entry.length)).sum();
            let first = blocks.clone().next();
            let fits = segment.first_block == next
                && blocks.len() == to_len(segment.blocks)
                && bytes == segment.bytes
                && first.is_some_and(|e| e.offset == segment.offset && e.key == part_key(segment.start, 0));
            if !fits {
                let what =
                    format!("the redo from LSN {} to {} is not where the redo table says", segment.start, segment.end);
                check.problem(&pack.name, what);
            }
            next = segment.first_block.saturating_add(segment.blocks);
        }
        if to_len(next) != entries.len() {
            check.problem(&pack.name, "it has blocks that the redo table does not name");
        }
    }
}

fn verify_frames(check: &mut TableCheck, pack: &PackRef, entries: &[Entry], told: Option<&Fingerprint>) {
    let mut found = Fingerprint::default();
    for (block, entry) in (0..).zip(entries) {
        let mut input = Input::new(&entry.key, "key");
        let decoded = FrameKey::decode(&mut input).and_then(|(key, _)| Ok((key, input.u32()?)));
        let Ok((key, units)) = decoded else {
            check.problem(&pack.name, format!("block {block} has a key that is none"));
            continue;
        };
        let (offset, length, digest) = (entry.offset, entry.length, entry.digest);
        found.add(&IndexRecord { key, units, pack: pack.number, block, offset, length, digest });
    }
    let told = told.copied().unwrap_or_default();
    if told.records != found.records {
        check.problem(&pack.name, format!("it has {} frames, the index {}", found.records, told.records));
    } else if told != found {
        check.problem(&pack.name, "its frames are not those that the index has");
    }
}

/// Compares the index, in order, with the file table.
struct Streams {
    wanted: HashMap<StreamId, u64>,
    whole: bool,
    at: Option<At>,
    last: Option<FrameKey>,
}

struct At {
    stream: StreamId,
    units: u64,
    windows: u64,
    last_window: u32,
}

impl Streams {
    fn new(table: &FileTable, whole: bool) -> Self {
        let spaces = table.spaces.iter().map(|space| (StreamId::Space(space.space), u64::from(space.pages)));
        let files = table.files.iter();
        let files = files.map(|file| (StreamId::File(file.number), file.bytes.div_ceil(FILE_UNIT.into())));
        Self { wanted: spaces.chain(files).collect(), whole, at: None, last: None }
    }

    fn take(&mut self, record: &IndexRecord, check: &mut TableCheck) {
        if self.last == Some(record.key) {
            check.problem("index", format!("{} is there twice", record.key));
        }
        self.last = Some(record.key);
        if self.at.as_ref().is_none_or(|at| at.stream != record.key.stream) {
            self.close(check);
            self.at = Some(At { stream: record.key.stream, units: 0, windows: 0, last_window: 0 });
        }
        if let Some(at) = &mut self.at {
            at.units += u64::from(record.units);
            at.windows += 1;
            at.last_window = record.key.window_no;
        }
    }

    /// Judges the stream that was walked last.
    fn close(&mut self, check: &mut TableCheck) {
        let Some(At { stream, units, windows, last_window }) = self.at.take() else { return };
        let Some(wanted) = self.wanted.remove(&stream) else {
            check.problem("index", format!("it has frames of {stream}, which the file table does not know"));
            return;
        };
        if units > wanted || (self.whole && units != wanted) {
            check.problem("index", format!("{stream} has {wanted} pages or units, its frames have {units}"));
        } else if self.whole && windows != u64::from(last_window) + 1 {
            check.problem("index", format!("{stream} has a window {last_window}, but only {windows} of them"));
        }
    }

    fn finish(mut self, check: &mut TableCheck) {
        self.close(check);
        let missing = self.wanted.into_iter().filter(|(_, wanted)| self.whole && *wanted > 0);
        let mut missing: Vec<_> = missing.collect();
        missing.sort_unstable();
        for (stream, wanted) in missing {
            check.problem("index", format!("it has no frame of {stream}, which has {wanted} pages or units"));
        }
    }
}
