//! Fetches everything that a restore points at or made. The only step that reads from the cluster.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use crate::api::restore_status::{ClaimState, ClaimStatus};
use crate::api::runner::RunnerReport;
use crate::api::{BackupStorage, MySQLBackup, MySQLRestoreSpec};
use crate::operator::backup::gather::gather_runners;
use crate::operator::error::{During, OperatorError};
use crate::operator::names::OWNER_UID;
use crate::operator::runners::Identity;
use crate::operator::secrets::read_secrets;
use crate::operator::storage::{StorePlan, plan_store};

use super::slots::{Kind, Slot};
use super::validate::{Found, keys, storage_name};

/// What the cluster shows of a restore.
#[derive(Debug, Clone, Default)]
pub(super) struct World {
    /// All claims of the namespace, by name: targets and staging claims.
    pub(super) claims: BTreeMap<String, PersistentVolumeClaim>,
    /// Volumes that are being handed over, or that claims got from elsewhere, by name.
    pub(super) volumes: BTreeMap<String, PersistentVolume>,
    /// Runners' pods of this restore, by name.
    pub(super) pods: BTreeMap<String, Pod>,
    /// What they reported, by key.
    pub(super) reports: BTreeMap<String, RunnerReport>,
    /// Pods of others that use a claim that is there, by the claim's name.
    pub(super) users: BTreeMap<String, Vec<String>>,
    /// StorageClasses of claims that wait, by name: whether a volume waits for its first pod. `None`: no such class.
    pub(super) delayed: BTreeMap<String, Option<bool>>,
    /// The StatefulSet that the new claims are for, if it is there.
    pub(super) stateful_set: Option<StatefulSet>,
}

/// By which the volumes are found that a restore has promised to claims.
pub(super) fn of_promised_volumes(who: &Identity) -> String {
    format!("{OWNER_UID}={}", who.uid)
}

impl World {
    /// What of a restore's own is in the cluster, and all claims of its namespace.
    pub(super) async fn of(client: &Client, who: &Identity) -> Result<Self, OperatorError> {
        let namespace = &who.namespace;
        let runners = gather_runners(client, namespace, &who.uid, &who.run).await?;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
        let claims = claims.list(&ListParams::default()).await.during(|| format!("list claims of {namespace}"))?;
        let volumes: Api<PersistentVolume> = Api::all(client.clone());
        let own = ListParams::default().labels(&of_promised_volumes(who));
        let volumes = volumes.list(&own).await.during(|| format!("list volumes of {namespace}/{}", who.run))?;
        Ok(Self {
            claims: claims.into_iter().map(|claim| (claim.name_any(), claim)).collect(),
            volumes: volumes.into_iter().map(|volume| (volume.name_any(), volume)).collect(),
            pods: runners.runners,
            reports: runners.reports,
            ..Self::default()
        })
    }

    /// What these claims need besides: volumes, classes, and who uses them.
    pub(super) async fn look_at(
        &mut self,
        client: &Client,
        who: &Identity,
        slots: &[(Slot, ClaimStatus)],
    ) -> Result<(), OperatorError> {
        let open = slots.iter().filter(|(_, known)| !matches!(known.state, ClaimState::Ready | ClaimState::Failed));
        for (slot, known) in open {
            let spec = |name: &str| self.claims.get(name).and_then(|claim| claim.spec.clone()).unwrap_or_default();
            let staging = spec(&slot.staging_name(&who.run)).volume_name;
            let waits = spec(&slot.name);
            let names = [staging, known.volume_name.clone(), waits.volume_name];
            for name in names.into_iter().flatten().filter(|name| !name.is_empty()).collect::<BTreeSet<_>>() {
                self.read_volume(client, name).await?;
            }
            let class = waits.storage_class_name.unwrap_or_default();
            if matches!(slot.kind, Kind::Served { .. }) && !self.delayed.contains_key(&class) {
                let delayed = is_delayed(client, &class).await?;
                self.delayed.insert(class, delayed);
            }
            if matches!(slot.kind, Kind::Existing { .. }) && known.state == ClaimState::Pending {
                self.read_users(client, who, &slot.name).await?;
            }
        }
        Ok(())
    }

