//! From what is there to how the backup is reached.

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::*;

const ID: &str = "nightly-20260314T150926Z-1a2b3c4d";

fn spec(change: &Value) -> MySQLRestoreSpec {
    let mut spec = json!({"source": {"backupRef": {"name": "nightly"}}, "target": {"dataSource": {}}});
    for (key, value) in change.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(spec).unwrap()
}

fn backup(status: &str) -> MySQLBackup {
    let condition = json!({"type": "Succeeded", "status": status, "reason": "R", "message": "m",
        "lastTransitionTime": "2026-03-14T15:09:26Z"});
    serde_json::from_value(json!({
        "apiVersion": "stillframe.dev/v1alpha1", "kind": "MySQLBackup", "metadata": {"name": "nightly"},
        "spec": {"storageRef": {"name": "bucket"}, "encryption": {"keyRefs": [{"name": "keys", "key": "backup"}]},
            "source": {"podName": "p", "credentials": {"secretRef": {"name": "user"}}}},
        "status": {"backupId": ID, "conditions": [condition]},
    }))
    .unwrap()
}

fn storage(ready: &str) -> BackupStorage {
    serde_json::from_value(json!({
        "apiVersion": "stillframe.dev/v1alpha1", "kind": "BackupStorage", "metadata": {"name": "bucket", "generation": 1},
        "spec": {"serviceAccountName": "store", "accessMode": "ReadOnly", "s3": {"bucket": "backups",
            "credentials": {"accessKeyIdRef": {"name": "s3", "key": "id"}, "secretAccessKeyRef": {"name": "s3", "key": "secret"}}}},
        "status": {"conditions": [{"type": "Ready", "status": ready, "reason": "R", "message": "m",
            "lastTransitionTime": "2026-03-14T15:09:26Z", "observedGeneration": 1}]},
    }))
    .unwrap()
}

fn found() -> Found {
    let secret = |keys: &[&str]| Secret {
        data: Some(keys.iter().map(|key| ((*key).to_owned(), ByteString(b"x".to_vec()))).collect()),
        ..Secret::default()
    };
    let secrets = [("s3".to_owned(), secret(&["id", "secret"])), ("keys".to_owned(), secret(&["backup", "own"]))];
    Found { backup: Some(backup("True")), storage: Some(storage("True")), secrets: secrets.into() }
}

fn reason(spec: &MySQLRestoreSpec, found: &Found) -> String {
    plan_source(spec, found).unwrap_err().reason
}

#[test]
fn a_complete_backup_is_reached_through_its_storage() {
    let source = plan_source(&spec(&json!({})), &found()).unwrap();
    assert_eq!((source.storage_name.as_str(), source.backup_id.as_str()), ("bucket", ID));
    assert_eq!(source.account.as_deref(), Some("store"));
    assert_eq!(source.keys[0].key, "backup", "the backup's own keys");
    let own = spec(&json!({"encryption": {"keyRefs": [{"name": "keys", "key": "own"}]}}));
    assert_eq!(plan_source(&own, &found()).unwrap().keys[0].key, "own");
}

#[test]
fn a_storage_and_an_id_need_no_object_of_a_backup() {
    let spec = spec(&json!({"source": {"storage": {"storageRef": {"name": "bucket"}, "backupId": ID}}}));
    let source = plan_source(&spec, &Found { backup: None, ..found() }).unwrap();
    assert_eq!(source.backup_id.as_str(), ID);
    assert!(source.keys.is_empty());
}

#[test]
fn what_is_missing_is_waited_for() {
    let spec = spec(&json!({}));
    assert_eq!(reason(&spec, &Found { backup: None, ..found() }), "WaitingForReference");
    assert_eq!(reason(&spec, &Found { storage: None, ..found() }), "WaitingForReference");
    assert_eq!(reason(&spec, &Found { secrets: BTreeMap::new(), ..found() }), "WaitingForReference");
    assert_eq!(reason(&spec, &Found { storage: Some(storage("False")), ..found() }), "StorageNotReady");
    for status in ["Unknown", "False"] {
        let refusal = plan_source(&spec, &Found { backup: Some(backup(status)), ..found() }).unwrap_err();
        assert_eq!(refusal.reason, "WaitingForReference", "{status}");
        assert_eq!(refusal.message.contains("failed"), status == "False");
    }
    let mut going = backup("True");
    going.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-03-14T15:09:26Z")).unwrap());
    assert_eq!(reason(&spec, &Found { backup: Some(going), ..found() }), "WaitingForReference");
    let keyring = self::spec(&json!({"keyring": {"secretRef": {"name": "keyring", "key": "file"}}}));
    assert_eq!(reason(&keyring, &found()), "WaitingForReference");
    let account = |key: &str| {
        let accounts = json!([{"user": "root", "passwordRef": {"name": "keys", "key": key}}]);
        self::spec(&json!({"accounts": accounts}))
    };
    assert_eq!(reason(&account("root"), &found()), "WaitingForReference");
    assert_eq!(plan_source(&account("own"), &found()).unwrap().accounts, account("own").accounts);
}
