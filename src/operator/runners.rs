//! What all runners' pods and runs have in common, whatever they are for. Pure.
//!
//! ```text
//!   Identity   whose run it is ─► names, labels, owner of everything made for it
//!   pod        restricted, read-only root, no second start; who builds one adds volumes and places
//!   Authority  ConfigMap: the reports; Role + RoleBinding: the runner may write that one and nothing else
//! ```

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, Container, EnvVar, KeyToPath, NodeAffinity, NodeSelector, NodeSelectorRequirement,
    NodeSelectorTerm, Pod, PodSecurityContext, PodSpec, ProjectedVolumeSource, ResourceRequirements, SeccompProfile,
    SecretProjection, SecretVolumeSource, SecurityContext, ServiceAccount, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::api::common::{RunnerSpec, SecretKeyRef};
use crate::api::runner::{REQUEST_VARIABLE, ReportBy, RunnerRequest, VERSION, Work};
use crate::operator::names::{MANAGED_BY, RUNNER_ACCOUNT, labels, pod_name, report_key};
use crate::operator::pods::RUNNER_CONTAINER;

/// Where Secrets are in a runner's pod.
pub(crate) const SECRETS_DIR: &str = "/etc/stillframe/secrets";
/// Any user that is not root, for runners that touch no file of a database.
pub(crate) const NOBODY: i64 = 65532;
/// How long a runner has from SIGTERM: locks go within a second, the rest is for objects in the store.
const GRACE_SECONDS: i64 = 30;

/// Whom a run belongs to, and what all of its pods have in common.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Identity {
    /// The namespace.
    pub(crate) namespace: String,
    /// The object's kind, for labels.
    pub(crate) kind: &'static str,
    /// The object's uid.
    pub(crate) uid: String,
    /// The run's name.
    pub(crate) run: String,
    /// The number of the try.
    pub(crate) attempt: i32,
    /// The object.
    pub(crate) owner: OwnerReference,
    /// The runner's image: the operator's own.
    pub(crate) image: String,
    /// The log filter for the runner, if the operator has one.
    pub(crate) log: Option<String>,
}

impl Identity {
    /// The metadata of something made for this run.
    pub(crate) fn metadata(&self, name: String) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.namespace.clone()),
            labels: Some(labels(self.kind, &self.uid)),
            owner_references: Some(vec![self.owner.clone()]),
            ..ObjectMeta::default()
        }
    }

    /// A request to a runner of this try.
    pub(crate) fn request(&self, kind: &str, work: Work) -> RunnerRequest {
        RunnerRequest {
            version: VERSION,
            object: format!("{}/{}", self.namespace, self.owner.name),
            namespace: self.namespace.clone(),
            report: self.run.clone(),
            key: report_key(kind, self.attempt),
            report_by: ReportBy::ConfigMap,
            files: vec![],
            work,
        }
    }
}

/// What every runner's pod is: no rights, no root, no writable file system, no second start.
pub(crate) fn pod(
    who: &Identity,
    runner: &RunnerSpec,
    request: &RunnerRequest,
    mut environment: Vec<EnvVar>,
    volumes: Vec<Volume>,
    mounts: Vec<VolumeMount>,
) -> Pod {
    // A request is made of strings and numbers: it can always be written.
    let text = serde_json::to_string(request).unwrap_or_default();
    environment.push(variable(REQUEST_VARIABLE, &text));
    environment.extend(who.log.as_deref().map(|filter| variable("STILLFRAME_LOG", filter)));
    let container = Container {
        name: RUNNER_CONTAINER.to_owned(),
        image: Some(who.image.clone()),
        args: Some(["runner", "--quiet", "--log-format", "json"].map(str::to_owned).to_vec()),
        env: Some(environment),
        resources: Some(resources(runner)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts),
        ..Container::default()
    };
    let kind = request.key.rsplit_once('-').map_or(request.key.as_str(), |(kind, _)| kind);
    let mut metadata = who.metadata(pod_name(&who.run, kind, who.attempt));
    // A mesh's sidecar would outlive the runner and stand between it and the database.
    let off = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    metadata.annotations =
        Some(BTreeMap::from([off("sidecar.istio.io/inject", "false"), off("linkerd.io/inject", "disabled")]));
    metadata.labels.get_or_insert_default().extend([off("sidecar.istio.io/inject", "false")]);
    Pod {
        metadata,
        spec: Some(PodSpec {
            containers: vec![container],
            volumes: Some(volumes),
            restart_policy: Some("Never".to_owned()),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            service_account_name: Some(RUNNER_ACCOUNT.to_owned()),
            automount_service_account_token: Some(true),
            enable_service_links: Some(false),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(NOBODY),
                run_as_group: Some(NOBODY),
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
                ..PodSecurityContext::default()
            }),
            tolerations: Some(runner.tolerations.clone()),
            priority_class_name: runner.priority_class_name.clone(),
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// By affinity and not by nodeName: the scheduler keeps its say on resources, and its refusal can be read.
pub(crate) fn on_node(node: &str) -> NodeAffinity {
    let requirement = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![requirement]), match_expressions: None };
    NodeAffinity {
        required_during_scheduling_ignored_during_execution: Some(NodeSelector { node_selector_terms: vec![term] }),
        ..NodeAffinity::default()
    }
}

