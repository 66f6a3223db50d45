//! Reads one object: its directory from the end, its blocks in any order, each checked before it is believed.
//!
//! ```text
//!   size ─► last 64 KiB: footer ─► directory ─► root digest as expected? ─► ranges of a few MiB ─► blocks
//!                                                            each: digest ─► seal ─► meta │ decompressed body
//! ```

use bytes::Bytes;

use super::ArchiveError;
use super::cipher::ObjectSeal;
use super::codec::Decompressor;
use super::container::{
    Entry, FOOTER_BYTES, Footer, HEAD_BYTES, HEADER_BYTES, Head, Identity, MAX_BLOCK_BYTES, Place, decode_directory,
    split_payload,
};
use super::digest::Digest;
use super::keys::{ArchiveKeys, Salt};
use super::object::ObjectSource;
use super::wire::{to_len, to_u64};

/// Read from the end at once; holds the directory of nearly every object.
const TAIL_BYTES: u64 = 64 << 10;
/// Ranges are made of blocks up to so many bytes.
pub const RANGE_BYTES: u64 = 8 << 20;

/// What opens the blocks of one object.
pub struct Opener {
    name: String,
    identity: Identity,
    seal: Option<ObjectSeal>,
}

/// A block in clear.
#[derive(Debug)]
pub struct Block {
    /// What stands before the body.
    pub meta: Vec<u8>,
    /// The body, decompressed.
    pub body: Bytes,
}

impl Opener {
    /// For the object at `place` with that salt.
    pub fn new(place: &Place<'_>, salt: Salt, keys: Option<&ArchiveKeys>) -> Result<Self, ArchiveError> {
        let seal = keys.map(|keys| keys.object_seal(&salt, place)).transpose()?;
        let identity = Identity { kind: place.kind, sealed: keys.is_some(), salt, place: place.identity() };
        Ok(Self { name: place.name.to_owned(), identity, seal })
    }

    /// Checks and opens the block `number`, whose bytes are `bytes` and whose digest must be `digest`.
    pub fn open(
        &self,
        number: u32,
        last: bool,
        digest: Digest,
        bytes: &Bytes,
        decompressor: &mut Decompressor,
    ) -> Result<Block, ArchiveError> {
        self.try_open(number, last, digest, bytes, decompressor).map_err(ArchiveError::malformed(
            &self.name,
            if last { "directory".to_owned() } else { format!("block {number}") },
        ))
    }

    fn try_open(
        &self,
        number: u32,
        last: bool,
        digest: Digest,
        bytes: &Bytes,
        decompressor: &mut Decompressor,
    ) -> Result<Block, super::wire::Malformed> {
        use super::wire::Malformed;
        let Some((head_bytes, payload)) = bytes.split_at_checked(HEAD_BYTES) else {
            return Err(Malformed::damaged("it is cut short"));
        };
        let (fields, stored_digest) = head_bytes.split_at(HEAD_BYTES - 16);
        let found = Head::digest(fields, payload, &self.identity.place);
        if found != digest || stored_digest != digest.to_bytes() {
            return Err(Malformed::damaged(format!("its digest is {found}, {digest} was stored")));
        }
        let head = Head::decode(fields)?;
        if head.number != number || head.last != last || to_len(head.payload_bytes) != payload.len() {
            return Err(Malformed::damaged(format!("block {} stands in its place", head.number)));
        }
        let clear = match &self.seal {
            None => bytes.slice(HEAD_BYTES..),
            Some(seal) => {
                let clear = seal.open(number, fields, payload);
                Bytes::from(clear.ok_or_else(|| Malformed::damaged("its seal is broken: it was changed or moved"))?)
            }
        };
        let (meta, body_at) = split_payload(&clear)?;
        let meta = meta.to_vec();
        let body = decompressor.decompress_shared(head.codec, &clear.slice(body_at..), to_len(head.raw_bytes))?;
        Ok(Block { meta, body })
    }
}

/// What an object must be, from whoever refers to it.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// Its bytes.
    pub bytes: u64,
    /// Its root digest.
    pub root: Digest,
    /// Its salt, where that is known.
    pub salt: Option<Salt>,
}

/// An object whose directory was read and checked.
pub struct OpenObject {
    opener: Opener,
    entries: Vec<Entry>,
}

/// Blocks that are fetched together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRange {
    /// Where it begins.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
    first: u32,
    blocks: u32,
}

impl OpenObject {
    /// Reads footer and directory of the object at `place`.
    pub fn open(
        source: &dyn ObjectSource,
        place: &Place<'_>,
        expected: &Expected,
        keys: Option<&ArchiveKeys>,
        decompressor: &mut Decompressor,
    ) -> Result<Self, ArchiveError> {
        let name = place.name;
        let size = source.size(name)?;
        if size != expected.bytes {
            return Err(ArchiveError::damaged(name, format!("it has {size} bytes, {} were stored", expected.bytes)));
        }
        let tail_bytes = size.min(TAIL_BYTES);
        let tail = read(source, name, size - tail_bytes, tail_bytes)?;
        let Some(directory_len) = tail.len().checked_sub(FOOTER_BYTES) else {
            return Err(ArchiveError::damaged(name, "it is too short for a footer"));
        };
        let footer_bytes = tail.slice(directory_len..);
        let footer =
            Footer::decode(&footer_bytes, place, keys.is_some(), size).map_err(ArchiveError::malformed(name, ""))?;
        if expected.salt.is_some_and(|salt| salt != footer.identity.salt) {
            return Err(ArchiveError::damaged(name, "its salt is not the one that was stored"));
        }
        let opener = Opener::new(place, footer.identity.salt, keys)?;
        let directory = match directory_len.checked_sub(to_len(footer.directory_bytes)) {
            Some(start) => tail.slice(start..directory_len),
            None => read(source, name, footer.directory_offset, footer.directory_bytes.into())?,
        };
        let block = opener.open(footer.blocks, true, expected.root, &directory, decompressor)?;
        let entries = decode_directory(&block.meta, &block.body, footer.blocks, footer.directory_offset)
            .map_err(ArchiveError::malformed(name, ""))?;
        Ok(Self { opener, entries })
    }

