//! One claim, one step further: begun, watched, handed over.
//!
//! ```text
//!   Pending ─► Filling ─► HandingOver ─► Ready
//!      ▲          │ failed, and tries are left
//!      └──────────┴─► Failed
//! ```
//! Each state is written down before what it allows is made, so that a crash leaves nothing that is not known.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::Api;
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use serde_json::json;

use crate::api::common::Progress;
use crate::api::conditions::reasons;
use crate::api::restore_status::{ClaimState, ClaimStatus};
use crate::operator::backup::apply::{authority, create, delete_pod};
use crate::operator::backup::status::{Failure, deadline, next_try};
use crate::operator::error::{During, OperatorError};
use crate::operator::names::{pod_name, report_key};
use crate::operator::pods::{PodState, read_runner_pod};
use crate::operator::runners::{self, Identity};

use super::build::{BACKUP_ID, CLAIM_KEY, RESTORED_BY, fill_pod, give_back, new_claim, promise, staging_claim};
use super::gather::World;
use super::handover::{Scene, Step, next};
use super::slots::{Slot, Start, may_start};
use super::status::{Seen, judge};
use super::validate::{Refusal, Source};
use super::{Reconciliation, apply};

/// What a step may use.
pub(super) struct Stage<'a> {
    /// What the cluster shows.
    pub(super) world: &'a World,
    /// The backup, or why it cannot be reached at the moment.
    pub(super) source: Result<&'a Source, &'a Refusal>,
    /// How far runners are.
    pub(super) progress: Vec<Progress>,
}