fn resources(runner: &RunnerSpec) -> ResourceRequirements {
    let own = runner.resources.clone().unwrap_or_default();
    let quantities = |given: BTreeMap<String, Quantity>, defaults: &[(&str, &str)]| {
        if !given.is_empty() {
            return given;
        }
        defaults.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect()
    };
    let has_limits_only = own.requests.is_empty() && !own.limits.is_empty();
    ResourceRequirements {
        // Without requests, Kubernetes takes the limits for them: a default could be above such a limit.
        requests: (!has_limits_only).then(|| quantities(own.requests, &[("cpu", "100m"), ("memory", "256Mi")])),
        limits: Some(quantities(own.limits, &[("memory", "512Mi")])),
        claims: None,
    }
}

/// Where a file of a Secret is in a runner's pod.
pub(crate) fn secret_path(file: &str) -> String {
    file_in(SECRETS_DIR, file)
}

/// A file in a directory.
pub(crate) fn file_in(directory: &str, file: &str) -> String {
    format!("{directory}/{file}")
}

/// The name of the file with an encryption key. It has the Secret's name in it: whoever says that the file is no good
/// says which Secret is to be mended.
pub(crate) fn key_file(number: usize, key: &SecretKeyRef) -> String {
    const LONGEST: usize = 200;
    let name = format!("key-{number}.{}.{}", key.name, key.key);
    if name.len() <= LONGEST { name } else { format!("key-{number}") }
}

/// Secrets' keys as files of one volume.
pub(crate) fn secrets_volume(files: &[(SecretKeyRef, String)]) -> Volume {
    let sources = files
        .iter()
        .map(|(key, file)| VolumeProjection {
            secret: Some(SecretProjection {
                name: key.name.clone(),
                items: Some(vec![KeyToPath { key: key.key.clone(), path: file.clone(), mode: None }]),
                optional: Some(false),
            }),
            ..VolumeProjection::default()
        })
        .collect();
    Volume {
        name: "stillframe-secrets".to_owned(),
        // Readable for all in this pod: without fsGroup the files belong to root, and the runner is not root.
        projected: Some(ProjectedVolumeSource { default_mode: Some(0o444), sources: Some(sources) }),
        ..Volume::default()
    }
}

/// The certificate of a storage's authority as a volume.
pub(crate) fn ca_volume(ca: &SecretKeyRef) -> Volume {
    Volume {
        name: "stillframe-store-ca".to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(ca.name.clone()),
            default_mode: Some(0o444),
            items: Some(vec![KeyToPath { key: ca.key.clone(), path: "ca.crt".to_owned(), mode: None }]),
            optional: Some(false),
        }),
        ..Volume::default()
    }
}

/// A variable with its value.
pub(crate) fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

/// What a run needs besides pods.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Authority {
    /// The account of runners whose storage names none; it belongs to the namespace, not to this run.
    pub(crate) account: ServiceAccount,
    /// The reports.
    pub(crate) report: ConfigMap,
    /// Leave to write them.
    pub(crate) role: Role,
    /// Given to the runner's accounts.
    pub(crate) binding: RoleBinding,
}

/// What a run needs besides pods. `account` is the ServiceAccount that the storage names.
pub(crate) fn authority(who: &Identity, account: Option<&str>) -> Authority {
    let shared = ObjectMeta {
        name: Some(RUNNER_ACCOUNT.to_owned()),
        namespace: Some(who.namespace.clone()),
        labels: Some(BTreeMap::from([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())])),
        ..ObjectMeta::default()
    };
    let accounts = std::iter::once(RUNNER_ACCOUNT).chain(account.filter(|name| *name != RUNNER_ACCOUNT));
    Authority {
        account: ServiceAccount { metadata: shared, ..ServiceAccount::default() },
        report: ConfigMap { metadata: who.metadata(who.run.clone()), ..ConfigMap::default() },
        role: Role {
            metadata: who.metadata(who.run.clone()),
            rules: Some(vec![PolicyRule {
                api_groups: Some(vec![String::new()]),
                resources: Some(vec!["configmaps".to_owned()]),
                resource_names: Some(vec![who.run.clone()]),
                verbs: ["get", "patch"].map(str::to_owned).to_vec(),
                non_resource_urls: None,
            }]),
        },
        binding: RoleBinding {
            metadata: who.metadata(who.run.clone()),
            role_ref: RoleRef {
                api_group: "rbac.authorization.k8s.io".to_owned(),
                kind: "Role".to_owned(),
                name: who.run.clone(),
            },
            subjects: Some(
                accounts
                    .map(|name| Subject {
                        kind: "ServiceAccount".to_owned(),
                        name: name.to_owned(),
                        namespace: Some(who.namespace.clone()),
                        api_group: None,
                    })
                    .collect(),
            ),
        },
    }
}
