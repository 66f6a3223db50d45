//! The controller of `BackupStorage`: looks whether backups can go there, and shows those that are there already.
//!
//! ```text
//!   changed, or its period is over ─► plan ─► probe (write, replace refused, read back, delete) ─► Ready
//!                                              └─ list ─► count; what is gone is told; objects for those that have
//!                                                         none (importExisting)
//! ```

mod import;
mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::api::backup::DeletionPolicy;
use crate::api::conditions::{self, reasons, types};
use crate::api::{BackupStorage, BackupStorageStatus, Moment, MySQLBackup};
use crate::store::Content;
use crate::util::clock;

use super::Context;
use super::backup::apply::{create, remove, status};
use super::drive::drive;
use super::error::{During, OperatorError};
use super::names::{MANAGER, run_name};
use super::runners::Identity;
use super::secrets::read_secrets;
use super::storage::{StoreRefusal, plan_store, secret_text};
use super::store_access::Access;
use import::plan_imports;
use probe::{Probed, look};

/// The kind in labels.
const KIND: &str = "BackupStorage";
/// Storages that are looked at side by side.
const CONCURRENCY: u16 = 4;
/// How soon one that is not ready is looked at again: a Secret may come, a server may start.
const NOT_READY: Duration = Duration::from_secs(20);

/// Runs until told to stop.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    let controller = Controller::new(context.api::<BackupStorage>(), watcher::Config::default());
    let _ = context.caches.storages.set(controller.store());
    drive("storage", controller, CONCURRENCY, context, stop, look_at).await;
}

async fn look_at(storage: Arc<BackupStorage>, context: Arc<Context>) -> Result<Action, OperatorError> {
    if storage.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let now = clock::now();
    if let Some(left) = probe::until_due(&storage, now) {
        return Ok(Action::requeue(left));
    }
    let at = Moment { generation: storage.metadata.generation.unwrap_or(0), now };
    let mut new = storage.status.clone().unwrap_or_default();
    let probed = match open(&context, &storage).await? {
        Ok(access) => {
            new.destination = Some(access.shown().to_owned());
            look(&access, storage.spec.access_mode).await
        }
        Err(refusal) => Probed::refused(&refusal),
    };
    match probed {
        Probed::Good { capabilities, content } => {
            let said = probe::seen(storage.spec.access_mode, capabilities);
            new.set_ready(capabilities, said, at);
            new.backup_count = None;
            new.stored_bytes = None;
            if let Some(content) = content {
                let backups = &content.complete;
                let bytes = backups.iter().fold(0_u64, |sum, backup| sum.saturating_add(backup.stored_bytes));
                new.backup_count = Some(i64::try_from(backups.len()).unwrap_or(i64::MAX));
                new.stored_bytes = Some(i64::try_from(bytes).unwrap_or(i64::MAX));
                compare(&context, &storage, &content, at).await?;
            }
        }
        Probed::Bad { reason, message } => new.set_not_ready(&reason, &message, at),
    }
    write(&context, &storage, &new).await?;
    let ready = conditions::is(&new.conditions, types::READY, conditions::status::TRUE);
    Ok(Action::requeue(if ready { probe::period(&storage) } else { NOT_READY }))
}

async fn open(context: &Context, storage: &BackupStorage) -> Result<Result<Access, StoreRefusal>, OperatorError> {
    let plan = match plan_store(&storage.spec) {
        Ok(plan) => plan,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let names: BTreeSet<String> = plan.secrets().map(|key| key.name.clone()).collect();
    let mut secrets = BTreeMap::new();
    let namespace = storage.namespace().unwrap_or_default();
    read_secrets(&context.client, &namespace, &names, &mut secrets).await?;
    // A pod would wait for it for as long, and say it in other words.
    for key in plan.secrets() {
        if let Err(missing @ StoreRefusal::MissingKey { .. }) = secret_text(&secrets, key) {
            return Ok(Err(missing));
        }
    }
    let (Some(uid), Some(owner)) = (storage.uid(), storage.controller_owner_ref(&())) else {
        return Ok(Err(StoreRefusal::BadUrl("the API server has not finished it".to_owned())));
    };
    let who = Identity {
        namespace,
        kind: KIND,
        run: run_name(&storage.name_any(), &uid),
        attempt: 1,
        owner,
        image: context.options.image.clone(),
        log: context.options.runner_log.clone(),
        uid,
    };
    Ok(Access::open(context, &who, storage, &secrets).await)
}

/// Compares what is in the storage with the objects of the namespace, and brings these in line.
async fn compare(context: &Context, storage: &BackupStorage, found: &Content, at: Moment) -> Result<(), OperatorError> {
    let namespace = storage.namespace().unwrap_or_default();
    let api: Api<MySQLBackup> = Api::namespaced(context.client.clone(), &namespace);
    let shown = api.list(&ListParams::default()).await.during(|| format!("list backups of {namespace}"))?;
    let import = storage.spec.import_existing;
    let plan = plan_imports(&namespace, &storage.name_any(), import, found, &shown.items, at);
    for backup in plan.create {
        create(&context.client, &namespace, &backup).await?;
        tracing::info!(backup = backup.name_any(), "a backup of the storage is shown as an object");
    }
    for backup in plan.remove {
        remove(context, &backup, DeletionPolicy::Retain, at.now).await?;
        tracing::info!(backup = backup.name_any(), "a backup was deleted in the storage, and so its object goes");
    }
    for (backup, new) in plan.tell {
        match status(context, &backup, &new).await {
            // It changed meanwhile; the next look tells.
            Err(error) if error.is_conflict() => {}
            told => told?,
        }
        tracing::info!(backup = backup.name_any(), "what the storage has of a backup changed");
    }
    Ok(())
}

async fn write(context: &Context, storage: &BackupStorage, new: &BackupStorageStatus) -> Result<(), OperatorError> {
    let (namespace, name) = (storage.namespace().unwrap_or_default(), storage.name_any());
    let api: Api<BackupStorage> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({
        "apiVersion": BackupStorage::api_version(&()),
        "kind": BackupStorage::kind(&()),
        "metadata": {"name": name, "resourceVersion": storage.resource_version()},
        "status": new,
    });
    let params = PatchParams::apply(MANAGER).force();
    let written = api.patch_status(&name, &params, &Patch::Apply(&patch)).await;
    written.during(|| format!("write the status of {namespace}/{name}"))?;
    let before = storage.status.as_ref().and_then(|old| conditions::find(&old.conditions, types::READY));
    let after = conditions::find(&new.conditions, types::READY);
    if before.map(|said| (&said.status, &said.reason)) != after.map(|said| (&said.status, &said.reason)) {
        tracing::info!(reason = after.map_or(reasons::PENDING, |said| said.reason.as_str()), "the storage was probed");
    }
    Ok(())
}
