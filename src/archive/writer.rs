//! Writes an archive: packs from several threads, redo from one, then the tables that say what is where.
//!
//! ```text
//!   PackWriter (a thread) ─ frame ► compress ► open pack full? next one ► seal ► sink
//!                                        └─ closed: PackRef and index records to the shared lists
//!   redo_segment (one thread) ► gap? ► blocks ► open redo pack ► sink
//!   finish ► nothing lost? every page told? ► last index run · objects · redo-table · files ► Contents
//! ```
//! Whatever failed or was dropped half-way is remembered: `finish` then refuses, so that nothing incomplete can get a
//! manifest. Memory: see docs/format/README.md.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::codec::{BodyCodec, Codec, Compressor, MAX_RAW_BYTES};
use super::container::Kind;
use super::filetable::FileTable;
use super::frame::{FILE_UNIT, FrameInput, plan_frame};
use super::id::{AttemptId, BackupId};
use super::index::{IndexRecord, RUN_RECORDS};
use super::keys::{ArchiveKeys, RecipientKey, WrappedKey};
use super::manifest::{CipherInfo, Contents, RedoRange};
use super::object::ObjectSink;
use super::object_writer::{Body, ObjectBuilder};
use super::packs::{PackRef, object_name};
use super::redo::{MAX_SPACES_TOTAL, RedoRef, encode_part, part_key, segment_bytes};
use super::table::{Owner, TableRef, TableWriter};
use super::wire::{to_u32, to_u64};
use super::{ArchiveError, StreamId};
use crate::innodb::ids::SpaceId;
use crate::innodb::lsn::Lsn;

/// Bytes of a pack, unless told otherwise.
pub const DEFAULT_PACK_BYTES: u64 = 256 << 20;
/// Bytes of a pack at most: far below what any store takes as one object.
const MAX_PACK_BYTES: u64 = 2 << 30;
/// Frames of a pack at most, so that its directory stays small.
const MAX_PACK_FRAMES: u32 = 16_384;

/// What is to be written, and how.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Which backup.
    pub backup: BackupId,
    /// Which run.
    pub attempt: AttemptId,
    /// How blocks are compressed.
    pub codec: Codec,
    /// How those of redo are; each block says for itself.
    pub redo_codec: Codec,
    /// Bytes of a pack; [`DEFAULT_PACK_BYTES`].
    pub pack_bytes: u64,
    /// Whose keys open it. Empty: not encrypted.
    pub recipients: Vec<RecipientKey>,
}

/// Writes one archive. Shared by threads.
pub struct ArchiveWriter {
    shared: Arc<Shared>,
    wrapped: Vec<WrappedKey>,
    redo: Mutex<RedoState>,
}

impl fmt::Debug for ArchiveWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveWriter").field("owner", &self.shared.owner).finish_non_exhaustive()
    }
}

struct Shared {
    sink: Arc<dyn ObjectSink>,
    owner: Owner,
    codec: Codec,
    redo_codec: Codec,
    pack_bytes: u64,
    stored: AtomicU64,
    next_pack: AtomicU32,
    lists: Mutex<Lists>,
}

/// What the threads have in common.
#[derive(Default)]
struct Lists {
    packs: Vec<PackRef>,
    index: Vec<IndexRecord>,
    index_tables: Vec<TableRef>,
    index_started: u32,
    tables: Vec<TableRef>,
    /// Units told of each stream.
    units: HashMap<StreamId, u64>,
    frames: u64,
    open_writers: u32,
    /// Why this archive can never be complete.
    lost: Option<String>,
    finished: bool,
}

#[derive(Default)]
struct RedoState {
    segments: Vec<RedoRef>,
    open: Option<(u32, ObjectBuilder)>,
    compressor: Option<Compressor>,
    packs: u32,
    spaces_named: usize,
    gap: Option<(Lsn, Lsn)>,
}

