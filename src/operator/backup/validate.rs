//! From what was gathered to what is to be done next. Pure: the same input, the same step.
//!
//! ```text
//!   spec, storage, secrets, pods, claims, what helpers reported
//!        │ refused (a reason; for good, or until something changes)
//!        ├──► Survey   several pods may do: ask them who they are
//!        ├──► Look     nobody says who owns the files
//!        └──► Run      all is known
//! ```

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::ResourceExt;

use crate::api::backup::{BackupType, LockPolicy};
use crate::api::backup_status::ServerRole;
use crate::api::common::SecretKeyRef;
use crate::api::conditions::{reasons, status, types};
use crate::api::runner::{Answer, RunnerReport, RunnerState, Server};
use crate::api::source::{BackupSource, BackupTarget};
use crate::api::storage::AccessMode;
use crate::api::{BackupStorage, MySQLBackupSpec, conditions};
use crate::operator::inside::{Inside, MOST_CONTAINERS};
use crate::operator::names::report_key;
use crate::operator::pods::{self, DatabasePod, PodRefusal};
use crate::operator::storage::{StorePlan, StoreRefusal, plan_store, secret_text};

/// How long a variable may be: Linux takes less than twice as much.
const MOST_IN_VARIABLE: usize = 100 << 10;

/// The names of kinds of work, as they are in names of pods and keys of reports.
pub(crate) mod work {
    pub(crate) const SURVEY: &str = "survey";
    pub(crate) const LOOK: &str = "look";
    pub(crate) const BACKUP: &str = "backup";
}

/// Everything that a decision needs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gathered {
    /// The storage that the spec names.
    pub(crate) storage: Option<BackupStorage>,
    /// The pods that the source means.
    pub(crate) pods: Vec<Pod>,
    /// Claims of the namespace that those pods use, by name.
    pub(crate) claims: BTreeMap<String, PersistentVolumeClaim>,
    /// The claim that the storage is on.
    pub(crate) store_claim: Option<PersistentVolumeClaim>,
    /// Pods of the namespace that use it.
    pub(crate) store_claim_users: Vec<Pod>,
    /// Secrets that spec and storage name, by name.
    pub(crate) secrets: BTreeMap<String, Secret>,
    /// What runners of this backup reported, by key.
    pub(crate) reports: BTreeMap<String, RunnerReport>,
    /// Runners' pods of this backup, by name.
    pub(crate) runners: BTreeMap<String, Pod>,
}

/// Why there is no next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The condition's reason.
    pub(crate) reason: String,
    /// The condition's message.
    pub(crate) message: String,
    /// Nothing outside of the spec can change it, and the spec cannot be changed.
    pub(crate) for_good: bool,
}

impl Refusal {
    fn until_changed(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into(), for_good: false }
    }

    fn for_good(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into(), for_good: true }
    }
}

impl From<PodRefusal> for Refusal {
    fn from(refusal: PodRefusal) -> Self {
        Self::until_changed(refusal.reason, refusal.message)
    }
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Ask these servers who they are.
    Survey(Vec<Server>),
    /// Look who owns the files of this pod.
    Look(Box<DatabasePod>),
    /// Take the backup.
    Run(Box<BackupPlan>),
}

/// All that a runner's pod is made of, besides the spec.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BackupPlan {
    /// The database's pod.
    pub(crate) pod: DatabasePod,
    /// What it is, if it was asked.
    pub(crate) role: Option<ServerRole>,
    /// Who the runner runs as.
    pub(crate) uid: i64,
    /// The group that goes with it.
    pub(crate) gid: i64,
    /// The storage.
    pub(crate) store: StorePlan,
    /// The ServiceAccount that the storage names.
    pub(crate) account: Option<String>,
    /// The keys that may open the backup.
    pub(crate) keys: Vec<SecretKeyRef>,
}

