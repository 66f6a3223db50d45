//! From what a restore's source points at to how the backup is reached. Pure: the same input, the same answer.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;

use crate::api::common::SecretKeyRef;
use crate::api::conditions::{reasons, status, types};
use crate::api::restore::AccountPassword;
use crate::api::restore_status::RestoredBackup;
use crate::api::{BackupStorage, MySQLBackup, MySQLRestoreSpec, conditions};
use crate::archive::id::BackupId;
use crate::archive::manifest::Manifest;
use crate::operator::backup::status::outcome;
use crate::operator::backup::validate::store_refusal;
use crate::operator::storage::{StorePlan, StoreRefusal, plan_store, secret_text};

/// Everything that the source points at.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    /// The backup's object, if the spec names one.
    pub(super) backup: Option<MySQLBackup>,
    /// The storage.
    pub(super) storage: Option<BackupStorage>,
    /// Secrets, by name.
    pub(super) secrets: BTreeMap<String, Secret>,
}

/// How the backup is reached.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Source {
    /// The storage's object.
    pub(super) storage_name: String,
    /// The storage.
    pub(super) store: StorePlan,
    /// The ServiceAccount that the storage names.
    pub(super) account: Option<String>,
    /// The backup.
    pub(super) backup_id: BackupId,
    /// Keys, one of which opens it.
    pub(super) keys: Vec<SecretKeyRef>,
    /// The keyring of the server.
    pub(super) keyring: Option<SecretKeyRef>,
    /// Accounts that get other passwords.
    pub(super) accounts: Vec<AccountPassword>,
}

/// Why the backup cannot be reached yet. Nothing of it is for good: what is missing may come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The condition's reason.
    pub(super) reason: String,
    /// The condition's message.
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }
}

/// The storage that holds the backup, by name.
pub(super) fn storage_name(spec: &MySQLRestoreSpec, backup: Option<&MySQLBackup>) -> Option<String> {
    let named = spec.source.storage.as_ref().map(|existing| existing.storage_ref.name.clone());
    named.or_else(|| backup?.spec.storage_name().map(str::to_owned))
}

/// The restore's own keys, or else those of the backup, or else of the storage.
pub(super) fn keys(spec: &MySQLRestoreSpec, found: &Found) -> Vec<SecretKeyRef> {
    let of_backup = found.backup.as_ref().and_then(|backup| backup.spec.encryption.as_ref());
    let of_storage = found.storage.as_ref().and_then(|storage| storage.spec.encryption.as_ref());
    spec.encryption.as_ref().or(of_backup).or(of_storage).map(|from| from.key_refs.clone()).unwrap_or_default()
}

/// Says how the backup is reached, or why not.
pub(super) fn plan_source(spec: &MySQLRestoreSpec, found: &Found) -> Result<Source, Refusal> {
    let backup_id = backup_id(spec, found.backup.as_ref())?;
    let name = storage_name(spec, found.backup.as_ref()).unwrap_or_default();
    let (store, account) = check_storage(&name, found.storage.as_ref())?;
    let keyring = spec.keyring.as_ref().map(|keyring| keyring.secret_ref.clone());
    let keys = keys(spec, found);
    let passwords = spec.accounts.iter().map(|account| &account.password_ref);
    for key in store.secrets().chain(&keys).chain(&keyring).chain(passwords) {
        // Only whether it is there: keys are bytes, and not ours to read.
        if let Err(missing @ StoreRefusal::MissingKey { .. }) = secret_text(&found.secrets, key) {
            return Err(Refusal::new(reasons::WAITING_FOR_REFERENCE, missing.to_string()));
        }
    }
    let accounts = spec.accounts.clone();
    Ok(Source { storage_name: name, store, account, backup_id, keys, keyring, accounts })
}

fn backup_id(spec: &MySQLRestoreSpec, backup: Option<&MySQLBackup>) -> Result<BackupId, Refusal> {
    let waiting = |message: String| Refusal::new(reasons::WAITING_FOR_REFERENCE, message);
    let text = match (&spec.source.storage, &spec.source.backup_ref) {
        (Some(existing), _) => existing.backup_id.clone(),
        (None, Some(reference)) => {
            let name = &reference.name;
            let backup = backup.ok_or_else(|| waiting(format!("there is no MySQLBackup {name} in this namespace")))?;
            let seen = backup.status.clone().unwrap_or_default();
            if backup.metadata.deletion_timestamp.is_some() {
                return Err(waiting(format!("the MySQLBackup {name} is being deleted")));
            }
            if seen.has_ended() && !seen.has_succeeded() {
                return Err(waiting(format!(
                    "the MySQLBackup {name} failed ({}): restore another one, or replace it by one of the same name",
                    seen.reason()
                )));
            }
            if !seen.has_succeeded() {
                return Err(waiting(format!("the MySQLBackup {name} is not complete yet")));
            }
            let existing = backup.spec.existing.as_ref().map(|existing| existing.backup_id.clone());
            existing.or(seen.backup_id).unwrap_or_default()
        }
        (None, None) => String::new(),
    };
    text.parse().map_err(|error| Refusal::new(reasons::INVALID_SPEC, format!("spec.source: {error}")))
}

fn check_storage(name: &str, storage: Option<&BackupStorage>) -> Result<(StorePlan, Option<String>), Refusal> {
    let storage = storage.ok_or_else(|| {
        Refusal::new(reasons::WAITING_FOR_REFERENCE, format!("there is no BackupStorage {name} in this namespace"))
    })?;
    let said = storage.status.as_ref().and_then(|seen| conditions::find(&seen.conditions, types::READY));
    let current = said.filter(|said| said.observed_generation == storage.metadata.generation);
    if let Some(said) = current.filter(|said| said.status == status::FALSE) {
        let message = format!("BackupStorage {name} is not ready: {}: {}", said.reason, said.message);
        return Err(Refusal::new(reasons::STORAGE_NOT_READY, message));
    }
    let plan = plan_store(&storage.spec).map_err(|refusal| {
        let refusal = store_refusal(name, &refusal);
        Refusal::new(&refusal.reason, refusal.message)
    })?;
    Ok((plan, storage.spec.service_account_name.clone()))
}

/// What a manifest tells, as a status tells it.
pub(super) fn restored_backup(manifest: &Manifest, storage_name: &str) -> RestoredBackup {
    let told = outcome(manifest, String::new());
    RestoredBackup {
        backup_id: told.backup_id,
        storage_name: storage_name.to_owned(),
        server_uuid: told.server_uuid,
        server_version: told.server_version,
        lsn: told.lsn,
        binlog: told.binlog,
        gtid_executed: told.gtid_executed,
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
