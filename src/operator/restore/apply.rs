//! Makes the cluster as the plan says. The only step that writes.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::events::{Event, EventType};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};

use crate::api::conditions::{self, status, types};
use crate::api::{MySQLRestore, MySQLRestoreStatus};
use crate::operator::Context;
use crate::operator::error::{During, OperatorError};
use crate::operator::names::MANAGER;

/// The finalizer: runners to be stopped and volumes to be let go before a restore's object may go.
pub(super) const FINALIZER: &str = "stillframe.dev/restore";

fn manager() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// Changes a volume as it was seen, or not at all.
pub(super) async fn patch_volume(client: &Client, name: &str, patch: &Value) -> Result<(), OperatorError> {
    let api: Api<PersistentVolume> = Api::all(client.clone());
    let patched = api.patch(name, &manager(), &Patch::Merge(patch)).await;
    patched.map(drop).during(|| format!("change volume {name}"))
}

/// Marks a claim as filled by this restore.
pub(super) async fn mark_claim(
    client: &Client,
    claim: &PersistentVolumeClaim,
    annotations: &Value,
) -> Result<(), OperatorError> {
    let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    // By its uid: never another one of the same name.
    let patch = json!({"metadata": {"uid": claim.uid(), "annotations": annotations}});
    let patched = api.patch(&name, &manager(), &Patch::Merge(&patch)).await;
    patched.map(drop).during(|| format!("mark claim {namespace}/{name}"))
}

/// Deletes a staging claim, that very one. Gone already is as good.
pub(super) async fn delete_claim(client: &Client, claim: &PersistentVolumeClaim) -> Result<(), OperatorError> {
    let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: claim.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(&name, &params).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        deleted => deleted.map(drop).during(|| format!("delete claim {namespace}/{name}")),
    }
}

/// Writes the status if it changed. Refused if somebody else changed the object since it was read.
pub(super) async fn status(
    context: &Context,
    restore: &MySQLRestore,
    new: &MySQLRestoreStatus,
) -> Result<(), OperatorError> {
    if restore.status.as_ref() == Some(new) {
        return Ok(());
    }
    let (namespace, name) = (restore.namespace().unwrap_or_default(), restore.name_any());
    let api: Api<MySQLRestore> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({
        "apiVersion": MySQLRestore::api_version(&()),
        "kind": MySQLRestore::kind(&()),
        "metadata": {"name": name, "resourceVersion": restore.resource_version()},
        "status": new,
    });
    let params = PatchParams::apply(MANAGER).force();
    let written = api.patch_status(&name, &params, &Patch::Apply(&patch)).await;
    written.during(|| format!("write the status of {namespace}/{name}"))?;
    tell(context, restore, new).await;
    Ok(())
}

/// When this operator last changed the status, as the API server noted it.
pub(super) fn last_written(restore: &MySQLRestore) -> Option<Timestamp> {
    let fields = restore.metadata.managed_fields.iter().flatten();
    let own =
        fields.filter(|one| one.manager.as_deref() == Some(MANAGER) && one.subresource.as_deref() == Some("status"));
    own.filter_map(|one| one.time.as_ref().map(|time| time.0)).max()
}

/// An event when the summary's reason changed: what `kubectl describe` shows as the story of a restore.
async fn tell(context: &Context, restore: &MySQLRestore, new: &MySQLRestoreStatus) {
    for type_ in [types::SUCCEEDED, types::READY] {
        let before = restore.status.as_ref().and_then(|old| conditions::find(&old.conditions, type_));
        let Some(said) = conditions::find(&new.conditions, type_) else { continue };
        if before.is_some_and(|before| before.reason == said.reason) {
            continue;
        }
        let kind = if said.status == status::FALSE { EventType::Warning } else { EventType::Normal };
        let reason = format!("Restore{}", said.reason);
        event(context, &restore.object_ref(&()), kind, &reason, said.message.clone()).await;
    }
}

/// An event. Nothing depends on it: one that cannot be written is a line in the log.
pub(super) async fn event(context: &Context, about: &ObjectReference, type_: EventType, reason: &str, note: String) {
    let note: String = note.chars().take(1000).collect();
    let event =
        Event { type_, reason: reason.to_owned(), note: Some(note), action: "Restore".to_owned(), secondary: None };
    if let Err(error) = context.recorder.publish(&event, about).await {
        tracing::warn!(%error, reason, "cannot write an event");
    }
}

/// Adds or removes the finalizer. True if the object was changed. Refused if somebody else changed it meanwhile.
pub(super) async fn finalizer(client: &Client, restore: &MySQLRestore, wanted: bool) -> Result<bool, OperatorError> {
    let there = restore.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    if there == wanted {
        return Ok(false);
    }
    let mut finalizers: Vec<String> = restore.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if wanted {
        finalizers.push(FINALIZER.to_owned());
    }
    let (namespace, name) = (restore.namespace().unwrap_or_default(), restore.name_any());
    let api: Api<MySQLRestore> = Api::namespaced(client.clone(), &namespace);
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": restore.resource_version()}});
    match api.patch(&name, &manager(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        patched => patched.map(|_| true).during(|| format!("set the finalizer of {namespace}/{name}")),
    }
}
