//! The backup as the storage itself shows it: nothing is started from what an object says alone.

use crate::api::conditions::reasons;
use crate::api::restore_status::RestoredBackup;
use crate::archive::manifest::Manifest;
use crate::operator::backup_storage::explain;
use crate::operator::error::OperatorError;
use crate::store::{Repository, StoreError};

use super::Reconciliation;
use super::gather::find_source;
use super::validate::{Found, Refusal, Source, plan_source, restored_backup};

impl Reconciliation<'_> {
    /// How the backup is reached, and what its manifest tells. The inner error is for people.
    pub(super) async fn find_backup(&self) -> Result<Result<(Source, RestoredBackup), Refusal>, OperatorError> {
        let spec = &self.restore.spec;
        let found = find_source(&self.context.client, &self.who.namespace, spec).await?;
        let source = match plan_source(spec, &found) {
            Ok(source) => source,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let read = read_manifest(&source, &found).await;
        Ok(read.map(|manifest| {
            let backup = restored_backup(&manifest, &source.storage_name);
            (source, backup)
        }))
    }
}

async fn read_manifest(source: &Source, found: &Found) -> Result<Manifest, Refusal> {
    let not_ready = |message: String| Refusal::new(reasons::STORAGE_NOT_READY, message);
    let connection = source.store.connection(&found.secrets);
    let (url, settings) = connection.map_err(|refusal| not_ready(refusal.to_string()))?;
    let opened = Repository::open_with(&url, settings, false).await;
    let repository = opened.map_err(|error| not_ready(explain(&error)))?;
    let id = &source.backup_id;
    let bytes = repository.read_manifest(id).await.map_err(|error| match &error {
        StoreError::NotFound { .. } | StoreError::Incomplete { .. } | StoreError::Deleted { .. } => {
            Refusal::new("NotFound", error.to_string())
        }
        StoreError::Damaged { .. } => Refusal::new("DamagedBackup", error.to_string()),
        _ => not_ready(explain(&error)),
    })?;
    let manifest = Manifest::decode(&bytes).map_err(|error| Refusal::new("DamagedBackup", error.to_string()))?;
    if manifest.id != *id {
        let message = format!("the manifest of {id} says that it is of {}", manifest.id);
        return Err(Refusal::new("DamagedBackup", message));
    }
    Ok(manifest)
}
