//! The redo of a backup: captured by the follower, stored by the uploader, watched so that it is not lost.
//!
//! ```text
//!   server ─► follower (thread) ─► memory, spool ─► uploader (thread) ─► archive ─► store
//!                 ▲                  │
//!                 └── watch (task, once a second): lag for the progress, the consumer's advance,
//!                     lifts the throttle when redo is in danger, lets go of the consumer before the server stalls
//! ```
//! The follower waits for nobody. A registered consumer keeps the server from overwriting redo; one that does not
//! advance would stall the server's writers, so it is given up at half of the redo capacity or 80 % of the spool.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::capture::{Activity, CapturedRedo, FollowOptions, MEMORY_BYTES, RedoFollower, Spool, Throttle};
use crate::innodb::lsn::Lsn;
use crate::mysql::{ConnectOptions, RedoConsumer, RedoStatus, Registration, Session};
use crate::ops::blocking;
use crate::ops::context::Context;
use crate::ops::error::{Error, ErrorKind};
use crate::ops::options::{BackupOptions, RedoConsumer as ConsumerPolicy};
use crate::ops::progress::Progress;

use super::Parts;
use super::uploader::{UploadFailure, Uploader, upload_failed};

/// How often the watch looks.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// How long the redo up to the cut may take to appear: it is flushed already, so only a stalled server takes long.
const FINISH_PATIENCE: Duration = Duration::from_mins(2);

/// Registers this backup as a consumer of the server's redo, as the policy says. Comes before the checkpoint is
/// read: the server keeps everything from the checkpoint of this moment on.
pub async fn register_consumer(options: &BackupOptions, ctx: &Context) -> Result<Option<RedoConsumer>, Error> {
    if options.redo_consumer == ConsumerPolicy::Off {
        return Ok(None);
    }
    let why = match RedoConsumer::register(&options.server).await? {
        Registration::Registered(consumer) => return Ok(Some(consumer)),
        Registration::TakenByAnother => "another consumer is registered already",
        Registration::NotAvailable => "this server has no redo consumers",
    };
    if options.redo_consumer == ConsumerPolicy::On {
        let message = format!("cannot register as redo consumer: {why}");
        return Err(Error::new(ErrorKind::Preflight, message).advise("use --redo-consumer auto to go on without"));
    }
    ctx.progress.message(&format!("not registered as redo consumer: {why}; redo may be overwritten under load"));
    Ok(None)
}

/// The capture, running.
pub struct RedoCapture {
    follower: Arc<RedoFollower>,
    finishing: Arc<AtomicBool>,
    uploader: tokio::task::JoinHandle<Option<u64>>,
    upload_failure: Arc<UploadFailure>,
    watch: CancellationToken,
    stop: CancellationToken,
}

impl RedoCapture {
    /// Starts the follower at the newest checkpoint, and what goes with it.
    pub(super) async fn start(
        parts: &Parts<'_>,
        consumer: Option<RedoConsumer>,
        throttle: &Arc<Throttle>,
        activity: &Arc<Activity>,
    ) -> Result<Self, Error> {
        let Parts { ctx, options, source, destination, attempt, guards } = *parts;
        let stop = guards.token().clone();
        let follow = FollowOptions {
            redo_dir: source.layout.redo_dir.clone(),
            spool: destination.spool(),
            memory_bytes: MEMORY_BYTES,
            keyring: source.keyring.clone(),
        };
        let cancel = stop.clone();
        let follower = Arc::new(blocking(move || Ok(RedoFollower::start(follow, &cancel)?)).await?);
        let finishing = Arc::new(AtomicBool::new(false));
        guards.watch(follower_failed(Arc::clone(&follower), Arc::clone(&finishing)));

        let watch = stop.child_token();
        let watcher = Watcher {
            follower: Arc::clone(&follower),
            consumer,
            spool: destination.spool(),
            throttle: Arc::clone(throttle),
            activity: Arc::clone(activity),
            last: None,
            capacity: source.info.redo_capacity_bytes,
            progress: Arc::clone(&ctx.progress),
            server: options.server.clone(),
        };
        let session = Session::connect(&options.server).await?;
        guards.accompany(watcher.run(session, watch.clone()));

        let upload_failure = Arc::new(UploadFailure::default());
        guards.watch(upload_failed(Arc::clone(&upload_failure)));
        let uploader = {
            let uploader = Uploader {
                follower: Arc::clone(&follower),
                writer: attempt.writer(),
                spool_bytes: destination.spool().limit(),
                polite: options.polite,
                stop: stop.clone(),
            };
            let failure = Arc::clone(&upload_failure);
            guards.accompany_blocking(move || failure.note(uploader.run()))
        };
        Ok(Self { follower, finishing, uploader, upload_failure, watch, stop })
    }

    /// Where the capture is, whenever that is asked.
    pub fn position(&self) -> Arc<dyn Fn() -> u64 + Send + Sync> {
        let follower = Arc::clone(&self.follower);
        Arc::new(move || follower.position().get())
    }

    /// Captures nothing more until the end is known: before the server is asked for it.
    pub fn hold(&self) {
        self.follower.hold();
    }

    /// Ends the capture exactly at `lsn`. The consumer is let go.
    pub async fn finish_at(&self, lsn: Lsn) -> Result<CapturedRedo, Error> {
        self.finishing.store(true, Ordering::Release);
        let follower = Arc::clone(&self.follower);
        let captured = blocking(move || Ok(follower.finish_at(lsn, FINISH_PATIENCE)?)).await?;
        self.watch.cancel();
        Ok(captured)
    }

