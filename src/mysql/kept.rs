//! A connection that something hangs on, kept alive while nobody uses it.
//!
//! ```text
//!   keeper task   ─ ping ─── 5 s ─── ping ─── 5 s ─── ping ✗ ──► lost (with the reason)
//!   user          ──── statement ──────────────── statement        both take turns on one connection
//! ```
//! The server closes a connection that was silent for 30 s, so a process that stands still, or whose network is
//! gone, loses its locks soon. Dropping this closes the socket at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, watch};
use tokio_util::task::AbortOnDropHandle;

use super::error::MysqlError;
use super::session::Session;

/// How often a silent connection is pinged.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// A connection with its keeper.
#[derive(Debug)]
pub(super) struct Kept {
    session: Arc<Mutex<Session>>,
    id: u32,
    act: &'static str,
    lost: watch::Receiver<Option<String>>,
    keeper: AbortOnDropHandle<()>,
}

impl Kept {
    /// Keeps `session`; `act` completes "cannot …" for the day it is lost.
    pub(super) fn new(session: Session, act: &'static str) -> Self {
        let id = session.connection_id();
        let session = Arc::new(Mutex::new(session));
        let (report, lost) = watch::channel(None);
        let keeper = AbortOnDropHandle::new(tokio::spawn(keep(Arc::clone(&session), report)));
        Self { session, id, act, lost, keeper }
    }

    pub(super) fn connection_id(&self) -> u32 {
        self.id
    }

    /// The connection, for a statement or several.
    pub(super) async fn lock(&self) -> MutexGuard<'_, Session> {
        self.session.lock().await
    }

    /// Closes the connection in good order. Nobody is told that it is lost.
    pub(super) async fn close(self) {
        self.keeper.abort();
        self.session.lock().await.shut().await;
    }

    /// Resolves when the connection is found dead. Never, once this was given up in order.
    pub(super) fn lost(&self) -> impl Future<Output = MysqlError> + Send + 'static {
        let (mut lost, act) = (self.lost.clone(), self.act);
        async move {
            let reason = lost.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
            match reason {
                Some(reason) => MysqlError::connection(act, reason),
                None => std::future::pending().await,
            }
        }
    }
}

async fn keep(session: Arc<Mutex<Session>>, report: watch::Sender<Option<String>>) {
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        if let Err(error) = session.lock().await.ping().await {
            let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            let _ = report.send(Some(reason));
            return;
        }
    }
}
