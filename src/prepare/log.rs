//! The captured redo, group by group, up to where it must end.
//!
//! ```text
//!   blocks ─► decoder ─► groups, handed out ─► finish: the log ends where the backup does, or an error says why not
//! ```
//! Owns the way through the log. What its records mean is for whoever they are handed to.

use super::PrepareError;
use crate::innodb::lsn::Lsn;
use crate::innodb::redo::{EndReason, MiniTransaction, Poll, RedoDecoder};
use crate::innodb::space::TablespaceKey;

/// Bytes that are decoded at a time.
const STEP: usize = 64 << 10;

/// A log that is read once.
#[derive(Debug)]
pub(super) struct Log {
    decoder: RedoDecoder,
    ended: Option<EndReason>,
}

impl Log {
    /// Starts at the checkpoint. The key is that of an encrypted log.
    pub fn new(checkpoint: Lsn, key: Option<TablespaceKey>) -> Self {
        Self { decoder: RedoDecoder::new(checkpoint, key), ended: None }
    }

    /// Takes in the next whole blocks and hands out the groups that are complete with them.
    pub fn feed(
        &mut self,
        blocks: &[u8],
        mut each: impl FnMut(&MiniTransaction<'_>) -> Result<(), PrepareError>,
    ) -> Result<(), PrepareError> {
        for step in blocks.chunks(STEP) {
            self.decoder.feed(step)?;
            self.drain(&mut each)?;
        }
        Ok(())
    }

    /// Everything was fed: hands out the rest. The log must end at `wanted`.
    pub fn finish(
        mut self,
        wanted: Lsn,
        mut each: impl FnMut(&MiniTransaction<'_>) -> Result<(), PrepareError>,
    ) -> Result<(), PrepareError> {
        self.decoder.finish();
        self.drain(&mut each)?;
        let at = self.decoder.position();
        if at != wanted {
            let why = self.ended.map_or_else(String::new, |reason| describe(&reason));
            return Err(PrepareError::WrongEnd { at, wanted, why });
        }
        Ok(())
    }

    fn drain(
        &mut self,
        each: &mut impl FnMut(&MiniTransaction<'_>) -> Result<(), PrepareError>,
    ) -> Result<(), PrepareError> {
        loop {
            match self.decoder.poll()? {
                Poll::Group(group) => each(&group)?,
                Poll::NeedMore => return Ok(()),
                Poll::End(end) => {
                    self.ended = Some(end.reason);
                    return Ok(());
                }
            }
        }
    }
}

fn describe(reason: &EndReason) -> String {
    match reason {
        EndReason::PartialBlock => "its last block is not full".to_owned(),
        EndReason::NotWritten => "the next block was never written".to_owned(),
        EndReason::Torn { why } => format!("the next block is damaged: {why}"),
        EndReason::Finished => "no more is stored".to_owned(),
    }
}
