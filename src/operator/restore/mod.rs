//! The controller of `MySQLRestore`: the driver. Which step comes when is here; the steps are beside it.
//!
//! ```text
//!   deleted?     ─► cleanup: runners stopped, staging claims gone, finalizer off
//!   ended?       ─► cleanup: whatever is left
//!   data source? ─► every claim that names it, one step further each; Ready
//!   begun?       ─► its claims, one step further each; Succeeded once all are complete
//!   else         ─► slots, validate: are target and source as they must be? ─► begun
//! ```
//!
//! A claim goes from step to step by what the cluster shows (`fill`, `handover`), so that neither a crash nor a second
//! operator makes anything twice.

mod apply;
mod build;
mod cleanup;
mod fill;
mod gather;
mod handover;
mod slots;
mod source;
mod status;
mod validate;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::api::conditions::reasons;
use crate::api::restore_status::{ClaimState, ClaimStatus};
use crate::api::{BackupStorage, Moment, MySQLBackup, MySQLRestore, MySQLRestoreStatus};
use crate::util::clock;

use super::Context;
use super::backup::status::deadline;
use super::drive::drive;
use super::error::OperatorError;
use super::names::{MANAGED_BY, OWNER_KIND, run_name};
use super::runners::Identity;
use build::{KIND, RESTORED_BY};
use fill::Stage;
use gather::World;
use slots::{Slot, Start, may_start, source_of, stateful_set_in_the_way, wanted};
use validate::{Refusal, Source};

/// Restores that are looked at side by side.
const CONCURRENCY: u16 = 8;
/// How soon something is looked at again that no watch tells of: a Secret, a StorageClass, a pod that uses a claim.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// How soon a claim is looked at whose volume is being handed over: no watch tells of volumes.
const SOON: Duration = Duration::from_secs(1);
/// How soon runners are looked at that watches tell of.
const SELDOM: Duration = Duration::from_mins(5);

/// Runs until told to stop.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    let own = watcher::Config::default().labels(&format!("{}={},{OWNER_KIND}={KIND}", MANAGED_BY.0, MANAGED_BY.1));
    let controller = Controller::new(context.api::<MySQLRestore>(), watcher::Config::default());
    let (of_claims, of_backups, of_storages) = (controller.store(), controller.store(), controller.store());
    let controller = controller
        .owns(context.api::<Pod>(), own.clone())
        .owns(context.api::<ConfigMap>(), own.clone())
        .owns(context.api::<PersistentVolumeClaim>(), own)
        .watches(context.api::<PersistentVolumeClaim>(), watcher::Config::default(), move |claim| {
            let namespace = claim.namespace().unwrap_or_default();
            let by = claim.annotations().get(RESTORED_BY);
            restores(&of_claims, |restore| {
                restore.namespace().as_deref() == Some(&namespace)
                    && (source_of(&claim, &namespace) == restore.metadata.name.as_deref()
                        || by.is_some() && by == restore.metadata.uid.as_ref()
                        || is_target(restore, &claim.name_any()))
            })
        })
        .watches(context.api::<MySQLBackup>(), watcher::Config::default(), move |backup| {
            restores(&of_backups, |restore| {
                let named = restore.spec.source.backup_ref.as_ref().map(|reference| &reference.name);
                restore.namespace() == backup.namespace() && named == backup.metadata.name.as_ref()
            })
        })
        .watches(context.api::<BackupStorage>(), watcher::Config::default(), move |storage| {
            restores(&of_storages, |restore| {
                let named = restore.spec.source.storage.as_ref().map(|existing| &existing.storage_ref.name);
                let known = restore.status.as_ref().and_then(|status| status.storage_name.as_ref());
                restore.namespace() == storage.namespace() && named.or(known) == storage.metadata.name.as_ref()
            })
        });
    drive("restore", controller, CONCURRENCY, context, stop, look_at).await;
}

