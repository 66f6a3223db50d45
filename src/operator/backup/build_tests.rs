//! What a runner's pod looks like, as a cluster's policies and a database's files would see it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use super::*;
use crate::api::MySQLBackup;
use crate::api::runner::{REQUEST_VARIABLE, ReportBy, RunnerRequest, Work};
use crate::api::storage::BackupStorageSpec;
use crate::operator::inside::Inside;
use crate::operator::pods::read_database_pod;
use crate::operator::runners::{Authority, authority};
use crate::operator::storage::plan_store;

fn who() -> Identity {
    Identity {
        namespace: "shop".into(),
        kind: KIND,
        uid: "2f1c".into(),
        run: "nightly-1a2b3c4d".into(),
        attempt: 2,
        owner: OwnerReference { kind: "MySQLBackup".into(), name: "nightly".into(), ..OwnerReference::default() },
        image: "stillframe:1".into(),
        log: None,
    }
}

fn backup(change: &Value) -> MySQLBackup {
    let mut object = json!({
        "apiVersion": "stillframe.dev/v1alpha1", "kind": "MySQLBackup", "metadata": {"name": "nightly"},
        "spec": {
            "source": {"podName": "shop-1", "credentials": {"secretRef": {"name": "user", "usernameKey": "u"}},
                "tls": {"mode": "VerifyCA", "caSecretRef": {"name": "tls", "key": "ca"}},
                "keyring": {"secretRef": {"name": "keyring", "key": "file"}}},
            "storageRef": {"name": "bucket"},
            "runner": {"tolerations": [{"key": "own", "operator": "Exists"}], "nodeSelector": {"disk": "fast"},
                "priorityClassName": "low", "spool": {"size": "8Gi"}},
        },
    });
    for (key, value) in change.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

fn plan() -> BackupPlan {
    let database = serde_json::from_value(json!({
        "metadata": {"name": "shop-1"},
        "spec": {
            "nodeName": "node-a",
            "securityContext": {"runAsUser": 999, "fsGroup": 999, "seLinuxOptions": {"level": "s0:c1"}},
            "tolerations": [{"key": "dedicated", "operator": "Exists"}, {"key": "own", "operator": "Exists"}],
            "containers": [{"name": "mysql", "volumeMounts": [{"name": "data", "mountPath": "/var/lib/mysql", "subPath": "m"}]}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-shop-1"}}],
        },
        "status": {"podIP": "10.0.0.1"},
    }))
    .unwrap();
    let storage: BackupStorageSpec = serde_json::from_value(json!({
        "s3": {"bucket": "backups", "caSecretRef": {"name": "ca", "key": "c"}, "credentials": {
            "accessKeyIdRef": {"name": "s3", "key": "id"}, "secretAccessKeyRef": {"name": "s3", "key": "secret"}}},
        "serviceAccountName": "irsa",
    }))
    .unwrap();
    BackupPlan {
        pod: read_database_pod(&database, None, "/var/lib/mysql", &BTreeMap::new()).unwrap(),
        role: None,
        uid: 999,
        gid: 998,
        store: plan_store(&storage).unwrap(),
        account: storage.service_account_name,
        keys: vec![SecretKeyRef { name: "e".into(), key: "one".into() }],
    }
}

fn built(change: &Value) -> (Pod, PodSpec, RunnerRequest) {
    let object = backup(change);
    let source = object.spec.source.clone().unwrap();
    let pod = backup_pod(Try {
        who: &who(),
        spec: &object.spec,
        source: &source,
        plan: &plan(),
        backup_id: "nightly-20260314T150926Z-1a2b3c4d",
        schedule: Some("daily"),
        cluster_id: Some("cluster-uid"),
    });
    let spec = pod.spec.clone().unwrap();
    let request = spec.containers[0].env.iter().flatten().find(|variable| variable.name == REQUEST_VARIABLE).unwrap();
    let request = serde_json::from_str(request.value.as_ref().unwrap()).unwrap();
    (pod, spec, request)
}

/// The rules of Pod Security "restricted", as Kubernetes documents them.
fn assert_restricted(spec: &PodSpec) {
    let text = serde_json::to_value(spec).unwrap();
    for forbidden in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(text.get(forbidden).is_none(), "{forbidden}");
    }
    let security = spec.security_context.as_ref().unwrap();
    assert_eq!(security.run_as_non_root, Some(true));
    assert!(security.run_as_user.unwrap() > 0);
    assert_eq!(security.seccomp_profile.as_ref().unwrap().type_, "RuntimeDefault");
    for container in &spec.containers {
        let security = container.security_context.as_ref().unwrap();
        assert_eq!(security.allow_privilege_escalation, Some(false));
        assert_eq!(security.read_only_root_filesystem, Some(true));
        assert_eq!(security.capabilities.as_ref().unwrap().drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(security.privileged, None);
        assert!(container.resources.as_ref().unwrap().limits.as_ref().unwrap().contains_key("memory"));
    }
    for volume in spec.volumes.iter().flatten() {
        let kinds: Vec<String> = serde_json::to_value(volume).unwrap().as_object().unwrap().keys().cloned().collect();
        let allowed = ["name", "persistentVolumeClaim", "projected", "secret", "emptyDir"];
        assert!(kinds.iter().all(|kind| allowed.contains(&kind.as_str())), "{kinds:?}");
    }
}

#[test]
fn the_runner_works_beside_the_database_and_changes_nothing_there() {
    let (pod, spec, _) = built(&json!({}));
    assert_restricted(&spec);
    assert_eq!(pod.metadata.name.as_deref(), Some("nightly-1a2b3c4d-backup-2"));
    let security = spec.security_context.as_ref().unwrap();
    assert_eq!((security.run_as_user, security.run_as_group), (Some(999), Some(998)));
    assert_eq!(security.fs_group, None, "the kubelet would change the live files' owner");
    assert_eq!(security.supplemental_groups, Some(vec![999]));
    assert_eq!(security.se_linux_options.as_ref().unwrap().level.as_deref(), Some("s0:c1"));
    let affinity = serde_json::to_value(&spec.affinity).unwrap();
    let term = &affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"][0];
    assert_eq!(term["matchFields"][0], json!({"key": "metadata.name", "operator": "In", "values": ["node-a"]}));
    let tolerated: Vec<Option<&str>> = spec.tolerations.iter().flatten().map(|one| one.key.as_deref()).collect();
    assert_eq!(tolerated, [Some("dedicated"), Some("own")], "each once");
    assert_eq!(spec.node_selector.as_ref().unwrap()["disk"], "fast");
    assert_eq!(spec.priority_class_name.as_deref(), Some("low"));
    assert_eq!(spec.restart_policy.as_deref(), Some("Never"));
    let mounts = spec.containers[0].volume_mounts.as_ref().unwrap();
    let data = mounts.iter().find(|mount| mount.mount_path == "/var/lib/mysql").unwrap();
    assert_eq!((data.read_only, data.sub_path.as_deref()), (Some(true), Some("m")));
    let writable: Vec<&str> =
        mounts.iter().filter(|mount| mount.read_only != Some(true)).map(|mount| mount.mount_path.as_str()).collect();
    assert_eq!(writable, [SPOOL_DIR], "the only place to write");
}

#[test]
fn no_secret_is_in_the_request_and_every_file_of_it_is_mounted() {
    let (_, spec, request) = built(&json!({}));
    let Work::Backup(work) = &request.work else { panic!("no backup") };
    assert_eq!((request.report.as_str(), request.key.as_str()), ("nightly-1a2b3c4d", "backup-2"));
    assert_eq!(work.backup_id, "nightly-20260314T150926Z-1a2b3c4d");
    assert_eq!(work.origin.schedule.as_deref(), Some("daily"));
    assert_eq!((work.server.host.as_str(), work.server.port), ("10.0.0.1", 3306));
    assert_eq!(work.spool_bytes, 7 << 30, "an eighth stays free, or the pod is evicted");
    let volumes = serde_json::to_value(&spec.volumes).unwrap();
    let projected = volumes.as_array().unwrap().iter().find(|volume| volume["projected"].is_object()).unwrap();
    let files: Vec<String> = projected["projected"]["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|source| format!("{SECRETS_DIR}/{}", source["secret"]["items"][0]["path"].as_str().unwrap()))
        .collect();
    let mut wanted = vec![&work.login.user_file, &work.login.password_file];
    wanted.extend(work.login.ca_file.iter().chain(&work.keyring_file).chain(&work.encryption_key_files));
    assert_eq!(wanted.len(), 5);
    for file in wanted {
        assert!(files.contains(file), "{file} is in none of {files:?}");
    }
    assert_eq!(projected["projected"]["sources"][0]["secret"]["items"][0]["key"], "u");
    let ca = volumes.as_array().unwrap().iter().find(|volume| volume["secret"]["secretName"] == "ca").unwrap();
    assert_eq!(ca["secret"]["items"][0], json!({"key": "c", "path": "ca.crt"}));
}

#[test]
fn a_runners_resources_have_sane_defaults() {
    let resources = |change: Value| {
        let (_, spec, _) = built(&change);
        serde_json::to_value(spec.containers[0].resources.clone().unwrap()).unwrap()
    };
    let none = resources(json!({"runner": {}}));
    assert_eq!(none, json!({"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}}));
    let limits = resources(json!({"runner": {"resources": {"limits": {"memory": "128Mi"}}}}));
    assert_eq!(limits, json!({"limits": {"memory": "128Mi"}}), "a default request would be above it");
    let requests = resources(json!({"runner": {"resources": {"requests": {"cpu": "1"}}}}));
    assert_eq!(requests, json!({"requests": {"cpu": "1"}, "limits": {"memory": "512Mi"}}));
}

#[test]
fn nothing_of_the_users_object_rubs_off() {
    let (pod, spec, _) = built(&json!({}));
    let labels = pod.metadata.labels.unwrap();
    assert_eq!(labels["stillframe.dev/owner-uid"], "2f1c");
    assert_eq!(labels["app.kubernetes.io/managed-by"], "stillframe");
    assert!(!labels.contains_key("app.kubernetes.io/instance"), "GitOps tools track by it");
    assert_eq!(pod.metadata.annotations.unwrap()["sidecar.istio.io/inject"], "false");
    assert_eq!(spec.containers[0].image.as_deref(), Some("stillframe:1"), "the operator's, whatever the spec says");
    assert_eq!(spec.service_account_name.as_deref(), Some("irsa"), "the storage's");
}

#[test]
fn helpers_carry_less() {
    let object = backup(&json!({}));
    let source = object.spec.source.clone().unwrap();
    let server = Server { pod: "shop-1".into(), host: "10.0.0.1".into(), port: 3306 };
    let survey = survey_pod(&who(), &object.spec.runner, &source, vec![server]).spec.unwrap();
    assert_restricted(&survey);
    assert_eq!(survey.volumes.as_ref().unwrap().len(), 1, "the login, no data");
    assert_eq!(survey.affinity, None);
    assert!(!serde_json::to_string(&survey).unwrap().contains("AWS_"), "no storage");
    let look = look_pod(&who(), &object.spec.runner, &source, &plan().pod).spec.unwrap();
    assert_restricted(&look);
    let names: Vec<&str> = look.volumes.iter().flatten().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["data"], "the data, no login");
    assert!(look.affinity.is_some());
    assert_eq!(look.security_context.unwrap().fs_group, None);
}

#[test]
fn a_runner_may_write_its_report_and_nothing_else() {
    let Authority { account, report, role, binding } = authority(&who(), Some("irsa"));
    assert_eq!(account.metadata.owner_references, None, "it stays for the next run");
    assert_eq!(report.metadata.owner_references.unwrap()[0].name, "nightly");
    assert_eq!(report.data, None, "the data is the runner's");
    let rules = role.rules.unwrap();
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0].resource_names, Some(vec!["nightly-1a2b3c4d".to_owned()]));
    assert_eq!(rules[0].verbs, ["get", "patch"]);
    let subjects = binding.subjects.unwrap();
    let names: Vec<&str> = subjects.iter().map(|subject| subject.name.as_str()).collect();
    assert_eq!(names, ["stillframe-runner", "irsa"]);
    assert_eq!(binding.role_ref.name, role.metadata.name.unwrap());
}

#[test]
fn within_a_databases_pod_there_is_a_container_that_needs_nothing_new() {
    let object = backup(&json!({}));
    let source = object.spec.source.clone().unwrap();
    let mut plan = plan();
    let mount = VolumeMount { name: "data".into(), mount_path: "/whole".into(), ..VolumeMount::default() };
    let inside = Inside { mounts: vec![mount], data_dir: "/whole/m".into(), others: 0 };
    plan.pod.inside = Some(inside.clone());
    let (who, spec) = (&who(), &object.spec);
    let of = Try { who, spec, source: &source, plan: &plan, backup_id: "b-id", schedule: None, cluster_id: None };
    let made = super::super::inside::container(of, &inside);
    // The API server refuses more than that.
    assert_eq!((&made.resources, &made.ports, &made.lifecycle), (&None, &None, &None));
    assert_eq!(made.name, "nightly-1a2b3c4d-backup-2");
    let mounts: Vec<&str> = made.volume_mounts.iter().flatten().map(|mount| mount.mount_path.as_str()).collect();
    assert_eq!(mounts, ["/whole"], "no token of the database's account, no Secret");
    let security = made.security_context.unwrap();
    assert_eq!(
        (security.run_as_user, security.run_as_group, security.run_as_non_root),
        (Some(999), Some(998), Some(true))
    );
    assert_eq!(security.capabilities.unwrap().drop, Some(vec!["ALL".to_owned()]));
    assert_eq!(security.seccomp_profile.unwrap().type_, "RuntimeDefault");

    let environment = made.env.unwrap();
    let of = |name: &str| environment.iter().find(|one| one.name == name).unwrap();
    let request: RunnerRequest = serde_json::from_str(of(REQUEST_VARIABLE).value.as_ref().unwrap()).unwrap();
    assert_eq!(request.report_by, ReportBy::Output);
    let Work::Backup(work) = request.work else { panic!("no backup") };
    assert_eq!(work.data_dir, "/whole/m");
    let files: BTreeMap<&str, &str> =
        request.files.iter().map(|file| (file.path.as_str(), file.variable.as_str())).collect();
    for path in [
        &work.login.user_file,
        &work.login.password_file,
        work.keyring_file.as_ref().unwrap(),
        &work.encryption_key_files[0],
    ] {
        assert!(of(files[path.as_str()]).value.is_none(), "a reference, never the value");
    }
    let password = of(files[work.login.password_file.as_str()]).value_from.as_ref().unwrap();
    assert_eq!(password.secret_key_ref.as_ref().unwrap().name, "user");
    let ca = of("AWS_CA_BUNDLE").value.as_deref().unwrap();
    assert_eq!(of(files[ca]).value_from.as_ref().unwrap().secret_key_ref.as_ref().unwrap().name, "ca");
}
