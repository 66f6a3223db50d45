//! A try that was launched: what its pod and its report mean, and what follows.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::controller::Action;

use crate::api::conditions::reasons;
use crate::api::runner::RunnerReport;
use crate::operator::error::OperatorError;
use crate::operator::names::{pod_name, report_key};
use crate::operator::pods::{PodState, read_runner_pod};
use crate::store::BackupState;

use super::confirm::Taken;
use super::status::{Failure, Seen, deadline, judge, next_try};
use super::validate::{Gathered, work};
use super::{LOOK_AGAIN, Reconciliation, apply, until};

/// How soon a try from within the database's pod is looked at again: no watch tells of that pod.
const NO_WATCH: Duration = Duration::from_secs(5);
/// How long after it should be gone a pod is waited for.
const SILENCE: SignedDuration = SignedDuration::from_secs(60);
/// What is said of a backup that took longer than it may.
pub(super) const TOO_LONG: &str = "the backup took longer than spec.activeDeadlineSeconds";

/// A try that was launched, as it is seen.
pub(super) struct Launched {
    /// How its pod or container fares.
    pub(super) state: PodState,
    /// What it reported.
    pub(super) report: Option<RunnerReport>,
}

impl Reconciliation<'_> {
    /// `None`: the pod was never made, and is still to be.
    pub(super) async fn observe(&mut self, gathered: &Gathered) -> Result<Option<Action>, OperatorError> {
        let inside = self.is_inside();
        let launched = if inside { self.see_inside().await? } else { self.see_beside(gathered) };
        let Some(Launched { state, report }) = launched else { return Ok(None) };
        let mut seen = judge(&state, report.as_ref());
        if !inside && self.is_on_a_silent_node(gathered, &seen).await {
            seen = judge(&lost("is on a node that does not answer"), None);
        }
        // What is done is judged by what the storage has, not by how late it is.
        if seen != Seen::Done
            && let Some(action) = self.end_by_deadline(gathered, &seen).await?
        {
            return Ok(Some(action));
        }
        let action = match seen {
            Seen::Waiting { reason, message } => {
                self.pending(reason, &message);
                self.write(Some(self.next_look(if inside { NO_WATCH } else { LOOK_AGAIN }))).await?
            }
            Seen::Working(progress) => {
                if let Err(error) = self.status.set_running(progress, self.at) {
                    tracing::error!(%error, "a backup that has ended was looked at");
                }
                self.write(Some(self.next_look(if inside { NO_WATCH } else { LOOK_AGAIN * 10 }))).await?
            }
            Seen::Done => self.confirm(gathered).await?,
            Seen::Failed(failure) => self.fail_or_retry(gathered, failure).await?,
        };
        Ok(Some(action))
    }

    /// How the runner's pod fares and what it reported. `None`: it was never made.
    fn see_beside(&mut self, gathered: &Gathered) -> Option<Launched> {
        let pod = self.runners_pod(gathered);
        let known = self.status.runner.as_ref().and_then(|runner| runner.pod_uid.clone());
        let state = match (pod, &known) {
            (None, None) => return None,
            (Some(pod), Some(uid)) if pod.uid().as_ref() != Some(uid) => lost("was replaced by another one"),
            (None, Some(_)) => lost("is gone"),
            (Some(pod), _) => read_runner_pod(pod),
        };
        if let (Some(pod), Some(runner)) = (pod, &mut self.status.runner) {
            runner.pod_uid = pod.uid();
            runner.node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        }
        let report = gathered.reports.get(&report_key(work::BACKUP, self.who.attempt)).cloned();
        Some(Launched { state, report })
    }

    fn runners_pod<'a>(&self, gathered: &'a Gathered) -> Option<&'a Pod> {
        gathered.runners.get(&pod_name(&self.who.run, work::BACKUP, self.who.attempt))
    }

    /// True for a pod that should be gone for a while, still looks as if it worked, and of whose run the storage knows nothing
    /// new: its node does not answer, and nobody can say when it will.
    async fn is_on_a_silent_node(&self, gathered: &Gathered, seen: &Seen) -> bool {
        let told = self.runners_pod(gathered).and_then(|pod| pod.metadata.deletion_timestamp.as_ref());
        let overdue = told.is_some_and(|gone| self.at.now.duration_since(gone.0) > SILENCE);
        if !overdue || !matches!(seen, Seen::Waiting { .. } | Seen::Working(_)) {
            return false;
        }
        matches!(self.state_in_storage(gathered).await, Ok(state) if state != Some(BackupState::Running))
    }

    /// Ends a try that takes too long, or has not begun in time.
    async fn end_by_deadline(&mut self, gathered: &Gathered, seen: &Seen) -> Result<Option<Action>, OperatorError> {
        // Whether it had begun in time is not known of one that runs by now; it has begun.
        let waits = matches!(seen, Seen::Waiting { .. }) && !self.has_run();
        let late = waits && self.starting_deadline().is_some_and(|end| end <= self.at.now);
        let (reason, message) = match (self.is_late(), late) {
            (true, _) => (reasons::ACTIVE_DEADLINE_EXCEEDED, TOO_LONG),
            (_, true) => (reasons::STARTING_DEADLINE_EXCEEDED, "no runner ran within spec.startingDeadlineSeconds"),
            _ => return Ok(None),
        };
        // First the runner: what is failed must not be written on.
        if let Some(pod) = self.runners_pod(gathered) {
            apply::delete_pod(&self.context.client, pod).await?;
        }
        if self.is_inside()
            && let Err(why) = self.call_off(gathered).await
        {
            tracing::warn!(why, "the storage cannot be told that the run is called off");
        }
        // It may have been done a moment ago.
        if matches!(self.take_from_storage(gathered).await?, Taken::Complete) {
            return self.finish(gathered).await.map(Some);
        }
        self.fail(reason, message);
        self.write(None).await.map(Some)
    }

    /// A runner of any try was seen at work.
    fn has_run(&self) -> bool {
        self.status.failed_attempts.unwrap_or(0) > 0
            || [reasons::RUNNING, reasons::CONFIRMING].contains(&self.status.reason())
    }

    /// When all tries together have had their time.
    fn active_deadline(&self) -> Option<jiff::Timestamp> {
        let started = self.status.start_time.as_ref().map(|time| time.0);
        deadline(started, self.backup.spec.active_deadline_seconds)
    }

    /// All tries together have had their time.
    pub(super) fn is_late(&self) -> bool {
        self.active_deadline().is_some_and(|end| end <= self.at.now)
    }

    /// When it is too late to begin.
    pub(super) fn starting_deadline(&self) -> Option<jiff::Timestamp> {
        let created = self.backup.metadata.creation_timestamp.as_ref().map(|time| time.0);
        deadline(created, self.backup.spec.starting_deadline_seconds)
    }

    /// Not later than the next deadline.
    pub(super) fn next_look(&self, usual: Duration) -> Duration {
        let starting = self.starting_deadline().filter(|_| !self.has_run());
        let soonest = self.active_deadline().into_iter().chain(starting).map(|end| until(end, self.at.now)).min();
        soonest.map_or(usual, |soonest| usual.min(soonest + Duration::from_millis(100)))
    }

    /// A try failed, unless the storage says otherwise: a runner may die between commit and report.
    pub(super) async fn fail_or_retry(
        &mut self,
        gathered: &Gathered,
        failure: Failure,
    ) -> Result<Action, OperatorError> {
        let taken = self.take_from_storage(gathered).await?;
        if matches!(taken, Taken::Complete) {
            return self.finish(gathered).await;
        }
        let failed = self.who.attempt;
        let Some(next) = next_try(&failure, failed, self.backup.spec.backoff_limit, self.at.now) else {
            // A runner that could not say how it ended may have been done, and there will be no other one.
            if let (Taken::Unclear(why), false, false) = (taken, failure.told, self.is_late()) {
                let message = format!("the last runner is gone without a word; the storage cannot be read yet: {why}");
                if let Err(error) = self.status.set_confirming(&message, self.at) {
                    tracing::error!(%error, "a backup that has ended was looked at");
                }
                return self.write(Some(self.next_look(LOOK_AGAIN))).await;
            }
            self.status.failed_attempts = Some(failed);
            self.fail(&failure.reason, &failure.message);
            tracing::warn!(attempt = failed, reason = failure.reason, "the backup failed: {}", failure.message);
            let action = self.write(None).await?;
            apply::forget_authority(&self.context.client, &self.who.namespace, &self.who.run).await?;
            return Ok(action);
        };
        if let Err(error) = self.status.set_retrying(&failure.reason, &failure.message, next, self.at) {
            tracing::error!(%error, "a backup that has ended was looked at");
        }
        tracing::warn!(attempt = failed, reason = failure.reason, "a try failed: {}", failure.message);
        self.write(Some(self.next_look(until(next, self.at.now)))).await
    }
}

pub(super) fn lost(how: &str) -> PodState {
    PodState::Killed { reason: reasons::RUNNER_LOST, message: format!("the runner's pod {how}") }
}
