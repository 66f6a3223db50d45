//! One working set, and what happens when a piece of it is missing or different.

#![allow(clippy::needless_pass_by_value, reason = "so that json!() can be written where it is used")]

use serde_json::{Value, json};

use super::*;

fn spec(change: Value) -> MySQLBackupSpec {
    let mut spec = json!({
        "source": {
            "selector": {"matchLabels": {"app": "shop"}},
            "credentials": {"secretRef": {"name": "user"}},
        },
        "storageRef": {"name": "bucket"},
    });
    merge(&mut spec, change);
    serde_json::from_value(spec).unwrap()
}

fn merge(target: &mut Value, change: Value) {
    let Value::Object(change) = change else { return *target = change };
    for (key, value) in change {
        merge(target.as_object_mut().unwrap().entry(key).or_insert(json!({})), value);
    }
}

fn storage(change: Value) -> BackupStorage {
    let mut storage = json!({
        "apiVersion": "stillframe.dev/v1alpha1", "kind": "BackupStorage",
        "metadata": {"name": "bucket", "generation": 2},
        "spec": {"s3": {"bucket": "backups", "credentials": {
            "accessKeyIdRef": {"name": "s3", "key": "id"}, "secretAccessKeyRef": {"name": "s3", "key": "secret"}}}},
    });
    merge(&mut storage, change);
    serde_json::from_value(storage).unwrap()
}

fn pod(name: &str, security: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "nodeName": "node-a", "securityContext": security,
            "containers": [{"name": "mysql", "volumeMounts": [{"name": "data", "mountPath": "/var/lib/mysql"}]}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        },
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    }))
    .unwrap()
}

fn secret(keys: &[&str]) -> Secret {
    let data = keys.iter().map(|key| ((*key).to_owned(), k8s_openapi::ByteString(b"x".to_vec()))).collect();
    Secret { data: Some(data), ..Secret::default() }
}

fn gathered() -> Gathered {
    let claim = serde_json::from_value(json!({"spec": {"accessModes": ["ReadWriteOnce"]}})).unwrap();
    Gathered {
        storage: Some(storage(json!({}))),
        pods: ["shop-0", "shop-1", "shop-2"].map(|name| pod(name, json!({"runAsUser": 999}))).into(),
        claims: BTreeMap::from([("data".to_owned(), claim)]),
        secrets: BTreeMap::from([
            ("user".to_owned(), secret(&["username", "password"])),
            ("s3".to_owned(), secret(&["id", "secret"])),
        ]),
        ..Gathered::default()
    }
}

fn report(gathered: &mut Gathered, key: &str, state: RunnerState) {
    gathered.reports.insert(key.to_owned(), RunnerReport { state, progress: None });
}

fn surveyed(gathered: &mut Gathered, answers: &[(&str, Option<bool>, Option<&str>)]) {
    let answers = answers
        .iter()
        .map(|(pod, primary, unfit)| Answer {
            pod: (*pod).to_owned(),
            primary: *primary,
            unfit: unfit.map(str::to_owned),
        })
        .collect();
    report(gathered, "survey-1", RunnerState::Surveyed { answers });
}

fn plan(spec: &MySQLBackupSpec, gathered: &Gathered) -> BackupPlan {
    match next_step(spec, gathered, 1) {
        Ok(Step::Run(plan)) => *plan,
        other => panic!("{other:?}"),
    }
}

