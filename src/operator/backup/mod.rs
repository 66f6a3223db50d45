//! The controller of `MySQLBackup`: the driver. Which step comes when is here; the steps are beside it.
//!
//! ```text
//!   deleted?  ─► cleanup: runners stopped, remains removed, finalizer off
//!   ended?    ─► settle: the finalizer follows the deletion policy; keep: pin and expiry
//!   existing? ─► the storage is read, nothing runs
//!   held back?   (suspended, between two tries) ─► said, and nothing is asked of the cluster
//!   launched? ─► observe ─► running · confirm in the storage · retry · fail
//!   else      ─► validate ─► survey, look, or launch the runner
//! ```
//!
//! A try is launched in an order that a crash at any point leaves harmless: finalizer, authority, status (with id and
//! number of the try), pod. All tries of an object have one backup id, and the storage lets one of them commit.

pub(crate) mod apply;
mod build;
mod cleanup;
mod confirm;
pub(crate) mod gather;
mod inside;
mod keep;
mod launch;
mod observe;
pub(crate) mod status;
pub(crate) mod validate;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::api::backup::DeletionPolicy;
use crate::api::{BackupStorage, Moment, MySQLBackup, MySQLBackupStatus};
use crate::util::clock;

use super::Context;
use super::drive::drive;
use super::error::OperatorError;
use super::names::{MANAGED_BY, OWNER_KIND, SCHEDULE, run_name};
use super::runners::Identity;
use build::KIND;
use keep::{removal, withdrawn};

/// Backups that are looked at side by side. A look is mostly waiting for the API server, and touches what is its own
/// backup's; those of a great many new ones must not hold up one that has work to do.
const CONCURRENCY: u16 = 32;
/// How soon something is looked at again that no watch tells of: a Secret, a pod of the source.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Runs until told to stop.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    let own = watcher::Config::default().labels(&format!("{}={},{OWNER_KIND}={KIND}", MANAGED_BY.0, MANAGED_BY.1));
    let controller = Controller::new(context.api::<MySQLBackup>(), watcher::Config::default());
    let known = controller.store();
    // Once in a process: there is one turn.
    let _ = context.caches.backups.set(controller.store());
    let controller = controller.owns(context.api::<Pod>(), own.clone()).owns(context.api::<ConfigMap>(), own).watches(
        context.api::<BackupStorage>(),
        watcher::Config::default(),
        move |storage| {
            let waits = |backup: &Arc<MySQLBackup>| {
                let ended = backup.status.as_ref().is_some_and(MySQLBackupStatus::has_ended);
                !ended
                    && backup.namespace() == storage.namespace()
                    && backup.spec.storage_name() == storage.metadata.name.as_deref()
            };
            known
                .state()
                .iter()
                .filter(|backup| waits(backup))
                .map(|backup| ObjectRef::from_obj(&**backup))
                .collect::<Vec<_>>()
        },
    );
    drive("backup", controller, CONCURRENCY, context, stop, look_at).await;
}

async fn look_at(backup: Arc<MySQLBackup>, context: Arc<Context>) -> Result<Action, OperatorError> {
    match Reconciliation::new(&context, &backup, clock::now()) {
        Some(mut this) => Box::pin(this.drive()).await,
        None => Ok(Action::await_change()),
    }
}

/// One look at one backup.
struct Reconciliation<'a> {
    context: &'a Context,
    backup: &'a MySQLBackup,
    /// The status as it will be written.
    status: MySQLBackupStatus,
    who: Identity,
    at: Moment,
}

impl<'a> Reconciliation<'a> {
    /// `None` for an object that the API server has not finished: it comes again.
    fn new(context: &'a Context, backup: &'a MySQLBackup, now: Timestamp) -> Option<Self> {
        let uid = backup.uid()?;
        let status = backup.status.clone().unwrap_or_default();
        let who = Identity {
            namespace: backup.namespace()?,
            run: run_name(&backup.name_any(), &uid),
            attempt: status.failed_attempts.unwrap_or(0).saturating_add(1),
            owner: backup.controller_owner_ref(&())?,
            image: context.options.image.clone(),
            log: context.options.runner_log.clone(),
            kind: KIND,
            uid,
        };
        let at = Moment { generation: backup.metadata.generation.unwrap_or(0), now };
        Some(Self { context, backup, status, who, at })
    }

    async fn drive(&mut self) -> Result<Action, OperatorError> {
        if self.backup.metadata.deletion_timestamp.is_some() {
            return self.clean_up().await;
        }
        if self.status.has_ended() {
            return self.settle().await;
        }
        if self.backup.spec.existing.is_some() {
            return self.import().await;
        }
        let launched = self.is_launched();
        if !launched && let Some(action) = self.hold_back().await? {
            return Ok(action);
        }
        let gathered =
            gather::gather_runners(&self.context.client, &self.who.namespace, &self.who.uid, &self.who.run).await?;
        if launched {
            if let Some(action) = self.observe(&gathered).await? {
                return Ok(action);
            }
            if let Some(action) = self.hold_back().await? {
                return Ok(action);
            }
        }
        self.launch(gathered).await
    }

    /// A runner of this try was made, or is about to be.
    fn is_launched(&self) -> bool {
        self.status.runner.as_ref().is_some_and(|runner| runner.attempt == self.who.attempt)
    }

    /// After the end: remains of a failure go, and the finalizer follows the deletion policy.
    async fn settle(&mut self) -> Result<Action, OperatorError> {
        if !self.status.has_succeeded()
            && let Some(again) = self.remove_remains().await?
        {
            return Ok(Action::requeue(again));
        }
        if self.is_fresh() && self.has_finalizer() {
            // The end of the operator, or of its patience, may have come between the success and this.
            self.leave_nothing().await?;
        }
        let going = match removal(self.backup) {
            Some(removal) if removal.is_old(self.at.now) => {
                // It was called off: somebody changed the object in the last moment.
                apply::change(&self.context.client, self.backup, withdrawn()).await?;
                return Ok(Action::await_change());
            }
            removal => removal.is_some(),
        };
        let policy = self.backup.spec.deletion_policy;
        let wanted = going || (self.status.has_succeeded() && policy == DeletionPolicy::Delete);
        if apply::finalizer(&self.context.client, self.backup, wanted).await? {
            // Comes again with the new version of the object.
            return Ok(Action::await_change());
        }
        self.keep().await
    }

    /// Writes the status and comes back after a while, or when something changes.
    async fn write(&self, again: Option<Duration>) -> Result<Action, OperatorError> {
        apply::status(self.context, self.backup, &self.status).await?;
        Ok(again.map_or_else(Action::await_change, Action::requeue))
    }

    fn pending(&mut self, reason: &str, message: &str) {
        // Whoever calls has seen that the backup has not ended.
        if let Err(error) = self.status.set_pending(reason, message, self.at) {
            tracing::error!(%error, reason, "a backup that has ended was looked at");
        }
    }

    fn fail(&mut self, reason: &str, message: &str) {
        if let Err(error) = self.status.set_failed(reason, message, self.at) {
            tracing::error!(%error, reason, "a backup that has ended was looked at");
        }
    }

    fn schedule(&self) -> Option<&str> {
        self.backup.labels().get(SCHEDULE).map(String::as_str)
    }
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod calls_tests;

/// The time from now until a moment; nothing if it has passed.
fn until(moment: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(moment.duration_since(now)).unwrap_or_default()
}