impl Shared {
    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, kind: Kind, number: u32) -> Result<ObjectBuilder, ArchiveError> {
        let name = object_name(kind, number);
        ObjectBuilder::create(self.sink.as_ref(), &self.owner.place(&name, kind), self.owner.keys.as_ref())
    }

    fn lose(&self, what: String) {
        self.lists().lost.get_or_insert(what);
    }

    fn count_stored(&self, bytes: u64) {
        self.stored.fetch_add(bytes, Ordering::Relaxed);
    }

    fn close_pack(&self, kind: Kind, number: u32, pack: ObjectBuilder, told: OpenIndex) -> Result<(), ArchiveError> {
        let before = pack.bytes();
        let finished = pack.finish()?;
        self.count_stored(finished.bytes - before);
        let full_run = {
            let mut lists = self.lists();
            lists.packs.push(PackRef::new(kind, number, &finished));
            lists.frames += to_u64(told.records.len());
            for (stream, units) in told.units {
                *lists.units.entry(stream).or_default() += units;
            }
            lists.index.extend(told.records);
            if lists.index.len() >= RUN_RECORDS { lists.take_run() } else { None }
        };
        // Outside of the lock: others go on while a run is sorted and stored.
        match full_run {
            Some((number, run)) => self.write_run(number, run),
            None => Ok(()),
        }
    }

    fn write_run(&self, number: u32, mut run: Vec<IndexRecord>) -> Result<(), ArchiveError> {
        run.sort_unstable_by_key(|record| record.key);
        let name = object_name(Kind::Index, number);
        let table = self.write_table(&name, Kind::Index, run.iter().map(|r| (r.directory_key(), r.encode())))?;
        self.lists().index_tables.push(table);
        Ok(())
    }

    fn write_table(
        &self,
        name: &str,
        kind: Kind,
        records: impl Iterator<Item = ([u8; 16], Vec<u8>)>,
    ) -> Result<TableRef, ArchiveError> {
        let mut table = TableWriter::create(self.sink.as_ref(), &self.owner, name, kind, self.codec)?;
        for (key, record) in records {
            table.record(key, &record)?;
        }
        let table = table.finish()?;
        self.count_stored(table.bytes);
        self.lists().tables.push(table.clone());
        Ok(table)
    }
}

impl Lists {
    /// Takes at most one run off the index.
    fn take_run(&mut self) -> Option<(u32, Vec<IndexRecord>)> {
        if self.index.is_empty() {
            return None;
        }
        let rest = self.index.split_off(self.index.len().min(RUN_RECORDS));
        self.index_started += 1;
        Some((self.index_started, std::mem::replace(&mut self.index, rest)))
    }
}

