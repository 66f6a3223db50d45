//! Pods as real clusters have them, and what is read from each.

#![allow(clippy::needless_pass_by_value, reason = "so that json!() can be written where it is used")]

use serde_json::{Value, json};

use super::*;

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "shop-1"},
        "spec": spec,
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    }))
    .unwrap()
}

fn database() -> Value {
    json!({
        "nodeName": "node-a",
        "securityContext": {"runAsUser": 999, "runAsGroup": 999, "fsGroup": 1999, "supplementalGroups": [5]},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "containers": [
            {"name": "exporter"},
            {"name": "server", "volumeMounts": [
                {"name": "data", "mountPath": "/var/lib/mysql", "subPath": "mysql"},
                {"name": "data", "mountPath": "/logs", "subPath": "logs"},
                {"name": "redo", "mountPath": "/redo"},
                {"name": "config", "mountPath": "/etc/mysql"},
                {"name": "run", "mountPath": "/run/mysqld"},
                {"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
            ]},
        ],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "data-shop-1"}},
            {"name": "redo", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}},
            {"name": "config", "configMap": {"name": "shop"}},
            {"name": "run", "emptyDir": {}},
            {"name": "kube-api-access", "projected": {"sources": []}},
        ],
    })
}

fn claims(mode: &str) -> BTreeMap<String, PersistentVolumeClaim> {
    let claim = serde_json::from_value(json!({"spec": {"accessModes": [mode]}})).unwrap();
    BTreeMap::from([("data-shop-1".to_owned(), claim)])
}

fn read(spec: Value, container: Option<&str>, mode: &str) -> Result<DatabasePod, PodRefusal> {
    read_database_pod(&pod(spec), container, "/var/lib/mysql", &claims(mode))
}

#[test]
fn all_volumes_of_the_database_are_mounted_read_only_where_they_were() {
    let read = read(database(), None, "ReadWriteOnce").unwrap();
    let mounts: Vec<(&str, Option<&str>, Option<bool>)> = read
        .mounts
        .iter()
        .map(|mount| (mount.mount_path.as_str(), mount.sub_path.as_deref(), mount.read_only))
        .collect();
    assert_eq!(
        mounts,
        [
            ("/var/lib/mysql", Some("mysql"), Some(true)),
            ("/logs", Some("logs"), Some(true)),
            ("/redo", None, Some(true)),
        ]
    );
    let claims: Vec<&str> = read
        .volumes
        .iter()
        .map(|volume| volume.persistent_volume_claim.as_ref().unwrap().claim_name.as_str())
        .collect();
    assert_eq!(claims, ["data-shop-1", "shop-1-redo"], "each volume once, a generic ephemeral one by its claim");
    assert!(read.volumes.iter().all(|volume| volume.persistent_volume_claim.as_ref().unwrap().read_only.is_none()));
    assert_eq!((read.uid, read.gid, read.node.as_str()), (Some(999), Some(999), "node-a"));
    assert_eq!(read.groups, [5, 1999], "the group of the files, but never as fsGroup");
    assert_eq!(read.tolerations.len(), 1);
}

#[test]
fn volumes_that_no_second_pod_can_mount_are_refused_by_name() {
    let refusal = read(database(), None, "ReadWriteOncePod").unwrap_err();
    assert_eq!(refusal.reason, "VolumeNotShareable");
    assert!(refusal.message.contains("data-shop-1") && refusal.message.contains("allowEphemeralContainer"));
    let mut spec = database();
    spec["volumes"][0] = json!({"name": "data", "emptyDir": {}});
    let refusal = read(spec, None, "ReadWriteOnce").unwrap_err();
    assert_eq!(refusal.reason, "VolumeNotShareable");
    assert!(refusal.message.contains("volume data"), "{}", refusal.message);
}

#[test]
fn the_container_is_found_or_asked_for() {
    let mut two = database();
    let mut second = two["containers"][1].clone();
    second["name"] = json!("sidecar");
    two["containers"].as_array_mut().unwrap().push(second);
    let refusal = read(two.clone(), None, "ReadWriteOnce").unwrap_err();
    assert!(refusal.message.contains("set spec.source.container"), "{}", refusal.message);
    assert!(read(two.clone(), Some("server"), "ReadWriteOnce").is_ok());
    assert!(read(two.clone(), Some("nope"), "ReadWriteOnce").unwrap_err().message.contains("no container nope"));
    two["containers"][1]["name"] = json!("mysql");
    assert!(read(two, None, "ReadWriteOnce").is_ok(), "mysql is the usual name");
    let mut none = database();
    none["containers"][1]["volumeMounts"] = json!([]);
    assert!(read(none, None, "ReadWriteOnce").unwrap_err().message.contains("set spec.source.dataDir"));
}

#[test]
fn a_data_directory_below_its_volume_is_found() {
    let claims = claims("ReadWriteOnce");
    let read = read_database_pod(&pod(database()), None, "/var/lib/mysql/data", &claims).unwrap();
    assert_eq!(read.mounts.len(), 3);
    assert!(read_database_pod(&pod(database()), None, "/var/lib/mysql2", &claims).is_err(), "a longer name is another");
}

