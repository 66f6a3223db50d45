//! What staging claims, pods and patches of volumes look like.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::*;
use crate::api::runner::{REQUEST_VARIABLE, RunnerRequest};
use crate::operator::restore::slots::wanted;
use crate::operator::storage::plan_store;

fn who(attempt: i32) -> Identity {
    Identity {
        namespace: "shop".into(),
        kind: KIND,
        uid: "restore-uid".into(),
        run: "seed-1a2b3c4d".into(),
        attempt,
        owner: OwnerReference { kind: KIND.into(), name: "seed".into(), ..OwnerReference::default() },
        image: "stillframe:1".into(),
        log: None,
    }
}

fn spec(target: &Value) -> MySQLRestoreSpec {
    let spec = json!({"source": {"backupRef": {"name": "b"}}, "target": target,
        "keyring": {"secretRef": {"name": "keyring", "key": "file"}}, "runner": {"nodeSelector": {"disk": "fast"}}});
    serde_json::from_value(spec).unwrap()
}

fn source() -> Source {
    let storage = json!({"s3": {"bucket": "backups", "caSecretRef": {"name": "ca", "key": "ca.crt"}}});
    Source {
        storage_name: "bucket".into(),
        store: plan_store(&serde_json::from_value(storage).unwrap()).unwrap(),
        account: Some("store".into()),
        backup_id: "nightly-20260314T150926Z-1a2b3c4d".parse().unwrap(),
        keys: vec![SecretKeyRef { name: "keys".into(), key: "k".into() }],
        keyring: Some(SecretKeyRef { name: "keyring".into(), key: "file".into() }),
        accounts: serde_json::from_value(json!([
            {"user": "root", "host": "%", "passwordRef": {"name": "shop2", "key": "root"}},
            {"user": "app", "passwordRef": {"name": "shop2", "key": "app"}},
        ]))
        .unwrap(),
    }
}

fn waiting() -> PersistentVolumeClaim {
    serde_json::from_value(json!({
        "metadata": {"name": "data", "uid": "claim-uid", "annotations": {SELECTED_NODE: "n1"}},
        "spec": {"storageClassName": "fast", "accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "7Gi"}},
            "dataSourceRef": {"apiGroup": "stillframe.dev", "kind": "MySQLRestore", "name": "seed"}},
    }))
    .unwrap()
}

fn slot(target: &Value) -> Slot {
    let claims = [("data".to_owned(), waiting())].into();
    wanted(&serde_json::from_value(target.clone()).unwrap(), "seed", "shop", &claims).remove(0)
}

fn new_target() -> Value {
    let template = json!({"storage": "5Gi", "labels": {"app": "shop"}, "storageClassName": "fast"});
    json!({"newClaim": {"name": "data", "template": template}, "subPath": "mysql", "runAsUser": 27, "runAsGroup": 28})
}