impl ArchiveWriter {
    /// Begins an archive. Nothing is written yet.
    pub fn new(sink: Arc<dyn ObjectSink>, options: WriterOptions) -> Result<Self, ArchiveError> {
        let WriterOptions { backup, attempt, codec, redo_codec, pack_bytes, recipients } = options;
        let keys = if recipients.is_empty() { None } else { Some(ArchiveKeys::generate()?) };
        let mut wrapped: Vec<WrappedKey> = Vec::new();
        for recipient in &recipients {
            if let Some(keys) = &keys
                && wrapped.iter().all(|key| key.key_id() != recipient.id())
            {
                wrapped.push(keys.wrap(&backup, recipient)?);
            }
        }
        let shared = Shared {
            sink,
            owner: Owner { backup, attempt, keys },
            codec,
            redo_codec,
            pack_bytes: pack_bytes.min(MAX_PACK_BYTES),
            stored: AtomicU64::new(0),
            next_pack: AtomicU32::new(1),
            lists: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared), wrapped, redo: Mutex::default() })
    }

    /// A writer of packs for one thread.
    pub fn pack_writer(&self) -> PackWriter {
        self.shared.lists().open_writers += 1;
        PackWriter {
            shared: Arc::clone(&self.shared),
            compressor: None,
            scratch: Vec::new(),
            open: None,
            told: OpenIndex::default(),
            finished: false,
        }
    }

    /// The data key, for each recipient: to be stored as `keys/<key id>.json`. Empty if not encrypted.
    pub fn wrapped_keys(&self) -> Vec<WrappedKey> {
        self.wrapped.clone()
    }

    /// The data key, for the manifest's HMAC; `None` if not encrypted.
    pub fn keys(&self) -> Option<&ArchiveKeys> {
        self.shared.owner.keys.as_ref()
    }

    /// What the manifest says of the encryption.
    pub fn cipher_info(&self) -> Result<Option<CipherInfo>, ArchiveError> {
        let ids = self.wrapped.iter().map(|key| key.key_id().to_owned()).collect();
        self.keys().map(|_| CipherInfo::new(ids)).transpose()
    }

    /// Bytes handed to the sink so far.
    pub fn stored_bytes(&self) -> u64 {
        self.shared.stored.load(Ordering::Relaxed)
    }

    /// Every object that is complete in the store, with its bytes; after [`Self::finish`] the whole archive.
    pub fn objects(&self) -> Vec<(String, u64)> {
        let lists = self.shared.lists();
        let packs = lists.packs.iter().map(|pack| (pack.name.clone(), pack.bytes));
        packs.chain(lists.tables.iter().map(|table| (table.name.clone(), table.bytes))).collect()
    }

    /// Stores the redo from `start`, a block boundary, to `end`. Segments come in order and without a gap. `spaces`
    /// are those that it names, `None` when that is not known. `blocks` are its 512-byte blocks, the last one whole.
    pub fn redo_segment(
        &self,
        start: Lsn,
        end: Lsn,
        spaces: Option<&BTreeSet<SpaceId>>,
        blocks: &[u8],
    ) -> Result<(), ArchiveError> {
        let mut state = self.redo.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = state.segments.last()
            && last.end != start
        {
            let gap = (last.end, start);
            state.gap = Some(gap);
            return Err(ArchiveError::RedoGap { expected: gap.0, found: gap.1 });
        }
        let stored = self.store_segment(&mut state, start, end, spaces, blocks);
        if let Err(error) = &stored {
            self.shared.lose(format!("redo from LSN {start} to {end} was not stored: {error}"));
        }
        stored
    }

    fn store_segment(
        &self,
        state: &mut RedoState,
        start: Lsn,
        end: Lsn,
        spaces: Option<&BTreeSet<SpaceId>>,
        blocks: &[u8],
    ) -> Result<(), ArchiveError> {
        let bad = |why: String| ArchiveError::BadInput { what: format!("redo from LSN {start} to {end}"), why };
        let Some(log_bytes) = segment_bytes(start, end) else {
            return Err(bad("it does not begin with a block, is empty, or has more than 64 MiB".to_owned()));
        };
        if to_u64(blocks.len()) != log_bytes {
            return Err(bad(format!("it has {} bytes of blocks, not {log_bytes}", blocks.len())));
        }
        // Where a segment might not fit any more, the next pack begins, so that a segment is in one pack.
        let full = |pack: &ObjectBuilder| pack.blocks() > 0 && pack.bytes() + log_bytes > self.shared.pack_bytes;
        if let Some((number, pack)) = state.open.take_if(|(_, pack)| full(pack)) {
            self.shared.close_pack(Kind::RedoPack, number, pack, OpenIndex::default())?;
        }
        let RedoState { segments, open, compressor, packs, spaces_named, .. } = state;
        let (pack_number, pack) = if let Some(pack) = open {
            pack
        } else {
            *packs += 1;
            let pack = self.shared.begin(Kind::RedoPack, *packs)?;
            self.shared.count_stored(pack.bytes());
            open.insert((*packs, pack))
        };
        let compressor = match compressor {
            Some(compressor) => compressor,
            None => compressor.insert(Compressor::new(self.shared.redo_codec)?),
        };
        let (first_block, offset) = (pack.blocks(), pack.bytes());
        let mut at = 0_u32;
        for part in blocks.chunks(MAX_RAW_BYTES) {
            let (codec, stored) = compressor.compress(part)?;
            let body = Body { codec, stored, raw_bytes: part.len() };
            let entry = pack.block(part_key(start, at), &encode_part(start, end, at), &body)?;
            self.shared.count_stored(entry.length.into());
            at = at.saturating_add(to_u32(part.len()));
        }
        let room = MAX_SPACES_TOTAL.saturating_sub(*spaces_named);
        let spaces = spaces.and_then(|spaces| RedoRef::bounded_spaces(spaces.iter(), room));
        *spaces_named += spaces.as_ref().map_or(0, Vec::len);
        let (count, bytes) = (pack.blocks() - first_block, pack.bytes() - offset);
        segments.push(RedoRef { start, end, spaces, pack: *pack_number, first_block, blocks: count, offset, bytes });
        Ok(())
    }

    /// Completes a full archive. Refuses when something is missing: a pack writer still open or dropped, a gap in the
    /// redo, a page of a tablespace or a byte of a file that no frame told of.
    pub fn finish(&self, table: &FileTable) -> Result<Contents, ArchiveError> {
        self.complete(table, true)
    }

    /// Completes an archive that builds on another, so may tell of any part of the files in `table`.
    pub fn finish_increment(&self, table: &FileTable) -> Result<Contents, ArchiveError> {
        self.complete(table, false)
    }

    fn complete(&self, table: &FileTable, whole: bool) -> Result<Contents, ArchiveError> {
        table.check()?;
        self.check_nothing_lost()?;
        check_units(&self.shared.lists().units, table, whole)?;
        let segments = {
            let mut redo = self.redo.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((expected, found)) = redo.gap {
                return Err(ArchiveError::RedoGap { expected, found });
            }
            if let Some((number, pack)) = redo.open.take() {
                self.shared.close_pack(Kind::RedoPack, number, pack, OpenIndex::default())?;
            }
            std::mem::take(&mut redo.segments)
        };
        loop {
            let run = self.shared.lists().take_run();
            let Some((number, run)) = run else { break };
            self.shared.write_run(number, run)?;
        }
        self.shared.lists().finished = true;
        let mut packs = self.shared.lists().packs.clone();
        packs.sort_by_key(|pack| (pack.kind, pack.number));
        let shared = &self.shared;
        let name = |kind| object_name(kind, 0);
        let rows = packs.iter().map(|pack| (pack.directory_key(), pack.encode()));
        let objects = shared.write_table(&name(Kind::Objects), Kind::Objects, rows)?;
        let rows = segments.iter().map(|segment| (segment.directory_key(), segment.encode()));
        let redo_table = shared.write_table(&name(Kind::RedoTable), Kind::RedoTable, rows)?;
        let files = shared.write_table(&name(Kind::Files), Kind::Files, table.encode().into_iter())?;
        let lists = shared.lists();
        let mut index = lists.index_tables.clone();
        index.sort_by(|a, b| a.name.len().cmp(&b.name.len()).then_with(|| a.name.cmp(&b.name)));
        let redo_packs = packs.iter().filter(|pack| pack.kind == Kind::RedoPack).count();
        Ok(Contents {
            pack_count: to_u64(packs.len() - redo_packs),
            redo_pack_count: to_u64(redo_packs),
            object_count: to_u64(packs.len() + lists.tables.len()),
            frame_count: lists.frames,
            total_bytes: packs.iter().map(|pack| pack.bytes).chain(lists.tables.iter().map(|t| t.bytes)).sum(),
            redo: RedoRange::of(&segments),
            index,
            objects,
            redo_table,
            files,
        })
    }

    fn check_nothing_lost(&self) -> Result<(), ArchiveError> {
        let lists = self.shared.lists();
        let what = match (&lists.lost, lists.open_writers) {
            (Some(lost), _) => lost.clone(),
            (None, 0) if lists.finished => "it was finished before".to_owned(),
            (None, 0) => return Ok(()),
            (None, open) => format!("{open} pack writers are not finished"),
        };
        Err(ArchiveError::Incomplete { what })
    }
}

