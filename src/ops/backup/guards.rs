//! The watchers that may end a backup while it copies: each guards one promise.
//!
//! ```text
//!   guard: lease lost ─┐
//!   guard: redo lost ──┼─► first error wins ─► the work's token is cancelled ─► every worker stops
//!   guard: DDL budget ─┤
//!   the user's cancel ─┘
//! ```
//! Owns the one token that all work of a run listens to. Knows nothing of what is guarded.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ops::error::Error;

/// A set of watchers around one piece of work.
#[derive(Debug)]
pub struct Guards {
    work: CancellationToken,
    watch: CancellationToken,
    cause: Arc<Mutex<Option<Error>>>,
    tasks: TaskTracker,
}

impl Guards {
    /// Makes a set whose work ends when `parent` is cancelled.
    pub fn new(parent: &CancellationToken) -> Self {
        Self {
            work: parent.child_token(),
            watch: CancellationToken::new(),
            cause: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// The token that all guarded work listens to.
    pub fn token(&self) -> &CancellationToken {
        &self.work
    }

    /// Starts a watcher. It runs until it fails, which ends the work, or until the guards are released.
    pub fn watch<F>(&self, guard: F)
    where
        F: Future<Output = Error> + Send + 'static,
    {
        let (work, watch, cause) = (self.work.clone(), self.watch.clone(), Arc::clone(&self.cause));
        drop(self.tasks.spawn(async move {
            tokio::select! {
                () = watch.cancelled() => {}
                error = guard => {
                    let mut first = cause.lock().unwrap_or_else(PoisonError::into_inner);
                    let _ = first.get_or_insert(error);
                    work.cancel();
                }
            }
        }));
    }

    /// Starts a companion of the work, which ends by itself when the work's token is cancelled.
    pub fn accompany<F>(&self, companion: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.tasks.spawn(companion));
    }

    /// Starts a companion on a thread of its own, under the same rule.
    pub fn accompany_blocking<F, T>(&self, companion: F) -> tokio::task::JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.tasks.spawn_blocking(companion)
    }

    /// Says why the work ended: a guard's reason, where one ended it; else the stop, where it was told to; else what
    /// it says itself. Work that is stopped fails at whatever it was doing, which is not the reason.
    pub fn judge<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        let cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (outcome, cause) {
            (_, Some(cause)) => Err(cause),
            (Err(_), None) if self.work.is_cancelled() => Err(Error::cancelled()),
            (outcome, None) => outcome,
        }
    }

    /// Ends the work at once where a guard has failed already.
    pub fn check(&self) -> Result<(), Error> {
        if self.work.is_cancelled() {
            return self.judge(Err(Error::cancelled()));
        }
        Ok(())
    }

    /// Ends whatever still runs, work included, and waits for it.
    pub async fn release(&self) {
        self.watch.cancel();
        self.work.cancel();
        let _ = self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Guards {
    fn drop(&mut self) {
        self.watch.cancel();
        self.work.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::error::ErrorKind;

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, "reason")
    }

    #[tokio::test]
    async fn the_guard_that_fails_ends_the_work_and_names_the_reason() {
        let guards = Guards::new(&CancellationToken::new());
        guards.watch(async { error(ErrorKind::RedoOverwritten) });
        guards.watch(std::future::pending());
        guards.token().cancelled().await;
        let judged = guards.judge::<()>(Err(error(ErrorKind::Cancelled))).unwrap_err();
        assert_eq!(judged.kind, ErrorKind::RedoOverwritten);
        guards.release().await;
    }

    #[tokio::test]
    async fn work_that_no_guard_ended_keeps_its_outcome() {
        let parent = CancellationToken::new();
        let guards = Guards::new(&parent);
        guards.watch(std::future::pending());
        assert_eq!(guards.judge(Ok(7)).unwrap(), 7);
        guards.check().unwrap();
        parent.cancel();
        assert_eq!(guards.check().unwrap_err().kind, ErrorKind::Cancelled);
        guards.release().await;
    }
}