/// Those that have not ended and that something is about.
fn restores(known: &Store<MySQLRestore>, about: impl Fn(&MySQLRestore) -> bool) -> Vec<ObjectRef<MySQLRestore>> {
    let open = |restore: &MySQLRestore| !restore.status.as_ref().is_some_and(MySQLRestoreStatus::has_ended);
    let state = known.state();
    state.iter().filter(|one| open(one) && about(one)).map(|one| ObjectRef::from_obj(&**one)).collect()
}

fn is_target(restore: &MySQLRestore, claim: &str) -> bool {
    restore.spec.target.existing_claim.as_ref().is_some_and(|existing| existing.name == claim)
}

async fn look_at(restore: Arc<MySQLRestore>, context: Arc<Context>) -> Result<Action, OperatorError> {
    match Reconciliation::new(&context, &restore, clock::now()) {
        Some(mut this) => Box::pin(this.drive()).await,
        None => Ok(Action::await_change()),
    }
}

/// One look at one restore.
struct Reconciliation<'a> {
    context: &'a Context,
    restore: &'a MySQLRestore,
    /// The status as it will be written.
    status: MySQLRestoreStatus,
    who: Identity,
    at: Moment,
}

impl<'a> Reconciliation<'a> {
    /// `None` for an object that the API server has not finished: it comes again.
    fn new(context: &'a Context, restore: &'a MySQLRestore, now: Timestamp) -> Option<Self> {
        let uid = restore.uid()?;
        let who = Identity {
            namespace: restore.namespace()?,
            run: run_name(&restore.name_any(), &uid),
            // Each claim has tries of its own.
            attempt: 1,
            owner: restore.controller_owner_ref(&())?,
            image: context.options.image.clone(),
            log: context.options.runner_log.clone(),
            kind: KIND,
            uid,
        };
        let at = Moment { generation: restore.metadata.generation.unwrap_or(0), now };
        Some(Self { context, restore, status: restore.status.clone().unwrap_or_default(), who, at })
    }

    async fn drive(&mut self) -> Result<Action, OperatorError> {
        if self.restore.metadata.deletion_timestamp.is_some() {
            return self.clean_up().await;
        }
        if self.status.has_ended() {
            return self.settle().await;
        }
        let mut world = World::of(&self.context.client, &self.who).await?;
        let target = &self.restore.spec.target;
        let slots = wanted(target, &self.restore.name_any(), &self.who.namespace, &world.claims);
        let slots: Vec<(Slot, ClaimStatus)> = slots
            .into_iter()
            .map(|slot| {
                let known = slot.known(&self.status.claims);
                (slot, known)
            })
            .collect();
        world.look_at(&self.context.client, &self.who, &slots).await?;
        if target.data_source.is_some() {
            self.serve(&world, slots).await
        } else if self.status.start_time.is_none() {
            Box::pin(self.open(world, &slots)).await
        } else {
            self.go_on(&world, slots).await
        }
    }

    /// A restore that runs once, before its first runner: everything that can be seen to be wrong is said now.
    async fn open(&mut self, mut world: World, slots: &[(Slot, ClaimStatus)]) -> Result<Action, OperatorError> {
        let client = &self.context.client;
        if self.restore.spec.suspend {
            return self.wait(reasons::SUSPENDED, "held back by spec.suspend: set it to false to go on").await;
        }
        if let Some(cluster) = &self.restore.spec.target.new_cluster {
            world.read_stateful_set(client, &self.who.namespace, &cluster.stateful_set_name).await?;
        }
        if let Some(why) = stateful_set_in_the_way(&self.restore.spec.target, &world) {
            return self.fail(reasons::TARGET_EXISTS, &why).await;
        }
        for (slot, _) in slots {
            match may_start(slot, &world, &self.who.uid) {
                Start::Never { reason, message } => return self.fail(reason, &message).await,
                Start::Wait { reason, message } => return self.wait(reason, &message).await,
                Start::Go | Start::Done => {}
            }
        }
        let backup = match self.find_backup().await? {
            Ok((_, backup)) => backup,
            Err(refusal) => return self.wait(&refusal.reason, &refusal.message).await,
        };
        if apply::finalizer(client, self.restore, true).await? {
            // Comes again with the new version of the object.
            return Ok(Action::await_change());
        }
        if let Err(error) = self.status.set_started(backup, self.at) {
            tracing::error!(%error, "a restore that has ended was looked at");
        }
        self.write().await?;
        Ok(Action::requeue(SOON))
    }

