//! The controller of `CronBackup`: the driver. Which step comes when is here; the steps are beside it.
//!
//! ```text
//!   gather its backups ─► decide ─┬─ cancel, create, forget failed ones     (schedule.rs, validate.rs, build.rs)
//!                                 ├─ status, events                         (status.rs)
//!                                 └─ retention: some each time              (../retention)
//!   comes again: when one of its backups changes, when the next is due, when it is too late for one that waits
//! ```
//!
//! Creates and deletes objects; taking backups and removing data is the work of the controller of `MySQLBackup`. A
//! schedule has no finalizer and owns nothing: deleting it leaves its backups, and those under way.

mod apply;
mod build;
pub(crate) mod gather;
mod schedule;
mod status;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use tokio_util::sync::CancellationToken;

use crate::api::backup::DeletionPolicy;
use crate::api::conditions::{events, reasons};
use crate::api::{CronBackup, Moment, MySQLBackup};
use crate::util::clock;

use super::Context;
use super::backup::apply::{Removal, remove};
use super::drive::drive;
use super::error::OperatorError;
use super::names::{MANAGED_BY, SCHEDULE, schedule_label};
use super::retention::{Candidate, Needs, RetentionPlan, plan_retention};
use apply::Created;
use schedule::Schedule;
use validate::{Decision, Refusal, decide, read_schedule};

/// Schedules that are looked at side by side.
const CONCURRENCY: u16 = 4;
/// So many backups are removed at one look, so that a slip in the rules can be stopped, and the API server breathes.
const MOST_REMOVALS: usize = 10;
/// How soon after that.
const REMOVE_MORE: Duration = Duration::from_secs(5);
/// How soon retention looks again when something else than its own backups may have changed: the age of backups, and
/// restores.
const RULES_AGAIN: Duration = Duration::from_mins(30);

/// Runs until told to stop.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    let controller = Controller::new(context.api::<CronBackup>(), watcher::Config::default());
    let known = controller.store();
    let _ = context.caches.schedules.set(controller.store());
    // Only what schedules made: no label, no interest.
    let children = watcher::Config::default().labels(&format!("{SCHEDULE},{}={}", MANAGED_BY.0, MANAGED_BY.1));
    let controller = controller.watches(context.api::<MySQLBackup>(), children, move |backup| {
        let is_of = |cron: &Arc<CronBackup>| {
            cron.namespace() == backup.namespace()
                && backup.labels().get(SCHEDULE) == Some(&schedule_label(&cron.name_any()))
        };
        known.state().iter().filter(|cron| is_of(cron)).map(|cron| ObjectRef::from_obj(&**cron)).collect::<Vec<_>>()
    });
    drive("schedule", controller, CONCURRENCY, context, stop, look_at).await;
}

async fn look_at(cron: Arc<CronBackup>, context: Arc<Context>) -> Result<Action, OperatorError> {
    if cron.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let now = clock::now();
    let look = Look {
        context: &context,
        cron: &cron,
        children: gather::children(&context.client, &cron).await?,
        at: Moment { generation: cron.metadata.generation.unwrap_or(0), now },
    };
    look.drive().await
}

/// One look at one schedule.
struct Look<'a> {
    context: &'a Context,
    cron: &'a CronBackup,
    children: Vec<MySQLBackup>,
    at: Moment,
}

