//! Whether anybody waits for the backup lock: DDL does, for as long as the copy takes.
//!
//! ```text
//!   sample each second   · · · w w w · · w w · ·       w: somebody's state is "Waiting for backup lock"
//!   waited                     └─ 3 ─┘   └ 2 ┘ = 5 s   counted once, however many wait
//! ```
//! Its own connection, which needs PROCESS to see others. A connection that fails is made anew: the lock itself is
//! guarded by its keeper.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::error::MysqlError;
use super::options::ConnectOptions;
use super::session::Session;

/// How often to look.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Another backup that waits for the lock is no DDL.
const WAITERS: &str = "SELECT COUNT(*) FROM performance_schema.processlist \
     WHERE STATE = 'Waiting for backup lock' AND COALESCE(INFO, '') NOT LIKE 'LOCK INSTANCE FOR BACKUP%'";

/// A running watch.
#[derive(Debug)]
pub struct DdlWatch {
    waited: Arc<watch::Sender<Duration>>,
    budget: Option<Duration>,
    sampler: AbortOnDropHandle<()>,
}

impl DdlWatch {
    /// Starts to watch. `budget` is how long somebody may be waiting, all waits taken together.
    pub async fn start(options: &ConnectOptions, budget: Option<Duration>) -> Result<Self, MysqlError> {
        let session = Session::connect(options).await?;
        let waited = Arc::new(watch::Sender::new(Duration::ZERO));
        let sampler = tokio::spawn(sample(options.clone(), session, Arc::clone(&waited)));
        Ok(Self { waited, budget, sampler: AbortOnDropHandle::new(sampler) })
    }

    /// How long somebody was seen waiting so far.
    pub fn waited(&self) -> Duration {
        *self.waited.borrow()
    }

    /// Resolves when the budget is used up. Never without one, or once the watch has ended.
    pub fn exceeded(&self) -> impl Future<Output = MysqlError> + Send + 'static {
        let (mut waited, budget) = (self.waited.subscribe(), self.budget);
        async move {
            let Some(budget) = budget else { return std::future::pending().await };
            let waited = waited.wait_for(|waited| *waited > budget).await.ok().map(|waited| *waited);
            match waited {
                Some(waited) => MysqlError::DdlWaitBudget { waited, budget },
                None => std::future::pending().await,
            }
        }
    }

    /// Ends the watch, and says how long somebody was seen waiting.
    pub async fn stop(self) -> Duration {
        self.sampler.abort();
        let _ = self.sampler.await;
        *self.waited.borrow()
    }
}

async fn sample(options: ConnectOptions, first: Session, waited: Arc<watch::Sender<Duration>>) {
    let mut session = Some(first);
    let mut waiting_since: Option<Instant> = None;
    loop {
        tokio::time::sleep(SAMPLE_INTERVAL).await;
        if session.is_none() {
            session = Session::connect(&options).await.ok();
        }
        let Some(open) = session.as_mut() else { continue };
        let Ok(row) = open.row("look who waits for the backup lock", WAITERS).await else {
            session = None;
            continue;
        };
        let now = Instant::now();
        if row.text_or_empty(0) == "0" {
            waiting_since = None;
            continue;
        }
        // Whoever is seen for the first time came at some time since the last look: counted as the whole of it.
        let step = waiting_since.map_or(SAMPLE_INTERVAL, |since| now.saturating_duration_since(since));
        waiting_since = Some(now);
        waited.send_modify(|sum| *sum = sum.saturating_add(step));
    }
}