    /// Waits until every captured segment is stored; returns the bytes of redo.
    pub async fn upload_rest(self) -> Result<u64, Error> {
        let Self { uploader, upload_failure, stop, .. } = self;
        let stored =
            uploader.await.map_err(|error| Error::new(ErrorKind::Failed, "redo upload ended").caused_by(error))?;
        match stored {
            Some(bytes) if !stop.is_cancelled() => Ok(bytes),
            Some(_) => Err(Error::cancelled()),
            None => {
                if let Some(error) = upload_failure.take() {
                    return Err(error);
                }
                // The guard has it, and ends the work.
                stop.cancelled().await;
                Err(Error::cancelled())
            }
        }
    }
}

/// Resolves when the follower ends before it was told to.
async fn follower_failed(follower: Arc<RedoFollower>, finishing: Arc<AtomicBool>) -> Error {
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if finishing.load(Ordering::Acquire) {
            return std::future::pending().await;
        }
        if follower.has_ended()
            && let Some(Err(error)) = follower.take_outcome()
        {
            return error.into();
        }
    }
}

/// Less redo between two looks is the server's own housekeeping.
const REST_REDO_BYTES: u64 = 16 << 10;
/// Fewer reads between two looks slow nobody down.
const REST_READS: u64 = 16;

/// Whether the server did nothing to speak of between two looks: then nobody notices how busy its disk is.
fn is_at_rest(last: &RedoStatus, now: &RedoStatus) -> bool {
    let written = now.current_lsn.saturating_since(last.current_lsn);
    let read = now.data_reads.zip(last.data_reads).map_or(u64::MAX, |(now, last)| now.saturating_sub(last));
    written < REST_REDO_BYTES && read < REST_READS
}

/// Looks at the server's redo once in a while.
struct Watcher {
    follower: Arc<RedoFollower>,
    consumer: Option<RedoConsumer>,
    spool: Arc<Spool>,
    throttle: Arc<Throttle>,
    activity: Arc<Activity>,
    /// What was seen at the last look.
    last: Option<RedoStatus>,
    capacity: u64,
    progress: Arc<dyn Progress>,
    server: ConnectOptions,
}

impl Watcher {
    async fn run(mut self, mut session: Session, stop: CancellationToken) {
        let mut lifted = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(WATCH_INTERVAL) => {}
            }
            let position = self.follower.position();
            let Ok(status) = RedoStatus::read(&mut session).await else {
                // A server that is gone is noticed by whoever holds the lock.
                self.look_again(&mut session).await;
                continue;
            };
            // May be changed while the copy runs.
            self.capacity = status.capacity_bytes.unwrap_or(self.capacity);
            let lag = status.flushed_lsn.saturating_since(position);
            self.progress.redo_lag(lag);
            self.activity.set_at_rest(self.last.replace(status).is_some_and(|last| is_at_rest(&last, &status)));
            // A lag that is made up for by now was as near to a loss.
            if !lifted && lag.max(self.follower.take_behind()) > self.capacity / 4 {
                lifted = true;
                self.throttle.lift();
                self.progress.message("the throttle is lifted: redo is in danger of being overwritten");
            }
            self.serve_consumer(position, &status).await;
        }
        if let Some(consumer) = self.consumer.take() {
            consumer.unregister().await;
        }
        session.close().await;
    }

    /// Makes the session anew: it may have been killed, and stays useless then. Without one nobody would see the
    /// server come near a stall, so the consumer goes first.
    async fn look_again(&mut self, session: &mut Session) {
        match Session::connect(&self.server).await {
            Ok(fresh) => *session = fresh,
            Err(error) => {
                tracing::debug!(%error, "the redo log cannot be watched");
                if let Some(consumer) = self.consumer.take() {
                    consumer.unregister().await;
                    self.progress.message(
                        "gave up the redo consumer: the server's redo log cannot be watched; redo may now be overwritten",
                    );
                }
            }
        }
    }

    async fn serve_consumer(&mut self, position: Lsn, status: &RedoStatus) {
        let Some(mut consumer) = self.consumer.take() else { return };
        let held = status.current_lsn.saturating_since(position);
        let spool_full = self.spool.used() > self.spool.limit() / 5 * 4;
        let reason = if held > self.capacity / 2 {
            Some("half of the redo log waits for this backup")
        } else if spool_full {
            Some("the spool is filling up")
        } else {
            None
        };
        if let Some(reason) = reason {
            consumer.unregister().await;
            self.progress.message(&format!(
                "gave up the redo consumer, so that the server does not stall: {reason}; redo may now be overwritten"
            ));
            return;
        }
        // What was refused is asked again at the next look.
        if consumer.advance(position).await.is_ok() {
            self.consumer = Some(consumer);
        } else {
            self.progress.message("the server ended the registration as redo consumer; redo may now be overwritten");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_at_rest_that_neither_writes_nor_reads() {
        let status = |lsn, data_reads| RedoStatus {
            checkpoint_lsn: Lsn::ZERO,
            flushed_lsn: Lsn::ZERO,
            current_lsn: Lsn::new(lsn),
            data_reads,
            capacity_bytes: None,
            enabled: true,
        };
        let last = status(1 << 20, Some(100));
        assert!(is_at_rest(&last, &status(1 << 20, Some(100))));
        assert!(is_at_rest(&last, &status((1 << 20) + 700, Some(103))));
        assert!(!is_at_rest(&last, &status((1 << 20) + 50_000, Some(100))), "it writes");
        assert!(!is_at_rest(&last, &status(1 << 20, Some(500))), "it reads");
        assert!(!is_at_rest(&last, &status(1 << 20, None)), "it does not say");
    }
}
