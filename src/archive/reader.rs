//! Reads an archive: pack by pack for a restore or a check, or single frames by the index.
//!
//! ```text
//!   open ─► keys ─► manifest's HMAC ─► objects, redo-table (redo without a gap, as the manifest says)
//!   read_pack ─► directory from the end ─► ranges of up to 8 MiB, front to back ─► frames
//!   find, frames_of ─► index, in part ─► read_frame: one range
//! ```
//! Shared by threads: a restore gives each thread packs of its own. Every byte is checked before it is handed out, and
//! an error names the object, so that a check can go on with the next one.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::codec::Decompressor;
use super::container::Kind;
use super::filetable::{FileRecord, FileTable};
use super::frame::{Frame, FrameHead, FrameKey};
use super::index::IndexRecord;
use super::index_reader::Index;
use super::keys::{ArchiveKeys, RecipientKey, WrappedKey};
use super::manifest::{BackupType, Manifest, RedoRange};
use super::object::ObjectSource;
use super::object_reader::{Block, BlockRange, OpenObject, Opener, read};
use super::packs::{PackRef, check_packs, object_name};
use super::redo::{RedoRef, SegmentAssembler, check_chain};
use super::table::{Owner, TableReader, TableRef};
use super::wire::{to_len, to_u64};
use super::{ArchiveError, StreamId};

/// An archive that can be read. Shared by threads.
pub struct ArchiveReader {
    pub(super) source: Arc<dyn ObjectSource>,
    pub(super) owner: Owner,
    pub(super) backup_type: BackupType,
    pub(super) index: Index,
    /// Packs, then redo packs, each by number.
    pub(super) objects: Vec<PackRef>,
    tables: Vec<TableRef>,
    files: TableRef,
    redo: Vec<RedoRef>,
    /// The redo packs opened last, the newest first.
    redo_packs: Mutex<Vec<(u32, Arc<OpenObject>)>>,
}

impl fmt::Debug for ArchiveReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveReader").field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// Where a window's frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRef {
    /// What it is a window of.
    pub stream: StreamId,
    /// Its position in the stream, divided by the bytes of a window.
    pub window_no: u32,
    /// Units that the frame speaks of.
    pub units: u32,
    record: IndexRecord,
}

impl FrameRef {
    /// Bytes that it takes in the store.
    pub fn stored_bytes(&self) -> u32 {
        self.record.length
    }

    #[cfg(test)]
    pub(super) fn record(&self) -> IndexRecord {
        self.record
    }
}

impl From<IndexRecord> for FrameRef {
    fn from(record: IndexRecord) -> Self {
        Self { stream: record.key.stream, window_no: record.key.window_no, units: record.units, record }
    }
}

impl ArchiveReader {
    /// Opens the archive of `manifest`. `wrapped` are the backup's wrapped keys, `keys` those that may open them; both
    /// empty where it is not encrypted.
    pub fn open(
        manifest: &Manifest,
        source: Arc<dyn ObjectSource>,
        wrapped: &[WrappedKey],
        keys: &[RecipientKey],
    ) -> Result<Self, ArchiveError> {
        let owner = Owner {
            backup: manifest.id.clone(),
            attempt: manifest.attempt.clone(),
            keys: unlock(manifest, wrapped, keys)?,
        };
        let contents = &manifest.contents;
        let mut decompressor = Decompressor::new()?;
        let objects: Vec<PackRef> =
            TableReader::open(&*source, &owner, &contents.objects, Kind::Objects, &mut decompressor)?.read_all(
                &*source,
                &mut decompressor,
                PackRef::decode,
            )?;
        check_packs(&objects).map_err(ArchiveError::malformed(&contents.objects.name, ""))?;
        let redo = TableReader::open(&*source, &owner, &contents.redo_table, Kind::RedoTable, &mut decompressor)?
            .read_all(&*source, &mut decompressor, RedoRef::decode)?;
        check_chain(&redo)?;
        if RedoRange::of(&redo) != contents.redo {
            return Err(ArchiveError::damaged(&contents.redo_table.name, "its LSNs are not those of the manifest"));
        }
        let mut tables = contents.index.clone();
        tables.extend([contents.objects.clone(), contents.redo_table.clone(), contents.files.clone()]);
        if to_u64(objects.len() + tables.len()) != contents.object_count {
            return Err(ArchiveError::damaged(&contents.objects.name, "the manifest has another number of objects"));
        }
        let backup_type = manifest.backup_type;
        let index = Index::new(&contents.index);
        Ok(Self {
            source,
            owner,
            backup_type,
            index,
            objects,
            tables,
            files: contents.files.clone(),
            redo,
            redo_packs: Mutex::default(),
        })
    }

