//! Fetches everything that a backup's spec points at. The only step that reads from the cluster.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod};
use kube::api::{Api, ListParams};
use kube::core::Selector;
use kube::{Client, ResourceExt};

use crate::api::runner::RunnerReport;
use crate::api::{BackupStorage, MySQLBackupSpec};
use crate::operator::error::{During, OperatorError};
use crate::operator::names::{COMPONENT, OWNER_UID};
use crate::operator::secrets::read_secrets;
use crate::operator::storage::{StorePlan, plan_store};

use super::validate::{Gathered, source_secrets};

/// The runner's side only: what is needed while a try is going on.
pub(crate) async fn gather_runners(
    client: &Client,
    namespace: &str,
    uid: &str,
    run: &str,
) -> Result<Gathered, OperatorError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let own = ListParams::default().labels(&format!("{OWNER_UID}={uid},{COMPONENT}=runner"));
    let runners = pods.list(&own).await.during(|| format!("list runners of {namespace}/{run}"))?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let report = maps.get_opt(run).await.during(|| format!("read the report {namespace}/{run}"))?;
    Ok(Gathered {
        runners: runners.into_iter().map(|pod| (pod.name_any(), pod)).collect(),
        reports: report.map(|map| read_reports(&map)).unwrap_or_default(),
        ..Gathered::default()
    })
}

/// A report that cannot be read is none: the runner's pod will tell how it ended.
fn read_reports(map: &ConfigMap) -> BTreeMap<String, RunnerReport> {
    let entries = map.data.iter().flatten();
    entries.filter_map(|(key, text)| Some((key.clone(), serde_json::from_str(text).ok()?))).collect()
}

/// The storage and the Secrets that it needs.
pub(super) async fn gather_storage(
    client: &Client,
    namespace: &str,
    spec: &MySQLBackupSpec,
    gathered: &mut Gathered,
) -> Result<(), OperatorError> {
    let Some(name) = spec.storage_name() else { return Ok(()) };
    let storages: Api<BackupStorage> = Api::namespaced(client.clone(), namespace);
    gathered.storage = storages.get_opt(name).await.during(|| format!("read BackupStorage {namespace}/{name}"))?;
    let plan = gathered.storage.as_ref().and_then(|storage| plan_store(&storage.spec).ok());
    let names: BTreeSet<String> = plan.iter().flat_map(StorePlan::secrets).map(|key| key.name.clone()).collect();
    read_secrets(client, namespace, &names, &mut gathered.secrets).await
}

/// The source: its pods, their claims, and all Secrets of the spec.
pub(super) async fn gather_source(
    client: &Client,
    namespace: &str,
    spec: &MySQLBackupSpec,
    gathered: &mut Gathered,
) -> Result<(), OperatorError> {
    let Some(source) = &spec.source else { return Ok(()) };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    gathered.pods = match (&source.pod_name, &source.selector) {
        (Some(name), _) => {
            pods.get_opt(name).await.during(|| format!("read pod {namespace}/{name}"))?.into_iter().collect()
        }
        (None, Some(selector)) => {
            // The schema lets no selector through that cannot be read; one that is nevertheless selects nothing.
            match Selector::try_from(selector.clone()) {
                Ok(selector) if !selector.selects_all() => {
                    let params = ListParams::default().labels_from(&selector);
                    pods.list(&params).await.during(|| format!("list the source's pods in {namespace}"))?.items
                }
                _ => Vec::new(),
            }
        }
        (None, None) => Vec::new(),
    };
    gathered.claims = read_claims(client, namespace, &gathered.pods).await?;
    let plan = gathered.storage.as_ref().and_then(|storage| plan_store(&storage.spec).ok());
    if let Some(claim) = plan.and_then(|plan| plan.claim) {
        gather_store_claim(client, namespace, &claim, gathered).await?;
    }
    let encryption = spec.encryption.as_ref();
    let of_storage = gathered.storage.as_ref().and_then(|storage| storage.spec.encryption.as_ref());
    let keys = encryption.or(of_storage).into_iter().flat_map(|encryption| encryption.key_refs.iter());
    let own = source_secrets(source);
    let names = own.iter().chain(keys).map(|key| key.name.clone()).collect();
    read_secrets(client, namespace, &names, &mut gathered.secrets).await
}

/// The storage's own claim, and who else of the namespace uses it.
async fn gather_store_claim(
    client: &Client,
    namespace: &str,
    name: &str,
    gathered: &mut Gathered,
) -> Result<(), OperatorError> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    gathered.store_claim = claims.get_opt(name).await.during(|| format!("read claim {namespace}/{name}"))?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let all = pods.list(&ListParams::default()).await.during(|| format!("list pods of {namespace}"))?;
    gathered.store_claim_users =
        all.into_iter().filter(|pod| claim_names(pod).iter().any(|used| used == name)).collect();
    Ok(())
}

async fn read_claims(
    client: &Client,
    namespace: &str,
    pods: &[Pod],
) -> Result<BTreeMap<String, PersistentVolumeClaim>, OperatorError> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let mut found = BTreeMap::new();
    for name in pods.iter().flat_map(claim_names).collect::<BTreeSet<_>>() {
        let claim = claims.get_opt(&name).await.during(|| format!("read claim {namespace}/{name}"))?;
        found.extend(claim.map(|claim| (name, claim)));
    }
    Ok(found)
}

fn claim_names(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claim = |volume: &k8s_openapi::api::core::v1::Volume| match (&volume.persistent_volume_claim, &volume.ephemeral)
    {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.name_any(), volume.name)),
        (None, None) => None,
    };
    volumes.filter_map(claim).collect()
}

/// True if the namespace is on its way out: nothing new can be made in it.
pub(crate) async fn is_terminating(client: &Client, namespace: &str) -> Result<bool, OperatorError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let found = namespaces.get_opt(namespace).await.during(|| format!("read namespace {namespace}"))?;
    Ok(found.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
}
