//! Mini-transactions: groups of records that are applied together or not at all (redo-records reference, section 2).
//!
//! ```text
//!   one record with 0x80          a group by itself
//!   DUMMY at a group's start      likewise; a run of them is given as one
//!   record, record, … , 31        the others
//!
//!   LSNs   start ──record.lsn──record.lsn── end      a page takes part in a record if page LSN <= record.lsn,
//!                                                    and carries the group's end afterwards
//! ```

use serde::ser::{SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};

use super::body::Body;
use super::body::reader::{Fault, Reader, invalid};
use super::record::{RecordHead, RecordKind, RedoRecord, SINGLE_RECORD};
use super::stream::advance;
use crate::innodb::lsn::Lsn;

/// A group of records.
#[derive(Debug, Clone, Copy)]
pub struct MiniTransaction<'a> {
    /// LSN of its first byte.
    pub start: Lsn,
    /// LSN behind its last.
    pub end: Lsn,
    pub(super) checkpoint: Lsn,
    pub(super) payload: &'a [u8],
    pub(super) found: &'a [Found],
}

impl<'a> MiniTransaction<'a> {
    /// Its records, without the mark of its end.
    pub fn records(&self) -> Records<'a> {
        Records { at: self.start, checkpoint: self.checkpoint, rest: self.payload, found: self.found.iter() }
    }

    /// Number of its records.
    pub const fn record_count(&self) -> usize {
        self.found.len()
    }

    /// Its bytes in the log, without the headers of blocks.
    pub const fn bytes(&self) -> &'a [u8] {
        self.payload
    }

    /// It is one record by itself.
    pub fn is_single(&self) -> bool {
        self.payload.first().is_some_and(|first| first & SINGLE_RECORD != 0)
    }

    /// It begins before the checkpoint.
    pub fn begins_before_checkpoint(&self) -> bool {
        self.start < self.checkpoint
    }
}

/// A record as it was found when its group was: what its head says, and how long it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    head: RecordHead,
    body_at: u8,
    len: u32,
}

/// The records of a group.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    at: Lsn,
    checkpoint: Lsn,
    rest: &'a [u8],
    found: std::slice::Iter<'a, Found>,
}

impl<'a> Iterator for Records<'a> {
    type Item = RedoRecord<'a>;

    fn next(&mut self) -> Option<RedoRecord<'a>> {
        let found = self.found.next()?;
        let len = usize::try_from(found.len).ok()?;
        let (bytes, rest) = self.rest.split_at_checked(len)?;
        let record = RedoRecord {
            lsn: self.at,
            kind: found.head.kind,
            page: found.head.page,
            before_checkpoint: self.at < self.checkpoint,
            bytes,
            body_at: usize::from(found.body_at),
        };
        self.rest = rest;
        self.at = advance(self.at, len)?;
        Some(record)
    }
}

/// How far the search for a group's end came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scan {
    /// It ends behind so many bytes.
    Complete(usize),
    /// Its end is not there yet.
    Short,
}

/// Where in a group its records are; kept while the group is not complete, so that nothing is looked at twice.
#[derive(Debug, Default)]
pub(super) struct GroupScan {
    /// The records found so far.
    pub found: Vec<Found>,
    /// Where the next one starts.
    pub at: usize,
}

impl GroupScan {
    pub fn clear(&mut self) {
        self.found.clear();
        self.at = 0;
    }

    /// Looks for the end of the group that `payload` begins with. On a fault, `at` is where the bad record is.
    pub fn scan(&mut self, payload: &[u8]) -> Result<Scan, Fault> {
        loop {
            let rest = payload.get(self.at..).unwrap_or_default();
            let mut reader = Reader::new(rest);
            let head = match RecordHead::decode(&mut reader) {
                Ok(head) => head,
                Err(Fault::Short) => return Ok(Scan::Short),
                Err(bad @ Fault::Bad(_)) => return Err(bad),
            };
            let first = self.found.is_empty();
            // A head is a few bytes.
            let body_at = u8::try_from(reader.at()).unwrap_or(u8::MAX);
            if first && head.kind == RecordKind::Dummy {
                let run = rest.iter().take_while(|&&byte| byte == RecordKind::Dummy.id()).take(MAX_RUN).count();
                self.found.push(Found { head, body_at, len: u32::try_from(run).unwrap_or(1) });
                return Ok(Scan::Complete(run));
            }
            if head.kind == RecordKind::MultiRecEnd {
                return Ok(Scan::Complete(self.at.saturating_add(reader.at())));
            }
            if head.single && !first {
                return Err(invalid(head.kind.name(), "marked as a group by itself, inside a group"));
            }
            match Body::decode(head.kind, &mut reader) {
                Ok(_) => {}
                Err(Fault::Short) => return Ok(Scan::Short),
                Err(bad @ Fault::Bad(_)) => return Err(bad),
            }
            let len = u32::try_from(reader.at()).map_err(|_| invalid(head.kind.name(), "too long"))?;
            let end = self.at.saturating_add(reader.at());
            if head.single {
                // Kept only when the group is taken: it may be scanned again until its block is complete.
                self.found.push(Found { head, body_at, len });
                return Ok(Scan::Complete(end));
            }
            self.found.push(Found { head, body_at, len });
            self.at = end;
        }
    }

    /// Forgets what a complete group, not to be taken yet, would make doubtful.
    pub fn postpone(&mut self) {
        if self.at == 0 {
            self.found.clear();
        }
    }
}

/// Filling bytes that are given as one group at most.
const MAX_RUN: usize = 1 << 16;

impl Serialize for MiniTransaction<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("MiniTransaction", 3)?;
        out.serialize_field("start", &self.start)?;
        out.serialize_field("end", &self.end)?;
        out.serialize_field("records", &RecordList(self.records()))?;
        out.end()
    }
}

struct RecordList<'a>(Records<'a>);

impl Serialize for RecordList<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_seq(None)?;
        for record in self.0.clone() {
            out.serialize_element(&record)?;
        }
        out.end()
    }
}

impl Serialize for RedoRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("RedoRecord", 7)?;
        out.serialize_field("lsn", &self.lsn)?;
        out.serialize_field("kind", &self.kind)?;
        out.serialize_field("space", &self.page.map(|page| page.space))?;
        out.serialize_field("page", &self.page.map(|page| page.page))?;
        out.serialize_field("bytes", &self.bytes.len())?;
        out.serialize_field("beforeCheckpoint", &self.before_checkpoint)?;
        match self.body() {
            Ok(body) => out.serialize_field("body", &body)?,
            Err(error) => out.serialize_field("fault", &error.to_string())?,
        }
        out.end()
    }
}