    /// A restore that runs once and has begun.
    async fn go_on(&mut self, world: &World, slots: Vec<(Slot, ClaimStatus)>) -> Result<Action, OperatorError> {
        let started = self.status.start_time.as_ref().map(|time| time.0);
        let end = deadline(started, self.restore.spec.active_deadline_seconds);
        if end.is_some_and(|end| end <= self.at.now) {
            self.status.claims = status::given_up(slots.into_iter().map(|(_, known)| known).collect());
            let message = "the restore took longer than spec.activeDeadlineSeconds; its runners are stopped";
            return self.fail(reasons::ACTIVE_DEADLINE_EXCEEDED, message).await;
        }
        let needs_source = slots.iter().any(|(_, known)| wants_source(known));
        let source = if needs_source { self.find_backup().await?.map(|(source, _)| source) } else { not_needed() };
        let (claims, progress) = self.advance_all(world, slots, source.as_ref()).await?;
        if let Some((reason, message)) = status::failed(&claims) {
            self.status.claims = status::given_up(claims);
            return self.fail(&reason, &message).await;
        }
        if claims.iter().all(|claim| claim.state == ClaimState::Ready) {
            if let Err(error) = self.status.set_succeeded(claims, self.at) {
                tracing::error!(%error, "a restore that has ended was looked at");
            }
            self.write().await?;
            tracing::info!(id = self.status.backup_id, "the restore is complete");
            return Ok(Action::requeue(SOON));
        }
        let again = self.next_look(&claims, end);
        let (reason, message) = status::summary(&claims);
        if let Err(error) = self.status.set_claims(claims, progress, (&reason, &message), self.at) {
            tracing::error!(%error, "a restore that has ended was looked at");
        }
        self.write_unless_progress(again).await
    }

    /// A data source: claims come and go, and each is filled.
    async fn serve(&mut self, world: &World, slots: Vec<(Slot, ClaimStatus)>) -> Result<Action, OperatorError> {
        let source = self.find_backup().await?;
        let busy = slots.iter().any(|(slot, known)| {
            known.state != ClaimState::Ready
                && known.state != ClaimState::Failed
                && (known.attempt > 0 || may_start(slot, world, &self.who.uid) == Start::Go)
        });
        if source.is_ok() && busy && apply::finalizer(&self.context.client, self.restore, true).await? {
            return Ok(Action::await_change());
        }
        let source = source.map(|(source, backup)| {
            self.status.take_backup(backup);
            source
        });
        let keep: BTreeSet<String> = slots
            .iter()
            .filter(|(_, known)| !matches!(known.state, ClaimState::Ready | ClaimState::Failed))
            .map(|(slot, _)| slot.key.clone())
            .collect();
        let clean = self.sweep(world, &keep).await?;
        let (claims, progress) = self.advance_all(world, slots, source.as_ref()).await?;
        let again = self.next_look(&claims, None);
        let again = if clean { again } else { again.min(SOON * 2) };
        let empty = claims.iter().find(|claim| claim.reason.as_deref() == Some(reasons::PROVISIONED_EMPTY));
        let ready = match (&source, empty) {
            (Err(refusal), _) => Err((refusal.reason.clone(), refusal.message.clone())),
            (Ok(_), Some(claim)) => {
                Err((reasons::PROVISIONED_EMPTY.to_owned(), claim.message.clone().unwrap_or_default()))
            }
            (Ok(_), None) if self.restore.spec.suspend => {
                Err((reasons::SUSPENDED.to_owned(), "held back by spec.suspend: set it to false to go on".to_owned()))
            }
            (Ok(_), None) => Ok(()),
        };
        let ready = match &ready {
            Ok(()) => Ok(()),
            Err((reason, message)) => Err((reason.as_str(), message.as_str())),
        };
        self.status.set_serving(ready, claims, progress, self.at);
        let action = self.write_unless_progress(again).await?;
        if clean && !busy && self.has_finalizer() && self.restore.status.as_ref() == Some(&self.status) {
            super::backup::apply::forget_authority(&self.context.client, &self.who.namespace, &self.who.run).await?;
            apply::finalizer(&self.context.client, self.restore, false).await?;
        }
        Ok(action)
    }

