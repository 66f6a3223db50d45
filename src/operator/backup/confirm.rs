//! What the storage itself says of a backup. Success is said here and nowhere else.

use jiff::SignedDuration;
use kube::runtime::controller::Action;

use crate::api::conditions::reasons;
use crate::api::storage::AccessMode;
use crate::archive::id::BackupId;
use crate::archive::manifest::Manifest;
use crate::operator::error::OperatorError;
use crate::operator::store_access::Access;
use crate::store::{BackupState, explain};

use super::status::{Failure, outcome};
use super::validate::{Gathered, store_refusal};
use super::{LOOK_AGAIN, Reconciliation, apply, gather};

/// How long after its end a backup is looked at for what its runners left.
const FRESH: SignedDuration = SignedDuration::from_hours(24);

/// What was found under an id.
pub(super) enum Found {
    /// A manifest that can be read and is of that id.
    Complete(Box<Manifest>),
    /// None, or one that is no good: this will not change by waiting.
    Nothing(String),
    /// It could not be seen.
    Unclear(String),
}

/// What the storage had of a try that seems to have failed.
pub(super) enum Taken {
    /// It is complete, and the status says so.
    Complete,
    /// There is no backup.
    Nothing,
    /// It could not be seen.
    Unclear(String),
}

/// A way into the storage.
pub(super) struct Connected {
    /// The way.
    pub(super) access: Access,
    /// The backup that is meant.
    pub(super) id: BackupId,
    /// What the storage may be used for.
    pub(super) mode: AccessMode,
}

