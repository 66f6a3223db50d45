//! Makes the cluster as the decision says. The only step that writes.

use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};
use serde_json::json;

use crate::api::{CronBackup, CronBackupStatus, MySQLBackup};
use crate::operator::Context;
use crate::operator::error::{During, OperatorError};
use crate::operator::names::MANAGER;

use super::build::is_own;

/// What became of a creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Created {
    /// It was created.
    Now,
    /// It is there already: this schedule's, from a look that did not get to its end, or by another operator.
    Before,
    /// Something else has that name.
    NameTaken,
}

/// Creates a backup that must not be made twice.
pub(super) async fn create(
    context: &Context,
    cron: &CronBackup,
    backup: &MySQLBackup,
) -> Result<Created, OperatorError> {
    let (namespace, name) = (backup.namespace().unwrap_or_default(), backup.name_any());
    let api: Api<MySQLBackup> = Api::namespaced(context.client.clone(), &namespace);
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, backup).await {
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let there = api.get_opt(&name).await.during(|| format!("read MySQLBackup {namespace}/{name}"))?;
            Ok(if there.is_none_or(|there| is_own(cron, &there)) { Created::Before } else { Created::NameTaken })
        }
        created => created.map(|_| Created::Now).during(|| format!("create MySQLBackup {namespace}/{name}")),
    }
}

/// Deletes a backup that runs, or failed: there are no data to lose. One that is gone already is as good.
pub(super) async fn delete(context: &Context, backup: &MySQLBackup) -> Result<(), OperatorError> {
    let (namespace, name) = (backup.namespace().unwrap_or_default(), backup.name_any());
    let api: Api<MySQLBackup> = Api::namespaced(context.client.clone(), &namespace);
    // As it was seen: one that has ended, or was pinned, meanwhile is looked at anew.
    let seen = Preconditions { uid: backup.uid(), resource_version: backup.resource_version() };
    let params = DeleteParams { preconditions: Some(seen), ..DeleteParams::default() };
    match api.delete(&name, &params).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        deleted => deleted.map(drop).during(|| format!("delete MySQLBackup {namespace}/{name}")),
    }
}

/// Writes the status if it changed. Refused if somebody else changed the object since it was read.
pub(super) async fn status(context: &Context, cron: &CronBackup, new: &CronBackupStatus) -> Result<(), OperatorError> {
    if cron.status.as_ref() == Some(new) {
        return Ok(());
    }
    let (namespace, name) = (cron.namespace().unwrap_or_default(), cron.name_any());
    let api: Api<CronBackup> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({
        "apiVersion": CronBackup::api_version(&()),
        "kind": CronBackup::kind(&()),
        "metadata": {"name": name, "resourceVersion": cron.resource_version()},
        "status": new,
    });
    let written = api.patch_status(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch)).await;
    written.map(drop).during(|| format!("write the status of CronBackup {namespace}/{name}"))
}

/// An event about a schedule, and one of its backups: without that, those about several would become one. Nothing
/// depends on it: one that cannot be written is a line in the log.
pub(super) async fn event(
    context: &Context,
    cron: &CronBackup,
    (type_, reason): (EventType, &str),
    backup: &MySQLBackup,
    note: String,
) {
    let note: String = note.chars().take(1000).collect();
    let (action, secondary) = ("Schedule".to_owned(), Some(backup.object_ref(&())));
    let event = Event { type_, reason: reason.to_owned(), note: Some(note), action, secondary };
    if let Err(error) = context.recorder.publish(&event, &cron.object_ref(&())).await {
        tracing::warn!(%error, reason, "cannot write an event");
    }
}
