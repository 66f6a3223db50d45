//! Segments of captured redo on their way to whoever stores them: in memory while he keeps up, else in the spool.
//!
//! ```text
//!   follower ─ reads into ─► Filling ─full─► room in memory?  yes ───────────────────┐
//!                  ▲                                    no  ──► a file in the spool ─┴─► queue ─► RedoSegment
//!                  └──── its memory is used again ◄── give_back ◄── stored ◄─────────────────────────┘
//! ```
//! Owns the queue, the memory it may take, and the way round by the spool. What was captured is lost with the process
//! either way, and with it the backup: to spool more than must be would only cost the server's disk and page cache.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::Arc;

use super::CaptureError;
use super::spool::{Spool, Spooled};
use crate::innodb::lsn::Lsn;

/// Bytes after which a segment is closed.
pub(super) const SEGMENT_BYTES: usize = 4 << 20;
/// Segments that wait in memory, while another is filled and one is stored.
const WAITING_IN_MEMORY: usize = 2;

/// Bytes of segments that wait in memory at most, unless told otherwise.
pub const MEMORY_BYTES: usize = WAITING_IN_MEMORY * SEGMENT_BYTES;

/// A run of captured blocks.
#[derive(Debug)]
pub struct RedoSegment {
    /// LSN of the first block.
    pub start: Lsn,
    /// LSN behind the last block, or inside it where the log was cut.
    pub end: Lsn,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory(SegmentBlocks),
    Spool(Spooled),
}

/// The blocks of a segment, raw: encrypted ones stay encrypted.
#[derive(Debug)]
pub struct SegmentBlocks {
    memory: Vec<u8>,
    len: usize,
}

impl SegmentBlocks {
    /// The blocks.
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(..self.len).unwrap_or_default()
    }
}

/// A segment that is being filled.
#[derive(Debug)]
pub(super) struct Filling {
    start: Lsn,
    blocks: SegmentBlocks,
}

impl Filling {
    /// The segment that begins at `start`, in memory that came back or else in new.
    pub(super) fn new(start: Lsn, spare: Option<Vec<u8>>) -> Self {
        let memory = spare.unwrap_or_else(|| vec![0; SEGMENT_BYTES]);
        Self { start, blocks: SegmentBlocks { memory, len: 0 } }
    }

    /// Up to `most` bytes behind what was taken: read into them, then [`Self::take`] what is good.
    pub(super) fn room(&mut self, most: usize) -> &mut [u8] {
        let from = self.blocks.len;
        let to = from.saturating_add(most).min(self.blocks.memory.len());
        self.blocks.memory.get_mut(from..to).unwrap_or_default()
    }

    /// Keeps so many bytes more.
    pub(super) fn take(&mut self, bytes: usize) {
        self.blocks.len = self.blocks.len.saturating_add(bytes).min(self.blocks.memory.len());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.len == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.blocks.len >= self.blocks.memory.len()
    }

    /// Ends the segment at `end`: as it is where it may wait in memory, else in the spool.
    pub(super) fn close(self, end: Lsn, in_memory: bool, spool: &Arc<Spool>) -> Result<Closed, CaptureError> {
        let Self { start, blocks } = self;
        if in_memory {
            return Ok(Closed { segment: RedoSegment { start, end, place: Place::Memory(blocks) }, spare: None });
        }
        let (mut file, mut spooled) = spool.file()?;
        spooled.grow(u64::try_from(blocks.len).unwrap_or(u64::MAX))?;
        file.write_all(blocks.bytes()).map_err(CaptureError::io("write spool file", spooled.path()))?;
        Ok(Closed { segment: RedoSegment { start, end, place: Place::Spool(spooled) }, spare: Some(blocks) })
    }
}

/// A closed segment, and the memory that it does not need.
#[derive(Debug)]
pub(super) struct Closed {
    segment: RedoSegment,
    spare: Option<SegmentBlocks>,
}

impl Closed {
    /// The memory that it does not need.
    pub(super) fn take_spare(&mut self) -> Option<Vec<u8>> {
        self.spare.take().map(|blocks| blocks.memory)
    }
}

