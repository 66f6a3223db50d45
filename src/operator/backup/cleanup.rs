//! A backup's object is deleted: what runs is stopped, what must go goes, and then it may leave. In bounded time.
//!
//! ```text
//!   runners' pods ─► told to stop (locks go within a second) ─► gone, or PATIENCE is over
//!   one in the database's pod ─► called off in the storage (seen within ten seconds) ─► stopped, or PATIENCE is over
//!   complete, Retain       nothing            ┐
//!   complete, Delete       data removed       ├─► finalizer off
//!   complete, pinned       nothing            │
//!   not complete           remains removed    ┘
//! ```
//! Retain or Delete: what the operator itself decided when it removes the backup by a rule, else the deletion policy.
//! What could not be removed in time stays in the storage, and an event and a log line say so. Nothing there can be
//! taken for a backup that is none.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;

use crate::api::backup::DeletionPolicy;
use crate::api::conditions::events;
use crate::api::storage::AccessMode;
use crate::archive::manifest::Manifest;
use crate::operator::error::OperatorError;
use crate::operator::pods::{PodState, read_runner_pod};
use crate::store::{Removal, ToldKind, explain, tell};

use super::confirm::Connected;
use super::keep::{marked_at, removal};
use super::validate::Gathered;
use super::{Reconciliation, apply, gather};

/// How long a deletion may take.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);
/// How long in a namespace that goes too: Secrets, accounts and the database may be gone already.
const PATIENCE_TERMINATING: SignedDuration = SignedDuration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(3);

/// What is left to do in the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    Remove,
}

