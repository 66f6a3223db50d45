//! The objects of a restore, as they are to be. Pure.
//!
//! ```text
//!   staging claim    as the claim that it becomes, under a name of its own; goes with the restore
//!   runner's pod     the volume, writable, and nothing else; runs as the server that will own the files
//!   claim            names the volume that is complete; belongs to nobody, so that it outlives the restore
//! ```

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, EmptyDirVolumeSource, EnvVar, EnvVarSource, ObjectFieldSelector, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource, Pod, PodAffinityTerm, PodAntiAffinity, Volume,
    VolumeMount, VolumeResourceRequirements, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::api::MySQLRestoreSpec;
use crate::api::common::SecretKeyRef;
use crate::api::restore::{AccountPassword, ClaimAccessMode, ClaimTemplate, ReplicationPolicy};
use crate::api::runner::{AccountFile, POD_UID_VARIABLE, RestoreWork, Work};
use crate::operator::names::OWNER_UID;
use crate::operator::runners::{Identity, SECRETS_DIR, key_file, on_node, pod, secret_path, secrets_volume, variable};

use super::slots::{Kind, SELECTED_NODE, Slot};
use super::validate::Source;

/// The kind in labels.
pub(super) const KIND: &str = "MySQLRestore";
/// Carries the key of the claim that something was made for.
pub(super) const CLAIM_KEY: &str = "stillframe.dev/claim-key";
/// On a claim or volume: the uid of the restore that filled it.
pub(super) const RESTORED_BY: &str = "stillframe.dev/restored-by";
/// On a claim or volume: the backup that it was filled from.
pub(super) const BACKUP_ID: &str = "stillframe.dev/backup-id";
/// On a volume that is handed over: what becomes of it when its claim goes, once that is done.
pub(super) const RECLAIM: &str = "stillframe.dev/reclaim-policy";
/// On a volume that is handed over: name and uid of the staging claim that it came from.
pub(super) const STAGING: &str = "stillframe.dev/staging-claim";

const VOLUME_DIR: &str = "/restore";
const TEMPORARY_DIR: &str = "/tmp";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// The claim that is filled in place of one that shall appear complete. `claim` is the one that waits.
pub(super) fn staging_claim(
    who: &Identity,
    slot: &Slot,
    claim: Option<&PersistentVolumeClaim>,
) -> Option<PersistentVolumeClaim> {
    let spec = match &slot.kind {
        Kind::Existing { .. } => return None,
        Kind::New(template) => template_spec(template),
        Kind::Served { .. } => {
            let asked = claim?.spec.clone()?;
            PersistentVolumeClaimSpec {
                access_modes: asked.access_modes,
                resources: asked.resources,
                storage_class_name: asked.storage_class_name,
                volume_attributes_class_name: asked.volume_attributes_class_name,
                ..PersistentVolumeClaimSpec::default()
            }
        }
    };
    let mut metadata = who.metadata(slot.staging_name(&who.run));
    metadata.labels.get_or_insert_default().insert(CLAIM_KEY.to_owned(), slot.key.clone());
    Some(PersistentVolumeClaim { metadata, spec: Some(spec), status: None })
}

fn template_spec(template: &ClaimTemplate) -> PersistentVolumeClaimSpec {
    let mode = |mode: &ClaimAccessMode| {
        match mode {
            ClaimAccessMode::ReadWriteOnce => "ReadWriteOnce",
            ClaimAccessMode::ReadWriteOncePod => "ReadWriteOncePod",
            ClaimAccessMode::ReadWriteMany => "ReadWriteMany",
        }
        .to_owned()
    };
    PersistentVolumeClaimSpec {
        access_modes: Some(template.access_modes.iter().map(mode).collect()),
        storage_class_name: template.storage_class_name.clone(),
        resources: Some(VolumeResourceRequirements {
            requests: Some(BTreeMap::from([("storage".to_owned(), template.storage.clone())])),
            limits: None,
        }),
        ..PersistentVolumeClaimSpec::default()
    }
}

