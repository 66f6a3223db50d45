//! How large redo makes one tablespace, and nothing else of it.
//!
//! ```text
//!   blocks ─► log ─► FSP_SIZE, FILE_EXTEND of the space ─► pages: the most that anyone says
//! ```
//! For the system tablespace of a copy that a server is going to recover: the server extends every file that redo says
//! has grown, but for this one, whose size it only checks (MySQL 9.7).

use super::PrepareError;
use super::log::Log;
use super::scan::redo_error;
use super::spaces::{CopiedSpace, Space};
use crate::innodb::lsn::Lsn;
use crate::innodb::redo::MiniTransaction;
use crate::innodb::space::TablespaceKey;

/// Reads redo for one tablespace's size.
#[derive(Debug)]
pub struct Growth {
    log: Log,
    space: Space,
}

impl Growth {
    /// Starts at the checkpoint, for a copy of this tablespace.
    pub fn new(checkpoint: Lsn, log_key: Option<TablespaceKey>, copied: CopiedSpace) -> Self {
        Self { log: Log::new(checkpoint, log_key), space: Space::new(copied) }
    }

    /// Takes in the next whole blocks.
    pub fn feed(&mut self, blocks: &[u8]) -> Result<(), PrepareError> {
        self.log.feed(blocks, |group| note(&mut self.space, group))
    }

    /// Everything up to `end` was fed: the tablespace's size in pages.
    pub fn finish(mut self, end: Lsn) -> Result<u32, PrepareError> {
        self.log.finish(end, |group| note(&mut self.space, group))?;
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
