//! The pods of a backup's run, as they are to be. Pure.
//!
//! ```text
//!   runner's pod     beside the database: its node, its volumes read-only, its files' uid, never its fsGroup
//!   helper's pod     survey, look: the same clothes, fewer pockets
//! ```

use k8s_openapi::api::core::v1::{Affinity, EmptyDirVolumeSource, Pod, Volume, VolumeMount};

use crate::api::MySQLBackupSpec;
use crate::api::common::{RunnerSpec, SecretKeyRef, SpoolSpec};
use crate::api::runner::{BackupWork, Login, Origin, Server, Survey, Work};
use crate::api::source::BackupSource;
use crate::operator::pods::DatabasePod;
use crate::operator::quantity::parse_quantity;
use crate::operator::runners::{
    Identity, NOBODY, SECRETS_DIR, file_in, key_file, on_node, pod, secrets_volume, variable,
};

use super::validate::{BackupPlan, work};

const SPOOL_DIR: &str = "/var/spool/stillframe";

/// The kind in labels.
pub(crate) const KIND: &str = "MySQLBackup";

/// A try to take a backup: all that a runner's pod or container is made from.
#[derive(Clone, Copy)]
pub(crate) struct Try<'a> {
    /// Whose runner it is.
    pub(crate) who: &'a Identity,
    /// What is asked for.
    pub(crate) spec: &'a MySQLBackupSpec,
    /// Of which database, all defaults filled in.
    pub(crate) source: &'a BackupSource,
    /// From which pod, and where to.
    pub(crate) plan: &'a BackupPlan,
    /// The backup's id.
    pub(crate) backup_id: &'a str,
    /// The `CronBackup` that it is of.
    pub(crate) schedule: Option<&'a str>,
    /// The cluster that it runs in.
    pub(crate) cluster_id: Option<&'a str>,
}

/// The pod that takes the backup.
pub(crate) fn backup_pod(of: Try<'_>) -> Pod {
    let Try { who, spec, source, plan, .. } = of;
    let spool = spec.runner.spool.clone().unwrap_or_default();
    let places = Places { data_dir: &source.data_dir, secrets: SECRETS_DIR, spool: SPOOL_DIR };
    let work = backup_work(of, &places);
    let request = who.request(work::BACKUP, Work::Backup(Box::new(work)));
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
    add(spool_volume(&spool), SPOOL_DIR, false);
    for (volume, mount) in plan.store.volumes(true) {
        volumes.push(volume);
        mounts.push(mount);
    }
    let mut environment = plan.store.environment();
    // The root is read-only, and what needs a place for a moment needs it here.
    environment.push(variable("TMPDIR", SPOOL_DIR));
    let mut pod = pod(who, &spec.runner, &request, environment, volumes, mounts);
    beside(&mut pod, &plan.pod, &spec.runner, plan.uid, plan.gid);
    plan.store.join_group(&mut pod);
    if let (Some(spec), Some(account)) = (&mut pod.spec, &plan.account) {
        spec.service_account_name = Some(account.clone());
    }
    pod
}

/// Where a runner finds what it needs.
pub(super) struct Places<'a> {
    /// The data directory.
    pub(super) data_dir: &'a str,
    /// Files of Secrets.
    pub(super) secrets: &'a str,
    /// What it may write to.
    pub(super) spool: &'a str,
}

/// The request to take a backup.
pub(super) fn backup_work(of: Try<'_>, places: &Places<'_>) -> BackupWork {
    let Try { who, spec, source, plan, backup_id, schedule, cluster_id } = of;
    let spool = spec.runner.spool.clone().unwrap_or_default();
    let keys = plan.keys.iter().enumerate();
    BackupWork {
        backup_id: backup_id.to_owned(),
        origin: Origin {
            cluster_id: cluster_id.map(str::to_owned),
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
        login: login(source, places.secrets),
        data_dir: places.data_dir.to_owned(),
        keyring_file: source.keyring.as_ref().map(|_| file_in(places.secrets, "keyring")),
        encryption_key_files: keys.map(|(number, key)| file_in(places.secrets, &key_file(number, key))).collect(),
        encrypted_pages: source.encrypted_pages,
        compression: spec.compression.clone(),
        lock: spec.lock.clone(),
        redo_consumer: spec.redo_consumer,
        throttle: spec.throttle.as_ref().and_then(|throttle| u64::try_from(throttle.max_bytes_per_second).ok()),
        parallelism: spec.parallelism.and_then(|threads| u32::try_from(threads).ok()),
        spool_dir: places.spool.to_owned(),
        spool_bytes: spool_bytes(&spool),
        allow_untested_server: source.allow_untested_server,
    }
}

/// The pod that asks servers who they are.
pub(crate) fn survey_pod(who: &Identity, runner: &RunnerSpec, source: &BackupSource, servers: Vec<Server>) -> Pod {
    let request = who.request(work::SURVEY, Work::Survey(Survey { servers, login: login(source, SECRETS_DIR) }));
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

fn login(source: &BackupSource, secrets: &str) -> Login {
    let tls = &source.tls;
    let secret_path = |file: &str| file_in(secrets, file);
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

/// Every Secret key that becomes a file, with the file's name.
pub(super) fn secret_files(source: &BackupSource, keys: &[SecretKeyRef]) -> Vec<(SecretKeyRef, String)> {
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
    files.extend(keys.iter().enumerate().map(|(number, key)| (key.clone(), key_file(number, key))));
    files
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

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
