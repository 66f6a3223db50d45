//! Makes the cluster as the plan says. The only step that writes.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, EphemeralContainer, Pod};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::runtime::events::{Event, EventType};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::api::backup::DeletionPolicy;
use crate::api::{MySQLBackup, MySQLBackupStatus};
use crate::obs::metrics::Finished;
use crate::operator::Context;
use crate::operator::error::{During, OperatorError};
use crate::operator::names::{MANAGER, REMOVAL};
use crate::operator::runners::Authority;

use super::keep::removal_mark;

/// The finalizer: work to do before a backup's object may go.
pub(super) const FINALIZER: &str = "stillframe.dev/backup";

/// What a run needs besides pods, in the order in which one needs the other.
pub(crate) async fn authority(client: &Client, namespace: &str, authority: Authority) -> Result<(), OperatorError> {
    // Without `..`: what is built is applied, or this does not compile.
    let Authority { account, report, role, binding } = authority;
    set(client, namespace, &account).await?;
    // Created and not applied: its data is the runner's.
    create(client, namespace, &report).await?;
    set(client, namespace, &role).await?;
    set(client, namespace, &binding).await
}

/// Takes a run's authority back and its reports away: nobody needs them after the end, and ten thousand backups should
/// not leave thirty thousand objects behind.
pub(crate) async fn forget_authority(client: &Client, namespace: &str, run: &str) -> Result<(), OperatorError> {
    delete::<RoleBinding>(client, namespace, run).await?;
    delete::<Role>(client, namespace, run).await?;
    delete::<ConfigMap>(client, namespace, run).await
}

/// Deletes an object by its name; one that is gone already is as good.
pub(crate) async fn delete<K>(client: &Client, namespace: &str, name: &str) -> Result<(), OperatorError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    match api.delete(name, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        deleted => deleted.map(drop).during(|| format!("delete {} {namespace}/{name}", K::kind(&()))),
    }
}

async fn set<K>(client: &Client, namespace: &str, object: &K) -> Result<(), OperatorError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let name = object.name_any();
    let params = PatchParams::apply(MANAGER).force();
    let applied = api.patch(&name, &params, &Patch::Apply(object)).await;
    applied.map(drop).during(|| format!("apply {} {namespace}/{name}", K::kind(&())))
}

/// Creates an object that must not be made twice; one that is there already is as good.
pub(crate) async fn create<K>(client: &Client, namespace: &str, object: &K) -> Result<(), OperatorError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, object).await {
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
        created => created.map(drop).during(|| format!("create {} {namespace}/{}", K::kind(&()), object.name_any())),
    }
}

/// Puts a container into a database's pod. One of that name that is there already is as good.
pub(super) async fn add_container(
    client: &Client,
    namespace: &str,
    pod: &str,
    uid: Option<&str>,
    container: &EphemeralContainer,
) -> Result<(), OperatorError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    // Lists of containers are merged by name. The uid: never another pod of the same name.
    let patch = json!({"metadata": {"uid": uid}, "spec": {"ephemeralContainers": [container]}});
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let added = api.patch_ephemeral_containers(pod, &params, &Patch::Strategic(patch)).await;
    added.map(drop).during(|| format!("put a container into pod {namespace}/{pod}"))
}

/// Deletes a runner's pod, with the time that it needs to let go. One that is gone already is as good.
pub(crate) async fn delete_pod(client: &Client, pod: &Pod) -> Result<(), OperatorError> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    // By its uid: never another one of the same name.
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(&name, &params).await {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        deleted => deleted.map(drop).during(|| format!("delete pod {namespace}/{name}")),
    }
}

/// What became of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// The object is being deleted; its finalizer does the rest.
    Begun,
    /// Somebody changed the object since it was read: it is to be looked at anew.
    Changed,
}

/// Removes a backup that has ended, because a rule or its own time says so. Not what its deletion policy says decides
/// about the data, but `data`; the deletion policy is about deletions by others.
///
/// It goes as it was seen or not at all: one that was pinned a moment ago stays.
pub(crate) async fn remove(
    context: &Context,
    backup: &MySQLBackup,
    data: DeletionPolicy,
    now: Timestamp,
) -> Result<Removal, OperatorError> {
    let (namespace, name) = (backup.namespace().unwrap_or_default(), backup.name_any());
    let api: Api<MySQLBackup> = Api::namespaced(context.client.clone(), &namespace);
    let mut finalizers: Vec<String> = backup.finalizers().to_vec();
    if data == DeletionPolicy::Delete && !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let patch = json!({"metadata": {
        "annotations": {(REMOVAL): removal_mark(data, now)},
        "finalizers": finalizers,
        "resourceVersion": backup.resource_version(),
    }});
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let marked = match api.patch(&name, &params, &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return Ok(Removal::Changed),
        marked => marked.during(|| format!("mark MySQLBackup {namespace}/{name}"))?,
    };
    let seen = Preconditions { uid: marked.uid(), resource_version: marked.resource_version() };
    let params = DeleteParams { preconditions: Some(seen), ..DeleteParams::default() };
    match api.delete(&name, &params).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Removal::Changed),
        deleted => deleted.map(|_| Removal::Begun).during(|| format!("delete MySQLBackup {namespace}/{name}")),
    }
}

