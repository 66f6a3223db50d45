//! Numbers: what the operator costs when nothing happens and when there is much to know.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use kube::api::{GetParams, Request};
use serde_json::json;

use crate::harness::space::text;
use crate::harness::{Space, say, scenario};

const OBJECTS: usize = 10_000;
const MIB: f64 = 1_048_576.0;

/// The operator's metrics page, by the API server's proxy.
async fn metrics(space: &Space) -> Result<String> {
    let system = Space { cluster: space.cluster.clone(), name: "stillframe-system".to_owned() };
    let pods = system.list("Pod", "app.kubernetes.io/component=operator").await?;
    let pod = pods.first().map(|pod| text(pod, "/metadata/name").to_owned()).context("no operator runs")?;
    let proxy = format!("/api/v1/namespaces/stillframe-system/pods/{pod}:8080/proxy");
    let request = Request::new(proxy).get("metrics", &GetParams::default())?;
    Ok(space.cluster.client.request_text(request).await?)
}

/// The sum of all samples of a metric.
fn value(page: &str, name: &str) -> Option<f64> {
    let samples = page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    samples.map(|line| line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok())).sum()
}

#[tokio::test(flavor = "multi_thread")]
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
        tokio::time::sleep(Duration::from_mins(1)).await;
        let full = metrics(&space).await?;
        tokio::time::sleep(Duration::from_mins(2)).await;
        let idle = metrics(&space).await?;

        let memory = |page: &str| value(page, "process_resident_memory_bytes").context("no memory metric");
        let calls = |page: &str| value(page, "stillframe_kubernetes_requests_total").context("no request metric");
        say(format!(
            "operator memory: {:.0} MiB, with {OBJECTS} backups {:.0} MiB; API calls per idle hour: {:.0}",
            memory(&before)? / MIB,
            memory(&full)? / MIB,
            (calls(&idle)? - calls(&full)?) * 30.0
        ));
        ensure!(memory(&full)? < 256.0 * MIB, "it no longer fits its memory limit");
        Ok(())
    })
    .await
}
