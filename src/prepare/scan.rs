//! The one pass over the redo: what it says of files, tables and pages, and whether it is all there.
//!
//! ```text
//!   blocks ─► decoder ─► groups ─► record ┬─ metadata of a table ──► metadata (before the checkpoint, too)
//!                                         ├─ about a file ─────────► spaces
//!                                         └─ changes a page ───────► spaces, then the plan
//!   finish: the log ends where the backup does · no tablespace is missing · nothing is refused ─► Recovery
//! ```
//! Whatever native recovery would refuse must be found here: when this is done, the caller begins to write.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use super::PrepareError;
use super::log::Log;
use super::metadata::TableMetadata;
use super::plan::{ApplyPlan, PlanBuilder, PlannedRecord};
use super::spaces::{CopiedSpace, Seal, Space, SpaceScan};
use crate::innodb::FormatError;
use crate::innodb::ids::{PageId, SpaceId};
use crate::innodb::keyring::Keyring;
use crate::innodb::lsn::Lsn;
use crate::innodb::redo::{MiniTransaction, RecordKind, RedoError, RedoRecord};
use crate::innodb::space::{SpaceHeader, TablespaceKey};
use crate::util::names::printable;
use crate::util::zlib;

/// What is to be scanned, and with how much.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// Where recovery starts.
    pub checkpoint: Lsn,
    /// Where the log must end.
    pub end: Lsn,
    /// The key of an encrypted log.
    pub log_key: Option<TablespaceKey>,
    /// The keys of encrypted tablespaces.
    pub keyring: Option<Keyring>,
    /// The zlib of the server that wrote the log, its `version_compile_zlib`; `None` where that is not known.
    pub zlib: Option<String>,
    /// Memory for records.
    pub memory: u64,
    /// A directory on whose file system records are kept that do not fit into that. Nothing appears in it.
    pub spill_dir: PathBuf,
}

/// What a scan counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanCounts {
    /// Groups of records.
    pub groups: u64,
    /// Records that change pages.
    pub records: u64,
}

/// Reads the redo.
#[derive(Debug)]
pub struct RedoScan {
    end: Lsn,
    log: Log,
    facts: Facts,
}

/// What was learnt so far.
#[derive(Debug)]
struct Facts {
    spaces: SpaceScan,
    metadata: TableMetadata,
    plan: PlanBuilder,
    keyring: Option<Keyring>,
    /// The server's zlib, where it is not known to make the bytes that ours does.
    other_zlib: Option<String>,
    counts: ScanCounts,
}

impl RedoScan {
    /// Starts at the checkpoint, for a copy of these tablespaces.
    pub fn new(options: ScanOptions, copied: &[CopiedSpace]) -> Result<Self, PrepareError> {
        let secret = options.log_key.is_some() || copied.iter().any(|space| space.flags.is_encrypted());
        let facts = Facts {
            spaces: SpaceScan::new(copied.iter().copied()),
            metadata: TableMetadata::default(),
            plan: PlanBuilder::new(options.memory, &options.spill_dir, secret)?,
            keyring: options.keyring,
            other_zlib: other_zlib(options.zlib.as_deref()),
            counts: ScanCounts::default(),
        };
        Ok(Self { end: options.end, log: Log::new(options.checkpoint, options.log_key), facts })
    }

    /// Takes in the next whole blocks.
    pub fn feed(&mut self, blocks: &[u8]) -> Result<(), PrepareError> {
        self.log.feed(blocks, |group| self.facts.note(group))
    }

    /// Everything was fed. Errors are refusals: nothing was written yet.
    pub fn finish(mut self) -> Result<Recovery, PrepareError> {
        self.log.finish(self.end, |group| self.facts.note(group))?;
        let Facts { spaces, metadata, plan, keyring, counts, .. } = self.facts;
        let spaces = spaces.finish()?;
        Ok(Recovery {
            plan: plan.finish()?,
            spaces,
            metadata,
            counts,
            end: self.end,
            keyring,
            seals: RwLock::default(),
        })
    }
}

impl Facts {
    fn note(&mut self, group: &MiniTransaction<'_>) -> Result<(), PrepareError> {
        self.counts.groups = self.counts.groups.saturating_add(1);
        for record in group.records() {
            if record.kind == RecordKind::DynamicMeta {
                self.metadata.note(&record).map_err(|source| redo_error(&record, source))?;
            }
            let Some(page) = record.page.filter(|_| !record.before_checkpoint) else { continue };
            if record.kind.is_file_operation() {
                self.spaces.note_file(page, &record)?;
            } else if record.kind != RecordKind::IndexLoad || !group.is_single() {
                self.note_change(page, &record, group.end)?;
            }
        }
        Ok(())
    }