/// The claim that appears when its volume is complete.
pub(super) fn new_claim(
    who: &Identity,
    slot: &Slot,
    volume: &PersistentVolume,
    backup_id: &str,
) -> Option<PersistentVolumeClaim> {
    let Kind::New(template) = &slot.kind else { return None };
    // No owner: it stays when the restore goes. No label but the user's own.
    let metadata = ObjectMeta {
        name: Some(slot.name.clone()),
        namespace: Some(who.namespace.clone()),
        labels: Some(template.labels.clone()).filter(|labels| !labels.is_empty()),
        annotations: Some(BTreeMap::from([
            (RESTORED_BY.to_owned(), who.uid.clone()),
            (BACKUP_ID.to_owned(), backup_id.to_owned()),
        ])),
        ..ObjectMeta::default()
    };
    let class = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.clone());
    let spec = PersistentVolumeClaimSpec {
        // What the default was when the volume was made, it need not be any more.
        storage_class_name: Some(class.unwrap_or_default()),
        volume_name: Some(volume.name_any()),
        ..template_spec(template)
    };
    Some(PersistentVolumeClaim { metadata, spec: Some(spec), status: None })
}

/// Keeps a volume whatever becomes of its claims, and promises it to one.
pub(super) fn promise(
    who: &Identity,
    slot: &Slot,
    volume: &PersistentVolume,
    staging: &PersistentVolumeClaim,
    backup_id: &str,
) -> Value {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.clone());
    let policy = volume.annotations().get(RECLAIM).cloned().or(policy).unwrap_or_else(|| "Retain".to_owned());
    let came_from = format!("{}/{}", staging.name_any(), staging.uid().unwrap_or_default());
    json!({
        "metadata": {
            "resourceVersion": volume.resource_version(),
            "labels": {(OWNER_UID): who.uid, (CLAIM_KEY): slot.key},
            "annotations": {(RESTORED_BY): who.uid, (BACKUP_ID): backup_id, (RECLAIM): policy, (STAGING): came_from},
        },
        "spec": {
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": who.namespace, "name": slot.name,
                // Without a uid it is promised to whoever comes with that name, and names this volume.
                "uid": slot.claim_uid(), "resourceVersion": null, "fieldPath": null,
            },
        },
    })
}

/// Reclaims a volume again as before. It keeps the marks of where its data came from.
pub(super) fn give_back(volume: &PersistentVolume) -> Value {
    let policy = volume.annotations().get(RECLAIM).map_or("Retain", String::as_str);
    json!({
        "metadata": {
            "resourceVersion": volume.resource_version(),
            "labels": {(OWNER_UID): null, (CLAIM_KEY): null},
            "annotations": {(RECLAIM): null, (STAGING): null},
        },
        "spec": {"persistentVolumeReclaimPolicy": policy},
    })
}

/// Lets a volume go that nobody will have: it is the staging claim's again, which is gone, and so it is reclaimed.
pub(super) fn drop_volume(volume: &PersistentVolume) -> Value {
    let came_from = volume.annotations().get(STAGING).and_then(|text| text.split_once('/'));
    let (name, uid) = came_from.unwrap_or(("gone", "gone"));
    let mut patch = give_back(volume);
    if let Some(spec) = patch.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("claimRef".to_owned(), json!({"name": name, "uid": uid, "resourceVersion": null}));
    }
    patch
}

/// The pod that fills a claim. `claim` is the one that it mounts, `waits` the one that a volume is filled for.
pub(super) fn fill_pod(
    who: &Identity,
    spec: &MySQLRestoreSpec,
    source: &Source,
    slot: &Slot,
    waits: Option<&PersistentVolumeClaim>,
) -> Pod {
    let claim = if slot.is_staged() { slot.staging_name(&who.run) } else { slot.name.clone() };
    let request = who.request(&slot.work(), Work::Restore(Box::new(work(who, spec, source, slot))));
    let mut volumes = vec![Volume {
        name: "data".to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name: claim, read_only: None }),
        ..Volume::default()
    }];
    let mut mounts = vec![mount("data", VOLUME_DIR, false)];
    let mut add = |volume: Volume, path: &str, read_only: bool| {
        mounts.push(mount(&volume.name, path, read_only));
        volumes.push(volume);
    };
    let files = secret_files(source);
    if !files.is_empty() {
        add(secrets_volume(&files), SECRETS_DIR, true);
    }
    let temporary = EmptyDirVolumeSource::default();
    let temporary = Volume { name: "stillframe-tmp".to_owned(), empty_dir: Some(temporary), ..Volume::default() };
    add(temporary, TEMPORARY_DIR, false);
    for (volume, mount) in source.store.volumes(false) {
        volumes.push(volume);
        mounts.push(mount);
    }
    let mut environment = source.store.environment();
    environment.push(variable("TMPDIR", TEMPORARY_DIR));
    environment.push(own_uid());
    let mut pod = pod(who, &spec.runner, &request, environment, volumes, mounts);
    pod.metadata.labels.get_or_insert_default().insert(CLAIM_KEY.to_owned(), slot.key.clone());
    dress(&mut pod, who, spec, source, waits);
    source.store.join_group(&mut pod);
    pod
}

