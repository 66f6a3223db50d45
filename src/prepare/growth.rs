//! How large redo makes one tablespace, and nothing else of it.
//!
//! ```text
//!   blocks ─► decoder ─► FSP_SIZE, FILE_EXTEND of the space ─► pages: the most that anyone says
//! ```
//! For the system tablespace of a copy that a server is going to recover: the server extends every file that redo says
//! has grown, but for this one, whose size it only checks (MySQL 9.7).

use super::PrepareError;
use super::scan::{describe, redo_error};
use super::spaces::{CopiedSpace, Space};
use crate::innodb::lsn::Lsn;
use crate::innodb::redo::{EndReason, MiniTransaction, Poll, RedoDecoder};
use crate::innodb::space::TablespaceKey;

/// Reads redo for one tablespace's size.
#[derive(Debug)]
pub struct Growth {
    decoder: RedoDecoder,
    ended: Option<EndReason>,
    space: Space,
}

impl Growth {
    /// Starts at the checkpoint, for a copy of this tablespace.
    pub fn new(checkpoint: Lsn, log_key: Option<TablespaceKey>, copied: CopiedSpace) -> Self {
        Self { decoder: RedoDecoder::new(checkpoint, log_key), ended: None, space: Space::new(copied) }
    }

    /// Takes in the next whole blocks.
    pub fn feed(&mut self, blocks: &[u8]) -> Result<(), PrepareError> {
        for step in blocks.chunks(super::scan::STEP) {
            self.decoder.feed(step)?;
            self.drain()?;
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), PrepareError> {
        loop {
            match self.decoder.poll()? {
                Poll::Group(group) => note(&mut self.space, &group)?,
                Poll::NeedMore => return Ok(()),
                Poll::End(end) => {
                    self.ended = Some(end.reason);
                    return Ok(());
                }
            }
        }
    }

    /// Everything up to `end` was fed: the tablespace's size in pages.
    pub fn finish(mut self, end: Lsn) -> Result<u32, PrepareError> {
        self.decoder.finish();
        self.drain()?;
        let at = self.decoder.position();
        if at != end {
            let why = self.ended.map_or_else(String::new, |reason| describe(&reason));
            return Err(PrepareError::WrongEnd { at, wanted: end, why });
        }
        Ok(self.space.pages)
    }
}

fn note(space: &mut Space, group: &MiniTransaction<'_>) -> Result<(), PrepareError> {
    for record in group.records().filter(|record| !record.before_checkpoint) {
        if record.page.is_some_and(|page| page.space == space.id()) {
            space.note_size(&record).map_err(|source| redo_error(&record, source))?;
        }
    }
    Ok(())
}
