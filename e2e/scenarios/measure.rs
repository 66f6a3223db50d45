//! Numbers: what the operator costs when nothing happens and when there is much to know.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use kube::api::{GetParams, Request};
use serde_json::json;

use crate::harness::space::text;
use crate::harness::{Space, say, scenario, until};

const OBJECTS: usize = 10_000;
const MIB: f64 = 1_048_576.0;

/// The operators' metrics pages, one after another, by the API server's proxy: one of them works, the others wait.
async fn metrics(space: &Space) -> Result<String> {
    let system = Space { cluster: space.cluster.clone(), name: "stillframe-system".to_owned() };
    let mut pages = String::new();
    for pod in system.list("Pod", "app.kubernetes.io/component=operator").await? {
        if pod.pointer("/metadata/deletionTimestamp").is_some() || text(&pod, "/status/phase") != "Running" {
            continue; // one that was replaced a moment ago
        }
        let name = text(&pod, "/metadata/name");
        let proxy = format!("/api/v1/namespaces/stillframe-system/pods/{name}:8080/proxy");
        let request = Request::new(proxy).get("metrics", &GetParams::default())?;
        pages.push_str(&space.cluster.client.request_text(request).await?);
    }
    ensure!(!pages.is_empty(), "no operator runs");
    Ok(pages)
}

/// All samples of a metric.
fn samples(pages: &str, name: &str) -> Result<Vec<f64>> {
    let lines = pages.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    let numbers: Option<Vec<f64>> =
        lines.map(|line| line.rsplit(' ').next().and_then(|text| text.parse().ok())).collect();
    let numbers = numbers.with_context(|| format!("{name} is no number"))?;
    ensure!(!numbers.is_empty(), "no metric {name}");
    Ok(numbers)
}

/// Of the one that works, which is the larger one.
fn memory(pages: &str) -> Result<f64> {
    Ok(samples(pages, "process_resident_memory_bytes")?.into_iter().fold(0.0, f64::max))
}

fn calls(pages: &str) -> Result<f64> {
    Ok(samples(pages, "stillframe_kubernetes_requests_total")?.into_iter().sum())
}

/// Waits until the operator has looked at everything: it asks less than ten times a second.
async fn at_rest(space: &Space) -> Result<()> {
    let started = Instant::now();
    until("the operator to come to rest", Duration::from_mins(10), || async {
        let before = calls(&metrics(space).await?)?;
        tokio::time::sleep(Duration::from_secs(15)).await;
        let asked = calls(&metrics(space).await?)? - before;
        Ok(if asked < 150.0 { Ok(()) } else { Err(format!("{asked} requests in 15 s")) })
    })
    .await?;
    say(format!("it had looked at all of them after {} s", started.elapsed().as_secs()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "alone, since it gives the operator more to do than others could wait for: e2e/run does, at the end of all"]
async fn the_operator_with_ten_thousand_backups() -> Result<()> {
    scenario("measure", |space| async move {
        let before = metrics(&space).await?;
        // Suspended ones: known, and nothing to do about them.
        let backups = (0..OBJECTS).map(|number| {
            let space = space.clone();
            async move {
                space
                    .apply_object(&json!({
                        "apiVersion": "stillframe.dev/v1alpha1", "kind": "MySQLBackup", "metadata": { "name": format!("b{number}") },
                        "spec": {
                            "suspend": true, "storageRef": { "name": "none" },
                            "source": { "podName": "none", "credentials": { "secretRef": { "name": "none" } } },
                        },
                    }))
                    .await
            }
        });
        let made: Vec<Result<()>> = futures::stream::iter(backups).buffer_unordered(16).collect().await;
        made.into_iter().collect::<Result<Vec<()>>>()?;
        at_rest(&space).await?;
        let full = metrics(&space).await?;
        tokio::time::sleep(Duration::from_mins(2)).await;
        let idle = metrics(&space).await?;

        say(format!(
            "operator memory: {:.0} MiB, with {OBJECTS} backups {:.0} MiB; API calls per idle hour: {:.0}",
            memory(&before)? / MIB,
            memory(&full)? / MIB,
            (calls(&idle)? - calls(&full)?) * 30.0
        ));
        ensure!(memory(&full)? < 256.0 * MIB, "it no longer fits its memory limit");
        space.delete_all("MySQLBackup").await?;
        until("ten thousand backups to go", Duration::from_mins(10), || async {
            let left = space.list("MySQLBackup", "").await?.len();
            Ok(if left == 0 { Ok(()) } else { Err(left.to_string()) })
        })
        .await
    })
    .await
}