    async fn advance_all(
        &mut self,
        world: &World,
        slots: Vec<(Slot, ClaimStatus)>,
        source: Result<&Source, &Refusal>,
    ) -> Result<(Vec<ClaimStatus>, Option<crate::api::common::Progress>), OperatorError> {
        let mut stage = Stage { world, source, progress: Vec::new() };
        let mut claims = Vec::with_capacity(slots.len());
        for (slot, known) in slots {
            claims.push(self.advance(&slot, known, &mut stage).await?);
        }
        Ok((claims, status::sum(&stage.progress)))
    }

    /// When to look again if nothing tells of a change before.
    fn next_look(&self, claims: &[ClaimStatus], end: Option<Timestamp>) -> Duration {
        let until = |moment: Timestamp| Duration::try_from(moment.duration_since(self.at.now)).unwrap_or_default();
        let of_claim = |claim: &ClaimStatus| match claim.state {
            ClaimState::Ready | ClaimState::Failed => SELDOM,
            ClaimState::HandingOver => SOON,
            ClaimState::Filling if claim.pod_uid.is_none() && claim.reason.is_none() => SOON,
            ClaimState::Filling if claim.reason.is_none() => SELDOM,
            ClaimState::Filling | ClaimState::Pending => {
                claim.next_attempt_time.as_ref().map_or(LOOK_AGAIN, |next| until(next.0).min(LOOK_AGAIN).max(SOON))
            }
        };
        let soonest = claims.iter().map(of_claim).min().unwrap_or(SELDOM);
        let of_source = claims.iter().filter(|claim| claim.claim_uid.is_some() && claim.state == ClaimState::Filling);
        let ends = of_source.filter_map(|claim| {
            deadline(claim.start_time.as_ref().map(|time| time.0), self.restore.spec.active_deadline_seconds)
        });
        let ends = ends.chain(end).map(|end| until(end) + Duration::from_millis(100));
        ends.fold(soonest, Duration::min)
    }

    async fn wait(&mut self, reason: &str, message: &str) -> Result<Action, OperatorError> {
        if let Err(error) = self.status.set_pending(reason, message, self.at) {
            tracing::error!(%error, reason, "a restore that has ended was looked at");
        }
        self.write().await?;
        Ok(Action::requeue(LOOK_AGAIN))
    }

    async fn fail(&mut self, reason: &str, message: &str) -> Result<Action, OperatorError> {
        if let Err(error) = self.status.set_failed(reason, message, self.at) {
            tracing::error!(%error, reason, "a restore that has ended was looked at");
        }
        self.write().await?;
        tracing::warn!(reason, "the restore failed: {message}");
        Ok(Action::requeue(SOON))
    }

    async fn write(&self) -> Result<(), OperatorError> {
        apply::status(self.context, self.restore, &self.status).await
    }

    /// Writes the status, but for progress alone only now and then.
    async fn write_unless_progress(&self, again: Duration) -> Result<Action, OperatorError> {
        let old = self.restore.status.clone().unwrap_or_default();
        if status::differs_in_progress_only(&old, &self.status)
            && let Some(left) = status::until_progress(apply::last_written(self.restore), self.at.now)
        {
            return Ok(Action::requeue(left.min(again)));
        }
        self.write().await?;
        Ok(Action::requeue(again))
    }
}

/// A runner's pod may have to be made for it.
fn wants_source(known: &ClaimStatus) -> bool {
    known.state == ClaimState::Pending || known.state == ClaimState::Filling && known.pod_uid.is_none()
}

fn not_needed() -> Result<Source, Refusal> {
    Err(Refusal::new(reasons::RUNNING, "the backup is not looked at while runners read it"))
}
