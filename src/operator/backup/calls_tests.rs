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
    let seen = Arc::new(Mutex::new((Vec::new(), object.clone())));
    let server = {
        let seen = Arc::clone(&seen);
        tower::service_fn(move |request: Request<Body>| {
            let seen = Arc::clone(&seen);
            async move {
                let (head, body) = request.into_parts();
                let body: Value = serde_json::from_slice(&body.collect_bytes().await?).unwrap_or_default();
                let mut seen = seen.lock().unwrap();
                seen.0.push(format!("{} {}", head.method, head.uri.path()));
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
