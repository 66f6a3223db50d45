//! The objects of a run, as they are to be. Pure.
//!
//! ```text
//!   runner's pod     beside the database: its node, its volumes read-only, its files' uid, never its fsGroup
//!   helper's pod     survey, look: the same clothes, fewer pockets
//!   ConfigMap        the reports; Role + RoleBinding: the runner may write that one and nothing else
//! ```

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMap, Container, EmptyDirVolumeSource, EnvVar, KeyToPath, NodeAffinity, NodeSelector,
    NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSecurityContext, PodSpec, ProjectedVolumeSource,
    ResourceRequirements, SeccompProfile, SecretProjection, SecretVolumeSource, SecurityContext, ServiceAccount,
    Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::api::MySQLBackupSpec;
use crate::api::common::{RunnerSpec, SecretKeyRef, SpoolSpec};
use crate::api::runner::{BackupWork, Login, Origin, REQUEST_VARIABLE, RunnerRequest, Server, Survey, VERSION, Work};
use crate::api::source::BackupSource;
use crate::operator::names::{RUNNER_ACCOUNT, labels, pod_name, report_key};
use crate::operator::pods::{DatabasePod, RUNNER_CONTAINER};
use crate::operator::quantity::parse_quantity;
use crate::operator::storage::CA_DIR;

use super::validate::{BackupPlan, work};

const SECRETS_DIR: &str = "/etc/stillframe/secrets";
const SPOOL_DIR: &str = "/var/spool/stillframe";
/// Any user that is not root, for helpers that touch no file of the database.
const NOBODY: i64 = 65532;
/// How long a runner has from SIGTERM: locks go within a second, the rest is for objects in the store.
const GRACE_SECONDS: i64 = 30;

/// Whom a run belongs to, and what all of its pods have in common.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Identity {
    /// The namespace.
    pub(crate) namespace: String,
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

/// The kind in labels.
pub(crate) const KIND: &str = "MySQLBackup";

impl Identity {
    fn metadata(&self, name: String) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.namespace.clone()),
            labels: Some(labels(KIND, &self.uid)),
            owner_references: Some(vec![self.owner.clone()]),
            ..ObjectMeta::default()
        }
    }

    fn request(&self, kind: &str, work: Work) -> RunnerRequest {
        RunnerRequest {
            version: VERSION,
            namespace: self.namespace.clone(),
            report: self.run.clone(),
            key: report_key(kind, self.attempt),
            work,
        }
    }
}

/// The pod that takes the backup.
pub(crate) fn backup_pod(
    who: &Identity,
    spec: &MySQLBackupSpec,
    source: &BackupSource,
    plan: &BackupPlan,
    backup_id: &str,
    schedule: Option<&str>,
) -> Pod {
    let spool = spec.runner.spool.clone().unwrap_or_default();
    let request = who.request(
        work::BACKUP,
        Work::Backup(Box::new(BackupWork {
            backup_id: backup_id.to_owned(),
            origin: Origin {
                namespace: who.namespace.clone(),
                schedule: schedule.map(str::to_owned),
                uid: who.uid.clone(),
            },
            store: plan.store.url.clone(),
            server: Server {
                pod: plan.pod.name.clone(),
                host: plan.pod.ip.clone(),
                port: u16::try_from(source.port).unwrap_or(3306),
            },
            login: login(source),
            data_dir: source.data_dir.clone(),
            keyring_file: source.keyring.as_ref().map(|_| secret_path("keyring")),
            encryption_key_files: (0..plan.keys.len()).map(|number| secret_path(&key_file(number))).collect(),
            encrypted_pages: source.encrypted_pages,
            compression: spec.compression.clone(),
            lock: spec.lock.clone(),
            redo_consumer: spec.redo_consumer,
            throttle: spec.throttle.as_ref().and_then(|throttle| u64::try_from(throttle.max_bytes_per_second).ok()),
            parallelism: spec.parallelism.and_then(|threads| u32::try_from(threads).ok()),
            spool_dir: SPOOL_DIR.to_owned(),
            spool_bytes: spool_bytes(&spool),
            allow_untested_server: source.allow_untested_server,
        })),
    );
    let mut volumes = plan.pod.volumes.clone();
    let mut mounts = plan.pod.mounts.clone();
    let mut add = |volume: Volume, path: &str, read_only: bool| {
        mounts.push(VolumeMount {
            name: volume.name.clone(),
            mount_path: path.to_owned(),
            read_only: Some(read_only),
            ..VolumeMount::default()
        });
        volumes.push(volume);
    };
    add(secrets_volume(&secret_files(source, &plan.keys)), SECRETS_DIR, true);
    if let Some(ca) = &plan.store.ca {
        add(ca_volume(ca), CA_DIR, true);
    }
    add(spool_volume(&spool), SPOOL_DIR, false);
    let mut environment = plan.store.environment();
    // The root is read-only, and what needs a place for a moment needs it here.
    environment.push(variable("TMPDIR", SPOOL_DIR));
    let mut pod = pod(who, &spec.runner, &request, environment, volumes, mounts);
    beside(&mut pod, &plan.pod, &spec.runner, plan.uid, plan.gid);
    if let (Some(spec), Some(account)) = (&mut pod.spec, &plan.account) {
        spec.service_account_name = Some(account.clone());
    }
    pod
}