impl Look<'_> {
    async fn drive(&self) -> Result<Action, OperatorError> {
        let schedule = match read_schedule(self.cron) {
            Ok(schedule) => schedule,
            Err(refusal) => {
                self.write(Err(&refusal)).await?;
                return Ok(Action::await_change());
            }
        };
        let decision = decide(self.cron, &schedule, &self.children, self.at.now);
        if let Err(refusal) = self.act(&decision).await? {
            self.write(Err(&refusal)).await?;
            return Ok(Action::requeue(RULES_AGAIN));
        }
        self.write(Ok(&decision)).await?;
        let more = self.retain(&schedule).await?;
        Ok(Action::requeue(if more { REMOVE_MORE } else { self.again(&decision) }))
    }

    /// Cancels, creates and forgets. The inner error is the API server's refusal of the template.
    async fn act(&self, decision: &Decision) -> Result<Result<(), Refusal>, OperatorError> {
        for name in decision.cancel.iter().chain(&decision.forget) {
            let Some(backup) = self.child(name) else { continue };
            apply::delete(self.context, backup).await?;
            let cancelled = decision.cancel.contains(name);
            tracing::info!(backup = name, cancelled, "a backup was deleted");
            if cancelled {
                let note = format!("cancelled {name}, which was still under way when the next backup was due");
                self.tell((EventType::Warning, events::BACKUP_REPLACED), backup, note).await;
            }
        }
        if let Some(missed) = decision.missed {
            let note = format!("the backup of {missed} was not taken within spec.startingDeadlineSeconds");
            self.tell((EventType::Warning, events::BACKUP_MISSED), &build::backup(self.cron, missed), note).await;
        }
        let Some(due) = decision.create else { return Ok(Ok(())) };
        let backup = build::backup(self.cron, due);
        let name = backup.name_any();
        match apply::create(self.context, self.cron, &backup).await {
            Ok(Created::Now) => {
                tracing::info!(backup = name, %due, "a backup was created");
                self.tell((EventType::Normal, events::BACKUP_CREATED), &backup, format!("created {name} for {due}"))
                    .await;
            }
            Ok(Created::Before) => {}
            Ok(Created::NameTaken) => {
                let note = format!("the backup of {due} is left out: another MySQLBackup has the name {name}");
                self.tell((EventType::Warning, events::BACKUP_NAME_TAKEN), &backup, note).await;
            }
            Err(error) => {
                let Some(said) = error.refusal() else { return Err(error) };
                let message = format!("the API server refused the backup of spec.backupTemplate: {said}");
                return Ok(Err(Refusal { reason: reasons::INVALID_SPEC, message }));
            }
        }
        Ok(Ok(()))
    }

    /// Removes what no rule wants. True if there is more to remove.
    async fn retain(&self, schedule: &Schedule) -> Result<bool, OperatorError> {
        let Some(rules) = &self.cron.spec.retention else { return Ok(false) };
        let plan = |needs: &Needs| -> RetentionPlan {
            let candidates = self.children.iter().filter_map(Candidate::of).collect();
            plan_retention(rules, schedule.zone(), self.at.now, candidates, needs)
        };
        if plan(&Needs::default()).remove.is_empty() {
            return Ok(false);
        }
        // Something is to go: now it is worth asking who needs it.
        let plan = plan(&gather::needs(self.context, self.cron).await?);
        let with_data = rules.deletion_policy == DeletionPolicy::Delete;
        // Data that cannot be reached now would be left behind for good: its object is what remembers it.
        let reachable = |backup: &&MySQLBackup| {
            let namespace = backup.namespace().unwrap_or_default();
            let storage = backup.spec.storage_name().unwrap_or_default();
            !with_data || !self.context.caches.is_unusable(&namespace, storage)
        };
        let going: Vec<&MySQLBackup> =
            plan.remove.iter().filter_map(|name| self.child(name)).filter(reachable).collect();
        for backup in going.iter().take(MOST_REMOVALS) {
            let name = &backup.name_any();
            if remove(self.context, backup, rules.deletion_policy, self.at.now).await? == Removal::Begun {
                let data = if with_data { "with its data" } else { "its data stays in the storage" };
                tracing::info!(backup = name, with_data, "retention removes a backup");
                self.tell(
                    (EventType::Normal, events::BACKUP_REMOVED),
                    backup,
                    format!("removed {name}, which no rule keeps; {data}"),
                )
                .await;
            }
        }
        Ok(going.len() > MOST_REMOVALS)
    }

    async fn write(&self, decided: Result<&Decision, &Refusal>) -> Result<(), OperatorError> {
        let new = status::status(self.cron, &self.children, decided, self.at);
        apply::status(self.context, self.cron, &new).await
    }

    async fn tell(&self, what: (EventType, &str), backup: &MySQLBackup, note: String) {
        apply::event(self.context, self.cron, what, backup, note).await;
    }

    fn child(&self, name: &str) -> Option<&MySQLBackup> {
        self.children.iter().find(|backup| backup.metadata.name.as_deref() == Some(name))
    }

    /// When to look again if nothing changes until then.
    fn again(&self, decision: &Decision) -> Duration {
        let rules = self.cron.spec.retention.as_ref().map(|_| RULES_AGAIN);
        let moments = decision.next.into_iter().chain(decision.deadline.filter(|_| decision.waiting.is_some()));
        let soonest = moments.map(|moment| until(moment, self.at.now)).chain(rules).min();
        // A schedule of next year is looked at from time to time, for clocks that are set.
        soonest.unwrap_or(RULES_AGAIN).min(RULES_AGAIN * 2)
    }
}

/// The time from now until just after a moment.
fn until(moment: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(moment.duration_since(now)).unwrap_or_default() + Duration::from_millis(20)
}