/// Decides. `attempt` is the number of the try that is to begin.
pub(crate) fn next_step(spec: &MySQLBackupSpec, gathered: &Gathered, attempt: i32) -> Result<Step, Refusal> {
    let source = spec.source.as_ref();
    let source = source.ok_or_else(|| Refusal::for_good(reasons::INVALID_SPEC, "spec.source is not set"))?;
    refuse_what_is_not_there_yet(spec)?;
    let (store, account) = check_storage(spec, gathered)?;
    let keys = encryption_keys(spec, gathered);
    check_secrets(source, &store, &keys, &gathered.secrets)?;

    let answers = answers(gathered, attempt);
    let (pod, role) = match choose(source, &gathered.pods, answers)? {
        Choice::Pod(pod, role) => (pod, role),
        Choice::Ask(servers) => return Ok(Step::Survey(servers)),
    };
    let container = source.container.as_deref();
    let pod = match pods::read_database_pod(pod, container, &source.data_dir, &gathered.claims) {
        Err(refusal) if refusal.reason == reasons::VOLUME_NOT_SHAREABLE && source.allow_ephemeral_container => {
            pods::read_own_pod(pod, container, &source.data_dir)?
        }
        read => read?,
    };
    if let Some(inside) = &pod.inside {
        check_inside(source, &pod, inside, &store, &keys, &gathered.secrets)?;
    }
    if let Some(claim) = &store.claim {
        pods::check_store_claim(claim, gathered.store_claim.as_ref(), &gathered.store_claim_users, &pod.node)?;
    }
    let looked = match gathered.reports.get(&report_key(work::LOOK, attempt)).map(|report| &report.state) {
        Some(RunnerState::Looked { uid, gid }) => Some((i64::from(*uid), i64::from(*gid))),
        Some(RunnerState::Failed { reason, message, .. }) => return Err(Refusal::until_changed(reason, message)),
        _ => None,
    };
    let Some(uid) = source.run_as_user.or(pod.uid).or(looked.map(|(uid, _)| uid)) else {
        return Ok(Step::Look(Box::new(pod)));
    };
    if uid == 0 {
        let message = format!(
            "{} in pod {} belongs to root, and a runner never runs as root: let mysqld run as a user of its own, or \
             set spec.source.runAsUser to one that can read the files",
            source.data_dir, pod.name
        );
        return Err(Refusal::for_good(reasons::INVALID_SPEC, message));
    }
    let gid = source.run_as_group.or(pod.gid).or(looked.map(|(_, gid)| gid).filter(|&gid| gid > 0)).unwrap_or(uid);
    Ok(Step::Run(Box::new(BackupPlan { pod, role, uid, gid, store, account, keys })))
}

/// What an ephemeral container cannot have: volumes and accounts that its pod has not, Secrets that are no text.
fn check_inside(
    source: &BackupSource,
    pod: &DatabasePod,
    inside: &Inside,
    store: &StorePlan,
    keys: &[SecretKeyRef],
    secrets: &BTreeMap<String, Secret>,
) -> Result<(), Refusal> {
    let name = &pod.name;
    if store.is_for_pods_only() {
        let message = format!(
            "the data of pod {name} can be reached from within that pod only, where the storage's volume or ServiceAccount \
             cannot be had: name a storage with credentials, or use a claim that a second pod can mount"
        );
        return Err(Refusal::until_changed(reasons::VOLUME_NOT_SHAREABLE, message));
    }
    if source.run_as_user.or(pod.uid).is_none() {
        let message = format!(
            "nothing says whose the files of pod {name} are, and from within that pod it is not looked up: set \
             spec.source.runAsUser to the uid of mysqld"
        );
        return Err(Refusal::for_good(reasons::INVALID_SPEC, message));
    }
    if inside.others >= MOST_CONTAINERS {
        let message = format!(
            "pod {name} has {} ephemeral containers, which Kubernetes removes with the pod only: restart it",
            inside.others
        );
        return Err(Refusal::until_changed(reasons::POD_REFUSED, message));
    }
    let own = source_secrets(source);
    for key in own.iter().chain(store.secrets()).chain(keys) {
        let text = secret_text(secrets, key).ok().filter(|text| !text.contains('\0') && text.len() <= MOST_IN_VARIABLE);
        if text.is_none() {
            let message = format!(
                "an ephemeral container gets Secrets as variables, and the key {} of the secret {} is no text of at most \
                 {MOST_IN_VARIABLE} bytes",
                key.key, key.name
            );
            return Err(Refusal::until_changed(reasons::INVALID_SPEC, message));
        }
    }
    Ok(())
}

