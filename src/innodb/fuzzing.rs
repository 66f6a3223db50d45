//! Front doors for fuzzers: any bytes as redo, and any redo on any page. Each must return, without panic, in little time
//! and memory.
//!
//! ```text
//!   redo    bytes of groups, laid into log blocks ─► decoder ─► records ─► bodies
//!   apply   flags 4 │ count 1 │ count × (length 2 │ record) │ page ─► page with the records applied
//! ```
//! Checksums would stop a fuzzer at the first block, so blocks are made here around what it gives.

use super::FormatError;
use super::apply::{Layouts, PageBuffer, apply};
use super::cursor::{slice, u8_at, u16_at, u32_at};
use super::ids::{PageId, PageNo, SpaceId};
use super::lsn::Lsn;
use super::redo::block::{BLOCK_LEN, empty_block};
use super::redo::{Poll, RedoDecoder, RedoRecord};
use super::space::TablespaceFlags;

/// A target: name, function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[("redo", fuzz_redo), ("apply", fuzz_apply)];

const START: Lsn = Lsn::new((1 << 20) + 12);
const PAYLOAD: usize = 496;
const MOST: usize = 1 << 20;
const WHAT: &str = "fuzzer's input";

/// Bytes of groups.
pub fn fuzz_redo(bytes: &[u8]) {
    let Ok(blocks) = blocks(bytes.get(..MOST).unwrap_or(bytes)) else { return };
    let mut decoder = RedoDecoder::new(START, None).with_group_limit(MOST);
    if decoder.feed(&blocks).is_err() {
        return;
    }
    while let Ok(Poll::Group(group)) = decoder.poll() {
        for record in group.records() {
            drop(record.body());
        }
    }
}

/// A page and records for it.
pub fn fuzz_apply(bytes: &[u8]) {
    drop(apply_all(bytes));
}

/// Applies what `bytes` hold; an error of a record does not keep the next from its turn.
fn apply_all(bytes: &[u8]) -> Result<(), FormatError> {
    let flags = TablespaceFlags::decode(u32_at(bytes, 0, WHAT)?)?;
    let (mut at, mut records) = (5_usize, Vec::new());
    for _ in 0..u8_at(bytes, 4, WHAT)? {
        let length = usize::from(u16_at(bytes, at, WHAT)?);
        at = at.saturating_add(2);
        records.push(slice(bytes, at, length, WHAT)?);
        at = at.saturating_add(length);
    }
    // What is missing of the page is zero.
    let mut page = bytes.get(at..).unwrap_or_default().to_vec();
    page.resize(flags.physical_size().len(), 0);
    let mut buffer = PageBuffer::new(flags);
    let id = PageId { space: SpaceId(5), page: PageNo(3) };
    if buffer.load(id, &page).is_err() {
        return Ok(());
    }
    let mut layouts = Layouts::default();
    for record in records {
        if let Ok(record) = RedoRecord::decode(record, START) {
            drop(apply(&mut buffer, &record, &mut layouts));
        }
    }
    drop(buffer.finish(START));
    Ok(())
}

/// Log blocks with this payload.
fn blocks(payload: &[u8]) -> Result<Vec<u8>, FormatError> {
    let mut blocks = Vec::new();
    let mut lsn = START;
    // A last block that is not full ends the log.
    for part in payload.chunks(PAYLOAD).chain(payload.len().is_multiple_of(PAYLOAD).then_some(&[][..])) {
        let mut raw = empty_block(lsn)?;
        let length = if part.len() == PAYLOAD { BLOCK_LEN } else { part.len().saturating_add(12) };
        write(&mut raw, 4, &u16::try_from(length).unwrap_or_default().to_be_bytes());
        write(&mut raw, 6, &(if lsn == START { 12_u16 } else { 0 }).to_be_bytes());
        write(&mut raw, 12, part);
        let sum = crc32c::crc32c(raw.get(..508).unwrap_or_default());
        write(&mut raw, 508, &sum.to_be_bytes());
        blocks.extend_from_slice(&raw);
        lsn = lsn.checked_add(512).unwrap_or(lsn);
    }
    Ok(blocks)
}

fn write(block: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(field) = block.get_mut(at..at.saturating_add(bytes.len())) {
        field.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_of_any_length_comes_to_the_decoder() {
        // Groups of one record that writes a byte.
        for count in [1_usize, 82, 83, 165, 166, 1000] {
            let payload = [0x81, 5, 3, 0, 40, 7].repeat(count);
            let mut decoder = RedoDecoder::new(START, None);
            decoder.feed(&blocks(&payload).unwrap()).unwrap();
            let mut seen = 0;
            while let Poll::Group(_) = decoder.poll().unwrap() {
                seen += 1;
            }
            assert_eq!(seen, count);
        }
    }

    #[test]
    fn records_come_to_their_page() {
        let mut bytes = 0x4021_u32.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[1, 0, 6, 0x81, 5, 3, 0, 40, 7]);
        assert_eq!(apply_all(&bytes), Ok(()));
        assert!(apply_all(&bytes[..9]).is_err());
    }
}
