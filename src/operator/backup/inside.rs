//! A try from within the database's own pod, where no second pod can mount its volume.
//!
//! ```text
//!   plan ─► ephemeral container: volumes read-only, Secrets as variables, no token ─► put into the pod
//!   seen:      its state in the pod's status; its last words are the report, its log has the progress
//!   ended by:  a tombstone in the storage, which the runner sees within seconds
//! ```
//! Nothing can be mounted into a pod that runs, and nobody is given authority by the account of a database: the runner
//! says nothing to the API server. What it says is a claim as any report, and the storage tells whether it is true. The
//! kubelet never removes such a container, and nobody can stop it; no watch tells of it, so it is looked at every few
//! seconds while it works.

use k8s_openapi::api::core::v1::{
    Capabilities, EnvVar, EnvVarSource, EphemeralContainer, Pod, SeccompProfile, SecretKeySelector, SecurityContext,
};
use kube::ResourceExt;
use kube::api::{Api, LogParams};

use crate::api::common::SecretKeyRef;
use crate::api::runner::{FileOfVariable, REQUEST_VARIABLE, ReportBy, ReportLine, RunnerReport, Work};
use crate::operator::error::{During, OperatorError};
use crate::operator::inside::{Inside, WORK_DIR, has_container, read_container};
use crate::operator::names::pod_name;
use crate::operator::pods::PodState;
use crate::operator::runners::{file_in, variable};

use super::Reconciliation;
use super::build::{Places, Try, backup_work, secret_files};
use super::confirm::Connected;
use super::observe::{Launched, lost};
use super::validate::{Gathered, work};

/// The file of the certificate of the storage's authority.
const STORE_CA: &str = "store-ca.crt";
/// How many lines of a log are looked through for the last report.
const LOG_LINES: i64 = 100;

/// The container that takes the backup.
pub(super) fn container(of: Try<'_>, inside: &Inside) -> EphemeralContainer {
    let Try { who, source, plan, .. } = of;
    let secrets = file_in(WORK_DIR, "secrets");
    let spool = file_in(WORK_DIR, "spool");
    let places = Places { data_dir: &inside.data_dir, secrets: &secrets, spool: &spool };
    let work = backup_work(of, &places);
    let mut request = who.request(work::BACKUP, Work::Backup(Box::new(work)));
    request.report_by = ReportBy::Output;
    let mut environment = plan.store.environment_with(&file_in(&secrets, STORE_CA));
    let store_ca = plan.store.ca.iter().map(|ca| (ca.clone(), STORE_CA.to_owned()));
    for (number, (key, file)) in secret_files(source, &plan.keys).into_iter().chain(store_ca).enumerate() {
        let name = format!("STILLFRAME_FILE_{number}");
        request.files.push(FileOfVariable { variable: name.clone(), path: file_in(&secrets, &file) });
        environment.push(from_secret(name, &key));
    }
    // A request is made of strings and numbers: it can always be written.
    environment.push(variable(REQUEST_VARIABLE, &serde_json::to_string(&request).unwrap_or_default()));
    environment.push(variable("TMPDIR", WORK_DIR));
    environment.extend(who.log.as_deref().map(|filter| variable("STILLFRAME_LOG", filter)));
    EphemeralContainer {
        name: pod_name(&who.run, work::BACKUP, who.attempt),
        image: Some(who.image.clone()),
        args: Some(["runner", "--quiet", "--log-format", "json"].map(str::to_owned).to_vec()),
        env: Some(environment),
        volume_mounts: Some(inside.mounts.clone()),
        security_context: Some(SecurityContext {
            run_as_user: Some(plan.uid),
            run_as_group: Some(plan.gid),
            run_as_non_root: Some(true),
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            se_linux_options: plan.pod.selinux.clone(),
            // The pod has no volume for the spool: it is on the container's own layer.
            read_only_root_filesystem: Some(false),
            ..SecurityContext::default()
        }),
        ..EphemeralContainer::default()
    }
}

fn from_secret(name: String, key: &SecretKeyRef) -> EnvVar {
    let selector = SecretKeySelector { name: key.name.clone(), key: key.key.clone(), optional: Some(false) };
    let source = EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() };
    EnvVar { name, value: None, value_from: Some(source) }
}