/// Takes back the mark of a removal that did not come to pass, or sets fields of the spec that may be changed.
pub(super) async fn change(
    client: &Client,
    backup: &MySQLBackup,
    mut patch: serde_json::Value,
) -> Result<(), OperatorError> {
    let (namespace, name) = (backup.namespace().unwrap_or_default(), backup.name_any());
    let api: Api<MySQLBackup> = Api::namespaced(client.clone(), &namespace);
    if let Some(metadata) = patch.as_object_mut().map(|patch| patch.entry("metadata").or_insert_with(|| json!({})))
        && let Some(metadata) = metadata.as_object_mut()
    {
        metadata.insert("resourceVersion".to_owned(), json!(backup.resource_version()));
    }
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch(&name, &params, &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        patched => patched.map(drop).during(|| format!("change MySQLBackup {namespace}/{name}")),
    }
}

/// Writes the status if it changed. Refused if somebody else changed the object since it was read.
pub(crate) async fn status(
    context: &Context,
    backup: &MySQLBackup,
    new: &MySQLBackupStatus,
) -> Result<(), OperatorError> {
    if backup.status.as_ref() == Some(new) {
        return Ok(());
    }
    let (namespace, name) = (backup.namespace().unwrap_or_default(), backup.name_any());
    let api: Api<MySQLBackup> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({
        "apiVersion": MySQLBackup::api_version(&()),
        "kind": MySQLBackup::kind(&()),
        "metadata": {"name": name, "resourceVersion": backup.resource_version()},
        "status": new,
    });
    let params = PatchParams::apply(MANAGER).force();
    let written = api.patch_status(&name, &params, &Patch::Apply(&patch)).await;
    written.during(|| format!("write the status of {namespace}/{name}"))?;
    count(context, backup, new);
    tell(context, backup, new).await;
    Ok(())
}

/// Counts a backup once: by the write that says how it ended. One that was found in a storage ended elsewhere.
fn count(context: &Context, backup: &MySQLBackup, new: &MySQLBackupStatus) {
    let before = backup.status.as_ref().is_some_and(MySQLBackupStatus::has_ended);
    if before || !new.has_ended() || backup.spec.existing.is_some() {
        return;
    }
    let namespace = backup.namespace().unwrap_or_default();
    if !new.has_succeeded() {
        return context.metrics.backup_failed(&namespace);
    }
    let bytes = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
    let finished = Finished {
        duration: Duration::from_secs(bytes(new.duration_seconds)),
        read: bytes(new.size_bytes),
        stored: bytes(new.stored_bytes),
    };
    context.metrics.backup_succeeded(&namespace, finished);
}

/// An event when the summary's reason changed: what `kubectl describe` shows as the story of a backup.
async fn tell(context: &Context, backup: &MySQLBackup, new: &MySQLBackupStatus) {
    let before = backup.status.as_ref().map_or("", MySQLBackupStatus::reason);
    if before == new.reason() {
        return;
    }
    let type_ = if new.has_ended() && !new.has_succeeded() { EventType::Warning } else { EventType::Normal };
    let note =
        new.conditions.iter().find(|condition| condition.reason == new.reason()).map(|said| said.message.clone());
    event(context, backup, type_, &format!("Backup{}", new.reason()), note.unwrap_or_default()).await;
}

/// An event about a backup. Nothing depends on it: one that cannot be written is a line in the log.
pub(super) async fn event(context: &Context, backup: &MySQLBackup, type_: EventType, reason: &str, note: String) {
    let note: String = note.chars().take(1000).collect();
    let event =
        Event { type_, reason: reason.to_owned(), note: Some(note), action: "Backup".to_owned(), secondary: None };
    if let Err(error) = context.recorder.publish(&event, &backup.object_ref(&())).await {
        tracing::warn!(%error, reason, "cannot write an event");
    }
}

/// Adds or removes the finalizer. Refused if somebody else changed the object since it was read.
pub(super) async fn finalizer(client: &Client, backup: &MySQLBackup, wanted: bool) -> Result<bool, OperatorError> {
    let there = backup.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    if there == wanted {
        return Ok(false);
    }
    let mut finalizers: Vec<String> = backup.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if wanted {
        finalizers.push(FINALIZER.to_owned());
    }
    let (namespace, name) = (backup.namespace().unwrap_or_default(), backup.name_any());
    let api: Api<MySQLBackup> = Api::namespaced(client.clone(), &namespace);
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": backup.resource_version()}});
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch(&name, &params, &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        patched => patched.map(|_| true).during(|| format!("set the finalizer of {namespace}/{name}")),
    }
}