fn refusal(spec: &MySQLBackupSpec, gathered: &Gathered) -> Refusal {
    match next_step(spec, gathered, 1) {
        Err(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn several_pods_are_asked_who_they_are() {
    let mut all = gathered();
    all.pods.push(serde_json::from_value(json!({"metadata": {"name": "shop-3"}})).unwrap());
    let Ok(Step::Survey(servers)) = next_step(&spec(json!({})), &all, 1) else { panic!("no survey") };
    let names: Vec<&str> = servers.iter().map(|server| server.pod.as_str()).collect();
    assert_eq!(names, ["shop-0", "shop-1", "shop-2"], "those that are ready");
    assert_eq!(servers[0].port, 3306);

    // An answer of an earlier try is not taken for one of this.
    surveyed(&mut all, &[("shop-0", Some(true), None)]);
    assert!(matches!(next_step(&spec(json!({})), &all, 2), Ok(Step::Survey(_))));
}

#[test]
fn the_target_decides_among_those_that_answered() {
    let mut all = gathered();
    surveyed(&mut all, &[("shop-0", Some(true), None), ("shop-1", Some(false), None), ("shop-2", Some(false), None)]);
    let chosen = |target: &str, all: &Gathered| {
        let plan = plan(&spec(json!({"source": {"target": target}})), all);
        (plan.pod.name, plan.role.unwrap())
    };
    assert_eq!(chosen("Primary", &all), ("shop-0".to_owned(), ServerRole::Primary));
    assert_eq!(chosen("PreferReplica", &all), ("shop-2".to_owned(), ServerRole::Replica));
    assert_eq!(chosen("Replica", &all), ("shop-2".to_owned(), ServerRole::Replica));

    surveyed(
        &mut all,
        &[("shop-0", Some(true), None), ("shop-1", None, Some("refused")), ("shop-2", Some(false), Some("RECOVERING"))],
    );
    assert_eq!(chosen("PreferReplica", &all), ("shop-0".to_owned(), ServerRole::Primary));
    let refused = refusal(&spec(json!({"source": {"target": "Replica"}})), &all);
    assert_eq!(refused.reason, "NoSourcePod");
    for part in ["shop-0 is the primary", "shop-1: refused", "shop-2: RECOVERING"] {
        assert!(refused.message.contains(part), "{}", refused.message);
    }
    report(&mut all, "survey-1", RunnerState::Failed { reason: "Usage".into(), message: "m".into(), retryable: false });
    assert_eq!(refusal(&spec(json!({})), &all).reason, "Usage");
}

#[test]
fn one_pod_need_not_be_asked() {
    let mut all = gathered();
    all.pods.truncate(1);
    assert_eq!(plan(&spec(json!({})), &all).pod.name, "shop-0");
    let replica = spec(json!({"source": {"target": "Replica"}}));
    assert!(matches!(next_step(&replica, &all, 1), Ok(Step::Survey(_))), "it could be the primary");

    all.pods = vec![pod("shop-1", json!({"runAsUser": 999}))];
    let named: MySQLBackupSpec = serde_json::from_value(json!({
        "source": {"podName": "shop-1", "credentials": {"secretRef": {"name": "user"}}}, "storageRef": {"name": "bucket"},
    }))
    .unwrap();
    assert_eq!(plan(&named, &all).pod.name, "shop-1");
    all.pods.clear();
    assert!(refusal(&named, &all).message.contains("pod shop-1 is not there or not ready"));
}

#[test]
fn nobody_to_back_up_is_said_in_words() {
    let mut all = gathered();
    all.pods.clear();
    assert!(refusal(&spec(json!({})), &all).message.contains("no pod has the labels"));
    all.pods.push(Pod::default());
    let refused = refusal(&spec(json!({})), &all);
    assert_eq!((refused.reason.as_str(), refused.for_good), ("NoSourcePod", false));
    assert!(refused.message.contains("none of the 1 pods"), "{}", refused.message);
}

#[test]
fn the_owner_of_the_files_is_looked_up_if_nobody_says() {
    let mut all = gathered();
    all.pods = vec![pod("shop-0", json!({}))];
    let Ok(Step::Look(database)) = next_step(&spec(json!({})), &all, 1) else { panic!("no look") };
    assert_eq!(database.name, "shop-0");
    report(&mut all, "look-1", RunnerState::Looked { uid: 27, gid: 28 });
    let found = plan(&spec(json!({})), &all);
    assert_eq!((found.uid, found.gid), (27, 28));
    let said = plan(&spec(json!({"source": {"runAsUser": 1001}})), &all);
    assert_eq!(said.uid, 1001, "the spec's word counts more");
    report(&mut all, "look-1", RunnerState::Looked { uid: 0, gid: 0 });
    let refused = refusal(&spec(json!({})), &all);
    assert!(refused.for_good && refused.message.contains("spec.source.runAsUser"), "{refused:?}");
    all.pods = vec![pod("shop-0", json!({"runAsUser": 999, "runAsGroup": 998}))];
    let of_pod = plan(&spec(json!({})), &all);
    assert_eq!((of_pod.uid, of_pod.gid), (999, 998));
}

#[test]
fn what_is_missing_is_waited_for_by_name() {
    let base = spec(json!({}));
    let mut all = gathered();
    all.storage = None;
    let refused = refusal(&base, &all);
    assert_eq!((refused.reason.as_str(), refused.for_good), ("WaitingForReference", false));
    assert!(refused.message.contains("no BackupStorage bucket"), "{}", refused.message);

    for (name, key) in [("user", "password"), ("s3", "secret")] {
        let mut all = gathered();
        all.secrets.get_mut(name).unwrap().data.as_mut().unwrap().remove(key);
        let refused = refusal(&base, &all);
        assert_eq!(refused.reason, "WaitingForReference");
        assert_eq!(refused.message, format!("the secret {name} has no key {key}"));
    }
    let more = json!({
        "source": {"tls": {"caSecretRef": {"name": "tls", "key": "ca"}}, "keyring": {"secretRef": {"name": "k", "key": "f"}}},
        "encryption": {"keyRefs": [{"name": "e", "key": "one"}]},
    });
    let mut all = gathered();
    let more = spec(more);
    for (name, key) in [("tls", "ca"), ("k", "f"), ("e", "one")] {
        assert_eq!(refusal(&more, &all).message, format!("the secret {name} has no key {key}"));
        all.secrets.insert(name.to_owned(), secret(&[key]));
    }
    surveyed(&mut all, &[("shop-1", Some(false), None)]);
    assert_eq!(plan(&more, &all).keys.len(), 1);
}

#[test]
fn a_storage_that_is_not_ready_is_waited_for() {
    let base = spec(json!({}));
    let with = |change: Value| Gathered { storage: Some(storage(change)), ..gathered() };
    assert_eq!(refusal(&base, &with(json!({"spec": {"accessMode": "ReadOnly"}}))).reason, "StorageNotReady");
    let ready = |status: &str, generation: i64| {
        json!({"status": {"conditions": [{"type": "Ready", "status": status, "reason": "StoreDenied", "message": "403",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": generation}]}})
    };
    let refused = refusal(&base, &with(ready("False", 2)));
    assert_eq!(refused.reason, "StorageNotReady");
    assert!(refused.message.contains("StoreDenied: 403"), "{}", refused.message);
    assert!(next_step(&base, &with(ready("False", 1)), 1).is_ok(), "said of an older spec");
    assert!(
        next_step(&base, &with(ready("Unknown", 2)), 1).is_ok(),
        "not probed yet: the runner's own preflight tells"
    );
    let volume: BackupStorage = serde_json::from_value(json!({
        "apiVersion": "stillframe.dev/v1alpha1", "kind": "BackupStorage", "metadata": {"name": "bucket"},
        "spec": {"persistentVolumeClaim": {"claimName": "c"}},
    }))
    .unwrap();
    let mut all = Gathered { storage: Some(volume), ..gathered() };
    surveyed(&mut all, &[("shop-1", Some(false), None)]);
    let refused = refusal(&base, &all);
    assert_eq!(refused.reason, "WaitingForReference");
    assert!(refused.message.contains("PersistentVolumeClaim c is not there"), "{}", refused.message);
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"]}});
    all.store_claim = serde_json::from_value(claim).unwrap();
    assert_eq!(plan(&base, &all).store.claim.as_deref(), Some("c"));
}

#[test]
fn the_storages_keys_are_used_unless_the_backup_has_its_own() {
    let mut all = gathered();
    all.storage = Some(storage(json!({"spec": {"encryption": {"keyRefs": [{"name": "e", "key": "storage"}]}}})));
    all.secrets.insert("e".to_owned(), secret(&["storage", "own"]));
    surveyed(&mut all, &[("shop-1", Some(false), None)]);
    assert_eq!(plan(&spec(json!({})), &all).keys[0].key, "storage");
    let own = spec(json!({"encryption": {"keyRefs": [{"name": "e", "key": "own"}]}}));
    assert_eq!(plan(&own, &all).keys[0].key, "own");
}

#[test]
fn what_is_not_there_yet_is_refused_for_good() {
    let all = gathered();
    for change in [json!({"type": "Incremental"}), json!({"lock": {"policy": "Short"}})] {
        let refused = refusal(&spec(change), &all);
        assert_eq!((refused.reason.as_str(), refused.for_good), ("Unsupported", true));
        assert!(refused.message.starts_with("not there yet"), "{}", refused.message);
    }
    let mut all = gathered();
    all.pods.truncate(1);
    all.claims.insert(
        "data".to_owned(),
        serde_json::from_value(json!({"spec": {"accessModes": ["ReadWriteOncePod"]}})).unwrap(),
    );
    let refused = refusal(&spec(json!({})), &all);
    assert_eq!((refused.reason.as_str(), refused.for_good), ("VolumeNotShareable", false));
    assert!(refused.message.contains("spec.source.allowEphemeralContainer"), "{}", refused.message);
}

/// A pod whose claim nobody else can mount, and a spec that lets the work be done in it.
fn from_within() -> (MySQLBackupSpec, Gathered) {
    let mut all = gathered();
    all.pods = vec![pod("shop-0", json!({"runAsUser": 999}))];
    let claim = json!({"spec": {"accessModes": ["ReadWriteOncePod"]}});
    all.claims.insert("data".to_owned(), serde_json::from_value(claim).unwrap());
    (spec(json!({"source": {"allowEphemeralContainer": true}})), all)
}

#[test]
fn a_volume_that_is_not_shared_is_read_from_within_if_that_is_allowed() {
    let (spec, mut all) = from_within();
    let inside = plan(&spec, &all).pod.inside.unwrap();
    assert_eq!((inside.data_dir.as_str(), inside.others), ("/var/lib/mysql", 0));
    all.claims.clear();
    assert_eq!(plan(&spec, &all).pod.inside, None, "a second pod is better wherever it can be had");
}

#[test]
fn what_cannot_be_had_within_a_pod_is_said() {
    let (spec_, mut all) = from_within();
    all.storage = Some(storage(json!({"spec": {"s3": {"credentials": null}}})));
    let refused = refusal(&spec_, &all);
    assert_eq!((refused.reason.as_str(), refused.for_good), ("VolumeNotShareable", false));
    assert!(refused.message.contains("a storage with credentials"), "{}", refused.message);

    let (_, mut all) = from_within();
    all.pods = vec![pod("shop-0", json!({}))];
    let refused = refusal(&spec_, &all);
    assert!(refused.for_good && refused.message.contains("spec.source.runAsUser"), "{refused:?}");

    let (_, mut all) = from_within();
    let containers = vec![k8s_openapi::api::core::v1::EphemeralContainer::default(); 100];
    all.pods[0].spec.as_mut().unwrap().ephemeral_containers = Some(containers);
    assert!(refusal(&spec_, &all).message.contains("restart it"));

    let (_, mut all) = from_within();
    let password = all.secrets.get_mut("user").unwrap().data.as_mut().unwrap().get_mut("password").unwrap();
    password.0 = vec![0xff];
    let refused = refusal(&spec_, &all);
    assert!(refused.message.contains("the key password of the secret user is no text"), "{}", refused.message);
}