/// Closed segments, oldest first, and memory for new ones.
#[derive(Debug)]
pub(super) struct Queue {
    closed: VecDeque<RedoSegment>,
    memory_bytes: usize,
    spare: Option<Vec<u8>>,
}

impl Queue {
    /// One that lets so many bytes wait in memory.
    pub(super) fn new(memory_bytes: usize) -> Self {
        Self { closed: VecDeque::new(), memory_bytes, spare: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.closed.is_empty()
    }

    /// Bytes of all that wait.
    pub(super) fn bytes(&self) -> u64 {
        self.closed.iter().map(|segment| segment.end.saturating_since(segment.start)).sum()
    }

    /// Memory that came back.
    pub(super) fn take_spare(&mut self) -> Option<Vec<u8>> {
        self.spare.take()
    }

    /// Whether the next segment may wait in memory.
    pub(super) fn has_room(&self) -> bool {
        let waiting = self.closed.iter().filter(|segment| matches!(segment.place, Place::Memory(_))).count();
        waiting.saturating_add(1).saturating_mul(SEGMENT_BYTES) <= self.memory_bytes
    }

    pub(super) fn push(&mut self, closed: Closed) {
        let Closed { segment, spare } = closed;
        self.closed.push_back(segment);
        if let Some(blocks) = spare {
            self.give_back(blocks);
        }
    }

    /// The oldest.
    pub(super) fn pop(&mut self) -> Option<RedoSegment> {
        self.closed.pop_front()
    }

    /// Takes memory that is not needed any more. Making it anew costs as much as reading the log does.
    pub(super) fn give_back(&mut self, blocks: SegmentBlocks) {
        self.spare.get_or_insert(blocks.memory);
    }
}

impl RedoSegment {
    /// Its blocks. One that was in the spool is so no more.
    pub fn into_blocks(self) -> Result<SegmentBlocks, CaptureError> {
        match self.place {
            Place::Memory(blocks) => Ok(blocks),
            Place::Spool(spooled) => {
                let mut memory = Vec::with_capacity(SEGMENT_BYTES);
                let read = spooled.open()?.read_to_end(&mut memory);
                let len = read.map_err(CaptureError::io("read spool file", spooled.path()))?;
                memory.resize(SEGMENT_BYTES, 0);
                Ok(SegmentBlocks { memory, len })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(block: u8) -> Lsn {
        Lsn::new(8192 + u64::from(block) * 512)
    }

    #[test]
    fn what_has_no_room_in_memory_waits_in_the_spool() {
        let parent = tempfile::tempdir().unwrap();
        let spool = Spool::create(parent.path(), 1 << 20, "t").unwrap();
        let mut queue = Queue::new(MEMORY_BYTES);
        for number in 0..4 {
            let mut filling = Filling::new(lsn(number), queue.take_spare());
            filling.room(512).fill(number);
            filling.take(512);
            let closed = filling.close(lsn(number + 1), queue.has_room(), &spool).unwrap();
            queue.push(closed);
        }
        assert_eq!((spool.used(), queue.bytes()), (1024, 2048));
        for number in 0..4 {
            let segment = queue.pop().unwrap();
            assert_eq!((segment.start, segment.end), (lsn(number), lsn(number + 1)));
            let blocks = segment.into_blocks().unwrap();
            assert_eq!(blocks.bytes(), [number; 512]);
            queue.give_back(blocks);
        }
        assert_eq!((spool.used(), queue.bytes()), (0, 0));
    }

    #[test]
    fn memory_is_used_again_from_its_start_and_filled_to_its_end() {
        let mut queue = Queue::new(MEMORY_BYTES);
        queue.give_back(SegmentBlocks { memory: vec![1; SEGMENT_BYTES], len: SEGMENT_BYTES });
        let mut filling = Filling::new(lsn(0), queue.take_spare());
        assert!(filling.is_empty());
        filling.take(SEGMENT_BYTES - 512);
        assert!(!filling.is_full());
        assert_eq!(filling.room(4096).len(), 512);
        filling.take(512);
        assert!(filling.is_full());
    }
}
