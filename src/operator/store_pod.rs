//! A pod that answers one question about a storage, because it has the volume or the ServiceAccount for it.
//!
//! ```text
//!   question ─► names made of it ─► authority, pod ─► waited for ─► report ─► answer
//!                                                     └─ stuck, killed, too long ─► an error that says so
//!   always: pod and authority go
//! ```
//! The names are the question's: two operators, and one after a crash, ask one pod and not two. An answer that lay there
//! is not taken: the storage may have changed since.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams};
use kube::{Client, ResourceExt};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::api::common::RunnerSpec;
use crate::api::runner::{RunnerReport, RunnerState, Work};
use crate::store::{Answer, Question, Told, ToldKind};
use crate::util::clock;

use super::Context;
use super::backup::apply;
use super::error::{During, OperatorError};
use super::names::{COMPONENT, STORE_ACCOUNT, pod_name, report_key};
use super::pods::{PodState, read_runner_pod};
use super::runners::{Authority, Identity, authority, pod};
use super::storage::{StorePlan, VOLUME_GROUP};

/// The kind in labels: not that of whoever asks, whose controller would look again for each change of this pod, and ask
/// again.
const KIND: &str = "StoreQuestion";
/// The kind of work in names.
const WORK: &str = "ask";
/// How long one question may take, the start of its pod included.
const PATIENCE: Duration = Duration::from_mins(2);
/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(700);
/// How long a pod may say that it cannot start before it is believed.
const STARTING: Duration = Duration::from_secs(30);

/// A storage that only pods reach.
pub(crate) struct StorePod {
    client: Client,
    who: Identity,
    plan: StorePlan,
    account: String,
}

impl StorePod {
    pub(crate) fn new(context: &Context, who: &Identity, plan: StorePlan, account: Option<String>) -> Self {
        let account = account.unwrap_or_else(|| STORE_ACCOUNT.to_owned());
        Self { client: context.client.clone(), who: who.clone(), plan, account }
    }

    /// Asks. Whatever goes wrong on the way is an answer, too.
    pub(crate) async fn ask(&self, question: &Question) -> Answer {
        let who = self.identity(question);
        let name = pod_name(&who.run, WORK, who.attempt);
        let answer = self.answer(&who, &name, question).await.unwrap_or_else(|error| failed(error.to_string()));
        if let Err(error) = self.forget(&who, &name).await {
            // They belong to the object, and go with it at the latest.
            tracing::warn!(%error, pod = name, "what was made to ask the storage is left");
        }
        answer
    }

    /// The run of this question.
    fn identity(&self, question: &Question) -> Identity {
        let text = serde_json::to_string(question).unwrap_or_default();
        let hash = xxh3_64(format!("{}{text}", self.plan.url).as_bytes()) >> 32;
        Identity { kind: KIND, run: format!("{}-{hash:08x}", self.who.run), attempt: 1, ..self.who.clone() }
    }

    async fn answer(&self, who: &Identity, name: &str, question: &Question) -> Result<Answer, OperatorError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &who.namespace);
        let left = pods.get_opt(name).await.during(|| format!("read pod {}/{name}", who.namespace))?;
        if left.as_ref().is_some_and(is_old) {
            self.forget(who, name).await?;
        }
        apply::authority(&self.client, &who.namespace, store_authority(who, &self.account)).await?;
        let pod = store_pod(who, &self.plan, &self.account, question);
        if let Err(error) = apply::create(&self.client, &who.namespace, &pod).await {
            return match error.refusal() {
                Some(said) => Ok(failed(format!("Kubernetes refused the pod that would ask the storage: {said}"))),
                None => Err(error),
            };
        }
        let began = Instant::now();
        loop {
            tokio::time::sleep(EVERY).await;
            if let Some(answer) = self.look(who, &pods, name, began.elapsed()).await? {
                return Ok(answer);
            }
        }
    }

    /// One look at pod and report. Some: that is the answer.
    async fn look(
        &self,
        who: &Identity,
        pods: &Api<Pod>,
        name: &str,
        waited: Duration,
    ) -> Result<Option<Answer>, OperatorError> {
        // The pod first: what it reported before it ended is seen after.
        let pod = pods.get_opt(name).await.during(|| format!("read pod {}/{name}", who.namespace))?;
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &who.namespace);
        let map = maps.get_opt(&who.run).await.during(|| format!("read the report {}/{}", who.namespace, who.run))?;
        let report = map
            .and_then(|map| serde_json::from_str::<RunnerReport>(map.data?.get(&report_key(WORK, who.attempt))?).ok());
        Ok(judge(pod.as_ref().map(read_runner_pod), report.map(|report| report.state), waited))
    }

    async fn forget(&self, who: &Identity, name: &str) -> Result<(), OperatorError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &who.namespace);
        match pods.delete(name, &DeleteParams::default().grace_period(1)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            deleted => deleted.map(drop).during(|| format!("delete pod {}/{name}", who.namespace))?,
        }
        apply::forget_authority(&self.client, &who.namespace, &who.run).await
    }
}

