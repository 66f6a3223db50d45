//! The operators as they run: their pods, and the pages that they serve.

use anyhow::{Context as _, Result, ensure};
use kube::api::{GetParams, Request};
use kube::{Client, Config};
use serde_json::Value;

use super::space::{Space, text};

/// Whoever stops or replaces them does it alone. What others do goes on.
pub static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Where they run.
pub const NAMESPACE: &str = "stillframe-system";

/// Their namespace.
pub fn system(space: &Space) -> Space {
    Space { cluster: space.cluster.clone(), name: NAMESPACE.to_owned() }
}

/// Their pods that run and are not about to go.
pub async fn pods(space: &Space) -> Result<Vec<Value>> {
    let pods = system(space).list("Pod", "app.kubernetes.io/component=operator").await?;
    let runs =
        |pod: &Value| pod.pointer("/metadata/deletionTimestamp").is_none() && text(pod, "/status/phase") == "Running";
    Ok(pods.into_iter().filter(runs).collect())
}

/// The pod of the one that works.
pub async fn leader(space: &Space) -> Result<String> {
    let lease = system(space).get("Lease", "stillframe").await?;
    let holder = text(&lease, "/spec/holderIdentity");
    Ok(holder.split('_').next().unwrap_or_default().to_owned())
}

/// A page of one of them, by the API server's proxy. An error has what the page says, and comes at once: the other client
/// would ask one that is not ready again and again.
pub async fn page(pod: &str, page: &str) -> Result<String> {
    let proxy = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy");
    let request = Request::new(proxy).get(page, &GetParams::default())?;
    let mut config = Config::infer().await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?.request_text(request).await?)
}

/// The metrics of all of them, one after another: one of them works, the others wait.
pub async fn metrics(space: &Space) -> Result<String> {
    let mut pages = String::new();
    for pod in pods(space).await? {
        pages.push_str(&page(text(&pod, "/metadata/name"), "metrics").await?);
    }
    ensure!(!pages.is_empty(), "no operator runs");
    Ok(pages)
}

/// All samples of a metric that have these labels (`a="b",c="d"`; empty: all).
pub fn samples(pages: &str, name: &str, labels: &str) -> Result<Vec<f64>> {
    let lines = pages.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']) && rest.contains(labels))
    });
    let numbers: Option<Vec<f64>> =
        lines.map(|line| line.rsplit(' ').next().and_then(|text| text.parse().ok())).collect();
    numbers.with_context(|| format!("{name} is no number"))
}
