//! One look into a storage, and what it means.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::api::BackupStorage;
use crate::api::backup::BackupType;
use crate::api::conditions::{self, reasons, status, types};
use crate::api::storage::{AccessMode, StorageCapabilities};
use crate::archive::id::BackupId;
use crate::archive::manifest::{self, Manifest};
use crate::operator::storage::StoreRefusal;
use crate::store::{BackupState, Marks, Repository, StoreError, StoredBackup};

/// How long a storage may take to answer.
const PATIENCE: Duration = Duration::from_mins(2);
/// How soon a storage that was not ready is probed again.
const RETRY: SignedDuration = SignedDuration::from_secs(15);

/// A complete backup that a storage holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) id: BackupId,
    pub(super) stored_bytes: i64,
    pub(super) backup_type: BackupType,
    pub(super) marks: Marks,
}

/// What a storage holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) complete: Vec<Listed>,
    /// Ids that have a tombstone: nothing can ever be there again.
    pub(super) deleted: Vec<BackupId>,
}

/// What a look found.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Probed {
    /// Backups can go there, or be read where that is all that is asked.
    /// `content` is absent where it may not be listed.
    Good { capabilities: StorageCapabilities, content: Option<Content> },
    /// They cannot.
    Bad { reason: String, message: String },
}

impl Probed {
    /// A storage that cannot even be asked.
    pub(super) fn refused(refusal: &StoreRefusal) -> Self {
        let reason = match refusal {
            StoreRefusal::MissingKey { .. } => reasons::WAITING_FOR_REFERENCE,
            StoreRefusal::NotYet(_) => "Unsupported",
            StoreRefusal::NoText { .. } | StoreRefusal::BadUrl(_) => reasons::INVALID_SPEC,
            StoreRefusal::WriteCa { .. } => "LocalIo",
        };
        Self::Bad { reason: reason.to_owned(), message: refusal.to_string() }
    }

    fn failed(error: &StoreError) -> Self {
        Self::Bad { reason: reason(error).to_owned(), message: explain(error) }
    }
}

/// Probes a storage and lists its complete backups.
pub(super) async fn look(repository: &Repository, mode: AccessMode) -> Probed {
    let looked = tokio::time::timeout(PATIENCE, ask(repository, mode)).await;
    match looked {
        Ok(Ok(probed)) => probed,
        Ok(Err(error)) => Probed::failed(&error),
        Err(_) => {
            let message = format!("{} did not answer within {} s", repository.url(), PATIENCE.as_secs());
            Probed::Bad { reason: "Store".to_owned(), message }
        }
    }
}

async fn ask(repository: &Repository, mode: AccessMode) -> Result<Probed, StoreError> {
    let capabilities = match mode {
        AccessMode::ReadWrite => {
            let seen = repository.probe().await?;
            StorageCapabilities { list: seen.list, delete: seen.delete }
        }
        // Nothing is written there, not even to find out.
        AccessMode::ReadOnly => StorageCapabilities { list: true, delete: false },
    };
    if !capabilities.list {
        return Ok(Probed::Good { capabilities, content: None });
    }
    let mut content = Content::default();
    let note = |StoredBackup { id, state, marks }: StoredBackup| match state {
        BackupState::Complete { manifest } => {
            let Ok(manifest) = Manifest::decode(&manifest) else { return };
            content.complete.push(Listed {
                id,
                stored_bytes: i64::try_from(manifest.bytes.stored).unwrap_or(i64::MAX),
                backup_type: match manifest.backup_type {
                    manifest::BackupType::Full => BackupType::Full,
                    manifest::BackupType::Incremental => BackupType::Incremental,
                },
                marks,
            });
        }
        BackupState::Deleted { .. } => content.deleted.push(id),
        BackupState::Running | BackupState::Stale | BackupState::Damaged { .. } => {}
    };
    repository.list_each(note).await?;
    Ok(Probed::Good { capabilities, content: Some(content) })
}

/// The engine's word for what a store can fail with.
fn reason(error: &StoreError) -> &'static str {
    match error {
        StoreError::Denied { .. } => "StoreDenied",
        StoreError::NoCreateOnly { .. } | StoreError::Foreign { .. } => "Preflight",
        StoreError::UnknownFormat { .. } => "UnsupportedFormat",
        StoreError::BadUrl { .. } | StoreError::Settings { .. } => reasons::INVALID_SPEC,
        _ => "Store",
    }
}

/// An error with its causes, those left out that only repeat the one above.
pub(crate) fn explain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// How often a storage is probed.
pub(super) fn period(storage: &BackupStorage) -> Duration {
    Duration::from_secs(u64::try_from(storage.spec.probe_period_seconds).unwrap_or(900))
}

/// How long it is until the next probe; `None`: it is due. Status updates are no reason to probe.
pub(super) fn until_due(storage: &BackupStorage, now: Timestamp) -> Option<Duration> {
    let seen = storage.status.as_ref()?;
    let ready = conditions::find(&seen.conditions, types::READY)?;
    if ready.observed_generation != storage.metadata.generation {
        return None;
    }
    let wait = if ready.status == status::TRUE { SignedDuration::try_from(period(storage)).ok()? } else { RETRY };
    let next = seen.last_probe_time.as_ref()?.0.checked_add(wait).ok()?;
    Duration::try_from(next.duration_since(now)).ok().filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn storage(status: &str, generation: i64) -> BackupStorage {
        serde_json::from_value(json!({
            "apiVersion": "stillframe.dev/v1alpha1", "kind": "BackupStorage",
            "metadata": {"name": "bucket", "generation": 2},
            "spec": {"s3": {"bucket": "backups"}, "probePeriodSeconds": 60},
            "status": {"lastProbeTime": "1970-01-01T00:16:40Z", "conditions": [{"type": "Ready", "status": status,
                "reason": "R", "message": "m", "lastTransitionTime": "1970-01-01T00:00:00Z", "observedGeneration": generation}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_storage_is_probed_when_it_changes_and_from_time_to_time() {
        let due = |status: &str, generation, second: i64| {
            until_due(&storage(status, generation), Timestamp::from_second(second).unwrap()).map(|left| left.as_secs())
        };
        assert_eq!(due("True", 2, 1010), Some(50));
        assert_eq!(due("True", 2, 1060), None);
        assert_eq!(due("True", 1, 1010), None, "its spec has changed");
        assert_eq!(due("False", 2, 1010), Some(5), "what is broken is looked at more often");
        assert_eq!(due("False", 2, 1015), None);
        let new = BackupStorage { status: None, ..storage("True", 2) };
        assert_eq!(until_due(&new, Timestamp::UNIX_EPOCH), None);
    }

    #[test]
    fn what_is_wrong_has_the_engines_names() {
        let refused = |refusal| match Probed::refused(&refusal) {
            Probed::Bad { reason, message } => (reason, message),
            Probed::Good { .. } => panic!("good"),
        };
        let (reason, message) = refused(StoreRefusal::MissingKey { name: "later".into(), key: "id".into() });
        assert_eq!((reason.as_str(), message.as_str()), ("WaitingForReference", "the secret later has no key id"));
        let error = StoreError::NoBucket { url: "s3://no-such-bucket".into() };
        assert_eq!(super::reason(&error), "Store");
        assert!(explain(&error).contains("no-such-bucket"));
    }
}
