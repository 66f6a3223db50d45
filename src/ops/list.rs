//! `stillframe list`: what a store has, usable or not.

use crate::archive::manifest::{self, Manifest};
use crate::ops::context::Context;
use crate::ops::error::Error;
use crate::ops::options::ListOptions;
use crate::ops::report::{BackupBytes, BackupState, BackupType, ListContents, ListEntry, LsnRange, ServerIdentity};
use crate::ops::stored;
use crate::store::{BackupState as StoredState, StoredBackup};

/// Lists all backups of a store, oldest first.
pub async fn run(ctx: &Context, options: ListOptions) -> Result<Vec<ListEntry>, Error> {
    ctx.check()?;
    let repository = stored::open_existing(&options.store).await?;
    let mut entries = Vec::new();
    repository.list_each(|stored| entries.push(entry(stored))).await?;
    entries.sort_by(|a, b| (a.start_time, &a.id).cmp(&(b.start_time, &b.id)));
    Ok(entries)
}

/// What the store says of a backup, as a line of the list.
pub fn entry(stored: StoredBackup) -> ListEntry {
    let StoredBackup { id, state, marks } = stored;
    let (state, contents, problem) = match state {
        StoredState::Complete { manifest } => match Manifest::decode(&manifest) {
            Ok(manifest) => (BackupState::Complete, Some(contents(&manifest)), None),
            Err(error) => (BackupState::Damaged, None, Some(error.to_string())),
        },
        StoredState::Running => (BackupState::Running, None, None),
        StoredState::Stale => (BackupState::Stale, None, None),
        StoredState::Deleted { .. } => (BackupState::Deleted, None, None),
        StoredState::Damaged { why } => (BackupState::Damaged, None, Some(why)),
    };
    ListEntry {
        name: id.name().to_owned(),
        start_time: id.start(),
        id: id.to_string(),
        state,
        pinned: marks.pinned,
        expiration_time: marks.expiration_time,
        contents,
        problem,
    }
}

fn contents(manifest: &Manifest) -> ListContents {
    ListContents {
        backup_type: manifest.backup_type.into(),
        parent: manifest.parent.as_ref().map(ToString::to_string),
        completion_time: manifest.completion_time,
        lsn: LsnRange { checkpoint: manifest.lsn.checkpoint, end: manifest.lsn.end },
        bytes: BackupBytes { read: manifest.bytes.read, stored: manifest.bytes.stored },
        server: ServerIdentity {
            version: manifest.server.version.clone(),
            uuid: manifest.server.uuid.clone(),
            untested: manifest.server.untested,
        },
        encrypted: manifest.cipher.is_some(),
    }
}

impl From<manifest::BackupType> for BackupType {
    fn from(kind: manifest::BackupType) -> Self {
        match kind {
            manifest::BackupType::Full => Self::Full,
            manifest::BackupType::Incremental => Self::Incremental,
        }
    }
}
