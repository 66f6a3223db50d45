//! The redo decoder: log blocks in, mini-transactions out (redo-log reference, section 5). Does no I/O.
//!
//! ```text
//!   feed(blocks in LSN order, from the checkpoint's on) ─► stream ─► scan ─► poll ─► Group(MiniTransaction)
//!                                                                              ├──► NeedMore: feed the next blocks
//!                                                                              ├──► End: why, and where
//!                                                                              └──► RedoError: LSN and what
//! ```
//! A group is given only when all of it is there; one that the end of the log cuts off is dropped, as the server does.
//! Groups that begin before the checkpoint are given, too, and their records say so. Whether the log reaches the LSN
//! that it should is the caller's to compare with [`EndOfLog::at`].
//!
//! Memory: what was fed and not polled, and one group, which [`RedoDecoder::with_group_limit`] bounds.

use serde::Serialize;

use super::body::reader::Fault;
use super::mtr::{GroupScan, MiniTransaction, Scan};
use super::record::RecordKind;
use super::stream::{EndReason, LogStream, advance};
use crate::innodb::FormatError;
use crate::innodb::lsn::Lsn;
use crate::innodb::space::TablespaceKey;

/// The largest group that is waited for. A server's are bound by its log buffer (64 MiB by default in 9.7); the largest
/// that were seen, large objects', have some 100 KiB.
pub const GROUP_LIMIT: usize = 64 << 20;

/// A log that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("redo at LSN {lsn}{}: {source}", kind.map(|kind| format!(" ({kind})")).unwrap_or_default())]
pub struct RedoError {
    /// Where.
    pub lsn: Lsn,
    /// The record, where its type is known.
    pub kind: Option<RecordKind>,
    /// What is wrong.
    pub source: FormatError,
}

/// Where a log ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndOfLog {
    /// LSN behind the last complete group.
    pub at: Lsn,
    /// Why there is no more.
    pub reason: EndReason,
    /// Bytes of a group whose end is missing. They are not used.
    pub unfinished_bytes: usize,
}

/// What the decoder has.
#[derive(Debug)]
pub enum Poll<'a> {
    /// The next group.
    Group(MiniTransaction<'a>),
    /// Nothing until more blocks are fed.
    NeedMore,
    /// The log has ended. Feeding the block at [`RedoDecoder::next_block`] again, when it has grown, goes on.
    End(EndOfLog),
}

/// Decodes a log from a checkpoint on.
#[derive(Debug)]
pub struct RedoDecoder {
    stream: LogStream,
    group: GroupScan,
    taken: bool,
    limit: usize,
    failed: Option<RedoError>,
}

impl RedoDecoder {
    /// Starts at `checkpoint`: the first block to be fed is the one that it is in. An encrypted log needs its key.
    pub fn new(checkpoint: Lsn, key: Option<TablespaceKey>) -> Self {
        let stream = LogStream::new(checkpoint, key);
        Self { stream, group: GroupScan::default(), taken: false, limit: GROUP_LIMIT, failed: None }
    }

    /// Sets the most bytes that a group may have.
    #[must_use]
    pub fn with_group_limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Takes the key for what is fed from now on: a log may be encrypted from some block on.
    pub fn set_key(&mut self, key: Option<TablespaceKey>) {
        self.stream.set_key(key);
    }

    /// LSN of the block that is to be fed next.
    pub fn next_block(&self) -> Lsn {
        self.stream.next_block()
    }

    /// LSN behind the last group that was polled; the checkpoint before there was one.
    pub fn position(&self) -> Lsn {
        self.stream.position()
    }

    /// Takes in whole blocks, the first of which is the one at [`Self::next_block`]. What follows a block that is not
    /// full, or not there, is not looked at.
    pub fn feed(&mut self, blocks: &[u8]) -> Result<(), RedoError> {
        self.check_failed()?;
        self.forget_taken();
        let outcome = self.stream.feed(blocks);
        self.remember(outcome)
    }

    /// Says that no more blocks will be fed.
    pub fn finish(&mut self) {
        self.stream.finish();
    }

    /// The next group, or what is missing. An error stays: nothing can be found behind a record that is not understood.
    pub fn poll(&mut self) -> Result<Poll<'_>, RedoError> {
        self.check_failed()?;
        self.forget_taken();
        let found = self.find();
        let Some(len) = self.remember(found)? else {
            return Ok(match self.stream.end() {
                None => Poll::NeedMore,
                Some(reason) => Poll::End(EndOfLog {
                    at: self.stream.position(),
                    reason: reason.clone(),
                    unfinished_bytes: self.stream.payload().len(),
                }),
            });
        };
        let start = self.stream.position();
        if self.stream.consume(len).is_none() {
            let overflow = FormatError::Invalid { what: "redo group", why: "its LSNs overflow".into() };
            let outcome = Err(RedoError { lsn: start, kind: None, source: overflow });
            return self.remember(outcome);
        }
        self.taken = true;
        Ok(Poll::Group(MiniTransaction {
            start,
            end: self.stream.position(),
            checkpoint: self.stream.checkpoint(),
            payload: self.stream.consumed(len),
            found: &self.group.found,
        }))
    }

    /// Length of the group that is next, when it is complete.
    fn find(&mut self) -> Result<Option<usize>, RedoError> {
        let payload = self.stream.payload();
        if payload.is_empty() {
            return Ok(None);
        }
        let base = self.stream.position();
        let outcome = self.group.scan(payload);
        let lsn = advance(base, self.group.at).unwrap_or(base);
        match outcome {
            Ok(Scan::Complete(len)) => {
                if advance(base, len).is_some_and(|end| self.stream.has_come_to(end)) {
                    return Ok(Some(len));
                }
                self.group.postpone();
                Ok(None)
            }
            Ok(Scan::Short) if payload.len() > self.limit => {
                let why = format!("it has more than {} bytes", self.limit);
                Err(RedoError { lsn: base, kind: None, source: FormatError::Invalid { what: "redo group", why } })
            }
            Ok(Scan::Short) | Err(Fault::Short) => Ok(None),
            Err(Fault::Bad(source)) => {
                let kind = payload.get(self.group.at).and_then(|&first| RecordKind::decode(first).ok());
                Err(RedoError { lsn, kind, source })
            }
        }
    }

    fn forget_taken(&mut self) {
        if std::mem::take(&mut self.taken) {
            self.group.clear();
        }
    }

    fn check_failed(&self) -> Result<(), RedoError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn remember<T>(&mut self, outcome: Result<T, RedoError>) -> Result<T, RedoError> {
        if let Err(error) = &outcome {
            self.failed = Some(error.clone());
        }
        outcome
    }
}
