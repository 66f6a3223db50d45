//! From log blocks to one run of payload in which every byte knows its LSN (redo-log reference, sections 4 and 5).
//!
//! ```text
//!   blocks   │hdr│ payload │crc│hdr│ payload │crc│hdr│ pay… (partial: the log ends here, for now)
//!   payload       └────────┴───────┴─────────┴──────┘       LSNs jump by 16 where a block ends
//!                    ▲ decoding starts at the first group that begins at or after the checkpoint's block
//! ```
//! Owns the order of blocks, their checks and their decryption. Does not know what a record is.

use serde::Serialize;

use super::block::{BLOCK_LEN, BlockRead, LogBlock, decode_block};
use super::decoder::RedoError;
use crate::innodb::FormatError;
use crate::innodb::lsn::{LOG_BLOCK_HEADER, LOG_BLOCK_SIZE, LOG_BLOCK_TRAILER, Lsn};
use crate::innodb::page::crypt::decrypt_run;
use crate::innodb::space::TablespaceKey;

/// Where a block's payload ends.
const PAYLOAD_END: usize = 508;
const PAYLOAD_START: usize = 12;

/// Why there is no more log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum EndReason {
    /// The last block is not full.
    PartialBlock,
    /// The next block was not written: zeros, or what the place held before.
    NotWritten,
    /// The next block is torn or damaged.
    Torn {
        /// What is wrong with it.
        why: String,
    },
    /// Whoever feeds said so.
    Finished,
}

/// Payload in LSN order.
#[derive(Debug)]
pub(super) struct LogStream {
    checkpoint: Lsn,
    key: Option<TablespaceKey>,
    /// The block that is next, or that is fed again when it was partial.
    block: Lsn,
    /// Where in that block the next new byte is.
    taken: usize,
    /// LSN of the first byte of `buffer` behind `consumed`; `None` until a group begins.
    base: Option<Lsn>,
    buffer: Vec<u8>,
    consumed: usize,
    end: Option<EndReason>,
}

impl LogStream {
    pub fn new(checkpoint: Lsn, key: Option<TablespaceKey>) -> Self {
        let block = checkpoint.block_start();
        Self { checkpoint, key, block, taken: PAYLOAD_START, base: None, buffer: Vec::new(), consumed: 0, end: None }
    }

    pub fn set_key(&mut self, key: Option<TablespaceKey>) {
        self.key = key;
    }

    pub fn checkpoint(&self) -> Lsn {
        self.checkpoint
    }

    /// LSN of the block that is to be fed next.
    pub fn next_block(&self) -> Lsn {
        self.block
    }

    /// LSN of the first byte of [`Self::payload`].
    pub fn position(&self) -> Lsn {
        self.base.unwrap_or(self.checkpoint)
    }

    /// What was fed and not consumed.
    pub fn payload(&self) -> &[u8] {
        self.buffer.get(self.consumed..).unwrap_or_default()
    }

    /// The last `len` bytes that were consumed.
    pub fn consumed(&self, len: usize) -> &[u8] {
        self.buffer.get(self.consumed.saturating_sub(len)..self.consumed).unwrap_or_default()
    }

    pub fn end(&self) -> Option<&EndReason> {
        self.end.as_ref()
    }

    pub fn finish(&mut self) {
        self.end.get_or_insert(EndReason::Finished);
    }

    /// A group that ends at `lsn` is all there: where it fills its block, the next one must have begun.
    pub fn has_come_to(&self, lsn: Lsn) -> bool {
        let taken = u64::try_from(self.taken).unwrap_or(0);
        // Before anything of a block was taken, its existence is not known: the log may have ended before it.
        let here = if taken == LOG_BLOCK_HEADER && !self.begun() { 0 } else { taken };
        self.block.checked_add(here).is_some_and(|end| lsn <= end)
    }

    /// Marks `len` bytes as used. They stay readable by [`Self::consumed`] until more is fed.
    pub fn consume(&mut self, len: usize) -> Option<()> {
        let base = advance(self.base?, len)?;
        self.consumed = self.consumed.checked_add(len).filter(|at| *at <= self.buffer.len())?;
        self.base = Some(base);
        Some(())
    }

    /// Takes in whole blocks. Stops at the first that is not there, or not full.
    pub fn feed(&mut self, blocks: &[u8]) -> Result<(), RedoError> {
        self.end = None;
        let used = self.consumed.min(self.buffer.len());
        self.buffer.drain(..used);
        self.consumed = 0;
        let blocks = blocks.chunks_exact(BLOCK_LEN);
        if !blocks.remainder().is_empty() {
            let why = format!("{} bytes are no whole block", blocks.remainder().len());
            return Err(self.fault(FormatError::Invalid { what: "fed log", why }));
        }
        for raw in blocks {
            self.take_block(raw)?;
            if self.end.is_some() {
                break;
            }
        }
        Ok(())
    }