    async fn read_volume(&mut self, client: &Client, name: String) -> Result<(), OperatorError> {
        if !self.volumes.contains_key(&name) {
            let api: Api<PersistentVolume> = Api::all(client.clone());
            let volume = api.get_opt(&name).await.during(|| format!("read volume {name}"))?;
            self.volumes.extend(volume.map(|volume| (name, volume)));
        }
        Ok(())
    }

    async fn read_users(&mut self, client: &Client, who: &Identity, claim: &str) -> Result<(), OperatorError> {
        let api: Api<Pod> = Api::namespaced(client.clone(), &who.namespace);
        let pods = api.list(&ListParams::default()).await.during(|| format!("list pods of {}", who.namespace))?;
        let users = pods.iter().filter(|pod| !self.pods.contains_key(&pod.name_any()) && uses(pod, claim));
        self.users.insert(claim.to_owned(), users.map(ResourceExt::name_any).collect());
        Ok(())
    }

    /// The StatefulSet that new claims are for.
    pub(super) async fn read_stateful_set(
        &mut self,
        client: &Client,
        namespace: &str,
        name: &str,
    ) -> Result<(), OperatorError> {
        let api: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
        self.stateful_set = api.get_opt(name).await.during(|| format!("read StatefulSet {namespace}/{name}"))?;
        Ok(())
    }
}

/// A pod that has ended holds no volume any more.
fn uses(pod: &Pod, claim: &str) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    !matches!(phase, Some("Succeeded" | "Failed"))
        && volumes.any(|volume| volume.persistent_volume_claim.as_ref().is_some_and(|used| used.claim_name == claim))
}

async fn is_delayed(client: &Client, class: &str) -> Result<Option<bool>, OperatorError> {
    if class.is_empty() {
        return Ok(None);
    }
    let api: Api<StorageClass> = Api::all(client.clone());
    let found = api.get_opt(class).await.during(|| format!("read StorageClass {class}"))?;
    Ok(found.map(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")))
}

/// Everything that the source points at.
pub(super) async fn find_source(
    client: &Client,
    namespace: &str,
    spec: &MySQLRestoreSpec,
) -> Result<Found, OperatorError> {
    let mut found = Found::default();
    if let Some(reference) = &spec.source.backup_ref {
        let api: Api<MySQLBackup> = Api::namespaced(client.clone(), namespace);
        let name = &reference.name;
        found.backup = api.get_opt(name).await.during(|| format!("read MySQLBackup {namespace}/{name}"))?;
    }
    let Some(name) = storage_name(spec, found.backup.as_ref()) else { return Ok(found) };
    let api: Api<BackupStorage> = Api::namespaced(client.clone(), namespace);
    found.storage = api.get_opt(&name).await.during(|| format!("read BackupStorage {namespace}/{name}"))?;
    let plan = found.storage.as_ref().and_then(|storage| plan_store(&storage.spec).ok());
    let of_store = plan.iter().flat_map(StorePlan::secrets).map(|key| key.name.clone());
    let of_keys = keys(spec, &found).into_iter().map(|key| key.name);
    let of_keyring = spec.keyring.iter().map(|keyring| keyring.secret_ref.name.clone());
    let of_accounts = spec.accounts.iter().map(|account| account.password_ref.name.clone());
    let names = of_store.chain(of_keys).chain(of_keyring).chain(of_accounts).collect();
    read_secrets(client, namespace, &names, &mut found.secrets).await?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_uses_its_claims_until_it_has_ended() {
        let pod = |phase: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {"phase": phase}, "spec": {
                "containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}}))
            .unwrap()
        };
        assert!(uses(&pod("Running"), "data"));
        assert!(uses(&pod("Pending"), "data"), "it is about to");
        assert!(!uses(&pod("Running"), "other"));
        assert!(!uses(&pod("Succeeded"), "data"));
        assert!(!uses(&pod("Failed"), "data"));
    }
}
