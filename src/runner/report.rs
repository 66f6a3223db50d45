//! Writes the report: what the runner says to Kubernetes, all of it, into the one ConfigMap that it may write.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Config};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::api::runner::{RunnerReport, RunnerRequest, RunnerState};
use crate::ops::{Error, ErrorKind};
use crate::util::backoff::Backoff;
use crate::util::clock;

use super::progress::{Meter, Sample};

/// How often progress is written at most.
const EVERY: Duration = Duration::from_secs(10);
/// How long the last report is tried. Well below the time between SIGTERM and SIGKILL.
const PATIENCE: Duration = Duration::from_secs(15);

/// Writes reports in the background.
pub(super) struct Reporter {
    last: oneshot::Sender<RunnerState>,
    task: JoinHandle<Result<(), kube::Error>>,
}

struct Target {
    api: Api<ConfigMap>,
    name: String,
    key: String,
}

impl Reporter {
    /// Connects to Kubernetes and says that the work begins.
    pub(super) async fn start(request: &RunnerRequest, meter: Arc<Meter>) -> Result<Self, Error> {
        let client = connect().await?;
        let target = Target {
            api: Api::namespaced(client, &request.namespace),
            name: request.report.clone(),
            key: request.key.clone(),
        };
        let (last, end) = oneshot::channel();
        Ok(Self { last, task: tokio::spawn(write_until(target, meter, end)) })
    }

    /// Writes how the work ended.
    pub(super) async fn finish(self, state: RunnerState) -> Result<(), Error> {
        let failed = || Error::new(ErrorKind::Failed, "cannot write the report for the operator");
        // A task that is gone has its error in its result.
        let _ = self.last.send(state);
        match self.task.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed().caused_by(error)),
            Err(error) => Err(failed().caused_by(error)),
        }
    }
}

async fn connect() -> Result<Client, Error> {
    let failed = || Error::new(ErrorKind::Failed, "cannot reach Kubernetes to report to");
    let config = Config::infer().await.map_err(|error| failed().caused_by(error))?;
    Client::try_from(config).map_err(|error| failed().caused_by(error))
}

async fn write_until(
    target: Target,
    meter: Arc<Meter>,
    mut end: oneshot::Receiver<RunnerState>,
) -> Result<(), kube::Error> {
    let mut sample: Option<Sample> = None;
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let state = tokio::select! {
            state = &mut end => match state {
                Ok(state) => return write_last(&target, state).await,
                // Whoever would end it is gone: the process is on its way out.
                Err(_) => return Ok(()),
            },
            _ = ticks.tick() => RunnerState::Running,
        };
        let looked = meter.look(sample.as_ref(), clock::now());
        let progress = looked.map(|(progress, now)| {
            sample = Some(now);
            progress
        });
        let report = RunnerReport { state, progress };
        // The work goes on whether or not anybody can be told.
        if let Err(error) = target.write(&report).await {
            tracing::warn!(config_map = %target.name, %error, "cannot report progress");
        }
    }
}

async fn write_last(target: &Target, state: RunnerState) -> Result<(), kube::Error> {
    let report = RunnerReport { state, progress: None };
    let begun = tokio::time::Instant::now();
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
    loop {
        match target.write(&report).await {
            Ok(()) => return Ok(()),
            Err(error) if begun.elapsed() >= PATIENCE => return Err(error),
            Err(_) => tokio::time::sleep(backoff.next_delay()).await,
        }
    }
}

impl Target {
    async fn write(&self, report: &RunnerReport) -> Result<(), kube::Error> {
        let text = serde_json::to_string(report).map_err(kube::Error::SerdeError)?;
        let patch = Patch::Merge(serde_json::json!({"data": {&self.key: text}}));
        let params = PatchParams::default();
        let write = self.api.patch(&self.name, &params, &patch);
        // A connection that hangs must not keep the next report back.
        match tokio::time::timeout(EVERY, write).await {
            Ok(written) => written.map(drop),
            Err(_) => Err(kube::Error::Service("no answer in time".into())),
        }
    }
}