    fn note_change(&mut self, page: PageId, record: &RedoRecord<'_>, end: Lsn) -> Result<(), PrepareError> {
        if !self.spaces.note_change(page, record, self.keyring.as_ref())? {
            return Ok(());
        }
        if record.kind.compresses_anew()
            && let Some(zlib) = &self.other_zlib
        {
            let (lsn, kind, zlib) = (record.lsn, record.kind, zlib.clone());
            return Err(PrepareError::NotNative { lsn, kind, page, zlib });
        }
        self.counts.records = self.counts.records.saturating_add(1);
        self.plan.push(&PlannedRecord { page, lsn: record.lsn, end, bytes: record.bytes })
    }
}

/// How to name a zlib whose pages may not be those that ours makes: what it compressed must not be compressed anew here.
fn other_zlib(server: Option<&str>) -> Option<String> {
    match server {
        Some(version) if zlib::makes_same_bytes(version) => None,
        Some(version) => Some(printable(version.as_bytes())),
        None => Some("of a version that was not recorded".to_owned()),
    }
}

pub(super) fn redo_error(record: &RedoRecord<'_>, source: FormatError) -> PrepareError {
    PrepareError::Redo(RedoError { lsn: record.lsn, kind: Some(record.kind), source })
}

/// All that is needed to recover pages. Shared by threads.
#[derive(Debug)]
pub struct Recovery {
    plan: ApplyPlan,
    spaces: HashMap<SpaceId, Space>,
    metadata: TableMetadata,
    counts: ScanCounts,
    end: Lsn,
    keyring: Option<Keyring>,
    /// How pages are opened and closed, once page 0 was looked at.
    seals: RwLock<HashMap<SpaceId, Seal>>,
}

impl Recovery {
    /// The records by page.
    pub const fn plan(&self) -> &ApplyPlan {
        &self.plan
    }

    /// A tablespace as it will be.
    pub fn space(&self, space: SpaceId) -> Option<&Space> {
        self.spaces.get(&space)
    }

    /// All tablespaces.
    pub fn spaces(&self) -> impl Iterator<Item = &Space> {
        self.spaces.values()
    }

    /// What the new log must say of tables.
    pub const fn metadata(&self) -> &TableMetadata {
        &self.metadata
    }

    /// What the scan counted.
    pub const fn counts(&self) -> ScanCounts {
        self.counts
    }

    /// The point in time that the recovered pages have.
    pub const fn end(&self) -> Lsn {
        self.end
    }

    /// Refuses a page that was changed after the end of the log: the log does not tell how it was at that end.
    pub fn check_age(&self, page: PageId, lsn: Lsn) -> Result<(), PrepareError> {
        if lsn > self.end { Err(PrepareError::NewerThanLog { page, lsn, end: self.end }) } else { Ok(()) }
    }

    /// Page 0 of this tablespace must be shown by [`Self::learn`] before its pages can be recovered.
    pub fn needs_page0(&self, space: SpaceId) -> bool {
        let may_be = self.space(space).is_some_and(|space| space.is_changed() && space.may_be_encrypted());
        may_be && !self.seals.read().unwrap_or_else(PoisonError::into_inner).contains_key(&space)
    }

    /// Learns from page 0 how it is encrypted, of a tablespace as it was copied.
    pub fn learn(&self, space: SpaceId, page0: &[u8]) -> Result<(), PrepareError> {
        let failed = |source| PrepareError::Key { space, source };
        let header = SpaceHeader::decode(page0).map_err(failed)?;
        let none = Keyring::default();
        let seal = self.space(space).map(|known| known.seal(&header, self.keyring.as_ref().unwrap_or(&none)));
        let seal = seal.transpose().map_err(failed)?.unwrap_or_default();
        let _ = self.seals.write().unwrap_or_else(PoisonError::into_inner).insert(space, seal);
        Ok(())
    }

    /// How pages of a tablespace are opened and closed, once that was learnt.
    pub(super) fn seal(&self, space: SpaceId) -> Option<Seal> {
        self.seals.read().unwrap_or_else(PoisonError::into_inner).get(&space).cloned()
    }
}
