//! The log of changes behind the stream: rows that were inserted or changed since the page was compressed.
//!
//! ```text
//!   number, 1 or 2 bytes │ lengths and nulls, from the origin down │ columns, without what is kept elsewhere
//!      ((place in the heap - 1) << 1 | cleared)                         0 ends the log
//! ```

use super::super::frame::Frame;
use super::super::layout::RowShape;
use super::decompress::write_heap_no;
use super::directory::Row;
use super::fields::{Described, Kept};
use super::{BOUNDS, HEADER, ZipPage, invalid};
use crate::innodb::FormatError;

const TWO_BYTES: u8 = 0x80;
/// Numbers from here on take two bytes.
const TWO_BYTES_FROM: usize = 64;
/// The row's columns were cleared.
const CLEARED: usize = 1;

/// Brings the frame's rows up to date, and gives the log's end. Rows up to number `known` of the heap are in the stream.
pub fn replay(
    zip: &ZipPage,
    start: usize,
    frame: &mut Frame,
    rows: &[Row],
    described: &Described,
    known: usize,
) -> Result<usize, FormatError> {
    let (mut at, mut known, mut shape, mut head) = (start, known, RowShape::default(), Vec::new());
    loop {
        let mut number = usize::from(zip.data.u8(at)?);
        if number == 0 {
            return Ok(at);
        }
        at = at.saturating_add(1);
        if number >= usize::from(TWO_BYTES) {
            let high = number.saturating_sub(usize::from(TWO_BYTES)).saturating_mul(256);
            number = high | usize::from(zip.data.u8(at)?);
            at = at.saturating_add(1);
        }
        let row = (number >> 1).checked_sub(1).and_then(|row| Some((row, rows.get(row)?.origin)));
        let (row, origin) = row.ok_or_else(|| invalid(format!("its log names row {}", number >> 1)))?;
        let heap_no = row.saturating_add(BOUNDS);
        let cleared = number & CLEARED != 0;
        if heap_no > known || (heap_no == known && cleared) {
            return Err(invalid(format!("its log names row {heap_no} of its heap after {known}")));
        }
        if heap_no == known {
            known = known.saturating_add(1);
        }
        write_heap_no(frame, origin, heap_no, described.kept)?;
        if cleared {
            described.layout.measure(frame.as_bytes(), origin, &mut shape)?;
            frame.fill(origin, origin.saturating_add(shape.data), 0)?;
            continue;
        }
        at = replay_row(zip, at, frame, origin, described, &mut shape, &mut head)?;
    }
}

/// Copies a row from the log to its place. Gives where the log goes on.
fn replay_row(
    zip: &ZipPage,
    at: usize,
    frame: &mut Frame,
    origin: usize,
    described: &Described,
    shape: &mut RowShape,
    head: &mut Vec<u8>,
) -> Result<usize, FormatError> {
    // The lengths are needed the other way round to be understood.
    let most = described.most_extra.min(zip.data.size().saturating_sub(at));
    head.clear();
    head.extend(zip.data.slice(at, most)?.iter().rev());
    let status = u8::from(described.kept == Kept::Child);
    head.extend_from_slice(&[0, 0, status, 0, 0]);
    described.layout.measure(head, head.len(), shape)?;

    let extra = shape.extra.saturating_sub(HEADER);
    let start = origin.checked_sub(shape.extra);
    let start = start.ok_or_else(|| invalid(format!("the row at byte {origin} has {} bytes before", shape.extra)))?;
    let from = most.saturating_sub(extra);
    frame.write(start, head.get(from..most).unwrap_or_default())?;
    let mut at = at.saturating_add(extra);
    for (from, to) in described.kept.parts(shape)? {
        let len = to.saturating_sub(from);
        frame.write(origin.saturating_add(from), zip.data.slice(at, len)?)?;
        at = at.saturating_add(len);
    }
    Ok(at)
}

impl ZipPage {
    /// Adds the row at `origin` of the frame as it is now, without what is kept elsewhere.
    pub fn append(
        &mut self,
        frame: &Frame,
        origin: usize,
        heap_no: usize,
        kept: Kept,
        shape: &RowShape,
    ) -> Result<(), FormatError> {
        let number = heap_no.checked_sub(1).filter(|number| *number != 0);
        let number = number.ok_or_else(|| invalid(format!("row {heap_no} of a heap is none of a table")))?;
        let shifted = u16::try_from(number.saturating_mul(2)).ok().filter(|shifted| *shifted < 0x8000);
        let [high, low] = shifted.ok_or_else(|| invalid(format!("its heap has {heap_no} rows")))?.to_be_bytes();
        let mut entry = if number < TWO_BYTES_FROM { vec![low] } else { vec![TWO_BYTES | high, low] };
        let extra = shape.extra.saturating_sub(HEADER);
        let start = origin.saturating_sub(shape.extra);
        entry.extend(frame.slice(start, extra)?.iter().rev());
        for (from, to) in kept.parts(shape)? {
            entry.extend_from_slice(frame.slice(origin.saturating_add(from), to.saturating_sub(from))?);
        }
        let end = self.end.saturating_add(entry.len());
        // The log's end takes a byte.
        if end.saturating_add(self.trailer(kept)?) >= self.data.size() {
            return Err(invalid(format!("{} bytes more do not fit into its log", entry.len())));
        }
        self.data.write(self.end, &entry)?;
        self.end = end;
        Ok(())
    }
}