fn work(who: &Identity, spec: &MySQLRestoreSpec, source: &Source, slot: &Slot) -> RestoreWork {
    let target = &spec.target;
    let overwrite = matches!(slot.kind, Kind::Existing { overwrite: true });
    let keys = source.keys.iter().enumerate();
    RestoreWork {
        backup_id: source.backup_id.to_string(),
        store: source.store.url.clone(),
        // A subPath that the kubelet makes would be root's: the runner makes its own directory.
        data_dir: match &target.sub_path {
            Some(path) => format!("{VOLUME_DIR}/{path}"),
            None => VOLUME_DIR.to_owned(),
        },
        encryption_key_files: keys.map(|(number, key)| secret_path(&key_file(number, key))).collect(),
        keyring_file: source.keyring.as_ref().map(|_| secret_path("keyring")),
        recovery: spec.recovery,
        accounts: source.accounts.iter().enumerate().map(account_file).collect(),
        keep_replication: spec.replication == ReplicationPolicy::Keep,
        // Remains in a staging claim are our own; in another one only after a try of ours.
        overwrite_incomplete: slot.is_staged() || overwrite || who.attempt > 1,
        // So is what is complete in a staging claim: a try that died before it could say so.
        overwrite: overwrite || (slot.is_staged() && who.attempt > 1),
        // Elsewhere only a receipt tells that from somebody's database.
        receipt: (!slot.is_staged()).then(|| who.uid.clone()),
        parallelism: spec.parallelism.and_then(|threads| u32::try_from(threads).ok()),
    }
}

fn account_file((number, account): (usize, &AccountPassword)) -> AccountFile {
    let AccountPassword { user, host, password_ref } = account.clone();
    AccountFile { user, host, password_file: secret_path(&password_file(number, &password_ref)) }
}

/// It has the Secret's name in it, as that of a key has.
fn password_file(number: usize, key: &SecretKeyRef) -> String {
    key_file(number, key).replacen("key-", "password-", 1)
}

fn secret_files(source: &Source) -> Vec<(SecretKeyRef, String)> {
    let keys = source.keys.iter().enumerate().map(|(number, key)| (key.clone(), key_file(number, key)));
    let keyring = source.keyring.iter().map(|key| (key.clone(), "keyring".to_owned()));
    let passwords = source.accounts.iter().map(|account| &account.password_ref).enumerate();
    let passwords = passwords.map(|(number, key)| (key.clone(), password_file(number, key)));
    keys.chain(keyring).chain(passwords).collect()
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(read_only),
        ..VolumeMount::default()
    }
}

fn own_uid() -> EnvVar {
    let field = ObjectFieldSelector { api_version: None, field_path: "metadata.uid".to_owned() };
    EnvVar {
        name: POD_UID_VARIABLE.to_owned(),
        value: None,
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
    }
}

/// As the server that the files are for; where the volume must be; apart from the other members' volumes.
fn dress(
    pod: &mut Pod,
    who: &Identity,
    restore: &MySQLRestoreSpec,
    source: &Source,
    waits: Option<&PersistentVolumeClaim>,
) {
    let Some(spec) = &mut pod.spec else { return };
    let security = spec.security_context.get_or_insert_default();
    security.run_as_user = Some(restore.target.run_as_user);
    security.run_as_group = Some(restore.target.run_as_group);
    // No server lives in the volume, so that its root may be given to the group; a new one is root's alone.
    security.fs_group = Some(restore.target.run_as_group);
    security.fs_group_change_policy = Some("OnRootMismatch".to_owned());
    if let Some(account) = &source.account {
        spec.service_account_name = Some(account.clone());
    }
    spec.node_selector = Some(restore.runner.node_selector.clone()).filter(|labels| !labels.is_empty());
    let apart = PodAffinityTerm {
        label_selector: Some(LabelSelector {
            match_labels: Some(BTreeMap::from([(OWNER_UID.to_owned(), who.uid.clone())])),
            match_expressions: None,
        }),
        topology_key: HOSTNAME.to_owned(),
        ..PodAffinityTerm::default()
    };
    let apart = WeightedPodAffinityTerm { pod_affinity_term: apart, weight: 100 };
    spec.affinity = Some(Affinity {
        node_affinity: waits.and_then(|claim| claim.annotations().get(SELECTED_NODE)).map(|node| on_node(node)),
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![apart]),
            ..PodAntiAffinity::default()
        }),
        pod_affinity: None,
    });
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