fn failed(text: String) -> Answer {
    Answer::Failed(Told { kind: ToldKind::Other, text })
}

/// Left by an operator that died: its answer is of a time that nobody knows.
fn is_old(pod: &Pod) -> bool {
    let made = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let age = made.map_or(SignedDuration::MAX, |made| clock::now().duration_since(made));
    pod.metadata.deletion_timestamp.is_some() || age > SignedDuration::from_secs(20)
}

/// What pod and report mean together.
fn judge(pod: Option<PodState>, said: Option<RunnerState>, waited: Duration) -> Option<Answer> {
    match said {
        Some(RunnerState::Answered { packed }) => {
            return Some(Answer::unpack(&packed).unwrap_or_else(|error| failed(error.to_string())));
        }
        Some(RunnerState::Failed { message, .. }) => return Some(failed(message)),
        _ => {}
    }
    let ended = |how: String| Some(failed(format!("the pod that asks the storage {how}")));
    match pod {
        None => ended("is gone".to_owned()),
        Some(PodState::Exited { code }) => ended(format!("ended with exit code {code} and without an answer")),
        Some(PodState::Killed { message, .. }) => ended(format!("was ended: {message}")),
        Some(PodState::Waiting { reason, message })
            if waited > PATIENCE || (waited > STARTING && reason != crate::api::conditions::reasons::STARTING) =>
        {
            ended(format!("does not start ({reason}): {message}"))
        }
        Some(PodState::Running) if waited > PATIENCE => ended(format!("gave no answer in {} s", PATIENCE.as_secs())),
        Some(PodState::Waiting { .. } | PodState::Running) => None,
    }
}

fn store_pod(who: &Identity, plan: &StorePlan, account: &str, question: &Question) -> Pod {
    // A question is made of strings and numbers: it can always be written.
    let document = serde_json::to_value(question).unwrap_or_default();
    let request = who.request(WORK, Work::Ask { store: plan.url.clone(), question: document });
    let writes = !matches!(question, Question::Look { write: false });
    let (volumes, mounts) = plan.volumes(writes).into_iter().unzip();
    let mut pod = pod(who, &RunnerSpec::default(), &request, plan.environment(), volumes, mounts);
    pod.labels_mut().insert(COMPONENT.to_owned(), "store".to_owned());
    if let Some(spec) = &mut pod.spec {
        spec.service_account_name = Some(account.to_owned());
        spec.active_deadline_seconds = i64::try_from(PATIENCE.as_secs()).ok();
        let security = spec.security_context.get_or_insert_default();
        // No database's files are in this pod: here the kubelet may give the volume to the group that all share.
        security.fs_group = plan.claim.as_ref().map(|_| VOLUME_GROUP);
        security.fs_group_change_policy = plan.claim.as_ref().map(|_| "OnRootMismatch".to_owned());
    }
    pod
}

fn store_authority(who: &Identity, account: &str) -> Authority {
    let mut made = authority(who, None);
    // An account that a storage names is its owner's to make.
    made.account.metadata.name = Some(STORE_ACCOUNT.to_owned());
    for subject in made.binding.subjects.iter_mut().flatten() {
        account.clone_into(&mut subject.name);
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(answer: Option<Answer>) -> String {
        match answer {
            Some(Answer::Failed(told)) => told.text,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_pod_that_says_nothing_is_not_waited_for_for_ever() {
        let seconds = Duration::from_secs;
        assert_eq!(judge(Some(PodState::Running), None, seconds(60)), None);
        assert!(text(judge(Some(PodState::Running), None, seconds(121))).contains("no answer in 120 s"));
        assert!(text(judge(Some(PodState::Exited { code: 0 }), None, seconds(1))).contains("without an answer"));
        assert!(text(judge(None, None, seconds(1))).contains("is gone"));
        let stuck = || Some(PodState::Waiting { reason: "Unschedulable", message: "no node".into() });
        assert_eq!(judge(stuck(), None, seconds(5)), None, "a claim may be bound any moment");
        assert!(text(judge(stuck(), None, seconds(31))).contains("no node"));
        let starting = || Some(PodState::Waiting { reason: "Starting", message: "m".into() });
        assert_eq!(judge(starting(), None, seconds(100)), None);
        assert!(text(judge(starting(), None, seconds(121))).contains("does not start"));
    }

    #[test]
    fn what_was_reported_counts_whatever_became_of_the_pod() {
        let answer = Answer::Deleted { retained: true };
        let said = || Some(RunnerState::Answered { packed: answer.pack().unwrap() });
        assert_eq!(judge(None, said(), Duration::ZERO), Some(answer.clone()));
        let refused = Some(RunnerState::Failed { reason: "Usage".into(), message: "m".into(), retryable: false });
        assert_eq!(text(judge(Some(PodState::Running), refused, Duration::ZERO)), "m");
    }
}
