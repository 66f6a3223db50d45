//! Writes the report: what the runner says to Kubernetes, all of it, into the one ConfigMap that it may write. Where it
//! has no authority, it prints it, and leaves the last one where the kubelet looks for a container's last words.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Config};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::api::runner::{ReportBy, ReportLine, RunnerReport, RunnerRequest, RunnerState};
use crate::ops::{Error, ErrorKind};
use crate::util::backoff::Backoff;
use crate::util::clock;

use super::progress::{Meter, Sample};

/// How often progress is written at most.
const EVERY: Duration = Duration::from_secs(10);
/// How long the last report is tried. Well below the time between SIGTERM and SIGKILL.
const PATIENCE: Duration = Duration::from_secs(15);
/// Where the kubelet looks for a container's last words.
const LAST_WORDS: &str = "/dev/termination-log";
/// How much of them it takes.
const MOST_LAST_WORDS: usize = 4096;

/// Writes reports in the background.
pub(super) struct Reporter {
    last: oneshot::Sender<RunnerState>,
    task: JoinHandle<Result<(), kube::Error>>,
}

enum Target {
    ConfigMap { api: Box<Api<ConfigMap>>, name: String, key: String },
    Output,
}

impl Reporter {
    /// Connects to Kubernetes and says that the work begins.
    pub(super) async fn start(request: &RunnerRequest, meter: Arc<Meter>) -> Result<Self, Error> {
        let target = match request.report_by {
            ReportBy::Output => Target::Output,
            ReportBy::ConfigMap => Target::ConfigMap {
                api: Box::new(Api::namespaced(connect().await?, &request.namespace)),
                name: request.report.clone(),
                key: request.key.clone(),
            },
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
            tracing::warn!(%error, "cannot report progress");
        }
    }
}

async fn write_last(target: &Target, state: RunnerState) -> Result<(), kube::Error> {
    let report = RunnerReport { state, progress: None };
    if let Target::Output = target {
        // The log tells it, too.
        if let Err(error) = std::fs::write(LAST_WORDS, last_words(report.clone())) {
            tracing::warn!(%error, path = LAST_WORDS, "cannot leave the report for the kubelet");
        }
    }
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

/// A report that is short enough for the kubelet, which cuts what is longer.
fn last_words(mut report: RunnerReport) -> String {
    loop {
        // A report is made of strings and numbers: it can always be written.
        let text = serde_json::to_string(&report).unwrap_or_default();
        if text.len() <= MOST_LAST_WORDS {
            return text;
        }
        match &mut report.state {
            RunnerState::Failed { message, .. } => {
                let half = message.chars().count() / 2;
                *message = message.chars().take(half).collect();
            }
            RunnerState::BackedUp { warnings, .. } if !warnings.is_empty() => drop(warnings.pop()),
            _ => return String::new(),
        }
    }
}

fn print(report: &RunnerReport) -> std::io::Result<()> {
    let line = ReportLine { stillframe_report: report.clone() };
    let mut text = serde_json::to_string(&line)?;
    text.push('\n');
    std::io::stdout().lock().write_all(text.as_bytes())
}

impl Target {
    async fn write(&self, report: &RunnerReport) -> Result<(), kube::Error> {
        let Self::ConfigMap { api, name, key } = self else {
            return print(report).map_err(|error| kube::Error::Service(error.into()));
        };
        let text = serde_json::to_string(report).map_err(kube::Error::SerdeError)?;
        let patch = Patch::Merge(serde_json::json!({"data": {key: text}}));
        let params = PatchParams::default();
        let write = api.patch(name, &params, &patch);
        // A connection that hangs must not keep the next report back.
        match tokio::time::timeout(EVERY, write).await {
            Ok(written) => written.map(drop),
            Err(_) => Err(kube::Error::Service("no answer in time".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_cut_and_can_still_be_read() {
        let failed = |message: String| RunnerReport {
            state: RunnerState::Failed { reason: "Store".into(), message, retryable: true },
            progress: None,
        };
        let short = failed("m".into());
        assert_eq!(serde_json::from_str::<RunnerReport>(&last_words(short.clone())).unwrap(), short);
        let text = last_words(failed("\"ä".repeat(9000)));
        let read = serde_json::from_str::<RunnerReport>(&text).unwrap();
        let RunnerState::Failed { reason, message, .. } = read.state else { panic!("{text}") };
        assert!(text.len() <= MOST_LAST_WORDS && reason == "Store" && message.starts_with("\"ä"), "{text}");
        let state = RunnerState::BackedUp { backup_id: "b".into(), warnings: vec!["w".repeat(1000); 9] };
        let text = last_words(RunnerReport { state, progress: None });
        let read = serde_json::from_str::<RunnerReport>(&text).unwrap();
        assert!(matches!(read.state, RunnerState::BackedUp { warnings, .. } if warnings.len() == 4), "{text}");
    }
}
