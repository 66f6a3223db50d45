//! Doing a request again until it works, it cannot work, time is up, or somebody cancels.
//!
//! ```text
//!   request ──► done
//!      │ error ─► classify ─► missing, exists, denied, … : the caller's to judge
//!      └─ worth another try ─► wait (growing, jittered) ─► request …   until `total` has passed
//! ```

use std::future::Future;
use std::time::{Duration, Instant};

use object_store::path::Path;
use tokio_util::sync::CancellationToken;

use crate::util::backoff::Backoff;

use super::error::StoreError;
use super::explain::{Cause, Class, classify, explain};
use super::url::StoreUrl;

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long to try.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    /// One try is given up after this.
    pub(super) attempt: Duration,
    /// No new try begins after this.
    pub(super) total: Duration,
    /// Ends the trying at once.
    pub(super) cancel: CancellationToken,
}

impl Patience {
    /// The same, for a single try.
    pub(super) fn once(&self) -> Self {
        Self { total: Duration::ZERO, ..self.clone() }
    }
}

/// A request that failed for good.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) class: Class,
    act: &'static str,
    object: String,
    store: String,
    cause: Cause,
    cancelled: bool,
}

impl Failed {
    pub(super) fn is(&self, class: Class) -> bool {
        self.class == class && !self.cancelled
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    pub(super) fn cause(&self) -> &Cause {
        &self.cause
    }
}

impl From<Failed> for StoreError {
    fn from(failed: Failed) -> Self {
        let Failed { class, act, object, store, cause, cancelled } = failed;
        match class {
            _ if cancelled => Self::Cancelled,
            Class::Missing => Self::Missing { object },
            Class::NoBucket => Self::NoBucket { url: store },
            Class::Denied => Self::Denied { act, object, source: cause },
            _ => Self::Failed { act, object, source: cause },
        }
    }
}

/// What a request does, and on what: for messages.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) url: &'a StoreUrl,
    pub(super) act: &'static str,
    pub(super) key: &'a Path,
}

impl Subject<'_> {
    fn failed(&self, class: Class, cause: Cause) -> Failed {
        let (object, store) = (self.url.of(self.key), self.url.to_string());
        Failed { class, act: self.act, object, store, cause, cancelled: false }
    }

    /// A failure that the caller found out by itself.
    pub(super) fn broken(&self, why: impl Into<String>) -> Failed {
        self.failed(Class::Final, Cause::new(why))
    }

    /// An object that is not what it was.
    pub(super) fn changed(&self) -> Failed {
        self.failed(Class::Changed, Cause::new("it is not what it was"))
    }

    /// A refusal that the caller found out by itself.
    pub(super) fn denied(&self, why: impl Into<String>) -> Failed {
        self.failed(Class::Denied, Cause::new(why))
    }

    pub(super) fn cancelled(&self) -> Failed {
        Failed { cancelled: true, ..self.failed(Class::Final, Cause::new("cancelled")) }
    }
}

/// Runs `request` as often as it takes.
pub(super) async fn persist<T, F>(
    subject: Subject<'_>,
    patience: &Patience,
    mut request: impl FnMut() -> F,
) -> Result<T, Failed>
where
    F: Future<Output = object_store::Result<T>>,
{
    let begin = Instant::now();
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    loop {
        let failed = tokio::select! {
            biased;
            () = patience.cancel.cancelled() => return Err(subject.cancelled()),
            answer = tokio::time::timeout(patience.attempt, request()) => match answer {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) => subject.failed(classify(&error), explain(&error)),
                Err(_) => subject.failed(Class::Again, Cause::new(format!("no answer within {:?}", patience.attempt))),
            },
        };
        let wait = backoff.next_delay();
        if failed.class != Class::Again || begin.elapsed() + wait >= patience.total {
            return Err(failed);
        }
        tracing::warn!(act = subject.act, object = failed.object, cause = %failed.cause, tries = backoff.attempts(), "request failed, trying again");
        tokio::select! {
            () = patience.cancel.cancelled() => return Err(subject.cancelled()),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Runs a request that cannot be repeated.
pub(super) async fn once<T>(
    subject: Subject<'_>,
    patience: &Patience,
    request: impl Future<Output = object_store::Result<T>>,
) -> Result<T, Failed> {
    tokio::select! {
        biased;
        () = patience.cancel.cancelled() => Err(subject.cancelled()),
        answer = request => answer.map_err(|error| subject.failed(classify(&error), explain(&error))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn busy() -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: "non-2xx status code: 503 Service Unavailable: ".into() }
    }

    fn patience(total: Duration) -> Patience {
        Patience { attempt: Duration::from_millis(500), total, cancel: CancellationToken::new() }
    }

    async fn run(patience: &Patience, fail: u32, error: fn() -> object_store::Error) -> (Result<(), Failed>, u32) {
        let url: StoreUrl = "s3://bucket/p".parse().unwrap();
        let (calls, key) = (AtomicU32::new(0), Path::from("p/k"));
        let subject = Subject { url: &url, act: "write", key: &key };
        let done = persist(subject, patience, || {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            async move { if call < fail { Err(error()) } else { Ok(()) } }
        });
        let done = done.await;
        (done, calls.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_busy_store_is_asked_again() {
        let (done, calls) = run(&patience(Duration::from_secs(30)), 3, busy).await;
        assert!(done.is_ok());
        assert_eq!(calls, 4);
    }

    #[tokio::test]
    async fn a_refusal_is_not_repeated() {
        let denied = || object_store::Error::PermissionDenied { path: "k".into(), source: "403".into() };
        let (done, calls) = run(&patience(Duration::from_secs(30)), 3, denied).await;
        assert!(done.unwrap_err().is(Class::Denied));
        assert_eq!(calls, 1);
    }

    #[tokio::test]
    async fn patience_ends_and_names_the_object() {
        let (done, calls) = run(&patience(Duration::from_secs(1)), u32::MAX, busy).await;
        let error = StoreError::from(done.unwrap_err());
        assert_eq!(error.to_string(), "cannot write s3://bucket/p/k");
        assert!(calls > 1);
    }

    #[tokio::test]
    async fn a_cancel_is_heard_while_waiting() {
        let patience = patience(Duration::from_mins(10));
        let cancel = patience.cancel.clone();
        let begin = Instant::now();
        let ((done, _), ()) = tokio::join!(run(&patience, u32::MAX, busy), async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            cancel.cancel();
        });
        assert!(done.unwrap_err().is_cancelled());
        assert!(begin.elapsed() < patience.total / 10);
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_is_not_waited_for() {
        let url: StoreUrl = "s3://bucket/p".parse().unwrap();
        let key = Path::from("k");
        let subject = Subject { url: &url, act: "read", key: &key };
        let patience = patience(Duration::ZERO);
        let failed = persist(subject, &patience, std::future::pending::<object_store::Result<()>>);
        assert!(failed.await.unwrap_err().cause().to_string().contains("no answer"));
    }
}
