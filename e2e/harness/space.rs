//! A namespace for one scenario, and what one does in it with YAML.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::Value;

use super::cluster::{Cluster, MANAGER, kind};
use super::{say, until};

/// One scenario's namespace.
#[derive(Clone)]
pub struct Space {
    pub cluster: Cluster,
    pub name: String,
}

/// Runs a scenario in a namespace of its own. If it fails, prints what Kubernetes knows about it.
pub async fn scenario<F, Fut>(name: &str, story: F) -> Result<()>
where
    F: FnOnce(Space) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let cluster = Cluster::connect().await?;
    let space = Space::create(cluster, name).await?;
    say(format!("{name}: starts"));
    // A task of its own, so that a failed assertion ends here, too.
    let outcome = tokio::spawn(story(space.clone())).await;
    let failed = !matches!(outcome, Ok(Ok(())));
    if failed {
        space.dump().await;
    }
    if std::env::var_os("STILLFRAME_E2E_KEEP").is_none() {
        space.remove().await?;
    }
    say(format!("{name}: {}", if failed { "FAILED" } else { "done" }));
    outcome.context("the scenario panicked")?
}

impl Space {
    /// Makes the namespace, in place of what an earlier run may have left.
    async fn create(cluster: Cluster, scenario: &str) -> Result<Self> {
        // Several people may share a cluster.
        let prefix = std::env::var("STILLFRAME_E2E_PREFIX");
        let prefix = prefix.ok().filter(|prefix| !prefix.is_empty()).unwrap_or_else(|| "e2e".to_owned());
        let name = format!("{prefix}-{}", scenario.replace('_', "-"));
        let space = Self { cluster, name };
        space.remove().await?;
        let namespaces: Api<Namespace> = Api::all(space.cluster.client.clone());
        // "restricted" is what the runner promises to live under; the databases here can, too.
        let namespace = serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": space.name, "labels": {
                // By this e2e/run finds what a run left that was killed.
                "stillframe.dev/e2e": prefix,
                "pod-security.kubernetes.io/enforce": "restricted",
            } },
        });
        namespaces.patch(&space.name, &PatchParams::apply(MANAGER), &Patch::Apply(namespace)).await?;
        until("the namespace's service account", Duration::from_mins(2), || async {
            Ok(space.find("ServiceAccount", "default").await?.map(|_| ()).ok_or_else(|| "none".to_owned()))
        })
        .await?;
        Ok(space)
    }

    /// Deletes the namespace and waits until it is gone.
    pub async fn remove(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.cluster.client.clone());
        if namespaces.get_opt(&self.name).await?.is_none() {
            return Ok(());
        }
        namespaces.delete(&self.name, &DeleteParams::default()).await?;
        // Databases that shut down in peace take their time, and nobody needs what they would save.
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &self.name);
        pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default()).await?;
        until("the namespace to go", Duration::from_mins(5), || async {
            Ok(match namespaces.get_opt(&self.name).await? {
                None => Ok(()),
                Some(namespace) => Err(format!("{:?}", namespace.status.and_then(|status| status.conditions))),
            })
        })
        .await
    }

    /// Applies YAML.
    pub async fn apply(&self, yaml: &str) -> Result<Vec<DynamicObject>> {
        self.apply_as(MANAGER, yaml).await
    }

    /// Applies YAML as somebody else, a GitOps tool for instance.
    pub async fn apply_as(&self, manager: &str, yaml: &str) -> Result<Vec<DynamicObject>> {
        self.cluster.apply(&self.name, yaml, manager, false).await
    }

    /// What the API server says to YAML that it must not take.
    pub async fn refusal(&self, yaml: &str) -> Result<String> {
        match self.cluster.apply(&self.name, yaml, MANAGER, true).await {
            Ok(_) => bail!("the API server took what it should refuse:\n{yaml}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    async fn api(&self, kind_name: &str) -> Result<Api<DynamicObject>> {
        self.cluster.api(&kind(kind_name), &self.name).await
    }

    /// An object as JSON, if it is there.
    pub async fn find(&self, kind: &str, name: &str) -> Result<Option<Value>> {
        let object = self.api(kind).await?.get_opt(name).await?;
        Ok(object.map(serde_json::to_value).transpose()?)
    }

    /// An object as JSON.
    pub async fn get(&self, kind: &str, name: &str) -> Result<Value> {
        self.find(kind, name).await?.with_context(|| format!("there is no {kind} {name}"))
    }

    /// All objects of a kind with these labels (`a=b,c=d`; empty: all).
    pub async fn list(&self, kind: &str, labels: &str) -> Result<Vec<Value>> {
        let found = self.api(kind).await?.list(&ListParams::default().labels(labels)).await?;
        found.items.into_iter().map(|object| Ok(serde_json::to_value(object)?)).collect()
    }

    /// Changes an object by a merge patch.
    pub async fn patch(&self, kind: &str, name: &str, patch: &Value) -> Result<()> {
        self.api(kind).await?.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Deletes an object and does not wait.
    pub async fn delete(&self, kind: &str, name: &str) -> Result<()> {
        self.api(kind)
            .await?
            .delete(name, &DeleteParams::default())
            .await
            .with_context(|| format!("delete {kind} {name}"))?;
        Ok(())
    }

    /// Deletes all objects of a kind, a page after the other, until none is left. For many: the API server takes one
    /// request for all of them one by one, for a minute, and then gives it up; and it has to read them all to count them.
    pub async fn delete_each(&self, kind: &str, within: Duration) -> Result<()> {
        let api = self.api(kind).await?;
        until(&format!("every {kind} to go"), within, || async {
            let page = api.list_metadata(&ListParams::default().limit(1000)).await?.items;
            let names: Vec<String> = page.iter().map(kube::ResourceExt::name_any).collect();
            let deletions = names.into_iter().map(|name| {
                let api = api.clone();
                async move {
                    match api.delete(&name, &DeleteParams::default()).await {
                        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                        deleted => deleted.map(drop),
                    }
                }
            });
            let deleted: Vec<_> = futures::stream::iter(deletions).buffer_unordered(16).collect().await;
            deleted.into_iter().collect::<Result<Vec<()>, _>>()?;
            Ok(if page.is_empty() { Ok(()) } else { Err(format!("{} of a page", page.len())) })
        })
        .await
    }

    /// Waits until an object is gone.
    pub async fn gone(&self, kind: &str, name: &str, within: Duration) -> Result<()> {
        until(&format!("{kind} {name} to go"), within, || async {
            Ok(match self.find(kind, name).await? {
                None => Ok(()),
                Some(object) => Err(object.pointer("/metadata").map(Value::to_string).unwrap_or_default()),
            })
        })
        .await
    }

    /// Waits until an object looks as wanted.
    pub async fn wait(
        &self,
        kind: &str,
        name: &str,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        until(&format!("{kind} {name}: {what}"), within, || async {
            Ok(match self.find(kind, name).await? {
                Some(object) if wanted(&object) => Ok(object),
                Some(object) => Err(object.get("status").map(Value::to_string).unwrap_or_default()),
                None => Err("no such object".to_owned()),
            })
        })
        .await
    }

    /// Waits until something was said about an object in an event, and returns it as `kubectl get events` shows it.
    pub async fn event(&self, about: &Value, reason: &str) -> Result<Value> {
        let is =
            |event: &Value, field: &str, of: &str| text(event, &format!("/involvedObject/{field}")) == text(about, of);
        let name = text(about, "/metadata/name");
        until(&format!("an event {reason} of {name}"), Duration::from_mins(2), || async {
            let events = self.list("Event", "").await?;
            let mut found = events.iter().filter(|event| text(event, "/reason") == reason);
            let whole = found.clone().find(|event| {
                is(event, "uid", "/metadata/uid")
                    && is(event, "name", "/metadata/name")
                    && is(event, "namespace", "/metadata/namespace")
                    && is(event, "kind", "/kind")
                    && is(event, "apiVersion", "/apiVersion")
            });
            Ok(whole.cloned().ok_or_else(|| format!("{:?}", found.next())))
        })
        .await
    }

    /// Waits until a condition has a status ("True", "False"), and returns the object.
    pub async fn condition(
        &self,
        kind: &str,
        name: &str,
        condition: &str,
        status: &str,
        within: Duration,
    ) -> Result<Value> {
        let what = format!("condition {condition} = {status}");
        self.wait(kind, name, &what, within, |object| {
            condition_of(object, condition)
                .is_some_and(|found| found.get("status").and_then(Value::as_str) == Some(status))
        })
        .await
    }
}

/// A condition of an object.
pub fn condition_of<'a>(object: &'a Value, condition: &str) -> Option<&'a Value> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|one| one.get("type").and_then(Value::as_str) == Some(condition))
}

/// What a condition of an object says. Empty when it is not there.
pub fn message_of<'a>(object: &'a Value, condition: &str) -> &'a str {
    condition_of(object, condition).map_or("", |said| text(said, "/message"))
}

/// A text inside of an object, by JSON pointer. Empty when it is not there.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