/// The last report in a log.
fn last_report(log: &str) -> Option<RunnerReport> {
    let line = |line: &str| serde_json::from_str::<ReportLine>(line).ok().map(|line| line.stillframe_report);
    log.lines().rev().find_map(line)
}

impl Reconciliation<'_> {
    /// The container that this try, or the last one, has in the database's pod.
    fn own_container(&self) -> Option<(String, String)> {
        let runner = self.status.runner.as_ref()?;
        Some((runner.pod_name.clone(), runner.container_name.clone()?))
    }

    /// True if the last try was from within the database's pod.
    pub(super) fn is_inside(&self) -> bool {
        self.own_container().is_some()
    }

    /// The database's pod, if it still is the one that the try began in.
    async fn own_pod(&self, pod_name: &str) -> Result<Option<Pod>, OperatorError> {
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.who.namespace);
        let pod = pods.get_opt(pod_name).await.during(|| format!("read pod {}/{pod_name}", self.who.namespace))?;
        let uid = self.status.runner.as_ref().and_then(|runner| runner.pod_uid.clone());
        Ok(pod.filter(|pod| pod.uid() == uid))
    }

    /// How the container fares and what it says. `None`: it was never made.
    pub(super) async fn see_inside(&self) -> Result<Option<Launched>, OperatorError> {
        let Some((pod_name, container)) = self.own_container() else { return Ok(None) };
        let Some(pod) = self.own_pod(&pod_name).await? else {
            return Ok(Some(Launched { state: lost("is gone, and the database's with it"), report: None }));
        };
        if !has_container(&pod, &container) {
            return Ok(None);
        }
        let (state, words) = read_container(&pod, &container);
        let said = words.and_then(|words| serde_json::from_str(&words).ok());
        let report = match (&state, said) {
            (_, Some(said)) => Some(said),
            (PodState::Waiting { .. }, None) => None,
            (_, None) => self.read_log(&pod_name, &container).await,
        };
        Ok(Some(Launched { state, report }))
    }

    /// A log that cannot be read is no reason to end anything.
    async fn read_log(&self, pod: &str, container: &str) -> Option<RunnerReport> {
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.who.namespace);
        let container = Some(container.to_owned());
        let params = LogParams { container, tail_lines: Some(LOG_LINES), ..LogParams::default() };
        match pods.logs(pod, &params).await {
            Ok(log) => last_report(&log),
            Err(error) => {
                tracing::debug!(%error, pod, "the log of an ephemeral container cannot be read");
                None
            }
        }
    }

    /// True as long as a container of ours works in the database's pod.
    pub(super) async fn works_inside(&self) -> Result<bool, OperatorError> {
        let seen = self.see_inside().await?;
        Ok(seen.is_some_and(|seen| seen.state == PodState::Running))
    }

    /// Makes the container give up, by way of the storage: there is no other. The error is for people.
    pub(super) async fn call_off(&self, gathered: &Gathered) -> Result<(), String> {
        let Connected { access, id, .. } = self.connect(gathered).await.map_err(|error| error.to_string())??;
        match access.call_off(&id).await {
            Ok(true) => tracing::info!(%id, "the run was called off"),
            Ok(false) => tracing::info!(%id, "the run was to be called off, and is complete"),
            Err(error) => return Err(crate::store::explain(&error)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::runner::RunnerState;

    #[test]
    fn the_last_report_of_a_log_counts() {
        let log = "{\"level\":\"INFO\"}\n{\"stillframeReport\":{\"state\":\"running\"}}\nnoise\n\
                   {\"stillframeReport\":{\"state\":{\"backedUp\":{\"backupId\":\"b\",\"warnings\":[]}}}}\n{\"level\":\"INFO\"}\n";
        let report = last_report(log).unwrap();
        assert_eq!(report.state, RunnerState::BackedUp { backup_id: "b".into(), warnings: vec![] });
        assert_eq!(last_report("{\"level\":\"INFO\"}\n"), None);
    }
}
