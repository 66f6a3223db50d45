//! Redo in the archive: segments without a gap, a few blocks each, many in one redo pack.
//!
//! ```text
//!   segment  start ──────────── end │ start ─────── end │ …     each begins where the one before ended
//!   stored   block 4 MiB │ block 4 MiB │ block │ block │ …      redo-000001, redo-000002 when that is full
//!   table    start, end, spaces it names, where
//! ```
//! (docs/format/pack.md, index.md.)

use bytes::Bytes;

use super::ArchiveError;
use super::table::{directory_key, sized_record};
use super::wire::{Input, Malformed, Output, to_len, to_u32, to_u64};
use crate::innodb::ids::SpaceId;
use crate::innodb::lsn::{LOG_BLOCK_SIZE, Lsn};

/// The most bytes of log in one segment: it is read back whole.
pub const MAX_SEGMENT_BYTES: u64 = 64 << 20;
/// A segment that names more spaces than this is stored as one that may name any.
const MAX_SPACES: usize = 1024;
/// Once all segments together have named so many, later ones may name any.
pub const MAX_SPACES_TOTAL: usize = 4 << 20;

/// A stored segment of redo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedoRef {
    /// LSN of its first block.
    pub start: Lsn,
    /// LSN behind it; inside of its last block where the log was cut.
    pub end: Lsn,
    /// The spaces that it names, ascending; `None` when that is not known: it may name any.
    pub spaces: Option<Vec<SpaceId>>,
    pub(super) pack: u32,
    pub(super) first_block: u32,
    pub(super) blocks: u32,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

impl RedoRef {
    /// Bytes of log blocks in it.
    pub fn log_bytes(&self) -> u64 {
        segment_bytes(self.start, self.end).unwrap_or_default()
    }

    /// True when it may hold changes of this space.
    pub fn may_name(&self, space: SpaceId) -> bool {
        self.spaces.as_ref().is_none_or(|spaces| spaces.binary_search(&space).is_ok())
    }

    /// What is to be stored of the set of spaces; `room` is what may still be named.
    pub(super) fn bounded_spaces<'a>(
        spaces: impl ExactSizeIterator<Item = &'a SpaceId>,
        room: usize,
    ) -> Option<Vec<SpaceId>> {
        (spaces.len() <= MAX_SPACES.min(room)).then(|| spaces.copied().collect())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put_u64(self.start.get());
        bytes.put_u64(self.end.get());
        bytes.put_u32(self.pack);
        bytes.put_u32(self.first_block);
        bytes.put_u32(self.blocks);
        bytes.put_u64(self.offset);
        bytes.put_u64(self.bytes);
        bytes.push(self.spaces.is_some().into());
        let spaces = self.spaces.as_deref().unwrap_or_default();
        bytes.put_u32(to_u32(spaces.len()));
        for space in spaces {
            bytes.put_u32(space.0);
        }
        super::table::with_length(&bytes)
    }

    pub(super) fn directory_key(&self) -> [u8; 16] {
        directory_key(&self.start.get().to_be_bytes())
    }

    pub(super) fn decode(input: &mut Input<'_>) -> Result<Self, Malformed> {
        sized_record(input, "redo segment", |input| {
            let (start, end) = (Lsn::new(input.u64()?), Lsn::new(input.u64()?));
            let (pack, first_block, blocks) = (input.u32()?, input.u32()?, input.u32()?);
            let (offset, bytes) = (input.u64()?, input.u64()?);
            let (known, count) = (input.u8()?, input.len_u32()?);
            let mut spaces = Vec::new();
            for _ in 0..count {
                spaces.push(SpaceId(input.u32()?));
            }
            if known > 1 || (known == 0 && count > 0) || !spaces.is_sorted_by(|a, b| a < b) {
                return Err(Malformed::damaged("its set of spaces is none"));
            }
            if segment_bytes(start, end).is_none() {
                return Err(Malformed::damaged(format!("a segment from LSN {start} to {end}")));
            }
            Ok(Self { start, end, spaces: (known == 1).then_some(spaces), pack, first_block, blocks, offset, bytes })
        })
    }
}

/// Bytes of the blocks from `start` to `end`; `None` where these bound no segment.
pub fn segment_bytes(start: Lsn, end: Lsn) -> Option<u64> {
    if start.block_offset() != 0 || end <= start {
        return None;
    }
    let bytes = end.saturating_since(start).checked_next_multiple_of(LOG_BLOCK_SIZE)?;
    (bytes <= MAX_SEGMENT_BYTES).then_some(bytes)
}

/// Checks that each segment begins where the one before ended.
pub fn check_chain(segments: &[RedoRef]) -> Result<(), ArchiveError> {
    for (before, after) in segments.iter().zip(segments.iter().skip(1)) {
        if before.end != after.start {
            return Err(ArchiveError::RedoGap { expected: before.end, found: after.start });
        }
    }
    Ok(())
}

/// The meta of a redo block.
pub fn encode_part(start: Lsn, end: Lsn, at: u32) -> Vec<u8> {
    let mut meta = Vec::with_capacity(20);
    meta.put_u64(start.get());
    meta.put_u64(end.get());
    meta.put_u32(at);
    meta
}

/// The key of a redo block in its pack's directory.
pub fn part_key(start: Lsn, at: u32) -> [u8; 16] {
    let mut key = start.get().to_be_bytes().to_vec();
    key.put_u32(at);
    directory_key(&key)
}

/// Reads the meta of a redo block: start and end of its segment, offset in it.
pub fn decode_part(meta: &[u8]) -> Result<(Lsn, Lsn, u32), Malformed> {
    let mut input = Input::new(meta, "head of the redo block");
    let part = (Lsn::new(input.u64()?), Lsn::new(input.u64()?), input.u32()?);
    input.end()?;
    Ok(part)
}

/// Puts a segment together from its blocks.
pub struct SegmentAssembler<'a> {
    segment: &'a RedoRef,
    parts: Vec<Bytes>,
    len: usize,
}

impl<'a> SegmentAssembler<'a> {
    /// For this segment.
    pub fn new(segment: &'a RedoRef) -> Self {
        Self { segment, parts: Vec::new(), len: 0 }
    }

    /// Takes the next block.
    pub fn push(&mut self, meta: &[u8], body: Bytes) -> Result<(), Malformed> {
        let (start, end, at) = decode_part(meta)?;
        if (start, end) != (self.segment.start, self.segment.end) || to_len(at) != self.len {
            return Err(Malformed::damaged(format!("it has redo of LSN {start} to {end}, from byte {at} on")));
        }
        if to_u64(self.len + body.len()) > self.segment.log_bytes() {
            return Err(Malformed::damaged("it has more redo than its segment"));
        }
        self.len += body.len();
        self.parts.push(body);
        Ok(())
    }

    /// The whole segment.
    pub fn finish(self) -> Result<Bytes, Malformed> {
        let (wanted, got) = (self.segment.log_bytes(), self.len);
        if to_u64(got) != wanted {
            return Err(Malformed::damaged(format!("the segment has {got} of {wanted} bytes")));
        }
        // A segment is one block, mostly, which is not copied then.
        Ok(match <[Bytes; 1]>::try_from(self.parts) {
            Ok([whole]) => whole,
            Err(parts) => parts.concat().into(),
        })
    }
}
