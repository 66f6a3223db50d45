//! Begins a try, or asks first what must be known for it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, EphemeralContainer, Pod};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use serde_json::json;

use crate::api::backup_status::SourceStatus;
use crate::api::common::RunnerStatus;
use crate::api::conditions::reasons;
use crate::api::source::BackupSource;
use crate::operator::error::{During, OperatorError};
use crate::operator::names::{backup_id, pod_name, report_key};
use crate::operator::pods::{PodState, read_runner_pod};
use crate::operator::runners;
use crate::store::BackupState;

use super::observe::TOO_LONG;
use super::validate::{BackupPlan, Gathered, Refusal, Step, next_step, work};
use super::{LOOK_AGAIN, Reconciliation, apply, build, gather, inside, keep, until};

/// The longest time until one that waits is looked at again.
const LONGEST_WAIT: Duration = LOOK_AGAIN.saturating_mul(10);
/// The longest time that the answer of one helper waits for that of another.
const LONGEST_HELP: Duration = Duration::from_mins(10);
/// More ids than tries that a backup can have.
const TURNS: u32 = 32;

impl Reconciliation<'_> {
    pub(super) async fn launch(&mut self, mut gathered: Gathered) -> Result<Action, OperatorError> {
        if self.has_old_answers(&gathered) {
            self.forget_helpers(&gathered).await?;
            // Comes again when the pod is gone.
            return Ok(Action::requeue(LOOK_AGAIN / 10));
        }
        let (client, spec) = (&self.context.client, &self.backup.spec);
        gather::gather_storage(client, &self.who.namespace, spec, &mut gathered).await?;
        gather::gather_source(client, &self.who.namespace, spec, &mut gathered).await?;
        let step = next_step(spec, &gathered, self.who.attempt);
        match (step, &spec.source) {
            (Ok(Step::Survey(servers)), Some(source)) => {
                let pod = build::survey_pod(&self.who, &spec.runner, source, servers);
                self.help(&gathered, work::SURVEY, &pod, "the servers are asked who they are").await
            }
            (Ok(Step::Look(database)), Some(source)) => {
                let pod = build::look_pod(&self.who, &spec.runner, source, &database);
                self.help(&gathered, work::LOOK, &pod, "the owner of the data directory is looked up").await
            }
            (Ok(Step::Run(plan)), Some(source)) => self.start(&gathered, source, &plan).await,
            (Err(refusal), _) => self.refuse(&gathered, refusal).await,
            (Ok(_), None) => Ok(Action::await_change()),
        }
    }

    /// What speaks against beginning now. Asks nothing of the cluster, so that thousands that are held back cost nothing.
    pub(super) async fn hold_back(&mut self) -> Result<Option<Action>, OperatorError> {
        let first = self.who.attempt == 1;
        if self.is_late() {
            // Between two tries, or while no runner can be made: there is none to stop.
            self.fail(reasons::ACTIVE_DEADLINE_EXCEEDED, TOO_LONG);
            return self.write(None).await.map(Some);
        }
        if first && !self.is_launched() && keep::is_over(&self.backup.spec, self.at.now) {
            // An old manifest that is applied again must not take a backup only to remove it.
            self.fail(reasons::EXPIRED, "never started: its spec.expirationTime has passed");
            return self.write(None).await.map(Some);
        }
        if first && self.starting_deadline().is_some_and(|end| end <= self.at.now) {
            self.fail(reasons::STARTING_DEADLINE_EXCEEDED, "no runner ran within spec.startingDeadlineSeconds");
            return self.write(None).await.map(Some);
        }
        if self.backup.spec.suspend && !self.is_launched() {
            self.pending(reasons::SUSPENDED, "held back by spec.suspend: set it to false to go on");
            let again = self.starting_deadline().filter(|_| first).map(|end| until(end, self.at.now));
            return self.write(again).await.map(Some);
        }
        match self.status.next_attempt_time.as_ref().map(|time| time.0) {
            Some(next) if next > self.at.now => Ok(Some(Action::requeue(self.next_look(until(next, self.at.now))))),
            _ => Ok(None),
        }
    }

    async fn refuse(&mut self, gathered: &Gathered, refusal: Refusal) -> Result<Action, OperatorError> {
        if refusal.for_good {
            self.forget_helpers(gathered).await?;
            self.fail(&refusal.reason, &refusal.message);
            return self.write(None).await;
        }
        self.pending(&refusal.reason, &refusal.message);
        let created = self.backup.metadata.creation_timestamp.as_ref().map_or(self.at.now, |time| time.0);
        self.write(Some(self.next_look(look_again_after(self.at.now.duration_since(created))))).await
    }

    /// Runs a helper's pod, or waits for it.
    async fn help(&mut self, gathered: &Gathered, kind: &str, pod: &Pod, what: &str) -> Result<Action, OperatorError> {
        let client = &self.context.client;
        let Some(there) = gathered.runners.get(&pod.name_any()) else {
            apply::authority(client, &self.who.namespace, runners::authority(&self.who, None)).await?;
            if let Err(error) = apply::create(client, &self.who.namespace, pod).await {
                return self.pod_refused(error).await;
            }
            self.pending(reasons::PENDING, what);
            return self.write(Some(self.next_look(LOOK_AGAIN))).await;
        };
        if there.metadata.deletion_timestamp.is_some() {
            return Ok(Action::requeue(LOOK_AGAIN / 10));
        }
        match read_runner_pod(there) {
            PodState::Waiting { reason, message } => {
                self.pending(if reason == reasons::STARTING { reasons::PENDING } else { reason }, &message);
                self.write(Some(self.next_look(LOOK_AGAIN))).await
            }
            PodState::Running => self.write(Some(self.next_look(LOOK_AGAIN))).await,
            PodState::Exited { code } => {
                let message = format!("the pod {} ended with exit code {code} and left no report", there.name_any());
                tracing::warn!(kind, code, "a helper left no report");
                self.refuse(gathered, helper_failed(reasons::RUNNER_DIED, message)).await
            }
            PodState::Killed { reason, message } => self.refuse(gathered, helper_failed(reason, message)).await,
        }
    }

    async fn pod_refused(&mut self, error: OperatorError) -> Result<Action, OperatorError> {
        let Some(said) = error.refusal().map(str::to_owned) else { return Err(error) };
        let message = if self.is_inside() {
            format!(
                "Kubernetes refused the runner's ephemeral container, for which the operator needs a right of its own (the \
                 chart's allowEphemeralContainers): {said}"
            )
        } else {
            format!("Kubernetes refused the runner's pod: {said}")
        };
        self.pending(reasons::POD_REFUSED, &message);
        self.write(Some(self.next_look(LOOK_AGAIN))).await
    }

    /// What a helper found out a while ago may be what is in the way: it is asked anew.
    fn has_old_answers(&self, gathered: &Gathered) -> bool {
        // Those that nothing was refused by are only as old as the other helper needs to begin.
        let limit = if self.status.reason() == reasons::PENDING { LONGEST_HELP } else { LOOK_AGAIN };
        [work::SURVEY, work::LOOK].into_iter().any(|kind| {
            let answered = gathered.reports.contains_key(&report_key(kind, self.who.attempt));
            match gathered.runners.get(&pod_name(&self.who.run, kind, self.who.attempt)) {
                Some(pod) => finished(pod).is_some_and(|at| is_old(at, self.at.now, limit)),
                None => answered,
            }
        })
    }

    async fn forget_helpers(&self, gathered: &Gathered) -> Result<(), OperatorError> {
        for kind in [work::SURVEY, work::LOOK] {
            let key = report_key(kind, self.who.attempt);
            if let Some(pod) = gathered.runners.get(&pod_name(&self.who.run, kind, self.who.attempt)) {
                apply::delete_pod(&self.context.client, pod).await?;
            }
            if gathered.reports.contains_key(&key) {
                let maps: Api<ConfigMap> = Api::namespaced(self.context.client.clone(), &self.who.namespace);
                let patch = Patch::Merge(json!({"data": {&key: null}}));
                let cleared = maps.patch(&self.who.run, &PatchParams::default(), &patch).await;
                cleared.during(|| format!("clear the report {}/{}", self.who.namespace, self.who.run))?;
            }
        }
        Ok(())
    }

    /// Begins the try. Each line may be the last one before a crash.
    async fn start(
        &mut self,
        gathered: &Gathered,
        source: &BackupSource,
        plan: &BackupPlan,
    ) -> Result<Action, OperatorError> {
        let client = &self.context.client;
        if apply::finalizer(client, self.backup, true).await? {
            // Comes again with the new version of the object.
            return Ok(Action::await_change());
        }
        if self.who.attempt > 1
            && !self.is_launched()
            && let Some(action) = self.look_at_former_try(gathered).await?
        {
            return Ok(action);
        }
        let first = || backup_id(&self.backup.metadata, 0).map(|id| id.to_string());
        let Some(backup_id) = self.status.backup_id.clone().or_else(first) else {
            self.fail(reasons::INVALID_SPEC, "the object's name makes no backup id");
            return self.write(None).await;
        };
        let work = self.work_to_make(source, plan, &backup_id);
        if matches!(work, ToMake::Pod(_)) {
            let authority = runners::authority(&self.who, plan.account.as_deref());
            apply::authority(client, &self.who.namespace, authority).await?;
        }
        let runner = work.told(plan, self.who.attempt);
        if !self.is_launched() || self.status.runner.as_ref().is_none_or(|known| !is_same(known, &runner)) {
            let chosen =
                SourceStatus { pod_name: Some(plan.pod.name.clone()), role: plan.role, ..SourceStatus::default() };
            self.status.storage_name = self.backup.spec.storage_name().map(str::to_owned);
            self.status.destination = Some(plan.store.shown());
            if let Err(error) = self.status.set_started(runner.clone(), &backup_id, chosen, self.at) {
                tracing::error!(%error, "a backup that has ended was looked at");
            }
            self.write(None).await?;
        }
        self.forget_former(gathered, &runner.pod_name).await?;
        let made = match &work {
            ToMake::Pod(pod) => apply::create(client, &self.who.namespace, pod.as_ref()).await,
            ToMake::Container(container) => {
                let uid = plan.pod.object_uid.as_deref();
                apply::add_container(client, &self.who.namespace, &plan.pod.name, uid, container).await
            }
        };
        match made {
            Ok(()) => {
                tracing::info!(attempt = self.who.attempt, pod = runner.pod_name, backup_id, "a runner was made");
                Ok(Action::requeue(if self.is_inside() { LOOK_AGAIN / 10 } else { LOOK_AGAIN }))
            }
            Err(error) => {
                // The status was just written: the refusal is told at the next look, with its new version.
                if error.refusal().is_none() || self.backup.status.as_ref() != Some(&self.status) {
                    return Err(error);
                }
                self.pod_refused(error).await
            }
        }
    }

    fn work_to_make(&self, source: &BackupSource, plan: &BackupPlan, backup_id: &str) -> ToMake {
        let (who, spec, schedule) = (&self.who, &self.backup.spec, self.schedule());
        let cluster_id = self.context.cluster_id.as_deref();
        let of = build::Try { who, spec, source, plan, backup_id, schedule, cluster_id };
        match &plan.pod.inside {
            None => ToMake::Pod(Box::new(build::backup_pod(of))),
            Some(inside) => ToMake::Container(Box::new(inside::container(of, inside))),
        }
    }

    /// Before another try: what the former one left in the storage decides.
    async fn look_at_former_try(&mut self, gathered: &Gathered) -> Result<Option<Action>, OperatorError> {
        match self.state_in_storage(gathered).await {
            Ok(Some(BackupState::Complete { .. })) => self.confirm(gathered).await.map(Some),
            Ok(Some(BackupState::Running)) => {
                self.pending(
                    reasons::RETRYING,
                    "the former try still holds its lease in the storage; it runs out soon",
                );
                self.write(Some(LOOK_AGAIN / 3)).await.map(Some)
            }
            Ok(Some(BackupState::Deleted { .. } | BackupState::Damaged { .. })) => {
                // That id is taken for good.
                let taken = self.status.backup_id.clone().unwrap_or_default();
                let ids: Vec<String> =
                    (0..TURNS).filter_map(|turn| Some(backup_id(&self.backup.metadata, turn)?.to_string())).collect();
                let next = ids.iter().position(|id| *id == taken).map_or(0, |at| at + 1);
                self.status.backup_id = ids.get(next).cloned();
                Ok(None)
            }
            Ok(Some(BackupState::Stale) | None) => Ok(None),
            Err(why) => {
                self.pending(reasons::STORAGE_NOT_READY, &why);
                self.write(Some(self.next_look(LOOK_AGAIN))).await.map(Some)
            }
        }
    }

    /// Pods of former tries and helpers are of no use any more.
    async fn forget_former(&self, gathered: &Gathered, keep: &str) -> Result<(), OperatorError> {
        for (name, pod) in &gathered.runners {
            if name != keep {
                apply::delete_pod(&self.context.client, pod).await?;
            }
        }
        Ok(())
    }
}