    /// All files of the backup.
    pub fn file_table(&self) -> Result<FileTable, ArchiveError> {
        let mut decompressor = Decompressor::new()?;
        let table = TableReader::open(&*self.source, &self.owner, &self.files, Kind::Files, &mut decompressor)?;
        let records = table.read_all(&*self.source, &mut decompressor, FileRecord::decode)?;
        FileTable::from_records(records).map_err(ArchiveError::malformed(&self.files.name, ""))
    }

    /// The packs with pages and files: what a restore fans out over.
    pub fn packs(&self) -> Vec<PackRef> {
        self.objects.iter().filter(|pack| pack.kind == Kind::Pack).cloned().collect()
    }

    /// Every object of the archive with its bytes, manifest and keys excepted.
    pub fn objects(&self) -> Vec<(String, u64)> {
        let packs = self.objects.iter().map(|pack| (pack.name.clone(), pack.bytes));
        packs.chain(self.tables.iter().map(|table| (table.name.clone(), table.bytes))).collect()
    }

    /// Reads a pack front to back and hands out its frames. An error of `each` ends it and comes back.
    pub fn read_pack(
        &self,
        pack: &PackRef,
        each: &mut dyn FnMut(Frame) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let open = self.open_pack(pack)?;
        let mut decoder = FrameDecoder::new()?;
        for range in open.ranges() {
            let bytes = open.fetch(&range)?;
            open.decode(&range, &bytes, &mut decoder, each)?;
        }
        Ok(())
    }

    /// Reads a pack's directory, for callers that fetch ahead: [`OpenPack::fetch`] and [`OpenPack::decode`] may run in
    /// different threads.
    pub fn open_pack(&self, pack: &PackRef) -> Result<OpenPack<'_>, ArchiveError> {
        let object = self.open_object(pack, &mut Decompressor::new()?)?;
        Ok(OpenPack { reader: self, name: pack.name.clone(), object })
    }

    pub(super) fn open_object(
        &self,
        pack: &PackRef,
        decompressor: &mut Decompressor,
    ) -> Result<OpenObject, ArchiveError> {
        let place = self.owner.place(&pack.name, pack.kind);
        let keys = self.owner.keys.as_ref();
        let object = OpenObject::open(&*self.source, &place, &pack.expected(), keys, decompressor)?;
        if object.entries().len() == to_len(pack.frames) {
            return Ok(object);
        }
        let what = format!("it has {} blocks, {} were stored", object.entries().len(), pack.frames);
        Err(ArchiveError::damaged(&pack.name, what))
    }

    /// The stored redo, in order and without a gap.
    pub fn redo_segments(&self) -> &[RedoRef] {
        &self.redo
    }

    /// The log blocks of a segment, raw.
    pub fn read_redo(&self, segment: &RedoRef) -> Result<Bytes, ArchiveError> {
        let pack = self.pack(Kind::RedoPack, segment.pack)?;
        let mut decompressor = Decompressor::new()?;
        let object = self.open_redo_pack(pack, &mut decompressor)?;
        let mut assembler = SegmentAssembler::new(segment);
        for range in object.plan_ranges_of(segment.first_block, segment.blocks) {
            let bytes = read(&*self.source, &pack.name, range.offset, range.length)?;
            object.open_range(&range, &bytes, &mut decompressor, &mut |number, _, block| {
                let part = format_args!("block {number}");
                assembler.push(&block.meta, block.body).map_err(ArchiveError::malformed(&pack.name, part))
            })?;
        }
        assembler.finish().map_err(ArchiveError::malformed(&pack.name, ""))
    }

    /// The directory of a redo pack: needed since the redo table has no digest of each block. The last ones are kept,
    /// since segments are read in order, by some threads: where a pack ends, two are in use.
    fn open_redo_pack(&self, pack: &PackRef, decompressor: &mut Decompressor) -> Result<Arc<OpenObject>, ArchiveError> {
        let mut last = self.redo_packs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, object)) = last.iter().find(|(number, _)| *number == pack.number) {
            return Ok(Arc::clone(object));
        }
        let object = Arc::new(self.open_object(pack, decompressor)?);
        last.insert(0, (pack.number, Arc::clone(&object)));
        last.truncate(2);
        Ok(object)
    }

    /// Where the frame of a window is, if there is one.
    pub fn find(&self, stream: StreamId, window_no: u32) -> Result<Option<FrameRef>, ArchiveError> {
        let found = self.index.find(&*self.source, &self.owner, FrameKey { stream, window_no })?;
        Ok(found.map(FrameRef::from))
    }

    /// Hands out where the frames of a stream are, in order.
    pub fn frames_of(
        &self,
        stream: StreamId,
        each: &mut dyn FnMut(FrameRef) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let mut walk = self.index.walk(&*self.source, &self.owner, Some(FrameKey { stream, window_no: 0 }))?;
        while let Some(record) = walk.next()?
            && record.key.stream == stream
        {
            each(record.into())?;
        }
        Ok(())
    }

    /// Fetches one frame.
    pub fn read_frame(&self, frame: &FrameRef) -> Result<Frame, ArchiveError> {
        let record = &frame.record;
        let pack = self.pack(Kind::Pack, record.pack)?;
        let place = self.owner.place(&pack.name, pack.kind);
        let opener = Opener::new(&place, pack.salt, self.owner.keys.as_ref())?;
        let bytes = read(&*self.source, &pack.name, record.offset, record.length.into())?;
        let block = opener.open(record.block, false, record.digest, &bytes, &mut Decompressor::new()?)?;
        let frame = decode_frame(&pack.name, record.block, block)?;
        if frame.key() == record.key {
            return Ok(frame);
        }
        Err(ArchiveError::damaged(&pack.name, format!("block {} is {}, not {}", record.block, frame.key(), record.key)))
    }

    pub(super) fn pack(&self, kind: Kind, number: u32) -> Result<&PackRef, ArchiveError> {
        let found = self.objects.binary_search_by_key(&(kind, number), |pack| (pack.kind, pack.number));
        found.ok().and_then(|at| self.objects.get(at)).ok_or_else(|| {
            ArchiveError::damaged(&object_name(Kind::Objects, 0), format!("it has no {}", object_name(kind, number)))
        })
    }

    pub(super) fn files_name(&self) -> &str {
        &self.files.name
    }
}

