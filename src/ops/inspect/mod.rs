//! `stillframe inspect`: a look into redo files, pages, tablespaces and stored backups, for whoever has to find out
//! what is wrong.
//!
//! ```text
//!   redo     file headers, checkpoints, blocks from an LSN on        a file or a directory of them
//!   page     header fields and verdict                               one page of a file
//!   space    page 0, pages by type and verdict                       a whole file
//!   backup   objects, redo segments, counts of the file table        a stored backup
//! ```
//! Reads only. What is damaged is shown as such and is no failure: that is what one came to see.

mod backup;
mod file;
mod page;
mod redo;
mod space;

use serde::Serialize;

use super::context::Context;
use super::error::Error;
use super::options::InspectOptions;

pub use backup::{BackupInspection, EntryCounts, ObjectLine, SegmentLine};
pub use file::{EncryptionLine, Verdict};
pub use page::PageInspection;
pub use redo::{BlockLine, BlockState, CheckpointSlot, RedoFileLine, RedoInspection};
pub use space::{FaultLine, SpaceInspection, TypeLine};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum InspectReport {
    /// Redo files.
    Redo(RedoInspection),
    /// A page.
    Page(PageInspection),
    /// A tablespace file.
    Space(SpaceInspection),
    /// A stored backup.
    Backup(BackupInspection),
}

/// Looks.
pub async fn run(ctx: &Context, options: InspectOptions) -> Result<InspectReport, Error> {
    ctx.check()?;
    let inside = ctx.clone();
    match options {
        InspectOptions::Redo { path, from, limit, keyring_file } => {
            let look = move || redo::inspect(&path, from, limit, keyring_file.as_deref());
            super::blocking(look).await.map(InspectReport::Redo)
        }
        InspectOptions::Page { path, page, page_size, keyring_file } => {
            let look = move || page::inspect(&path, page, page_size, keyring_file.as_deref());
            super::blocking(look).await.map(InspectReport::Page)
        }
        InspectOptions::Space { path, keyring_file } => {
            let look = move || space::inspect(&inside, &path, keyring_file.as_deref());
            super::blocking(look).await.map(InspectReport::Space)
        }
        InspectOptions::Backup { store, backup, encryption_key_files } => {
            backup::inspect(ctx, &store, &backup, &encryption_key_files).await.map(InspectReport::Backup)
        }
    }
}
