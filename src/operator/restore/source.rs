//! The backup as the storage itself shows it: nothing is started from what an object says alone.

use crate::api::conditions::reasons;
use crate::api::restore_status::RestoredBackup;
use crate::archive::manifest::Manifest;
use crate::operator::error::OperatorError;
use crate::operator::store_access::{Access, Manifests};
use crate::store::{ToldKind, explain, tell};

use super::Reconciliation;
use super::gather::find_source;
use super::validate::{Refusal, Source, plan_source, restored_backup};

impl Reconciliation<'_> {
    /// How the backup is reached, and what its manifest tells. The inner error is for people.
    pub(super) async fn find_backup(&self) -> Result<Result<(Source, RestoredBackup), Refusal>, OperatorError> {
        let spec = &self.restore.spec;
        let found = find_source(&self.context.client, &self.who.namespace, spec).await?;
        let source = match plan_source(spec, &found) {
            Ok(source) => source,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Some(storage) = &found.storage else {
            return Ok(Err(Refusal::new(reasons::WAITING_FOR_REFERENCE, "the BackupStorage is gone".to_owned())));
        };
        let access = Access::open(self.context, &self.who, storage, &found.secrets).await;
        let read = match access {
            Ok(access) => read_manifest(&access, &self.context.manifests, &source).await,
            Err(refusal) => Err(Refusal::new(reasons::STORAGE_NOT_READY, refusal.to_string())),
        };
        Ok(read.map(|manifest| {
            let backup = restored_backup(&manifest, &source.storage_name);
            (source, backup)
        }))
    }
}

async fn read_manifest(access: &Access, known: &Manifests, source: &Source) -> Result<Manifest, Refusal> {
    let id = &source.backup_id;
    let bytes = access.read_manifest_lately(known, id).await.map_err(|error| match tell(&error).kind {
        ToldKind::NotFound | ToldKind::Incomplete | ToldKind::Deleted => Refusal::new("NotFound", error.to_string()),
        ToldKind::Damaged => Refusal::new("DamagedBackup", error.to_string()),
        _ => Refusal::new(reasons::STORAGE_NOT_READY, explain(&error)),
    })?;
    let manifest = Manifest::decode(&bytes).map_err(|error| Refusal::new("DamagedBackup", error.to_string()))?;
    if manifest.id != *id {
        let message = format!("the manifest of {id} says that it is of {}", manifest.id);
        return Err(Refusal::new("DamagedBackup", message));
    }
    Ok(manifest)
}
