//! Front doors for fuzzers: any bytes as redo, any redo on any page, and any pages as a tablespace to check. Each must
//! return, without panic, in little time and memory.
//!
//! ```text
//!   redo    bytes of groups, laid into log blocks ─► decoder ─► records ─► bodies
//!   apply   flags 4 │ count 1 │ count × (length 2 │ record) │ page ─► page with the records applied
//!   check   space 4 │ flags 4 │ pages, of which the last may be cut short ─► findings; every row that can be found
//! ```
//! Checksums would stop a fuzzer at the first block, so blocks are made here around what it gives.

use super::FormatError;
use super::apply::{Layouts, PageBuffer, apply};
use super::check::{Source, Subject, check_space, read_dictionary};
use super::cursor::{slice, u8_at, u16_at, u32_at};
use super::ids::{PageId, PageNo, SpaceId};
use super::lsn::Lsn;
use super::redo::block::{BLOCK_LEN, empty_block};
use super::redo::{Poll, RedoDecoder, RedoRecord};
use super::rows::each_row;
use super::space::TablespaceFlags;

/// A target: name, function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[("redo", fuzz_redo), ("apply", fuzz_apply), ("check", fuzz_check)];

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

/// A tablespace.
pub fn fuzz_check(bytes: &[u8]) {
    drop(check_all(bytes.get(..MOST).unwrap_or(bytes)));
}

/// Pages in memory, the last of them with zeros behind what there is of it.
struct Pages<'a>(&'a [u8]);

impl Source for Pages<'_> {
    type Error = std::convert::Infallible;

    fn read(&mut self, number: PageNo, page: &mut [u8]) -> Result<(), Self::Error> {
        let at = usize::try_from(number.0).unwrap_or(usize::MAX).saturating_mul(page.len());
        let rest = self.0.get(at..).unwrap_or_default();
        let there = rest.len().min(page.len());
        page.fill(0);
        if let (Some(to), Some(from)) = (page.get_mut(..there), rest.get(..there)) {
            to.copy_from_slice(from);
        }
        Ok(())
    }
}

/// Number of problems found.
fn check_all(bytes: &[u8]) -> Result<usize, FormatError> {
    let flags = TablespaceFlags::decode(u32_at(bytes, 4, WHAT)?)?;
    let pages = bytes.get(8..).unwrap_or_default();
    let count = u32::try_from(pages.len().div_ceil(flags.physical_size().len())).unwrap_or(u32::MAX);
    let subject = Subject { space: SpaceId(u32_at(bytes, 0, WHAT)?), flags, pages: count, end: Lsn::new(1 << 40) };
    read_rows(&subject, &mut Pages(pages));
    match check_space(&subject, &mut Pages(pages)) {
        Ok((_, findings)) => Ok(findings.len()),
        Err(never) => match never {},
    }
}

/// Reads every column of every row of every clustered index.
fn read_rows(subject: &Subject, pages: &mut Pages<'_>) {
    let Ok((dictionary, _)) = read_dictionary(subject, pages);
    for (id, index) in dictionary.iter().filter(|(_, index)| index.layout.is_clustered()) {
        drop(each_row(subject, pages, (*id, index), &mut |row| {
            index.columns.iter().try_for_each(|column| row.field(column).map(drop))
        }));
    }
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
    fn pages_come_to_the_check() {
        let mut bytes = [5_u32.to_be_bytes(), 0x4021_u32.to_be_bytes()].concat();
        assert_eq!(check_all(&bytes[..7]).ok(), None);
        assert_eq!(check_all(&bytes), Ok(1), "page 0 is none");
        // One that is page 0, of another space, and whose lists lead to its first byte.
        bytes.extend([0; 40]);
        bytes[8 + 25] = 8;
        let lists_and_place = check_all(&bytes).unwrap();
        bytes[8 + 37] = 5;
        assert_eq!(check_all(&bytes), Ok(lists_and_place - 1), "its place is right");
    }

    #[test]
    fn records_come_to_their_page() {
        let mut bytes = 0x4021_u32.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[1, 0, 6, 0x81, 5, 3, 0, 40, 7]);
        assert_eq!(apply_all(&bytes), Ok(()));
        assert!(apply_all(&bytes[..9]).is_err());
    }
}
