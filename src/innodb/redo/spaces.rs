//! Which tablespaces a run of redo names, segment by segment, so that one table's redo can be found later.
//!
//! ```text
//!   segment   │ g g g g g g─┼─g g g─┼─g g │        a group counts for the segment that it ends in
//!   names     │    A        │   B   │  C  │
//! ```
//! Whoever wants the redo of one tablespace takes the segments that name it; where the first group of such a segment
//! began earlier (the first blocks have no group that begins there), also those before it, back to where it began.

use std::collections::BTreeSet;

use super::decoder::{Poll, RedoDecoder, RedoError};
use crate::innodb::ids::SpaceId;
use crate::innodb::lsn::Lsn;
use crate::innodb::space::TablespaceKey;

/// Collects the tablespaces that consecutive segments name.
#[derive(Debug)]
pub struct SpacesNamed {
    decoder: RedoDecoder,
    spaces: BTreeSet<SpaceId>,
    /// The one that was named last: mostly it is named again.
    last: Option<SpaceId>,
}

/// Bytes that are decoded at a time.
const STEP: usize = 64 << 10;

impl SpacesNamed {
    /// Starts at `checkpoint`. An encrypted log needs its key.
    pub fn new(checkpoint: Lsn, key: Option<TablespaceKey>) -> Self {
        Self { decoder: RedoDecoder::new(checkpoint, key), spaces: BTreeSet::new(), last: None }
    }

    /// Takes the key for what is fed from now on: a log may be encrypted from some block on.
    pub fn set_key(&mut self, key: Option<TablespaceKey>) {
        self.decoder.set_key(key);
    }

    /// Takes in blocks; those of one segment may come in several calls.
    pub fn feed(&mut self, blocks: &[u8]) -> Result<(), RedoError> {
        for step in blocks.chunks(STEP) {
            self.decoder.feed(step)?;
            while let Poll::Group(group) = self.decoder.poll()? {
                for space in group.records().filter_map(|record| record.page).map(|page| page.space) {
                    if self.last.replace(space) != Some(space) {
                        self.spaces.insert(space);
                    }
                }
            }
        }
        Ok(())
    }

    /// The tablespaces that were named since the last call: to be called where a segment ends.
    pub fn take(&mut self) -> BTreeSet<SpaceId> {
        self.last = None;
        std::mem::take(&mut self.spaces)
    }

    /// LSN behind the last complete group.
    pub fn position(&self) -> Lsn {
        self.decoder.position()
    }
}

/// The tablespaces that a whole log names, from `checkpoint` to the end of `blocks`.
pub fn spaces_named(
    checkpoint: Lsn,
    key: Option<TablespaceKey>,
    blocks: &[u8],
) -> Result<BTreeSet<SpaceId>, RedoError> {
    let mut named = SpacesNamed::new(checkpoint, key);
    named.feed(blocks)?;
    Ok(named.take())
}