/// How soon one that waits for something is looked at again, when it has waited so long: the longer, the more seldom.
fn look_again_after(waited: SignedDuration) -> Duration {
    Duration::try_from(waited).map_or(LOOK_AGAIN, |waited| (waited / 8).clamp(LOOK_AGAIN, LONGEST_WAIT))
}

/// What is made to do the work.
enum ToMake {
    /// A pod beside the database's.
    Pod(Box<Pod>),
    /// A container in it.
    Container(Box<EphemeralContainer>),
}

impl ToMake {
    /// As the status tells it before it is made.
    fn told(&self, plan: &BackupPlan, attempt: i32) -> RunnerStatus {
        match self {
            Self::Pod(pod) => RunnerStatus { pod_name: pod.name_any(), attempt, ..RunnerStatus::default() },
            Self::Container(container) => RunnerStatus {
                pod_name: plan.pod.name.clone(),
                pod_uid: plan.pod.object_uid.clone(),
                node_name: Some(plan.pod.node.clone()),
                container_name: Some(container.name.clone()),
                attempt,
            },
        }
    }
}

/// A pod of ours keeps its name whatever is known of it; the database's need not be the one that was chosen first.
fn is_same(known: &RunnerStatus, new: &RunnerStatus) -> bool {
    let inside = new.container_name.is_some() || known.container_name.is_some();
    known.pod_name == new.pod_name
        && known.container_name == new.container_name
        && (!inside || known.pod_uid == new.pod_uid)
}