impl Reconciliation<'_> {
    /// Takes one claim one step further, and says where it stands then.
    pub(super) async fn advance(
        &mut self,
        slot: &Slot,
        known: ClaimStatus,
        stage: &mut Stage<'_>,
    ) -> Result<ClaimStatus, OperatorError> {
        match known.state {
            ClaimState::Ready | ClaimState::Failed => Ok(known),
            ClaimState::Pending => self.begin(slot, known, stage).await,
            ClaimState::Filling => self.watch(slot, known, stage).await,
            ClaimState::HandingOver => self.hand_over(slot, known, stage).await,
        }
    }

    async fn begin(
        &mut self,
        slot: &Slot,
        mut known: ClaimStatus,
        stage: &Stage<'_>,
    ) -> Result<ClaimStatus, OperatorError> {
        if self.remove_pods(slot, stage.world).await? {
            // A try that may still write and another one must not be in one volume.
            return Ok(known);
        }
        match may_start(slot, stage.world, &self.who.uid) {
            Start::Done => {
                known.set_plain(ClaimState::Ready);
                return Ok(known);
            }
            Start::Wait { reason, message } => {
                known.set(ClaimState::Pending, reason, &message);
                return Ok(known);
            }
            Start::Never { reason, message } => {
                self.tell_claim(slot, stage.world, reason, &message).await;
                known.set(ClaimState::Failed, reason, &message);
                return Ok(known);
            }
            Start::Go => {}
        }
        if known.next_attempt_time.as_ref().is_some_and(|next| next.0 > self.at.now) {
            return Ok(known);
        }
        if self.restore.spec.suspend {
            known.set(ClaimState::Pending, reasons::SUSPENDED, "held back by spec.suspend: set it to false to go on");
            return Ok(known);
        }
        if let Err(refusal) = stage.source {
            known.set(ClaimState::Pending, &refusal.reason, &refusal.message);
            return Ok(known);
        }
        known.attempt = known.attempt.saturating_add(1);
        known.pod_name = Some(pod_name(&self.who.run, &slot.work(), known.attempt));
        known.pod_uid = None;
        known.start_time.get_or_insert(Time(self.at.now));
        known.set_plain(ClaimState::Filling);
        Ok(known)
    }

    async fn watch(
        &mut self,
        slot: &Slot,
        mut known: ClaimStatus,
        stage: &mut Stage<'_>,
    ) -> Result<ClaimStatus, OperatorError> {
        let name = pod_name(&self.who.run, &slot.work(), known.attempt);
        let pod = stage.world.pods.get(&name);
        let fares = match (pod, &known.pod_uid) {
            (None, None) => return self.make_pod(slot, known, stage).await,
            (Some(pod), Some(uid)) if pod.uid().as_ref() != Some(uid) => lost("was replaced by another one"),
            (None, Some(_)) => lost("is gone"),
            (Some(pod), _) => read_runner_pod(pod),
        };
        if let Some(pod) = pod.filter(|_| known.pod_uid.is_none()) {
            known.pod_uid = pod.uid();
        }
        if let Some(failure) = self.is_late(slot, &known).or_else(|| self.is_spoilt(slot, stage.world)) {
            return self.fail_try(slot, known, stage, &failure).await;
        }
        let report = stage.world.reports.get(&report_key(&slot.work(), known.attempt));
        let id = self.status.backup_id.clone().unwrap_or_default();
        match judge(&fares, known.pod_uid.as_deref(), &id, report) {
            Seen::Waiting { reason, message } => {
                if reason == reasons::STARTING {
                    known.set_plain(ClaimState::Filling);
                } else {
                    known.set(ClaimState::Filling, reason, &message);
                }
                Ok(known)
            }
            Seen::Working(progress) => {
                stage.progress.extend(progress);
                known.set_plain(ClaimState::Filling);
                Ok(known)
            }
            Seen::Done(data) => {
                tracing::info!(claim = slot.name, attempt = known.attempt, bytes = data.bytes, "a claim is filled");
                self.status.take_data(&data);
                let staging = stage.world.claims.get(&slot.staging_name(&self.who.run));
                known.volume_name = staging.and_then(|staging| staging.spec.as_ref()?.volume_name.clone());
                known.set(ClaimState::HandingOver, reasons::HANDING_OVER, "filled; it is being handed over");
                Ok(known)
            }
            Seen::Failed(failure) => self.fail_try(slot, known, stage, &failure).await,
        }
    }

    /// A claim of a data source has its own time; of others, the restore as a whole.
    fn is_late(&self, slot: &Slot, known: &ClaimStatus) -> Option<Failure> {
        slot.claim_uid()?;
        let started = known.start_time.as_ref().map(|time| time.0);
        let end = deadline(started, self.restore.spec.active_deadline_seconds)?;
        let message = "it took longer than spec.activeDeadlineSeconds";
        (end <= self.at.now).then(|| for_good(reasons::ACTIVE_DEADLINE_EXCEEDED, message.to_owned()))
    }

    /// A claim that waits got a volume from elsewhere meanwhile.
    fn is_spoilt(&self, slot: &Slot, world: &World) -> Option<Failure> {
        slot.claim_uid()?;
        match may_start(slot, world, &self.who.uid) {
            Start::Never { reason, message } => Some(for_good(reason, message)),
            _ => None,
        }
    }

    async fn make_pod(
        &mut self,
        slot: &Slot,
        mut known: ClaimStatus,
        stage: &Stage<'_>,
    ) -> Result<ClaimStatus, OperatorError> {
        let source = match stage.source {
            Ok(source) => source,
            Err(refusal) => {
                known.set(ClaimState::Filling, &refusal.reason, &refusal.message);
                return Ok(known);
            }
        };
        if self.remove_pods(slot, stage.world).await? {
            return Ok(known);
        }
        let client = &self.context.client;
        let namespace = &self.who.namespace;
        let who = Identity { attempt: known.attempt, ..self.who.clone() };
        let waits = stage.world.claims.get(&slot.name).filter(|_| slot.claim_uid().is_some());
        let made = async {
            authority(client, namespace, runners::authority(&who, source.account.as_deref())).await?;
            if let Some(staging) = staging_claim(&who, slot, waits) {
                create(client, namespace, &staging).await?;
            }
            create(client, namespace, &fill_pod(&who, &self.restore.spec, source, slot, waits)).await
        };
        match made.await {
            Ok(()) => {
                tracing::info!(claim = slot.name, attempt = known.attempt, "a runner was made");
                // At once, so that no second one is made in its place should it vanish.
                let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
                let name = known.pod_name.clone().unwrap_or_default();
                let pod = api.get_opt(&name).await.during(|| format!("read pod {namespace}/{name}"))?;
                known.pod_uid = pod.and_then(|pod| pod.uid());
                known.set_plain(ClaimState::Filling);
                Ok(known)
            }
            Err(error) => match error.refusal() {
                Some(said) => {
                    let message = format!("Kubernetes refused what filling it needs: {said}");
                    known.set(ClaimState::Filling, reasons::POD_REFUSED, &message);
                    Ok(known)
                }
                None => Err(error),
            },
        }
    }

    async fn fail_try(
        &mut self,
        slot: &Slot,
        mut known: ClaimStatus,
        stage: &Stage<'_>,
        failure: &Failure,
    ) -> Result<ClaimStatus, OperatorError> {
        tracing::warn!(
            claim = slot.name,
            attempt = known.attempt,
            reason = failure.reason,
            "a try failed: {}",
            failure.message
        );
        self.remove_pods(slot, stage.world).await?;
        let next = next_try(failure, known.attempt, self.restore.spec.backoff_limit, self.at.now);
        let then = if next.is_some() { ClaimState::Pending } else { ClaimState::Failed };
        if next.is_none() {
            self.tell_claim(slot, stage.world, &failure.reason, &failure.message).await;
        }
        known.next_attempt_time = next.map(Time);
        known.volume_name = None;
        known.set(then, &failure.reason, &failure.message);
        Ok(known)
    }

    /// Takes the hand-over a step further.
    async fn hand_over(
        &mut self,
        slot: &Slot,
        mut known: ClaimStatus,
        stage: &Stage<'_>,
    ) -> Result<ClaimStatus, OperatorError> {
        let (client, world) = (&self.context.client, stage.world);
        let pod = self.remove_pods(slot, world).await?;
        let claim = world.claims.get(&slot.name);
        if !slot.is_staged() {
            if pod {
                return Ok(known);
            }
            let Some(claim) = claim.filter(|claim| claim.metadata.deletion_timestamp.is_none()) else {
                let why = format!("the claim {} was deleted while it was filled", slot.name);
                return self.fail_try(slot, known, stage, &Failure::passing(reasons::VOLUME_LOST, why)).await;
            };
            apply::mark_claim(client, claim, &json!({(RESTORED_BY): self.who.uid, (BACKUP_ID): self.backup_id()}))
                .await?;
            known.set_plain(ClaimState::Ready);
            return Ok(known);
        }
        let staging = world.claims.get(&slot.staging_name(&self.who.run));
        let volume = known.volume_name.as_ref().and_then(|name| world.volumes.get(name));
        let scene = Scene { slot, uid: &self.who.uid, pod, staging, volume, claim };
        match (next(&scene), volume, staging) {
            (Step::Promise, Some(volume), Some(staging)) => {
                let patch = promise(&self.who, slot, volume, staging, &self.backup_id());
                apply::patch_volume(client, &volume.name_any(), &patch).await?;
            }
            (Step::RemoveStaging, _, Some(staging)) => apply::delete_claim(client, staging).await?,
            (Step::MakeClaim, Some(volume), _) => {
                if let Some(claim) = new_claim(&self.who, slot, volume, &self.backup_id()) {
                    create::<PersistentVolumeClaim>(client, &self.who.namespace, &claim).await?;
                }
            }
            (Step::GiveBack, Some(volume), _) => {
                apply::patch_volume(client, &volume.name_any(), &give_back(volume)).await?;
            }
            (Step::Done, ..) => {
                tracing::info!(claim = slot.name, volume = known.volume_name, "a claim is complete");
                known.set_plain(ClaimState::Ready);
            }
            (Step::Lost(why), ..) => {
                return self.fail_try(slot, known, stage, &Failure::passing(reasons::VOLUME_LOST, why)).await;
            }
            (Step::Blocked(why), ..) => {
                return self.fail_try(slot, known, stage, &for_good(reasons::TARGET_EXISTS, why)).await;
            }
            // Comes again when pod or claim have changed.
            (Step::RemovePod | Step::Wait, ..) | (_, None, _) | (_, _, None) => {}
        }
        Ok(known)
    }

    /// Tells all pods of a claim to stop. True while any of them is there.
    async fn remove_pods(&self, slot: &Slot, world: &World) -> Result<bool, OperatorError> {
        let mut any = false;
        for pod in world.pods.values().filter(|pod| pod.labels().get(CLAIM_KEY) == Some(&slot.key)) {
            any = true;
            if pod.metadata.deletion_timestamp.is_none() {
                delete_pod(&self.context.client, pod).await?;
            }
        }
        Ok(any)
    }

    fn backup_id(&self) -> String {
        self.status.backup_id.clone().unwrap_or_default()
    }

    /// An event on the claim itself: whoever waits for it looks there.
    async fn tell_claim(&self, slot: &Slot, world: &World, reason: &str, message: &str) {
        let Some(claim) = world.claims.get(&slot.name) else { return };
        let reason = format!("Restore{reason}");
        apply::event(self.context, &claim.object_ref(&()), EventType::Warning, &reason, message.to_owned()).await;
        if slot.claim_uid().is_some() {
            let about = self.restore.object_ref(&());
            apply::event(self.context, &about, EventType::Warning, &reason, message.to_owned()).await;
        }
    }
}

fn for_good(reason: &str, message: String) -> Failure {
    Failure { retryable: false, ..Failure::passing(reason, message) }
}

fn lost(how: &str) -> PodState {
    PodState::Killed { reason: reasons::RUNNER_LOST, message: format!("the runner's pod {how}") }
}