#[test]
fn root_is_no_owner() {
    let mut spec = database();
    spec["securityContext"] = json!({"runAsUser": 0});
    assert_eq!(read(spec.clone(), None, "ReadWriteOnce").unwrap().uid, None, "the image steps down to another one");
    spec["containers"][1]["securityContext"] = json!({"runAsUser": 27, "seLinuxOptions": {"level": "s0:c1,c2"}});
    let read = read(spec, None, "ReadWriteOnce").unwrap();
    assert_eq!(read.uid, Some(27), "the container's word counts more than the pod's");
    assert_eq!(read.selinux.unwrap().level.as_deref(), Some("s0:c1,c2"));
}

#[test]
fn only_a_ready_pod_is_a_source() {
    let mut ready = pod(database());
    assert!(is_ready(&ready));
    ready.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
    assert!(!is_ready(&ready));
    let waiting: Pod = serde_json::from_value(json!({"metadata": {}, "status": {"phase": "Pending"}})).unwrap();
    assert!(!is_ready(&waiting));
}

fn runner(status: Value) -> PodState {
    read_runner_pod(&serde_json::from_value(json!({"metadata": {"name": "r"}, "status": status})).unwrap())
}

#[test]
fn a_runners_fate_is_told_apart() {
    let ended = |state: Value| runner(json!({"phase": "Failed", "containerStatuses": [container(state)]}));
    let reason = |state: PodState| match state {
        PodState::Waiting { reason, .. } | PodState::Killed { reason, .. } => reason,
        PodState::Running => "runs",
        PodState::Exited { .. } => "exited",
    };
    assert_eq!(reason(ended(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}))), "RunnerOutOfMemory");
    assert_eq!(reason(ended(json!({"terminated": {"exitCode": 137, "reason": "Error"}}))), "RunnerDied");
    assert_eq!(ended(json!({"terminated": {"exitCode": 14}})), PodState::Exited { code: 14 });
    assert_eq!(reason(runner(json!({"phase": "Failed", "reason": "Evicted", "message": "disk"}))), "RunnerEvicted");
    assert_eq!(reason(runner(json!({"phase": "Failed", "reason": "NodeLost"}))), "RunnerDied");
    let drained = |end: Value| {
        let told =
            json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "m"});
        runner(
            json!({"phase": "Failed", "conditions": [told], "containerStatuses": [container(json!({"terminated": end}))]}),
        )
    };
    assert_eq!(reason(drained(json!({"exitCode": 30}))), "RunnerEvicted", "it ended by itself, since it was told to");
    assert_eq!(reason(drained(json!({"exitCode": 137}))), "RunnerEvicted");
    assert_eq!(reason(drained(json!({"exitCode": 0}))), "exited", "it was done");
    assert_eq!(reason(drained(json!({"exitCode": 137, "reason": "OOMKilled"}))), "RunnerOutOfMemory");
    assert_eq!(reason(runner(json!({"phase": "Running"}))), "runs");
    let unscheduled = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]});
    assert_eq!(reason(runner(unscheduled)), "Unschedulable");
    let pending = |why: &str| {
        runner(json!({"phase": "Pending", "containerStatuses": [container(json!({"waiting": {"reason": why}}))]}))
    };
    assert_eq!(reason(pending("ImagePullBackOff")), "PodStuck");
    assert_eq!(reason(pending("CreateContainerConfigError")), "PodStuck");
    assert_eq!(reason(pending("ContainerCreating")), "Starting");
    assert_eq!(reason(runner(json!({}))), "Starting");
}

fn container(state: Value) -> Value {
    json!({"name": "runner", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

#[test]
fn a_claim_that_is_on_another_node_is_said_so() {
    let claim = |mode: &str| -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": {"accessModes": [mode]}})).unwrap()
    };
    let user: Pod = serde_json::from_value(json!({
        "metadata": {"name": "reader"}, "spec": {"nodeName": "far", "containers": []}, "status": {"phase": "Running"},
    }))
    .unwrap();
    let told = |claim: Option<&PersistentVolumeClaim>, users: &[Pod], node: &str| {
        check_store_claim("c", claim, users, node).err().map(|refusal| (refusal.reason, refusal.message))
    };
    let (reason, message) = told(Some(&claim("ReadWriteOnce")), std::slice::from_ref(&user), "near").unwrap();
    assert_eq!(reason, reasons::STORAGE_NOT_READY);
    assert!(message.contains("pod reader uses it on node far") && message.contains("node near"), "{message}");
    assert_eq!(told(Some(&claim("ReadWriteOnce")), std::slice::from_ref(&user), "far"), None);
    assert_eq!(told(Some(&claim("ReadWriteMany")), std::slice::from_ref(&user), "near"), None);
    assert_eq!(told(None, &[], "near").unwrap().0, reasons::WAITING_FOR_REFERENCE);
    assert!(told(Some(&claim("ReadWriteOncePod")), &[], "near").unwrap().1.contains("ReadWriteOncePod"));
    let mut over = user;
    over.status.as_mut().unwrap().phase = Some("Succeeded".into());
    assert_eq!(told(Some(&claim("ReadWriteOnce")), &[over], "near"), None, "it let go");
}