    fn begun(&self) -> bool {
        matches!(self.end, Some(EndReason::PartialBlock))
    }

    fn fault(&self, source: FormatError) -> RedoError {
        RedoError { lsn: self.block, kind: None, source }
    }

    fn take_block(&mut self, raw: &[u8]) -> Result<(), RedoError> {
        match decode_block(raw, self.block, self.key.as_ref()) {
            Ok(BlockRead::Valid(block)) => self.append(block, raw),
            Ok(BlockRead::NotWritten) => {
                self.end = Some(EndReason::NotWritten);
                Ok(())
            }
            Ok(BlockRead::Overwritten { found }) => {
                let why = format!("a block of LSN {found} is in its place");
                Err(self.fault(FormatError::Invalid { what: "log block", why }))
            }
            Err(error) => {
                self.end = Some(EndReason::Torn { why: error.to_string() });
                Ok(())
            }
        }
    }

    fn append(&mut self, block: LogBlock, raw: &[u8]) -> Result<(), RedoError> {
        let mut plain = [0_u8; BLOCK_LEN];
        let mut raw = raw;
        if block.encrypted {
            let Some(key) = &self.key else {
                return Err(self.fault(FormatError::KeyMissing { key_id: "of the redo log".into() }));
            };
            plain.copy_from_slice(raw.get(..BLOCK_LEN).unwrap_or(&[0; BLOCK_LEN]));
            let payload = plain.get_mut(PAYLOAD_START..).unwrap_or_default();
            decrypt_run(payload, key).map_err(|source| RedoError { lsn: block.lsn, kind: None, source })?;
            raw = &plain;
        }
        let end = usize::from(block.data_len).min(PAYLOAD_END);
        let invalid = |why: String| FormatError::Invalid { what: "log block", why };
        if end < self.taken {
            return Err(self.fault(invalid(format!("it held log up to byte {}, and now up to {end}", self.taken))));
        }
        let mut from = self.taken;
        if self.base.is_none() {
            // The first group that begins here, or the end of the block where none does.
            from = match usize::from(block.first_rec_group) {
                0 => end,
                first if first < PAYLOAD_START => {
                    return Err(self.fault(invalid(format!("first group at byte {first}"))));
                }
                first => first.min(end),
            };
            if block.first_rec_group != 0 {
                self.base = self.lsn_of_byte(from);
            }
        }
        self.buffer.extend_from_slice(raw.get(from..end).unwrap_or_default());
        if block.is_full() {
            let next = self.block.checked_add(LOG_BLOCK_SIZE);
            self.block = next.ok_or_else(|| self.fault(invalid("its LSN is the last there is".into())))?;
            self.taken = PAYLOAD_START;
        } else {
            self.taken = end;
            self.end = Some(EndReason::PartialBlock);
        }
        Ok(())
    }

    /// The LSN of a byte of the present block; that of the next payload where the block's own has ended.
    fn lsn_of_byte(&self, at: usize) -> Option<Lsn> {
        let start = self.block.checked_add(LOG_BLOCK_HEADER)?;
        advance(start, at.checked_sub(PAYLOAD_START)?)
    }
}

/// The LSN that is `bytes` of payload behind `lsn`, which must be in a block's payload.
pub fn advance(lsn: Lsn, bytes: usize) -> Option<Lsn> {
    const PAYLOAD: u64 = LOG_BLOCK_SIZE - LOG_BLOCK_HEADER - LOG_BLOCK_TRAILER;
    let bytes = u64::try_from(bytes).ok()?;
    let in_block = lsn.block_offset().checked_sub(LOG_BLOCK_HEADER)?.checked_add(bytes)?;
    let borders = in_block.checked_div(PAYLOAD)?;
    lsn.checked_add(bytes)?.checked_add(borders.checked_mul(LOG_BLOCK_HEADER + LOG_BLOCK_TRAILER)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsns_jump_over_headers_and_trailers() {
        let start = Lsn::new(8192 + 12);
        assert_eq!(advance(start, 0), Some(start));
        assert_eq!(advance(start, 495), Some(Lsn::new(8192 + 507)));
        assert_eq!(advance(start, 496), Some(Lsn::new(8704 + 12)));
        assert_eq!(advance(Lsn::new(8192 + 507), 1), Some(Lsn::new(8704 + 12)));
        assert_eq!(advance(Lsn::new(8192 + 507), 1 + 496 * 3 + 7), Some(Lsn::new(8704 + 3 * 512 + 19)));
        assert_eq!(advance(Lsn::new(8192), 1), None, "a header is no payload");
        assert_eq!(advance(Lsn::new(u64::MAX - 100), 400), None);
    }
}