/// The pod that asks servers who they are.
pub(crate) fn survey_pod(who: &Identity, runner: &RunnerSpec, source: &BackupSource, servers: Vec<Server>) -> Pod {
    let request = who.request(work::SURVEY, Work::Survey(Survey { servers, login: login(source) }));
    let volume = secrets_volume(&secret_files(source, &[]));
    let mount = VolumeMount {
        name: volume.name.clone(),
        mount_path: SECRETS_DIR.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    pod(who, runner, &request, vec![], vec![volume], vec![mount])
}

/// The pod that looks who owns the files.
pub(crate) fn look_pod(who: &Identity, runner: &RunnerSpec, source: &BackupSource, database: &DatabasePod) -> Pod {
    let request = who.request(work::LOOK, Work::Look { data_dir: source.data_dir.clone() });
    let mut pod = pod(who, runner, &request, vec![], database.volumes.clone(), database.mounts.clone());
    beside(&mut pod, database, runner, NOBODY, NOBODY);
    pod
}

/// What every runner's pod is: no rights, no root, no writable file system, no second start.
fn pod(
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
        args: Some(["runner", "--log-format", "json"].map(str::to_owned).to_vec()),
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

/// Puts a pod beside the database and dresses it so that it can read the files.
fn beside(pod: &mut Pod, database: &DatabasePod, runner: &RunnerSpec, uid: i64, gid: i64) {
    let Some(spec) = &mut pod.spec else { return };
    spec.affinity = Some(Affinity { node_affinity: Some(on_node(&database.node)), ..Affinity::default() });
    spec.node_selector = Some(runner.node_selector.clone()).filter(|labels| !labels.is_empty());
    let mut tolerations = database.tolerations.clone();
    tolerations.extend(runner.tolerations.iter().filter(|own| !database.tolerations.contains(own)).cloned());
    spec.tolerations = Some(tolerations);
    let security = spec.security_context.get_or_insert_default();
    security.run_as_user = Some(uid);
    security.run_as_group = Some(gid);
    // Never fsGroup: the kubelet would change the owner of the live server's files.
    security.supplemental_groups = Some(database.groups.clone()).filter(|groups| !groups.is_empty());
    security.se_linux_options.clone_from(&database.selinux);
}

/// By affinity and not by nodeName: the scheduler keeps its say on resources, and its refusal can be read.
fn on_node(node: &str) -> NodeAffinity {
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

fn login(source: &BackupSource) -> Login {
    let tls = &source.tls;
    Login {
        user_file: secret_path("user"),
        password_file: secret_path("password"),
        tls_mode: tls.mode,
        ca_file: tls.ca_secret_ref.as_ref().map(|_| secret_path("server-ca.pem")),
        certificate_file: tls.certificate_secret_ref.as_ref().map(|_| secret_path("client.pem")),
        key_file: tls.key_secret_ref.as_ref().map(|_| secret_path("client-key.pem")),
        server_name: tls.server_name.clone(),
    }
}

fn secret_path(file: &str) -> String {
    format!("{SECRETS_DIR}/{file}")
}

fn key_file(number: usize) -> String {
    format!("key-{number}")
}

/// Every Secret key that becomes a file, with the file's name.
fn secret_files(source: &BackupSource, keys: &[SecretKeyRef]) -> Vec<(SecretKeyRef, String)> {
    let credentials = &source.credentials.secret_ref;
    let of = |key: &str| SecretKeyRef { name: credentials.name.clone(), key: key.to_owned() };
    let mut files = vec![
        (of(&credentials.username_key), "user".to_owned()),
        (of(&credentials.password_key), "password".to_owned()),
    ];
    let tls = &source.tls;
    let optional = [
        (tls.ca_secret_ref.as_ref(), "server-ca.pem"),
        (tls.certificate_secret_ref.as_ref(), "client.pem"),
        (tls.key_secret_ref.as_ref(), "client-key.pem"),
        (source.keyring.as_ref().map(|keyring| &keyring.secret_ref), "keyring"),
    ];
    files.extend(optional.into_iter().filter_map(|(key, file)| Some((key?.clone(), file.to_owned()))));
    files.extend(keys.iter().enumerate().map(|(number, key)| (key.clone(), key_file(number))));
    files
}

fn secrets_volume(files: &[(SecretKeyRef, String)]) -> Volume {
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

fn ca_volume(ca: &SecretKeyRef) -> Volume {
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

fn spool_volume(spool: &SpoolSpec) -> Volume {
    Volume {
        name: "stillframe-spool".to_owned(),
        empty_dir: Some(EmptyDirVolumeSource { size_limit: Some(spool.size.clone()), medium: None }),
        ..Volume::default()
    }
}

/// A pod is evicted that fills its volume to the limit: the runner stops before, with a reason.
fn spool_bytes(spool: &SpoolSpec) -> u64 {
    let size = parse_quantity(&spool.size.0).unwrap_or(4 << 30);
    size - size / 8
}

fn variable(name: &str, value: &str) -> EnvVar {
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
        labels: Some(BTreeMap::from([(
            crate::operator::names::MANAGED_BY.0.to_owned(),
            crate::operator::names::MANAGED_BY.1.to_owned(),
        )])),
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

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