impl Reconciliation<'_> {
    /// The runner says that it is done. If the storage says so too, it is.
    pub(super) async fn confirm(&mut self, gathered: &Gathered) -> Result<Action, OperatorError> {
        match self.find(gathered).await? {
            (Found::Complete(manifest), destination) => {
                self.succeed(&manifest, destination);
                self.finish(gathered).await
            }
            (Found::Nothing(why), _) => {
                let failure = Failure::passing("IncompleteBackup", format!("the runner ended, but {why}"));
                self.fail_or_retry_unseen(failure).await
            }
            (Found::Unclear(why), _) => {
                let message = format!("the runner is done; the storage cannot be read yet: {why}");
                if let Err(error) = self.status.set_confirming(&message, self.at) {
                    tracing::error!(%error, "a backup that has ended was looked at");
                }
                self.write(Some(LOOK_AGAIN / 2)).await
            }
        }
    }

    /// As `fail_or_retry`, after the storage was looked at.
    async fn fail_or_retry_unseen(&mut self, failure: Failure) -> Result<Action, OperatorError> {
        // Nothing gathered, so nothing to look at again.
        Box::pin(self.fail_or_retry(&Gathered::default(), failure)).await
    }

    /// Takes a backup for what it is if the storage has it complete, whatever became of its runner.
    pub(super) async fn take_from_storage(&mut self, gathered: &Gathered) -> Result<Taken, OperatorError> {
        if gathered.runners.is_empty() && gathered.reports.is_empty() && !self.is_inside() {
            return Ok(Taken::Nothing);
        }
        match self.find(gathered).await? {
            (Found::Complete(manifest), destination) => {
                self.succeed(&manifest, destination);
                Ok(Taken::Complete)
            }
            (Found::Nothing(_), _) => Ok(Taken::Nothing),
            (Found::Unclear(why), _) => {
                tracing::warn!(why, "a failed try could not be looked for in the storage");
                Ok(Taken::Unclear(why))
            }
        }
    }

    fn succeed(&mut self, manifest: &Manifest, destination: String) {
        if let Err(error) = self.status.set_succeeded(outcome(manifest, destination), self.at) {
            tracing::error!(%error, "a backup that has ended was looked at");
        }
    }

    /// After success: the status, then the pods, which nobody needs to look into.
    pub(super) async fn finish(&mut self, gathered: &Gathered) -> Result<Action, OperatorError> {
        let action = self.write(None).await?;
        tracing::info!(id = self.status.backup_id, "the backup is complete");
        self.leave_none_of(gathered).await?;
        Ok(action)
    }

    /// It succeeded not long ago: what its runners left may still be there.
    pub(super) fn is_fresh(&self) -> bool {
        let ended = self.status.completion_time.as_ref().map(|time| time.0);
        let own = self.status.has_succeeded() && self.backup.spec.existing.is_none();
        own && ended.is_some_and(|ended| self.at.now.duration_since(ended) < FRESH)
    }

    /// Removes the pods of a backup that succeeded, and what they were given, where that is still there.
    pub(super) async fn leave_nothing(&self) -> Result<(), OperatorError> {
        let (client, who) = (&self.context.client, &self.who);
        let gathered = gather::gather_runners(client, &who.namespace, &who.uid, &who.run).await?;
        if gathered.runners.is_empty() && gathered.reports.is_empty() {
            return Ok(());
        }
        self.leave_none_of(&gathered).await
    }

    async fn leave_none_of(&self, gathered: &Gathered) -> Result<(), OperatorError> {
        for pod in gathered.runners.values() {
            apply::delete_pod(&self.context.client, pod).await?;
        }
        apply::forget_authority(&self.context.client, &self.who.namespace, &self.who.run).await
    }

    /// `spec.existing`: nothing runs, the storage is read.
    pub(super) async fn import(&mut self) -> Result<Action, OperatorError> {
        let existing = self.backup.spec.existing.as_ref();
        self.status.backup_id = existing.map(|existing| existing.backup_id.clone());
        self.status.storage_name = self.backup.spec.storage_name().map(str::to_owned);
        match self.find(&Gathered::default()).await? {
            (Found::Complete(manifest), destination) => {
                if let Some(action) = self.take_marks_from_storage().await? {
                    return Ok(action);
                }
                if let Err(error) = self.status.set_imported(outcome(&manifest, destination), self.at) {
                    tracing::error!(%error, "a backup that has ended was looked at");
                }
                self.write(None).await
            }
            (Found::Nothing(why), _) => {
                self.pending("NotFound", &why);
                self.write(Some(LOOK_AGAIN * 4)).await
            }
            (Found::Unclear(why), _) => {
                self.pending(reasons::STORAGE_NOT_READY, &why);
                self.write(Some(LOOK_AGAIN)).await
            }
        }
    }

    /// Reads the manifest of the status' id. The second part is the storage's URL.
    async fn find(&self, gathered: &Gathered) -> Result<(Found, String), OperatorError> {
        let Connected { access, id, .. } = match self.connect(gathered).await? {
            Ok(connected) => connected,
            Err(why) => return Ok((Found::Unclear(why), String::new())),
        };
        let shown = access.shown().to_owned();
        let found = match access.read_manifest(&id).await {
            Ok(bytes) => match Manifest::decode(&bytes) {
                Ok(manifest) if manifest.id == id && self.is_own(&manifest) => Found::Complete(Box::new(manifest)),
                Ok(manifest) if manifest.id == id => Found::Nothing(format!("{id} was made for another object")),
                Ok(manifest) => Found::Nothing(format!("the manifest of {id} says that it is of {}", manifest.id)),
                Err(error) => Found::Nothing(error.to_string()),
            },
            Err(error) if error.is_nothing() => Found::Nothing(explain(&error)),
            Err(error) => Found::Unclear(explain(&error)),
        };
        Ok((found, shown))
    }

    /// An imported backup is anybody's; one that was taken here must say so.
    pub(super) fn is_own(&self, manifest: &Manifest) -> bool {
        self.backup.spec.existing.is_some() || manifest.origin.uid.as_deref() == Some(&self.who.uid)
    }

    /// What is there of the status' id. The error is for people.
    pub(super) async fn state_in_storage(&self, gathered: &Gathered) -> Result<Option<BackupState>, String> {
        let Connected { access, id, .. } = self.connect(gathered).await.map_err(|error| error.to_string())??;
        access.state(&id).await.map_err(|error| explain(&error))
    }

    /// A way into the storage, and the id that is meant. The inner error is for people.
    pub(super) async fn connect(&self, gathered: &Gathered) -> Result<Result<Connected, String>, OperatorError> {
        let spec = &self.backup.spec;
        let name = spec.storage_name().unwrap_or_default();
        let mut gathered = Gathered { secrets: gathered.secrets.clone(), ..Gathered::default() };
        gather::gather_storage(&self.context.client, &self.who.namespace, spec, &mut gathered).await?;
        let Some(storage) = &gathered.storage else {
            return Ok(Err(format!("there is no BackupStorage {name} in this namespace")));
        };
        let existing = spec.existing.as_ref().map(|existing| existing.backup_id.as_str());
        let id = existing.or(self.status.backup_id.as_deref()).unwrap_or_default().parse::<BackupId>();
        let id = match id {
            Ok(id) => id,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let mode = storage.spec.access_mode;
        Ok(match Access::open(self.context, &self.who, storage, &gathered.secrets).await {
            Ok(access) => Ok(Connected { access, id, mode }),
            Err(refusal) => Err(store_refusal(name, &refusal).message),
        })
    }
}
