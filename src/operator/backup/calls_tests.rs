//! What a look at a backup costs, counted in requests to an API server that is none: a real one cannot be made to show
//! that it was not asked.

use std::sync::Mutex;

use hyper::{Request, Response};
use kube::Client;
use kube::client::Body;
use kube::runtime::events::{Recorder, Reporter};
use serde_json::{Value, json};

use super::*;
use crate::obs::metrics::Metrics;
use crate::operator::OperatorOptions;
use crate::operator::store_access::Manifests;
use crate::operator::watched::Caches;

const NOW: &str = "2026-03-14T15:09:26Z";

fn backup(spec: &Value, status: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "stillframe.dev/v1alpha1", "kind": "MySQLBackup",
        "metadata": {"name": "b", "namespace": "shop", "uid": "2f1c", "resourceVersion": "7", "generation": 1},
        "spec": {"source": {"podName": "p", "credentials": {"secretRef": {"name": "s"}}}, "storageRef": {"name": "bucket"}},
        "status": status,
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

fn condition(status: &str, reason: &str) -> Value {
    json!({"type": "Succeeded", "status": status, "reason": reason, "message": "m", "lastTransitionTime": NOW,
        "observedGeneration": 1})
}

/// Looks once, and gives the requests that this took, as method and path, and the object as it is after them.
async fn look_once(object: Value) -> (Vec<String>, Value) {
    Box::pin(look_at_a_cluster(object, Vec::new())).await
}

/// The same in a cluster that has these objects, by a part of their path. There is nothing else.
async fn look_at_a_cluster(object: Value, there: Vec<(&'static str, Value)>) -> (Vec<String>, Value) {
    let there = Arc::new(there);
    let seen = Arc::new(Mutex::new((Vec::new(), object.clone())));
    let server = {
        let seen = Arc::clone(&seen);
        tower::service_fn(move |request: Request<Body>| {
            let (seen, there) = (Arc::clone(&seen), Arc::clone(&there));
            async move {
                let (head, body) = request.into_parts();
                let body: Value = serde_json::from_slice(&body.collect_bytes().await?).unwrap_or_default();
                let mut seen = seen.lock().unwrap();
                seen.0.push(format!("{} {}", head.method, head.uri.path()));
                if head.method == "GET" {
                    let found = there.iter().find(|(part, _)| head.uri.path().contains(part));
                    let missing = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
                        "reason": "NotFound", "message": "there is none"});
                    let answer = serde_json::to_vec(found.map_or(&missing, |(_, answer)| answer))?;
                    let code = if found.is_some() { 200 } else { 404 };
                    return Ok::<_, tower::BoxError>(Response::builder().status(code).body(Body::from(answer))?);
                }
                let answer = if head.uri.path().ends_with("/status") {
                    seen.1["status"] = body["status"].clone();
                    seen.1.clone()
                } else {
                    body
                };
                Ok::<_, tower::BoxError>(Response::new(Body::from(serde_json::to_vec(&answer)?)))
            }
        })
    };
    let client = Client::new(server, "shop");
    let options = OperatorOptions {
        image: "i".into(),
        namespace: None,
        runner_log: None,
        listen: None,
        lease_namespace: None,
        lease_name: "l".into(),
    };
    let context = Context {
        recorder: Recorder::new(client.clone(), Reporter { controller: "c".into(), instance: None }),
        client,
        options,
        metrics: Arc::new(Metrics::new()),
        caches: Arc::new(Caches::default()),
        manifests: Manifests::default(),
        cluster_id: None,
    };
    let backup: MySQLBackup = serde_json::from_value(object).unwrap();
    let mut look = Reconciliation::new(&context, &backup, NOW.parse().unwrap()).unwrap();
    Box::pin(look.drive()).await.unwrap();
    let seen = seen.lock().unwrap();
    seen.clone()
}

#[tokio::test]
async fn one_that_is_held_back_is_told_so_once_and_then_costs_nothing() {
    let (calls, told) = Box::pin(look_once(backup(&json!({"suspend": true}), &Value::Null))).await;
    assert_eq!(calls.len(), 2, "status and event: {calls:?}");
    assert!(
        calls[0].starts_with("PATCH ") && calls[0].ends_with("/namespaces/shop/mysqlbackups/b/status"),
        "{calls:?}"
    );
    assert_eq!(told["status"]["conditions"][0]["reason"], "Suspended");
    let (calls, _) = Box::pin(look_once(told)).await;
    assert_eq!(calls, [""; 0]);
}

#[tokio::test]
async fn one_that_waits_for_its_next_try_costs_nothing() {
    let status = json!({
        "conditions": [condition("Unknown", "Retrying")], "failedAttempts": 1, "nextAttemptTime": "2026-03-14T15:09:36Z",
        "runner": {"podName": "b-backup-1", "attempt": 1},
    });
    assert_eq!(Box::pin(look_once(backup(&json!({}), &status))).await.0, [""; 0]);
}

#[tokio::test]
async fn the_deadline_holds_between_two_tries() {
    let status = json!({
        "conditions": [condition("Unknown", "Retrying")], "failedAttempts": 1, "nextAttemptTime": "2026-03-14T15:09:36Z",
        "runner": {"podName": "b-backup-1", "attempt": 1}, "startTime": "2026-03-14T15:08:26Z",
    });
    let (calls, _) = Box::pin(look_once(backup(&json!({"activeDeadlineSeconds": 61}), &status))).await;
    assert_eq!(calls, [""; 0], "it still has a second");
    let (calls, told) = Box::pin(look_once(backup(&json!({"activeDeadlineSeconds": 60}), &status))).await;
    assert_eq!(calls.len(), 2, "status and event: {calls:?}");
    let said = &told["status"]["conditions"][0];
    assert_eq!((&said["status"], &said["reason"]), (&json!("False"), &json!("ActiveDeadlineExceeded")));
}

