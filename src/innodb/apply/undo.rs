//! Undo log pages (redo-records reference, section 6).
//!
//! ```text
//!   38 type │ 40 start of the newest log's records │ 42 free │ 44 list │ 56 state │ 58 newest log │ 60 segment │ 86 logs …
//!   record   next, 2 │ bytes │ this, 2            log   0 transaction │ … 16 marks │ 18 start │ … 30 next │ 32 previous
//! ```
//! All else on these pages is written by plain writes.

use super::frame::Frame;
use crate::innodb::FormatError;
use crate::innodb::page::{PageType, fil};
use crate::innodb::redo::body::writes::UndoType;

const TYPE: usize = 38;
const START: usize = 40;
const FREE: usize = 42;
const STATE: usize = 56;
const NEWEST_LOG: usize = 58;
/// Where the first log of a segment has its header.
const FIRST_LOG: usize = 86;
/// Where a page that is not the first of its segment has its records.
const FIRST_RECORD: u16 = 56;
/// Bytes of a log's header before room for an XA transaction's id.
const LOG_HEADER: usize = 46;
const ACTIVE: u16 = 1;
const TRAILER: usize = 8;

/// Places in a log's header.
mod log {
    pub const HAS_MARKS: usize = 16;
    pub const START: usize = 18;
    /// Flags, and whether it is of a change of the dictionary.
    pub const FLAGS: usize = 20;
    pub const NEXT: usize = 30;
    pub const PREVIOUS: usize = 32;
}

/// Makes an undo page.
pub fn init(frame: &mut Frame, undo: UndoType) -> Result<(), FormatError> {
    frame.set_u16(fil::TYPE, PageType::UndoLog.id())?;
    frame.set_u16(
        TYPE,
        match undo {
            UndoType::Insert => 1,
            UndoType::Update => 2,
        },
    )?;
    frame.set_u16(START, FIRST_RECORD)?;
    frame.set_u16(FREE, FIRST_RECORD)
}

/// Adds an undo record.
pub fn insert(frame: &mut Frame, record: &[u8]) -> Result<(), FormatError> {
    let free = frame.place(FREE)?;
    let body = free.saturating_add(2);
    let behind = body.saturating_add(record.len());
    let end = behind.saturating_add(2);
    if end > frame.size().saturating_sub(TRAILER) || free < usize::from(FIRST_RECORD) {
        let why = format!("{} bytes do not fit behind byte {free}", record.len());
        return Err(FormatError::Invalid { what: "undo page", why });
    }
    frame.set_place(free, end)?;
    frame.write(body, record)?;
    frame.set_place(behind, free)?;
    frame.set_place(FREE, end)
}

/// Fills what is free.
pub fn erase_end(frame: &mut Frame) -> Result<(), FormatError> {
    let (free, end) = (frame.place(FREE)?, frame.size().saturating_sub(TRAILER));
    frame.fill(free, end, 0xFF)
}

/// Adds the header of a log.
pub fn create_header(frame: &mut Frame, transaction: u64) -> Result<(), FormatError> {
    let log = frame.place(FREE)?;
    let records = log.saturating_add(LOG_HEADER);
    frame.set_place(START, records)?;
    frame.set_place(FREE, records)?;
    frame.set_u16(STATE, ACTIVE)?;
    let previous = frame.place(NEWEST_LOG)?;
    if previous != 0 {
        frame.set_place(previous.saturating_add(log::NEXT), log)?;
    }
    frame.set_place(NEWEST_LOG, log)?;
    frame.set_u16(log.saturating_add(log::HAS_MARKS), 1)?;
    begin(frame, log, records, transaction)?;
    frame.set_u16(log.saturating_add(log::NEXT), 0)?;
    frame.set_place(log.saturating_add(log::PREVIOUS), previous)
}

/// Takes the header of the only log of a segment again.
pub fn reuse_header(frame: &mut Frame, transaction: u64) -> Result<(), FormatError> {
    let records = FIRST_LOG.saturating_add(LOG_HEADER);
    frame.set_place(START, records)?;
    frame.set_place(FREE, records)?;
    frame.set_u16(STATE, ACTIVE)?;
    begin(frame, FIRST_LOG, records, transaction)
}

fn begin(frame: &mut Frame, log: usize, records: usize, transaction: u64) -> Result<(), FormatError> {
    frame.set_u64(log, transaction)?;
    frame.set_place(log.saturating_add(log::START), records)?;
    frame.set_u16(log.saturating_add(log::FLAGS), 0)
}