/// Checks that the frames told of exactly the units that the files have, or, for an increment, of no others.
fn check_units(units: &HashMap<StreamId, u64>, table: &FileTable, whole: bool) -> Result<(), ArchiveError> {
    let spaces = table.spaces.iter().map(|space| (StreamId::Space(space.space), u64::from(space.pages)));
    let files = table.files.iter().map(|file| (StreamId::File(file.number), file.bytes.div_ceil(FILE_UNIT.into())));
    let mut matched = 0;
    for (stream, wanted) in spaces.chain(files) {
        let told = units.get(&stream);
        matched += usize::from(told.is_some());
        let told = told.copied().unwrap_or_default();
        if told > wanted || (whole && told != wanted) {
            let what = format!("{stream} has {wanted} pages or units, {told} were stored");
            return Err(ArchiveError::Incomplete { what });
        }
    }
    if matched == units.len() {
        return Ok(());
    }
    Err(ArchiveError::Incomplete { what: "frames of a space or file were stored that is not in the table".to_owned() })
}

/// What is known of an open pack and only counts once that is closed.
#[derive(Default)]
struct OpenIndex {
    records: Vec<IndexRecord>,
    units: HashMap<StreamId, u64>,
}

/// Writes packs; owns one open pack. Dropped unfinished, the archive stays incomplete.
pub struct PackWriter {
    shared: Arc<Shared>,
    compressor: Option<Compressor>,
    scratch: Vec<u8>,
    open: Option<(u32, ObjectBuilder)>,
    told: OpenIndex,
    finished: bool,
}