impl Reconciliation<'_> {
    pub(super) async fn clean_up(&mut self) -> Result<Action, OperatorError> {
        let client = &self.context.client;
        if !self.has_finalizer() {
            return Ok(Action::await_change());
        }
        let patience =
            if gather::is_terminating(client, &self.who.namespace).await? { PATIENCE_TERMINATING } else { PATIENCE };
        let deleted = self.backup.metadata.deletion_timestamp.as_ref().map(|time| time.0);
        let waited = deleted.map_or(SignedDuration::ZERO, |deleted| self.at.now.duration_since(deleted));
        let over = waited > patience;

        let gathered = gather::gather_runners(client, &self.who.namespace, &self.who.uid, &self.who.run).await?;
        let running: Vec<&Pod> = gathered.runners.values().collect();
        for pod in &running {
            if pod.metadata.deletion_timestamp.is_none() {
                apply::delete_pod(client, pod).await?;
            }
        }
        if !running.is_empty() && !over {
            return Ok(Action::requeue(AGAIN));
        }
        if !over && !self.status.has_succeeded() {
            let inside = self.see_inside().await?.map(|launched| launched.state);
            let works = inside == Some(PodState::Running);
            // One that has not begun yet would find nothing that speaks against it, and may begin at any time.
            if works || matches!(inside, Some(PodState::Waiting { .. })) {
                let told = self.call_off(&gathered).await;
                if let Err(why) = &told {
                    tracing::debug!(why, "the storage cannot be told that the run is called off");
                }
                if works || told.is_err() {
                    return Ok(Action::requeue(AGAIN));
                }
            }
        }
        let left = left_to_do(self.began(), self.status.has_succeeded(), self.policy());
        let asked = left_to_do(self.began(), self.status.has_succeeded(), self.asked());
        if left == Left::Nothing && asked == Left::Remove {
            let note = "its data stays in the storage: it is pinned".to_owned();
            apply::event(self.context, self.backup, EventType::Warning, events::BACKUP_RETAINED, note).await;
        }
        if left == Left::Remove
            && let Err(why) = self.remove(&gathered).await
        {
            if !over {
                tracing::debug!(why, "the stored data cannot be removed yet");
                return Ok(Action::requeue(AGAIN));
            }
            let id = self.status.backup_id.clone().unwrap_or_default();
            let note = format!("gave up removing {id} from its storage after {} s: {why}", waited.as_secs());
            tracing::error!(id, why, "stored data was left behind");
            self.context.metrics.data_left_behind(&self.who.namespace);
            apply::event(self.context, self.backup, EventType::Warning, events::BACKUP_DATA_LEFT_BEHIND, note).await;
        }
        apply::finalizer(client, self.backup, false).await?;
        Ok(Action::await_change())
    }

    /// Removes what a failed backup left in its storage, once, while the finalizer still says that it may be there.
    /// Some: it could not be done yet.
    pub(super) async fn remove_remains(&self) -> Result<Option<Duration>, OperatorError> {
        if !self.has_finalizer() || !self.began() {
            return Ok(None);
        }
        let gathered =
            gather::gather_runners(&self.context.client, &self.who.namespace, &self.who.uid, &self.who.run).await?;
        let at_work =
            gathered.runners.values().any(|pod| !has_stopped(&read_runner_pod(pod))) || self.works_inside().await?;
        let ended = self.status.completion_time.as_ref().map(|time| time.0);
        let over = ended.is_none_or(|ended| self.at.now.duration_since(ended) > PATIENCE);
        if at_work && !over {
            return Ok(Some(AGAIN));
        }
        match self.remove(&gathered).await {
            Err(why) if !over => {
                tracing::debug!(why, "remains cannot be removed yet");
                return Ok(Some(AGAIN));
            }
            Err(why) => tracing::warn!(why, "remains of a failed backup are left in the storage"),
            Ok(()) => {}
        }
        // One that a deadline ended was still at work then, and had its last words to say.
        apply::forget_authority(&self.context.client, &self.who.namespace, &self.who.run).await?;
        Ok(None)
    }

    /// What becomes of a complete backup's data.
    fn policy(&self) -> DeletionPolicy {
        if self.backup.spec.pinned { DeletionPolicy::Retain } else { self.asked() }
    }

    /// Nobody wants a complete backup to go.
    fn may_stay(&self) -> bool {
        self.backup.metadata.deletion_timestamp.is_none() || self.policy() == DeletionPolicy::Retain
    }

    /// What whoever deletes it wants to become of the data.
    fn asked(&self) -> DeletionPolicy {
        let deleted = self.backup.metadata.deletion_timestamp.as_ref().map(|time| time.0);
        let noted = marked_at(self.backup);
        let removal = removal(self.backup).map(|removal| noted.map_or(removal, |noted| removal.noted_at(noted)));
        let decided = removal.filter(|removal| deleted.is_some_and(|deleted| !removal.is_old(deleted)));
        decided.map_or(self.backup.spec.deletion_policy, |removal| removal.data)
    }

    pub(super) fn has_finalizer(&self) -> bool {
        self.backup.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == apply::FINALIZER)
    }

    /// Something may be in the storage that is this object's. What was found there before it, is not.
    fn began(&self) -> bool {
        self.status.backup_id.is_some() && (self.backup.spec.source.is_some() || self.status.has_succeeded())
    }

    async fn remove(&self, gathered: &Gathered) -> Result<(), String> {
        let Connected { access, id, mode } = self.connect(gathered).await.map_err(|error| error.to_string())??;
        if mode == AccessMode::ReadOnly {
            let note = format!("{id} stays: its BackupStorage is ReadOnly");
            apply::event(self.context, self.backup, EventType::Normal, events::BACKUP_RETAINED, note).await;
            return Ok(());
        }
        // A status can be written by whoever may write it; what goes is decided by what the storage itself says.
        match access.read_manifest(&id).await.map(|bytes| Manifest::decode(&bytes)) {
            Ok(Ok(manifest)) if !self.is_own(&manifest) => {
                return Err(format!("{id} was made for another object, and is left alone"));
            }
            // It was complete though nobody could see that when it was called failed, or off.
            Ok(Ok(_)) if !self.status.has_succeeded() && self.may_stay() => {
                let note =
                    format!("{id} is complete in its storage after all, and stays there: spec.existing shows it");
                apply::event(self.context, self.backup, EventType::Warning, events::BACKUP_RETAINED, note).await;
                return Ok(());
            }
            _ => {}
        }
        match self.unpin(&access, &id).await {
            Err(error) if tell(&error).kind != ToldKind::NotFound => return Err(explain(&error)),
            _ => {}
        }
        match access.delete(&id).await {
            Ok(Removal::Removed) => {
                tracing::info!(%id, "removed from its storage");
                Ok(())
            }
            Ok(Removal::Retained) => {
                let note = format!("{id} can no longer be restored, but its storage keeps the objects");
                apply::event(self.context, self.backup, EventType::Normal, events::BACKUP_RETAINED, note).await;
                Ok(())
            }
            Err(error) if tell(&error).kind == ToldKind::NotFound => Ok(()),
            Err(error) if tell(&error).kind == ToldKind::Pinned => {
                // By another cluster, or by hand: this object's own pin was looked at before.
                let note = format!("{id} stays in its storage: {error}");
                apply::event(self.context, self.backup, EventType::Warning, events::BACKUP_RETAINED, note).await;
                Ok(())
            }
            Err(error) => Err(explain(&error)),
        }
    }
}

fn has_stopped(pod: &PodState) -> bool {
    matches!(pod, PodState::Exited { .. } | PodState::Killed { .. })
}

fn left_to_do(began: bool, succeeded: bool, policy: DeletionPolicy) -> Left {
    match (began, succeeded, policy) {
        // Nothing was ever written, or what was is to stay.
        (false, ..) | (true, true, DeletionPolicy::Retain) => Left::Nothing,
        // Remains are no backup: nobody asked to retain them.
        (true, true, DeletionPolicy::Delete) | (true, false, _) => Left::Remove,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_backup_is_retained() {
        assert_eq!(left_to_do(false, false, DeletionPolicy::Delete), Left::Nothing);
        assert_eq!(left_to_do(true, true, DeletionPolicy::Retain), Left::Nothing);
        assert_eq!(left_to_do(true, true, DeletionPolicy::Delete), Left::Remove);
        assert_eq!(left_to_do(true, false, DeletionPolicy::Retain), Left::Remove);
    }
}
