//! The Kubernetes API on a real API server: it takes the definitions, accepts every example, and refuses what is wrong
//! with a message that says what to do.
//!
//! Needs the cluster that `KUBECONFIG` names, and makes and removes a namespace of its own there. Objects are only
//! tried (dry run), but for a few whose changes are tried.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, ValidationDirective};
use kube::core::{GroupVersion, GroupVersionKind};
use kube::runtime::wait::{await_condition, conditions::is_crd_established};
use kube::{Client, ResourceExt};
use serde::Deserialize;
use serde_json::{Value, json};
use stillframe::api;

const MANAGER: &str = "stillframe-test";

struct Cluster {
    client: Client,
    namespace: String,
}

impl Cluster {
    async fn set_up() -> Self {
        // Whoever was first has installed the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        assert!(std::env::var_os("KUBECONFIG").is_some(), "KUBECONFIG must name the cluster to test on");
        let client = Client::try_default().await.expect("a cluster");
        install_definitions(&client).await;
        let metadata = json!({"metadata": {"generateName": "stillframe-api-test-"}});
        let namespace: Namespace = serde_json::from_value(metadata).unwrap();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = namespaces.create(&PostParams::default(), &namespace).await.unwrap().name_any();
        Self { client, namespace }
    }

    async fn tear_down(self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::background()).await.unwrap();
    }

    /// Objects of one of Stillframe's own kinds.
    fn api(&self, kind: &str) -> Api<DynamicObject> {
        self.api_of(&GroupVersionKind::gvk(api::GROUP, api::VERSION, kind))
    }

    fn api_of(&self, kind: &GroupVersionKind) -> Api<DynamicObject> {
        let plural = format!("{}s", kind.kind.to_lowercase());
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::from_gvk_with_plural(kind, &plural))
    }

    /// Applies a document; what the API server says if it refuses.
    async fn apply(&self, document: &Value, dry_run: bool) -> Result<DynamicObject, String> {
        let kind = document["kind"].as_str().unwrap();
        let version: GroupVersion = document["apiVersion"].as_str().unwrap().parse().unwrap();
        let name = document["metadata"]["name"].as_str().unwrap();
        let params = PatchParams {
            dry_run,
            force: true,
            field_manager: Some(MANAGER.to_owned()),
            field_validation: Some(ValidationDirective::Strict),
        };
        let api = self.api_of(&version.with_kind(kind));
        api.patch(name, &params, &Patch::Apply(document)).await.map_err(|error| match error {
            kube::Error::Api(status) => status.message.clone(),
            other => panic!("{kind} {name}: {other}"),
        })
    }
}

async fn install_definitions(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in api::crds() {
        let name = definition.name_any();
        let params = PatchParams::apply(MANAGER).force();
        definitions.patch(&name, &params, &Patch::Apply(&definition)).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        let established = await_condition(definitions.clone(), &name, is_crd_established());
        tokio::time::timeout(Duration::from_mins(2), established).await.expect("in time").unwrap();
    }
}

/// Every document below `manifests/examples`, a database's included.
fn examples() -> Vec<Value> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/examples");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            serde_yaml::Deserializer::from_str(&text).map(|one| Value::deserialize(one).unwrap()).collect::<Vec<_>>()
        })
        .collect()
}