impl PackWriter {
    /// Stores a window, all its units.
    pub fn frame(&mut self, input: &FrameInput<'_>) -> Result<(), ArchiveError> {
        self.store(input, None)
    }

    /// Stores those units of a window that `present` marks; of the others the frame says nothing.
    pub fn partial_frame(&mut self, input: &FrameInput<'_>, present: &[bool]) -> Result<(), ArchiveError> {
        self.store(input, Some(present))
    }

    fn store(&mut self, input: &FrameInput<'_>, present: Option<&[bool]>) -> Result<(), ArchiveError> {
        let Self { shared, compressor, scratch, open, told, .. } = self;
        let plan = plan_frame(input, present, scratch)?;
        let compressor = match compressor {
            Some(compressor) => compressor,
            None => compressor.insert(Compressor::new(shared.codec)?),
        };
        let (codec, stored): (BodyCodec, &[u8]) = compressor.compress(plan.body)?;
        let body = Body { codec, stored, raw_bytes: plan.body.len() };
        let full = |pack: &ObjectBuilder| {
            let bytes = pack.bytes() + pack.block_bytes(&plan.meta, &body);
            pack.blocks() > 0 && (bytes > shared.pack_bytes || pack.blocks() >= MAX_PACK_FRAMES)
        };
        if let Some((number, pack)) = open.take_if(|(_, pack)| full(pack)) {
            shared.close_pack(Kind::Pack, number, pack, std::mem::take(told))?;
        }
        let (number, pack) = if let Some(pack) = open {
            pack
        } else {
            let number = shared.next_pack.fetch_add(1, Ordering::Relaxed);
            let pack = shared.begin(Kind::Pack, number)?;
            shared.count_stored(pack.bytes());
            open.insert((number, pack))
        };
        let block = pack.blocks();
        let entry = pack.block(IndexRecord::pack_key(&plan.meta, plan.units), &plan.meta, &body)?;
        shared.count_stored(entry.length.into());
        let (offset, length, digest) = (entry.offset, entry.length, entry.digest);
        let (key, units) = (plan.key, plan.units);
        told.records.push(IndexRecord { key, units, pack: *number, block, offset, length, digest });
        *told.units.entry(key.stream).or_default() += u64::from(units);
        Ok(())
    }

    /// Completes the open pack in the store.
    pub fn finish(mut self) -> Result<(), ArchiveError> {
        if let Some((number, pack)) = self.open.take() {
            self.shared.close_pack(Kind::Pack, number, pack, std::mem::take(&mut self.told))?;
        }
        self.finished = true;
        Ok(())
    }
}

impl fmt::Debug for PackWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackWriter").field("owner", &self.shared.owner).finish_non_exhaustive()
    }
}

impl Drop for PackWriter {
    fn drop(&mut self) {
        let mut lists = self.shared.lists();
        lists.open_writers = lists.open_writers.saturating_sub(1);
        if !self.finished {
            lists.lost.get_or_insert_with(|| "a pack writer ended before it was finished".to_owned());
        }
    }
}