    /// The blocks.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Ranges that together have every byte up to the directory, in order; the first has the header.
    pub fn plan_ranges(&self) -> Vec<BlockRange> {
        self.plan(BlockRange { offset: 0, length: to_u64(HEADER_BYTES), first: 0, blocks: 0 }, u32::MAX)
    }

    /// Ranges that together have some of the blocks.
    pub fn plan_ranges_of(&self, first: u32, blocks: u32) -> Vec<BlockRange> {
        let offset = self.entries.get(to_len(first)).map_or(0, |entry| entry.offset);
        self.plan(BlockRange { offset, length: 0, first, blocks: 0 }, blocks)
    }

    fn plan(&self, mut open: BlockRange, blocks: u32) -> Vec<BlockRange> {
        let mut ranges = Vec::new();
        let entries = self.entries.iter().skip(to_len(open.first)).take(to_len(blocks));
        for (number, entry) in (open.first..).zip(entries) {
            if open.blocks > 0 && open.length + u64::from(entry.length) > RANGE_BYTES {
                ranges.push(open);
                open = BlockRange { offset: entry.offset, length: 0, first: number, blocks: 0 };
            }
            open.length += u64::from(entry.length);
            open.blocks += 1;
        }
        if open.length > 0 {
            ranges.push(open);
        }
        ranges
    }

    /// Opens the blocks of a range that was fetched, in order.
    pub fn open_range(
        &self,
        range: &BlockRange,
        bytes: &Bytes,
        decompressor: &mut Decompressor,
        each: &mut dyn FnMut(u32, &Entry, Block) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let name = &self.opener.name;
        if range.offset == 0 {
            let header = bytes.get(..HEADER_BYTES).unwrap_or_default();
            self.opener.identity.check_header(header).map_err(ArchiveError::malformed(name, ""))?;
        }
        let entries = self.entries.iter().skip(to_len(range.first)).take(to_len(range.blocks));
        for (number, entry) in (range.first..).zip(entries) {
            let block = self.open_at(number, entry, range.offset, bytes, decompressor)?;
            each(number, entry, block)?;
        }
        Ok(())
    }

    fn open_at(
        &self,
        number: u32,
        entry: &Entry,
        base: u64,
        bytes: &Bytes,
        decompressor: &mut Decompressor,
    ) -> Result<Block, ArchiveError> {
        let start = usize::try_from(entry.offset.saturating_sub(base)).unwrap_or(usize::MAX);
        let end = start.saturating_add(to_len(entry.length));
        if end > bytes.len() {
            return Err(ArchiveError::damaged(&self.opener.name, "the store gave fewer bytes than were asked for"));
        }
        self.opener.open(number, false, entry.digest, &bytes.slice(start..end), decompressor)
    }

    /// Fetches and checks the header, for readers that only came from the end.
    pub fn check_header(&self, source: &dyn ObjectSource) -> Result<(), ArchiveError> {
        let name = &self.opener.name;
        let header = read(source, name, 0, to_u64(HEADER_BYTES))?;
        self.opener.identity.check_header(&header).map_err(ArchiveError::malformed(name, ""))
    }

    /// Fetches and opens one block.
    pub fn read_block(
        &self,
        source: &dyn ObjectSource,
        number: u32,
        decompressor: &mut Decompressor,
    ) -> Result<Block, ArchiveError> {
        let name = &self.opener.name;
        let Some(entry) = self.entries.get(to_len(number)) else {
            return Err(ArchiveError::damaged(name, format!("it has no block {number}")));
        };
        let bytes = read(source, name, entry.offset, entry.length.into())?;
        self.open_at(number, entry, entry.offset, &bytes, decompressor)
    }
}

/// Reads a range and checks that the store gave just that.
pub fn read(source: &dyn ObjectSource, name: &str, offset: u64, length: u64) -> Result<Bytes, ArchiveError> {
    let bound = to_u64(MAX_BLOCK_BYTES).max(RANGE_BYTES + to_u64(HEADER_BYTES));
    if length > bound {
        return Err(ArchiveError::damaged(name, format!("a range of {length} bytes is more than is ever stored")));
    }
    let bytes = source.read(name, offset, length)?;
    if to_u64(bytes.len()) != length {
        let what = format!("the store gave {} bytes at {offset}, {length} were asked for", bytes.len());
        return Err(ArchiveError::damaged(name, what));
    }
    Ok(bytes)
}