/// When a helper ended.
fn finished(pod: &Pod) -> Option<Timestamp> {
    let containers = pod.status.as_ref()?.container_statuses.as_deref()?;
    let ended = containers.iter().find_map(|container| container.state.as_ref()?.terminated.as_ref())?;
    ended.finished_at.as_ref().map(|time| time.0)
}

fn is_old(finished: Timestamp, now: Timestamp, limit: Duration) -> bool {
    now.duration_since(finished) >= SignedDuration::try_from(limit).unwrap_or_default()
}

fn helper_failed(reason: &str, message: String) -> Refusal {
    Refusal { reason: reason.to_owned(), message, for_good: false }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_waits_long_is_looked_at_more_seldom() {
        let after = |minutes| look_again_after(SignedDuration::from_mins(minutes)).as_secs();
        assert_eq!(after(-1), 30, "clocks differ");
        assert_eq!(after(0), 30);
        assert_eq!(after(4), 30);
        assert_eq!(after(16), 120);
        assert_eq!(after(60 * 24), 300);
    }

    #[test]
    fn answers_grow_old() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "status": {"containerStatuses": [
            {"name": "runner", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"terminated": {"exitCode": 0, "finishedAt": "1970-01-01T00:16:40Z"}}}]}}))
        .unwrap();
        let at = finished(&pod).unwrap();
        assert_eq!(at.as_second(), 1000);
        assert!(!is_old(at, Timestamp::from_second(1029).unwrap(), LOOK_AGAIN));
        assert!(is_old(at, Timestamp::from_second(1030).unwrap(), LOOK_AGAIN));
        assert_eq!(finished(&Pod::default()), None);
    }
}