fn refuse_what_is_not_there_yet(spec: &MySQLBackupSpec) -> Result<(), Refusal> {
    if spec.backup_type == BackupType::Incremental {
        return Err(Refusal::for_good(
            "Unsupported",
            "not there yet: incremental backups; create one of spec.type Full",
        ));
    }
    if spec.lock.policy == LockPolicy::Short {
        return Err(Refusal::for_good("Unsupported", "not there yet: spec.lock.policy Short; create one with Full"));
    }
    Ok(())
}

/// The storage's plan, if backups may go there.
fn check_storage(spec: &MySQLBackupSpec, gathered: &Gathered) -> Result<(StorePlan, Option<String>), Refusal> {
    let name = spec.storage_name().unwrap_or_default();
    let storage = gathered.storage.as_ref().ok_or_else(|| {
        Refusal::until_changed(
            reasons::WAITING_FOR_REFERENCE,
            format!("there is no BackupStorage {name} in this namespace"),
        )
    })?;
    if storage.spec.access_mode == AccessMode::ReadOnly {
        let message = format!("BackupStorage {name} is ReadOnly: name another one, or set its accessMode to ReadWrite");
        return Err(Refusal::until_changed(reasons::STORAGE_NOT_READY, message));
    }
    let said = storage.status.as_ref().and_then(|status| conditions::find(&status.conditions, types::READY));
    let current = said.filter(|said| said.observed_generation == storage.metadata.generation);
    if let Some(said) = current.filter(|said| said.status == status::FALSE) {
        let message = format!("BackupStorage {name} is not ready: {}: {}", said.reason, said.message);
        return Err(Refusal::until_changed(reasons::STORAGE_NOT_READY, message));
    }
    let plan = plan_store(&storage.spec).map_err(|refusal| store_refusal(name, &refusal))?;
    Ok((plan, storage.spec.service_account_name.clone()))
}

/// What a refused storage means for a backup.
pub(crate) fn store_refusal(name: &str, refusal: &StoreRefusal) -> Refusal {
    let reason = match refusal {
        StoreRefusal::MissingKey { .. } => reasons::WAITING_FOR_REFERENCE,
        StoreRefusal::NoText { .. }
        | StoreRefusal::BadUrl(_)
        | StoreRefusal::WriteCa { .. }
        | StoreRefusal::PodsOnly => reasons::STORAGE_NOT_READY,
    };
    Refusal::until_changed(reason, format!("BackupStorage {name}: {refusal}"))
}

/// The backup's own keys, or else those of the storage.
fn encryption_keys(spec: &MySQLBackupSpec, gathered: &Gathered) -> Vec<SecretKeyRef> {
    let of_storage = gathered.storage.as_ref().and_then(|storage| storage.spec.encryption.as_ref());
    spec.encryption.as_ref().or(of_storage).map(|encryption| encryption.key_refs.clone()).unwrap_or_default()
}

/// Every Secret key that a backup of this source needs, besides the storage's.
pub(crate) fn source_secrets(source: &BackupSource) -> Vec<SecretKeyRef> {
    let credentials = &source.credentials.secret_ref;
    let key = |key: &String| SecretKeyRef { name: credentials.name.clone(), key: key.clone() };
    let mut all = vec![key(&credentials.username_key), key(&credentials.password_key)];
    let tls = &source.tls;
    all.extend([&tls.ca_secret_ref, &tls.certificate_secret_ref, &tls.key_secret_ref].into_iter().flatten().cloned());
    all.extend(source.keyring.iter().map(|keyring| keyring.secret_ref.clone()));
    all
}

fn check_secrets(
    source: &BackupSource,
    store: &StorePlan,
    keys: &[SecretKeyRef],
    secrets: &BTreeMap<String, Secret>,
) -> Result<(), Refusal> {
    let own = source_secrets(source);
    for key in own.iter().chain(store.secrets()).chain(keys) {
        // Only whether it is there: keys and keyrings are bytes, and not ours to read.
        if let Err(missing @ StoreRefusal::MissingKey { .. }) = secret_text(secrets, key) {
            return Err(Refusal::until_changed(reasons::WAITING_FOR_REFERENCE, missing.to_string()));
        }
    }
    Ok(())
}

