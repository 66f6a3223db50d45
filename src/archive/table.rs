//! Paged tables: records in sorted order in pages of about 64 KiB, each page a block of an object.
//!
//! ```text
//!   records ─► page 0 │ page 1 │ … │ directory: first key of each page │ footer
//! ```
//! (docs/format/index.md.) Knows bytes of records only; what they mean is `index`, `packs`, `redo`, `filetable`.

use serde::{Deserialize, Serialize};

use super::ArchiveError;
use super::codec::{Codec, Compressor, Decompressor};
use super::container::{Kind, Place};
use super::digest::Digest;
use super::id::{AttemptId, BackupId};
use super::keys::ArchiveKeys;
use super::object::{ObjectSink, ObjectSource};
use super::object_reader::{Block, Expected, OpenObject};
use super::object_writer::{Body, ObjectBuilder};
use super::wire::{Input, Malformed, to_u32};

/// A page is closed once it has so many bytes.
const PAGE_BYTES: usize = 64 << 10;
/// The longest record.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// A table object, as the manifest refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableRef {
    /// The object's name.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// Its root digest.
    pub digest: Digest,
}

/// Which archive an object belongs to, and the key to it.
#[derive(Debug)]
pub struct Owner {
    /// The backup.
    pub backup: BackupId,
    /// The run.
    pub attempt: AttemptId,
    /// Opens and seals its objects.
    pub keys: Option<ArchiveKeys>,
}

impl Owner {
    /// The place of one of its objects.
    pub fn place<'a>(&'a self, name: &'a str, kind: Kind) -> Place<'a> {
        Place { backup: &self.backup, attempt: &self.attempt, name, kind }
    }
}

/// Writes a table. Records come in the order of their keys.
pub struct TableWriter {
    name: String,
    object: ObjectBuilder,
    compressor: Compressor,
    page: Vec<u8>,
    records: u32,
    key: [u8; 16],
}

impl TableWriter {
    /// Begins the table `name`.
    pub fn create(
        sink: &dyn ObjectSink,
        owner: &Owner,
        name: &str,
        kind: Kind,
        codec: Codec,
    ) -> Result<Self, ArchiveError> {
        let object = ObjectBuilder::create(sink, &owner.place(name, kind), owner.keys.as_ref())?;
        let compressor = Compressor::new(codec)?;
        Ok(Self { name: name.to_owned(), object, compressor, page: Vec::new(), records: 0, key: [0; 16] })
    }

    /// Puts a record at the end.
    pub fn record(&mut self, key: [u8; 16], bytes: &[u8]) -> Result<(), ArchiveError> {
        if bytes.len() > MAX_RECORD_BYTES {
            let why = format!("its record would have {} bytes", bytes.len());
            return Err(ArchiveError::BadInput { what: format!("an entry of {}", self.name), why });
        }
        if self.page.len() + bytes.len() > PAGE_BYTES {
            self.close_page()?;
        }
        if self.records == 0 {
            self.key = key;
        }
        self.page.extend_from_slice(bytes);
        self.records += 1;
        Ok(())
    }

    fn close_page(&mut self) -> Result<(), ArchiveError> {
        if self.records == 0 {
            return Ok(());
        }
        let (codec, stored) = self.compressor.compress(&self.page)?;
        let body = Body { codec, stored, raw_bytes: self.page.len() };
        self.object.block(self.key, &self.records.to_be_bytes(), &body)?;
        self.page.clear();
        self.records = 0;
        Ok(())
    }

    /// Completes the table.
    pub fn finish(mut self) -> Result<TableRef, ArchiveError> {
        self.close_page()?;
        let finished = self.object.finish()?;
        Ok(TableRef { name: self.name, bytes: finished.bytes, digest: finished.root })
    }
}

/// A table that can be read page by page.
pub struct TableReader {
    name: String,
    object: OpenObject,
}

