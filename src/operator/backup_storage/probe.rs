//! One look into a storage, and what it means.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::api::BackupStorage;
use crate::api::conditions::{self, reasons, status, types};
use crate::api::storage::{AccessMode, StorageCapabilities};
use crate::operator::storage::StoreRefusal;
use crate::operator::store_access::Access;
use crate::store::{Capabilities, Content, Look, StoreError, ToldKind, explain, tell};

/// How long a storage may take to answer; a pod that asks it has less.
const PATIENCE: Duration = Duration::from_secs(150);
/// How soon a storage that was not ready is probed again.
const RETRY: SignedDuration = SignedDuration::from_secs(15);

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
            StoreRefusal::NoText { .. } | StoreRefusal::BadUrl(_) | StoreRefusal::PodsOnly => reasons::INVALID_SPEC,
            StoreRefusal::WriteCa { .. } => "LocalIo",
        };
        Self::Bad { reason: reason.to_owned(), message: refusal.to_string() }
    }

    fn failed(error: &StoreError) -> Self {
        Self::Bad { reason: reason(error).to_owned(), message: explain(error) }
    }
}

/// Probes a storage and lists its complete backups.
pub(super) async fn look(access: &Access, mode: AccessMode) -> Probed {
    let looked = tokio::time::timeout(PATIENCE, access.look(mode == AccessMode::ReadWrite)).await;
    match looked {
        Ok(Ok(Look { capabilities: Capabilities { list, delete }, content })) => {
            Probed::Good { capabilities: StorageCapabilities { list, delete }, content }
        }
        Ok(Err(error)) => Probed::failed(&error),
        Err(_) => {
            let message = format!("{} did not answer within {} s", access.shown(), PATIENCE.as_secs());
            Probed::Bad { reason: "Store".to_owned(), message }
        }
    }
}

/// What a probe that passed has seen, for people.
pub(super) fn seen(mode: AccessMode, capabilities: StorageCapabilities) -> &'static str {
    match (mode, capabilities.delete) {
        (AccessMode::ReadOnly, _) => "read as restores need it; nothing is written or deleted",
        (_, true) => "written, read back and deleted as backups need it",
        (_, false) => "written and read back as backups need it; nothing can be deleted, or not yet",
    }
}

/// The engine's word for what a store can fail with.
fn reason(error: &StoreError) -> &'static str {
    match tell(error).kind {
        ToldKind::Denied => "StoreDenied",
        ToldKind::Unfit => "Preflight",
        ToldKind::UnknownFormat => "UnsupportedFormat",
        ToldKind::Settings => reasons::INVALID_SPEC,
        _ => "Store",
    }
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