/// Finds the data key and checks the manifest with it.
fn unlock(
    manifest: &Manifest,
    wrapped: &[WrappedKey],
    keys: &[RecipientKey],
) -> Result<Option<ArchiveKeys>, ArchiveError> {
    let given = || keys.iter().map(|key| key.id().to_owned()).collect();
    match &manifest.cipher {
        None if keys.is_empty() => Ok(None),
        None => Err(ArchiveError::NotEncrypted { given: given() }),
        Some(cipher) if wrapped.is_empty() => {
            Err(ArchiveError::WrongKey { wanted: cipher.key_ids.clone(), given: given() })
        }
        Some(_) => {
            let unlocked = ArchiveKeys::unwrap(&manifest.id, wrapped, keys)?;
            manifest.verify_hmac(&unlocked)?;
            Ok(Some(unlocked))
        }
    }
}

/// Decompresses frames; each thread has its own.
pub struct FrameDecoder(Decompressor);

impl FrameDecoder {
    /// A new one.
    pub fn new() -> Result<Self, ArchiveError> {
        Decompressor::new().map(Self)
    }
}

/// A pack whose directory was read.
pub struct OpenPack<'a> {
    reader: &'a ArchiveReader,
    name: String,
    object: OpenObject,
}

impl OpenPack<'_> {
    /// What is to be fetched, in order: all of the pack but its directory, up to 8 MiB each.
    pub fn ranges(&self) -> Vec<BlockRange> {
        self.object.plan_ranges()
    }

    /// Fetches a range.
    pub fn fetch(&self, range: &BlockRange) -> Result<Bytes, ArchiveError> {
        read(&*self.reader.source, &self.name, range.offset, range.length)
    }

    /// Checks a fetched range and hands out its frames.
    pub fn decode(
        &self,
        range: &BlockRange,
        bytes: &Bytes,
        decoder: &mut FrameDecoder,
        each: &mut dyn FnMut(Frame) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        self.object.open_range(range, bytes, &mut decoder.0, &mut |number, entry, block| {
            let meta_key = block.meta.clone();
            let frame = decode_frame(&self.name, number, block)?;
            let units = frame.present_count() + frame.zero_count();
            if IndexRecord::pack_key(&meta_key, units) != entry.key {
                let what = format!("block {number} is {}, not what the directory says", frame.key());
                return Err(ArchiveError::damaged(&self.name, what));
            }
            each(frame)
        })
    }
}

fn decode_frame(pack: &str, number: u32, block: Block) -> Result<Frame, ArchiveError> {
    FrameHead::decode(&block.meta)
        .and_then(|head| head.with_body(block.body))
        .map_err(ArchiveError::malformed(pack, format_args!("block {number}")))
}