impl TableReader {
    /// Opens the table that `table` refers to.
    pub fn open(
        source: &dyn ObjectSource,
        owner: &Owner,
        table: &TableRef,
        kind: Kind,
        decompressor: &mut Decompressor,
    ) -> Result<Self, ArchiveError> {
        let expected = Expected { bytes: table.bytes, root: table.digest, salt: None };
        let place = owner.place(&table.name, kind);
        let object = OpenObject::open(source, &place, &expected, owner.keys.as_ref(), decompressor)?;
        Ok(Self { name: table.name.clone(), object })
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Checks the header, which reading of single pages does not look at.
    pub fn check_header(&self, source: &dyn ObjectSource) -> Result<(), ArchiveError> {
        self.object.check_header(source)
    }

    /// Number of pages.
    pub fn pages(&self) -> u32 {
        to_u32(self.object.entries().len())
    }

    /// The page that has `key`, if any has: the last whose first key is not above it.
    pub fn page_of(&self, key: &[u8; 16]) -> Option<u32> {
        to_u32(self.object.entries().partition_point(|entry| entry.key <= *key)).checked_sub(1)
    }

    /// Reads a page's records.
    pub fn read_page<T>(
        &self,
        source: &dyn ObjectSource,
        page: u32,
        decompressor: &mut Decompressor,
        record: fn(&mut Input<'_>) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, ArchiveError> {
        let block = self.object.read_block(source, page, decompressor)?;
        decode_page(&block, record).map_err(ArchiveError::malformed(&self.name, format_args!("page {page}")))
    }

    /// Reads all pages' records.
    pub fn read_all<T>(
        &self,
        source: &dyn ObjectSource,
        decompressor: &mut Decompressor,
        record: fn(&mut Input<'_>) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, ArchiveError> {
        let mut all = Vec::new();
        for range in self.object.plan_ranges() {
            let bytes = super::object_reader::read(source, &self.name, range.offset, range.length)?;
            self.object.open_range(&range, &bytes, decompressor, &mut |number, _, block| {
                let part = format_args!("page {number}");
                all.append(&mut decode_page(&block, record).map_err(ArchiveError::malformed(&self.name, part))?);
                Ok(())
            })?;
        }
        Ok(all)
    }
}

fn decode_page<T>(block: &Block, record: fn(&mut Input<'_>) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
    decode_records(&block.meta, &block.body, record)
}

/// Decodes the records of a page.
pub fn decode_records<T>(
    meta: &[u8],
    body: &[u8],
    record: fn(&mut Input<'_>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let mut meta = Input::new(meta, "page");
    let count = meta.u32()?;
    meta.end()?;
    let mut input = Input::new(body, "page");
    let mut records = Vec::new();
    for _ in 0..count {
        // Not sized by the count, which may be anything: every record uses up bytes, so the page bounds it.
        let before = input.remaining();
        records.push(record(&mut input)?);
        if input.remaining() == before {
            return Err(Malformed::damaged("a record without bytes"));
        }
    }
    input.end()?;
    Ok(records)
}

/// For records of their own length: reads the length and gives the bytes to `decode`, which must use them all.
pub fn sized_record<T>(
    input: &mut Input<'_>,
    what: &'static str,
    decode: impl FnOnce(&mut Input<'_>) -> Result<T, Malformed>,
) -> Result<T, Malformed> {
    let length = input.len_u32()?;
    let mut record = Input::new(input.take(length)?, what);
    let value = decode(&mut record)?;
    record.end()?;
    Ok(value)
}

/// Puts the length (u32) before a record.
pub fn with_length(record: &[u8]) -> Vec<u8> {
    use super::wire::Output;
    let mut bytes = Vec::with_capacity(4 + record.len());
    bytes.put_sized(record);
    bytes
}

/// A key for the directory: up to 16 bytes, zeros behind.
pub fn directory_key(bytes: &[u8]) -> [u8; 16] {
    let mut key = [0; 16];
    for (to, from) in key.iter_mut().zip(bytes) {
        *to = *from;
    }
    key
}
