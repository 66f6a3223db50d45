//! The process in a runner's pod: a request in, one verb of the engine, a report out.
//!
//! ```text
//!   environment ─► RunnerRequest ─► work ─► ops::backup, ops::role, a look at a directory
//!                                     │ progress
//!                                     └──► Reporter ─► ConfigMap (at most every ten seconds, and at the end)
//! ```
//!
//! Owns the translation between the API's documents and the engine's options. Decides nothing, and says nothing to
//! Kubernetes but its report: that is all that its role allows. A report that cannot be written does not end a backup.
//! Inside of a database's pod it has no role at all: it prints its reports, and its Secrets are variables.

mod files;
mod progress;
mod report;
mod restore;
mod work;

use std::sync::Arc;

use crate::api::runner::{REQUEST_VARIABLE, RunnerRequest, RunnerState, VERSION};
use crate::obs::Marks;
use crate::ops::{Context, Error, ErrorKind};

use progress::Meter;
use report::Reporter;

/// Does what the environment asks for. Fails as the work does; the report says so too.
pub async fn run(context: &Context) -> Result<(), Error> {
    let request = read_request(std::env::var(REQUEST_VARIABLE).ok().as_deref())?;
    files::make(&request.files)?;
    let meter = Arc::new(Meter::new(Arc::clone(&context.progress)));
    let reporter = Reporter::start(&request, Arc::clone(&meter)).await?;
    let context = Context::new(context.cancel.clone(), meter);
    let outcome = work::run(&context, request.work).await;
    let (state, outcome) = match outcome {
        Ok(state) => (state, Ok(())),
        Err(error) => (failed(&error), Err(error)),
    };
    match (reporter.finish(state).await, outcome) {
        // What failed first says more.
        (_, Err(error)) | (Err(error), Ok(())) => Err(error),
        (Ok(()), Ok(())) => Ok(()),
    }
}

/// What every line of this process' log says: the object that it works for, and the work.
pub fn marks() -> Marks {
    let request = read_request(std::env::var(REQUEST_VARIABLE).ok().as_deref());
    request.map(|request| marks_of(&request)).unwrap_or_default()
}

fn marks_of(request: &RunnerRequest) -> Marks {
    vec![("object", request.object.clone()), ("run", request.report.clone()), ("work", request.key.clone())]
}

fn read_request(text: Option<&str>) -> Result<RunnerRequest, Error> {
    let usage = |message: String| {
        Error::new(ErrorKind::Usage, message).advise("this verb is started by the operator; there is no use in it else")
    };
    let text = text.ok_or_else(|| usage(format!("{REQUEST_VARIABLE} is not set")))?;
    let request: RunnerRequest = serde_json::from_str(text)
        .map_err(|error| usage(format!("{REQUEST_VARIABLE} holds no request")).caused_by(error))?;
    if request.version != VERSION {
        return Err(usage(format!("the request is of version {}, this runner of version {VERSION}", request.version)));
    }
    Ok(request)
}

fn failed(error: &Error) -> RunnerState {
    let mut message = error.message.clone();
    for cause in error.causes() {
        message.push_str(": ");
        message.push_str(&cause);
    }
    message.push_str("; ");
    message.push_str(error.advice());
    RunnerState::Failed { reason: error.kind.reason().to_owned(), message, retryable: is_retryable(error.kind) }
}

/// Whether the same request may succeed later. Every kind is named, so that a new one must be sorted here.
fn is_retryable(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Failed
        | ErrorKind::Cancelled
        | ErrorKind::LocalIo
        | ErrorKind::Connection
        | ErrorKind::LockTimeout
        | ErrorKind::DdlWaitBudget
        | ErrorKind::ReadLockBudget
        | ErrorKind::RedoOverwritten
        | ErrorKind::SpoolFull
        | ErrorKind::SourceChanged
        | ErrorKind::Store
        | ErrorKind::TargetInUse
        | ErrorKind::StoreDenied
        | ErrorKind::Protected => true,
        ErrorKind::Usage
        | ErrorKind::Unsupported
        | ErrorKind::Privileges
        | ErrorKind::Preflight
        | ErrorKind::UnsupportedServer
        | ErrorKind::ServerMismatch
        | ErrorKind::KeyMissing
        | ErrorKind::CorruptPage
        | ErrorKind::UnsupportedFormat
        | ErrorKind::NotFound
        | ErrorKind::IncompleteBackup
        | ErrorKind::DamagedBackup
        | ErrorKind::WrongKey
        | ErrorKind::TargetNotEmpty
        | ErrorKind::TargetTooSmall
        | ErrorKind::TargetMismatch
        | ErrorKind::RecoveryFailed
        | ErrorKind::AccountMismatch => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_another_version_is_refused() {
        let text = r#"{"version": 2, "object": "n/o", "namespace": "n", "report": "r", "key": "look-1", "work": {"look": {"dataDir": "/d"}}}"#;
        let error = read_request(Some(text)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Usage);
        assert!(error.message.contains("version 2"), "{error}");
        assert!(read_request(Some(&text.replace("\"version\": 2", "\"version\": 1"))).is_ok());
        assert!(read_request(Some("{}")).is_err());
        assert!(read_request(None).unwrap_err().message.contains("is not set"));
    }

    #[test]
    fn a_failure_tells_cause_and_advice() {
        let error =
            Error::new(ErrorKind::StoreDenied, "cannot write to s3://b/p").caused_by(std::io::Error::other("403"));
        let RunnerState::Failed { reason, message, retryable } = failed(&error) else { panic!("not failed") };
        assert_eq!(reason, "StoreDenied");
        assert!(message.starts_with("cannot write to s3://b/p: 403; check the credentials"), "{message}");
        assert!(retryable);
    }
}