#[tokio::test]
async fn one_that_has_ended_costs_nothing() {
    for (outcome, reason) in [("True", "Completed"), ("False", "RunnerDied")] {
        let status = json!({"conditions": [condition(outcome, reason)], "observedGeneration": 1, "backupId": "b"});
        let pinned =
            json!({"conditions": [condition(outcome, reason)], "observedGeneration": 1, "recorded": {"pinned": true}});
        for (spec, status) in [(json!({}), &status), (json!({"pinned": true}), &pinned)] {
            assert_eq!(Box::pin(look_once(backup(&spec, status))).await.0, [""; 0], "{outcome} {spec}");
        }
    }
}

/// A cluster with the pod of the first try, in this state, and what it reported.
fn with_runner(state: &Value, report: Option<&Value>) -> Vec<(&'static str, Value)> {
    let run = run_name("b", "2f1c");
    let phase = if state.get("waiting").is_some() { "Pending" } else { "Running" };
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": crate::operator::names::pod_name(&run, "backup", 1), "namespace": "shop", "uid": "pod-1"},
        "spec": {"containers": [{"name": "runner"}]},
        "status": {"phase": phase, "containerStatuses": [
            {"name": "runner", "ready": true, "restartCount": 0, "image": "i", "imageID": "i", "state": state}]},
    });
    let key = crate::operator::names::report_key("backup", 1);
    let data = report.map(|report| json!({key: report.to_string()})).unwrap_or_default();
    vec![
        ("/pods", json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [pod]})),
        ("/configmaps/", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": run}, "data": data})),
    ]
}

fn launched(reason: &str) -> Value {
    json!({
        "conditions": [condition("Unknown", reason)], "startTime": "2026-03-14T15:00:00Z",
        "backupId": "b-20260314T150926Z-1a2b3c4d",
        "runner": {"podName": "p", "podUID": "pod-1", "attempt": 1},
    })
}

#[tokio::test]
async fn one_that_is_done_is_not_ended_by_a_deadline() {
    let ended = json!({"terminated": {"exitCode": 0}});
    let report = json!({"state": {"backedUp": {"backupId": "b-20260314T150926Z-1a2b3c4d", "warnings": []}}});
    let object = backup(&json!({"activeDeadlineSeconds": 60}), &launched("Running"));
    let (calls, told) = Box::pin(look_at_a_cluster(object, with_runner(&ended, Some(&report)))).await;
    // There is no storage to look into, and so nothing is known yet.
    assert_eq!(told["status"]["conditions"][0]["reason"], "Confirming", "{calls:?}");
    assert!(!calls.iter().any(|call| call.starts_with("DELETE")), "{calls:?}");
    // One that works is ended.
    let object = backup(&json!({"activeDeadlineSeconds": 60}), &launched("Running"));
    let works = with_runner(&json!({"running": {}}), None);
    let (calls, told) = Box::pin(look_at_a_cluster(object, works)).await;
    assert_eq!(told["status"]["conditions"][0]["reason"], "ActiveDeadlineExceeded", "{calls:?}");
    assert!(calls.iter().any(|call| call.starts_with("DELETE") && call.contains("/pods/")), "{calls:?}");
}

#[tokio::test]
async fn one_that_runs_has_begun_in_time() {
    let mut object = backup(&json!({"startingDeadlineSeconds": 60}), &launched("Starting"));
    object["metadata"]["creationTimestamp"] = json!("2026-03-14T15:00:00Z");
    let (calls, told) = Box::pin(look_at_a_cluster(object.clone(), with_runner(&json!({"running": {}}), None))).await;
    assert_eq!(told["status"]["conditions"][0]["reason"], "Running", "{calls:?}");
    let waits = with_runner(&json!({"waiting": {"reason": "ContainerCreating"}}), None);
    let (calls, told) = Box::pin(look_at_a_cluster(object, waits)).await;
    assert_eq!(told["status"]["conditions"][0]["reason"], "StartingDeadlineExceeded", "{calls:?}");
}

#[tokio::test]
async fn the_last_try_that_ended_without_a_word_fails_only_once_the_storage_was_looked_at() {
    let killed = json!({"terminated": {"exitCode": 137}});
    let last = json!({"backoffLimit": 0});
    let (calls, told) =
        Box::pin(look_at_a_cluster(backup(&last, &launched("Running")), with_runner(&killed, None))).await;
    assert_eq!(told["status"]["conditions"][0]["reason"], "Confirming", "{calls:?}");
    // One that says itself that it failed has made no backup.
    let report = json!({"state": {"failed": {"reason": "StoreDenied", "message": "m", "retryable": false}}});
    let ended = json!({"terminated": {"exitCode": 21}});
    let (calls, told) =
        Box::pin(look_at_a_cluster(backup(&last, &launched("Running")), with_runner(&ended, Some(&report)))).await;
    assert_eq!(told["status"]["conditions"][0]["reason"], "StoreDenied", "{calls:?}");
}