fn request(pod: &Pod) -> RestoreWork {
    let environment = pod.spec.as_ref().unwrap().containers[0].env.clone().unwrap();
    let text = environment.into_iter().find(|one| one.name == REQUEST_VARIABLE).unwrap().value.unwrap();
    match serde_json::from_str::<RunnerRequest>(&text).unwrap().work {
        Work::Restore(work) => *work,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_runner_writes_as_the_server_and_holds_nothing_else() {
    let target = new_target();
    let pod = fill_pod(&who(1), &spec(&target), &source(), &slot(&target), None);
    let spec = pod.spec.as_ref().unwrap();
    let security = spec.security_context.as_ref().unwrap();
    assert_eq!((security.run_as_user, security.run_as_group, security.fs_group), (Some(27), Some(28), Some(28)));
    assert_eq!(security.run_as_non_root, Some(true));
    assert_eq!(spec.service_account_name.as_deref(), Some("store"));
    assert_eq!(spec.node_selector.as_ref().unwrap()["disk"], "fast");
    let container = &spec.containers[0];
    assert_eq!(container.security_context.as_ref().unwrap().read_only_root_filesystem, Some(true));
    let writable: Vec<&str> = container
        .volume_mounts
        .iter()
        .flatten()
        .filter(|mount| mount.read_only == Some(false))
        .map(|mount| mount.mount_path.as_str())
        .collect();
    assert_eq!(writable, ["/restore", "/tmp"]);
    let claims: Vec<String> = spec
        .volumes
        .iter()
        .flatten()
        .filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.clone()))
        .collect();
    assert_eq!(claims, [slot(&target).staging_name("seed-1a2b3c4d")], "never the claim itself");
    let work = request(&pod);
    assert_eq!(work.data_dir, "/restore/mysql");
    assert!(work.overwrite_incomplete && !work.overwrite);
    assert_eq!(work.keyring_file.as_deref(), Some("/etc/stillframe/secrets/keyring"));
    assert_eq!(work.encryption_key_files, ["/etc/stillframe/secrets/key-0.keys.k"]);
    assert_eq!(work.recovery, None);
    let account = |user: &str, host: Option<&str>, file: &str| AccountFile {
        user: user.into(),
        host: host.map(str::to_owned),
        password_file: format!("/etc/stillframe/secrets/{file}"),
    };
    let accounts = [account("root", Some("%"), "password-0.shop2.root"), account("app", None, "password-1.shop2.app")];
    assert_eq!(work.accounts, accounts);
    let volumes = serde_json::to_string(&spec.volumes).unwrap();
    for file in ["password-0.shop2.root", "password-1.shop2.app", "key-0.keys.k", "keyring"] {
        assert!(volumes.contains(&format!(r#""path":"{file}""#)), "{file} in {volumes}");
    }
}

#[test]
fn only_own_remains_are_cleared_in_a_claim_that_is_there() {
    let work = |attempt, overwrite| {
        let target = json!({"existingClaim": {"name": "data", "overwrite": overwrite}});
        request(&fill_pod(&who(attempt), &spec(&target), &source(), &slot(&target), None))
    };
    assert!(!work(1, false).overwrite_incomplete);
    assert!(work(2, false).overwrite_incomplete, "what the former try left");
    assert!(work(1, true).overwrite_incomplete && work(1, true).overwrite);
    assert!(!work(2, false).overwrite);
    assert_eq!(work(2, false).receipt, Some(who(1).uid), "what it completed and told nobody");
}

#[test]
fn a_former_try_may_have_completed_a_staging_claim() {
    let target = json!({"newClaim": {"name": "data", "template": {"storage": "1Gi"}}});
    let work = |attempt| request(&fill_pod(&who(attempt), &spec(&target), &source(), &slot(&target), None));
    assert!(!work(1).overwrite);
    assert!(work(2).overwrite && work(2).receipt.is_none());
}

#[test]
fn a_claim_that_waits_is_filled_on_its_node() {
    let target = json!({"dataSource": {}});
    let slot = slot(&target);
    let staging = staging_claim(&who(1), &slot, Some(&waiting())).unwrap();
    let asked = staging.spec.unwrap();
    assert_eq!(asked.data_source_ref, None, "a provisioner makes this one");
    assert_eq!(asked.access_modes, Some(vec!["ReadWriteOncePod".to_owned()]));
    assert_eq!(asked.storage_class_name.as_deref(), Some("fast"));
    assert_eq!(asked.resources.unwrap().requests.unwrap()["storage"].0, "7Gi");
    let pod = fill_pod(&who(1), &spec(&target), &source(), &slot, Some(&waiting()));
    let affinity = serde_json::to_string(&pod.spec.unwrap().affinity.unwrap().node_affinity).unwrap();
    assert!(affinity.contains("\"n1\""), "{affinity}");
}

fn volume(annotations: &Value) -> PersistentVolume {
    serde_json::from_value(json!({
        "metadata": {"name": "pv", "resourceVersion": "7", "annotations": annotations},
        "spec": {"persistentVolumeReclaimPolicy": "Delete", "storageClassName": "fast"},
    }))
    .unwrap()
}

#[test]
fn a_promise_remembers_how_to_end_it() {
    let staging: PersistentVolumeClaim =
        serde_json::from_value(json!({"metadata": {"name": "stage", "uid": "stage-uid"}})).unwrap();
    let promised = |slot: &Slot, volume| promise(&who(1), slot, &volume, &staging, "b-1");
    let patch = promised(&slot(&new_target()), volume(&json!({})));
    assert_eq!(patch["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(patch["spec"]["claimRef"]["uid"], Value::Null, "the claim is to be made yet");
    assert_eq!(patch["metadata"]["annotations"][RECLAIM], "Delete");
    for label in super::super::gather::of_promised_volumes(&who(1)).split(',') {
        let (name, value) = label.split_once('=').unwrap();
        assert_eq!(patch["metadata"]["labels"][name], value, "it is found again by that, to be taken back");
    }
    assert_eq!(patch["metadata"]["resourceVersion"], "7", "as it was seen, or not at all");
    let patch = promised(&slot(&json!({"dataSource": {}})), volume(&json!({RECLAIM: "Recycle"})));
    assert_eq!(patch["spec"]["claimRef"]["uid"], "claim-uid");
    assert_eq!(patch["metadata"]["annotations"][RECLAIM], "Recycle", "what was written down first holds");

    let kept = volume(&json!({RECLAIM: "Delete", STAGING: "stage/stage-uid"}));
    assert_eq!(give_back(&kept)["spec"], json!({"persistentVolumeReclaimPolicy": "Delete"}));
    let dropped = drop_volume(&kept);
    assert_eq!(dropped["spec"]["claimRef"]["name"], "stage");
    assert_eq!(dropped["spec"]["claimRef"]["uid"], "stage-uid");
    assert_eq!(dropped["spec"]["persistentVolumeReclaimPolicy"], "Delete");
}

#[test]
fn a_new_claim_belongs_to_nobody() {
    let claim = new_claim(&who(1), &slot(&new_target()), &volume(&json!({})), "b-1").unwrap();
    assert_eq!(claim.metadata.owner_references, None);
    assert_eq!(claim.metadata.labels, Some([("app".to_owned(), "shop".to_owned())].into()));
    assert_eq!(claim.annotations()[RESTORED_BY], "restore-uid");
    let spec = claim.spec.unwrap();
    assert_eq!((spec.volume_name.as_deref(), spec.storage_class_name.as_deref()), (Some("pv"), Some("fast")));
}