fn answers(gathered: &Gathered, attempt: i32) -> Option<Result<&[Answer], Refusal>> {
    match &gathered.reports.get(&report_key(work::SURVEY, attempt))?.state {
        RunnerState::Surveyed { answers } => Some(Ok(answers)),
        RunnerState::Failed { reason, message, .. } => Some(Err(Refusal::until_changed(reason, message))),
        _ => None,
    }
}

enum Choice<'a> {
    Pod(&'a Pod, Option<ServerRole>),
    Ask(Vec<Server>),
}

fn choose<'a>(
    source: &BackupSource,
    pods: &'a [Pod],
    answers: Option<Result<&[Answer], Refusal>>,
) -> Result<Choice<'a>, Refusal> {
    let none = |message: String| Refusal::until_changed(reasons::NO_SOURCE_POD, message);
    let ready: Vec<&Pod> = pods.iter().filter(|pod| pods::is_ready(pod)).collect();
    if let Some(name) = &source.pod_name {
        let found = ready.iter().find(|pod| pod.name_any() == *name);
        return match found {
            Some(pod) => Ok(Choice::Pod(pod, None)),
            None => Err(none(format!("pod {name} is not there or not ready"))),
        };
    }
    match (ready.as_slice(), source.target) {
        ([], _) if pods.is_empty() => Err(none("no pod has the labels of spec.source.selector".to_owned())),
        ([], _) => Err(none(format!("none of the {} pods of spec.source.selector is ready", pods.len()))),
        ([only], BackupTarget::PreferReplica) => Ok(Choice::Pod(only, None)),
        (several, target) => match answers {
            None => servers(several, source.port).map(Choice::Ask).map_err(none),
            Some(Err(refusal)) => Err(refusal),
            Some(Ok(answers)) => choose_by_answers(several, target, answers).map_err(none),
        },
    }
}

fn servers(pods: &[&Pod], port: i32) -> Result<Vec<Server>, String> {
    let port = u16::try_from(port).map_err(|_| format!("{port} is no port"))?;
    let address = |pod: &&Pod| {
        let host = pod.status.as_ref().and_then(|status| status.pod_ip.clone())?;
        Some(Server { pod: pod.name_any(), host, port })
    };
    Ok(pods.iter().filter_map(address).collect())
}

/// Among equals the last by name: in a StatefulSet that is the one that became primary last, if ever.
fn choose_by_answers<'a>(pods: &[&'a Pod], target: BackupTarget, answers: &[Answer]) -> Result<Choice<'a>, String> {
    let role = |pod: &&Pod| {
        let answer = answers.iter().find(|answer| answer.pod == pod.name_any())?;
        let primary = answer.primary.filter(|_| answer.unfit.is_none())?;
        Some(if primary { ServerRole::Primary } else { ServerRole::Replica })
    };
    let mut known: Vec<(&'a Pod, ServerRole)> = pods.iter().filter_map(|pod| Some((*pod, role(pod)?))).collect();
    known.sort_by_key(|(pod, _)| pod.name_any());
    let last = |wanted: ServerRole| known.iter().rfind(|(_, role)| *role == wanted).copied();
    let chosen = match target {
        BackupTarget::Primary => last(ServerRole::Primary),
        BackupTarget::Replica => last(ServerRole::Replica),
        BackupTarget::PreferReplica => last(ServerRole::Replica).or_else(|| last(ServerRole::Primary)),
    };
    chosen.map(|(pod, role)| Choice::Pod(pod, Some(role))).ok_or_else(|| {
        let said: Vec<String> = answers.iter().map(describe).collect();
        format!("none of the servers is what spec.source.target asks for ({target:?}): {}", said.join("; "))
    })
}

fn describe(answer: &Answer) -> String {
    match (&answer.unfit, answer.primary) {
        (Some(why), _) => format!("{}: {why}", answer.pod),
        (None, Some(true)) => format!("{} is the primary", answer.pod),
        (None, _) => format!("{} is a replica", answer.pod),
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