fn example(name: &str) -> Value {
    let own = |document: &Value| document["apiVersion"] == "stillframe.dev/v1alpha1";
    examples()
        .into_iter()
        .find(|document| own(document) && document["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("{name}"))
}

/// RFC 7386: objects are merged, null removes, all else replaces.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        let members = target.as_object_mut().unwrap();
        if value.is_null() {
            members.remove(key);
        } else {
            merge(members.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// An example, what is done to its spec, and what the API server must say.
type Bad = (&'static str, Value, &'static str);

fn bad_backups() -> Vec<Bad> {
    vec![
        ("shop-now", json!({"source": null}), "set exactly one of spec.source (take a backup) and spec.existing"),
        (
            "shop-now",
            json!({"existing": {"storageRef": {"name": "a"}, "backupId": "a-20260314T150926Z-1a2b3c4d"}}),
            "set exactly one of spec.source",
        ),
        ("shop-now", json!({"storageRef": null}), "set spec.storageRef: the BackupStorage that the backup goes to"),
        ("shop-found", json!({"storageRef": {"name": "a"}}), "leave out spec.storageRef"),
        ("shop-now", json!({"baseRef": {"name": "a"}}), "leave out spec.baseRef, or set spec.type to Incremental"),
        ("shop-now", json!({"incremental": {}}), "leave out spec.incremental, or set spec.type to Incremental"),
        ("shop-now", json!({"source": {"podName": "p"}}), "set exactly one of selector"),
        ("shop-now", json!({"source": {"selector": null}}), "set exactly one of selector"),
        ("shop-now", json!({"source": {"selector": {"matchLabels": null}}}), "an empty selector would choose any pod"),
        ("shop-now", json!({"source": {"credentials": null}}), "spec.source.credentials: Required value"),
        (
            "shop-now",
            json!({"source": {"target": "prefer-standby"}}),
            "supported values: \"Primary\", \"PreferReplica\", \"Replica\"",
        ),
        ("shop-now", json!({"source": {"port": 70000}}), "should be less than or equal to 65535"),
        ("shop-now", json!({"source": {"runAsUser": 0}}), "should be greater than or equal to 1"),
        ("shop-now", json!({"source": {"dataDir": "var/lib/mysql"}}), "spec.source.dataDir in body should match"),
        (
            "shop-now",
            json!({"source": {"tls": {"mode": "VerifyCA"}}}),
            "set caSecretRef: mode VerifyCA needs to know the authority",
        ),
        (
            "shop-now",
            json!({"source": {"tls": {"mode": "Disabled", "serverName": "db"}}}),
            "mode Disabled uses no certificates",
        ),
        (
            "shop-now",
            json!({"source": {"tls": {"certificateSecretRef": {"name": "a", "key": "b"}}}}),
            "set certificateSecretRef and keySecretRef together",
        ),
        ("shop-now", json!({"compression": {"algorithm": "LZ4", "level": 3}}), "leave out level: only Zstd has levels"),
        ("shop-now", json!({"compression": {"level": 20}}), "should be less than or equal to 19"),
        ("shop-now", json!({"encryption": {"keyRefs": []}}), "should have at least 1 items"),
        ("shop-now", json!({"lock": {"policy": "none"}}), "supported values: \"Full\", \"Short\""),
        ("shop-now", json!({"throttle": {"maxBytesPerSecond": 1}}), "should be greater than or equal to 65536"),
        ("shop-now", json!({"expirationTime": "in two weeks"}), "must be of type date-time"),
        ("shop-now", json!({"backoffLimit": -1}), "should be greater than or equal to 0"),
        ("shop-now", json!({"runner": {"spool": {"size": "4 GB"}}}), "spec.runner.spool.size in body should match"),
        ("shop-now", json!({"storageRef": {"name": "Not_A_Name"}}), "spec.storageRef.name in body should match"),
        ("shop-now", json!({"retries": 3}), "field not declared in schema"),
        ("shop-found", json!({"existing": {"backupId": "latest"}}), "spec.existing.backupId in body should match"),
    ]
}

fn bad_others() -> Vec<Bad> {
    vec![
        (
            "shop-back",
            json!({"source": {"storage": {"storageRef": {"name": "a"}, "backupId": "a-20260314T150926Z-1a2b3c4d"}}}),
            "set exactly one of spec.source.backupRef",
        ),
        (
            "shop-back",
            json!({"target": {"dataSource": {}}}),
            "set exactly one of spec.target.existingClaim, newClaim, newCluster and dataSource",
        ),
        ("shop-back", json!({"target": {"existingClaim": null}}), "set exactly one of spec.target.existingClaim"),
        ("shop-back", json!({"target": {"subPath": "../other"}}), "spec.target.subPath in body should match"),
        ("shop2-from-shop", json!({"target": {"newCluster": {"replicas": 0}}}), "should be greater than or equal to 1"),
        (
            "shop2-from-shop",
            json!({"target": {"newCluster": {"template": {"storage": null}}}}),
            "storage: Required value",
        ),
        ("shop2-from-shop", json!({"recovery": "Server"}), "passwords are set in files that are recovered"),
        (
            "shop2-from-shop",
            json!({"accounts": [
                {"user": "app", "passwordRef": {"name": "a", "key": "p"}},
                {"user": "app", "passwordRef": {"name": "b", "key": "p"}},
            ]}),
            "the same account twice",
        ),
        (
            "shop2-from-shop",
            json!({"accounts": [
                {"user": "app", "host": "%", "passwordRef": {"name": "a", "key": "p"}},
                {"user": "app", "host": "%", "passwordRef": {"name": "b", "key": "p"}},
            ]}),
            "the same account twice",
        ),
        ("shop-nightly", json!({"schedule": "0 30 2 * * *"}), "is no schedule: write five fields"),
        ("shop-nightly", json!({"schedule": "60 2 * * *"}), "is no schedule: write five fields"),
        ("shop-nightly", json!({"schedule": "30 24 * * *"}), "is no schedule: write five fields"),
        ("shop-nightly", json!({"schedule": "30 2 32 * *"}), "is no schedule: write five fields"),
        ("shop-nightly", json!({"schedule": "@nightly"}), "is no schedule: write five fields"),
        ("shop-nightly", json!({"schedule": "daily"}), "is no schedule: write five fields"),
        ("shop-nightly", json!({"timeZone": "CET+1h"}), "is not a known time zone"),
        ("shop-nightly", json!({"timeZone": "Europe/Vindobona"}), "is not a known time zone"),
        ("shop-nightly", json!({"timeZone": "Local"}), "is no time zone: write a name of the IANA database"),
        (
            "shop-nightly",
            json!({"retention": {"keepLast": null, "keepDaily": null, "keepWeekly": null, "keepMonthly": null}}),
            "set at least one rule under spec.retention",
        ),
        ("shop-nightly", json!({"retention": {"keepLast": 0}}), "should be greater than or equal to 1"),
        (
            "shop-nightly",
            json!({"backupTemplate": {"spec": {"expirationTime": "2030-01-01T00:00:00Z"}}}),
            "say how long backups stay under spec.retention",
        ),
        (
            "shop-nightly",
            json!({"backupTemplate": {"spec": {"type": "Incremental", "baseRef": {"name": "a"}}}}),
            "each incremental builds on the newest backup",
        ),
        (
            "shop-nightly",
            json!({"backupTemplate": {"spec": {"source": null, "storageRef": null, "existing": {"storageRef": {"name": "a"}, "backupId": "a-20260314T150926Z-1a2b3c4d"}}}}),
            "a schedule takes backups, it shows none",
        ),
        ("shop-nightly", json!({"backupTemplate": {"spec": {"storageRef": null}}}), "set spec.storageRef"),
        (
            "bucket",
            json!({"gcs": {"bucket": "abc"}}),
            "set exactly one of spec.s3, spec.gcs, spec.azure and spec.persistentVolumeClaim",
        ),
        ("bucket", json!({"s3": null}), "set exactly one of spec.s3"),
        ("bucket", json!({"s3": {"endpoint": "minio:9000"}}), "spec.s3.endpoint in body should match"),
        ("bucket", json!({"s3": {"prefix": "/shop/"}}), "spec.s3.prefix in body should match"),
        ("bucket", json!({"s3": {"prefix": "shop/../other"}}), "spec.s3.prefix in body should match"),
        ("bucket", json!({"s3": {"credentials": {"secretAccessKeyRef": null}}}), "secretAccessKeyRef: Required value"),
        ("bucket", json!({"probePeriodSeconds": 1}), "should be greater than or equal to 30"),
    ]
}

async fn try_bad(cluster: &Cluster, table: Vec<Bad>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, change, message) in table {
        let mut document = example(name);
        merge(&mut document["spec"], &change);
        match cluster.apply(&document, true).await {
            Ok(_) => wrong.push(format!("{name} with {change} was accepted")),
            Err(said) if said.contains(message) => {}
            Err(said) => wrong.push(format!("{name} with {change}\n   said {said}\n   not  {message}")),
        }
    }
    wrong
}

#[tokio::test]
async fn examples_are_accepted_and_bad_ones_refused() {
    let cluster = Cluster::set_up().await;
    let mut wrong = Vec::new();
    for document in examples() {
        if let Err(said) = cluster.apply(&document, true).await {
            wrong.push(format!("{} {}: {said}", document["kind"], document["metadata"]["name"]));
        }
    }
    wrong.extend(try_bad(&cluster, bad_backups()).await);
    wrong.extend(try_bad(&cluster, bad_others()).await);
    for good in ["*/5 * * * *", "0 0,12 1-15/2 jan-jun MON", "59 23 31 12 7", "@weekly", "0 0 29 2 *"] {
        let mut document = example("shop-nightly");
        document["spec"]["schedule"] = json!(good);
        if let Err(said) = cluster.apply(&document, true).await {
            wrong.push(format!("schedule {good}: {said}"));
        }
    }
    cluster.tear_down().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An object that is there, a change of its spec, and what is said about it; None: nothing.
type Change = (&'static str, Value, Option<&'static str>);

fn changes() -> Vec<Change> {
    const BACKUP: Option<&str> = Some("cannot be changed: delete this MySQLBackup and create another one");
    const RESTORE: Option<&str> = Some("cannot be changed: delete this MySQLRestore and create another one");
    vec![
        ("shop-now", json!({"deletionPolicy": "Delete"}), None),
        ("shop-now", json!({"pinned": true}), None),
        ("shop-now", json!({"expirationTime": "2031-01-01T00:00:00Z"}), None),
        ("shop-now", json!({"suspend": false}), None),
        ("shop-now", json!({"source": {"target": "Primary"}}), BACKUP),
        ("shop-now", json!({"source": {"selector": {"matchLabels": {"more": "labels"}}}}), BACKUP),
        ("shop-now", json!({"storageRef": {"name": "other"}}), BACKUP),
        ("shop-now", json!({"compression": {"level": 9}}), BACKUP),
        ("shop-now", json!({"parallelism": 2}), BACKUP),
        ("shop-now", json!({"encryption": {"keyRefs": [{"name": "a", "key": "b"}]}}), BACKUP),
        ("shop-now", json!({"runner": {"priorityClassName": "high"}}), BACKUP),
        ("shop-now", json!({"backoffLimit": 5}), BACKUP),
        ("shop-before-migration", json!({"expirationTime": "2031-01-01T00:00:00Z", "pinned": false}), None),
        ("shop-before-migration", json!({"throttle": null}), BACKUP),
        ("shop-before-migration", json!({"encryption": null}), BACKUP),
        ("shop-before-migration", json!({"runner": {"spool": {"size": "9Gi"}}}), BACKUP),
        ("shop-back", json!({"suspend": false}), None),
        ("shop-back", json!({"target": {"existingClaim": {"overwrite": false}}}), RESTORE),
        ("shop-back", json!({"activeDeadlineSeconds": null}), RESTORE),
        (
            "shop-nightly",
            json!({"schedule": "@daily", "backupTemplate": {"spec": {"storageRef": {"name": "b"}}}}),
            None,
        ),
        ("bucket", json!({"s3": {"endpoint": "https://minio2.storage.svc", "region": "x", "credentials": null}}), None),
        ("bucket", json!({"encryption": null, "importExisting": true}), None),
        ("bucket", json!({"s3": {"bucket": "another"}}), Some("create another BackupStorage")),
        ("bucket", json!({"s3": {"prefix": null}}), Some("create another BackupStorage")),
        ("bucket", json!({"s3": null, "gcs": {"bucket": "another"}}), Some("create another BackupStorage")),
        ("volume", json!({"persistentVolumeClaim": {"path": "x"}}), Some("create another BackupStorage")),
    ]
}

/// The example as it is put there for real: held back, lest an operator that runs on the same cluster begins with it.
fn held_back(name: &str) -> Value {
    let mut document = example(name);
    if document["kind"] != "BackupStorage" {
        document["spec"]["suspend"] = json!(true);
    }
    document
}

#[tokio::test]
async fn only_what_may_change_can_be_changed() {
    let cluster = Cluster::set_up().await;
    let mut wrong = Vec::new();
    for name in ["shop-now", "shop-before-migration", "shop-back", "shop-nightly", "bucket", "volume"] {
        cluster.apply(&held_back(name), false).await.unwrap();
    }
    for (name, change, message) in changes() {
        let mut document = held_back(name);
        merge(&mut document["spec"], &change);
        match (cluster.apply(&document, true).await, message) {
            (Ok(_), None) => {}
            (Ok(_), Some(_)) => wrong.push(format!("{name}: {change} was accepted")),
            (Err(said), Some(message)) if said.contains(message) => {}
            (Err(said), _) => wrong.push(format!("{name}: {change}\n   said {said}")),
        }
    }
    // The same manifest again, and with the labels that a GitOps tool adds, is no change.
    for name in ["shop-now", "shop-back"] {
        let before = cluster.api(held_back(name)["kind"].as_str().unwrap()).get(name).await.unwrap();
        let mut again = held_back(name);
        again["metadata"]["labels"] = json!({"argocd.argoproj.io/instance": "shop"});
        let after = cluster.apply(&again, false).await.unwrap();
        assert_eq!(before.metadata.generation, after.metadata.generation, "{name}");
    }
    cluster.tear_down().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn how_a_backup_ended_stays() {
    let cluster = Cluster::set_up().await;
    let mut wrong = Vec::new();
    for name in ["shop-now", "shop-back"] {
        let document = held_back(name);
        let kind = document["kind"].as_str().unwrap();
        cluster.apply(&document, false).await.unwrap();
        let api = cluster.api(kind);
        let say = async |status: &str, reason: &str, restorable: &str| {
            let condition = |type_: &str, status: &str, reason: &str| {
                json!({"type": type_, "status": status, "reason": reason, "message": "m",
                       "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1})
            };
            let conditions = [condition("Succeeded", status, reason), condition("Restorable", restorable, reason)];
            let patch = json!({"apiVersion": "stillframe.dev/v1alpha1", "kind": kind, "metadata": {"name": name},
                               "status": {"conditions": conditions}});
            api.patch_status(name, &PatchParams::apply("op").force(), &Patch::Apply(&patch)).await.map(|_| ())
        };
        say("Unknown", "Running", "Unknown").await.unwrap();
        say("Unknown", "Retrying", "Unknown").await.unwrap();
        say("True", "Completed", "True").await.unwrap();
        say("True", "Completed", "False").await.expect("what the bucket does is another matter");
        for (status, reason) in [("False", "Failed"), ("Unknown", "Running")] {
            match say(status, reason, "True").await {
                Err(kube::Error::Api(said)) if said.message.contains("how it ended cannot be changed") => {}
                other => wrong.push(format!("{kind} to {status}: {other:?}")),
            }
        }
        let nothing = json!({"status": {"conditions": null}});
        match api.patch_status(name, &PatchParams::default(), &Patch::Merge(&nothing)).await {
            Err(kube::Error::Api(said)) if said.message.contains("how it ended cannot be changed") => {}
            other => wrong.push(format!("{kind} to nothing: {:?}", other.map(|_| ()))),
        }
    }
    cluster.tear_down().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
