//! The API server: objects of any kind by their YAML, and where to find a kind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, anyhow};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, ValidationDirective};
use kube::core::TypeMeta;
use kube::discovery::{self, Scope};
use kube::{Client, Config};
use serde::Deserialize as _;

/// Who the tests are in `managedFields`, unless a scenario plays somebody else.
pub const MANAGER: &str = "e2e";

type Kinds = HashMap<GroupVersionKind, (ApiResource, Scope)>;

/// A connection to the cluster of `$KUBECONFIG`.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    kinds: Arc<Mutex<Kinds>>,
}

impl Cluster {
    pub async fn connect() -> Result<Self> {
        // Another scenario of this process may have been first, which is as well.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let config = Config::infer().await.context("no cluster: KUBECONFIG names none")?;
        let client = Client::try_from(config)?;
        Ok(Self { client, kinds: Arc::default() })
    }

    /// Where objects of a kind are, asked once.
    async fn resource(&self, kind: &GroupVersionKind) -> Result<(ApiResource, Scope)> {
        if let Some(found) = self.kinds.lock().map_err(|_| anyhow!("poisoned"))?.get(kind) {
            return Ok(found.clone());
        }
        let (resource, capabilities) = discovery::pinned_kind(&self.client, kind)
            .await
            .with_context(|| format!("the cluster knows no {kind:?}"))?;
        let found = (resource, capabilities.scope);
        self.kinds.lock().map_err(|_| anyhow!("poisoned"))?.insert(kind.clone(), found.clone());
        Ok(found)
    }

    /// Objects of a kind in a namespace, or in the cluster if the kind has none.
    pub async fn api(&self, kind: &GroupVersionKind, namespace: &str) -> Result<Api<DynamicObject>> {
        let (resource, scope) = self.resource(kind).await?;
        Ok(match scope {
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), namespace, &resource),
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
        })
    }

    /// Applies every document of a YAML text as `manager` would, by server-side apply. When it is only tried, a field that
    /// is none is refused.
    pub async fn apply(&self, namespace: &str, yaml: &str, manager: &str, dry_run: bool) -> Result<Vec<DynamicObject>> {
        let mut parameters = PatchParams::apply(manager).force();
        parameters.dry_run = dry_run;
        parameters.field_validation = dry_run.then_some(ValidationDirective::Strict);
        let mut applied = Vec::new();
        for object in parse(yaml)? {
            let types = object.types.clone().context("a document without kind")?;
            let name = object.metadata.name.clone().with_context(|| format!("a {} without name", types.kind))?;
            let namespace = object.metadata.namespace.as_deref().unwrap_or(namespace);
            let api = self.api(&kind_of(&types)?, namespace).await?;
            let result = api.patch(&name, &parameters, &Patch::Apply(&object)).await;
            applied.push(result.with_context(|| format!("apply {} {name}", types.kind))?);
        }
        Ok(applied)
    }
}

fn kind_of(types: &TypeMeta) -> Result<GroupVersionKind> {
    GroupVersionKind::try_from(types).map_err(|error| anyhow!("{}: {error}", types.api_version))
}

/// The documents of a YAML text.
pub fn parse(yaml: &str) -> Result<Vec<DynamicObject>> {
    let mut objects = Vec::new();
    for document in serde_yaml::Deserializer::from_str(yaml) {
        let value = serde_json::Value::deserialize(document)?;
        if !value.is_null() {
            objects.push(serde_json::from_value(value)?);
        }
    }
    Ok(objects)
}

/// A kind of Stillframe's own group, or one that Kubernetes has.
pub fn kind(name: &str) -> GroupVersionKind {
    let (group, version) = match name {
        "StatefulSet" | "Deployment" => ("apps", "v1"),
        "Lease" => ("coordination.k8s.io", "v1"),
        "Job" => ("batch", "v1"),
        "Role" | "RoleBinding" => ("rbac.authorization.k8s.io", "v1"),
        "CustomResourceDefinition" => ("apiextensions.k8s.io", "v1"),
        "MutatingAdmissionPolicy" | "MutatingAdmissionPolicyBinding" => ("admissionregistration.k8s.io", "v1"),
        "MySQLBackup" | "MySQLRestore" | "CronBackup" | "BackupStorage" => ("stillframe.dev", "v1alpha1"),
        _ => ("", "v1"),
    };
    GroupVersionKind::gvk(group, version, name)
}
