//! Waiting for what must come, on machines that may be slow or stand still for a while.
//!
//! ```text
//!   normally      ─┐ 20 ms
//!   machine busy  ─┼───────── 10 s and more: still right
//!   FREED         ─┼──────────────────── 20 s: so long until "at once" is wrong
//!   the server    ─┼─────────────────────────────── 30 s: it closes a silent connection itself, and frees its locks
//!   SOON          ─┴──────────────────────────────────────────────────────── 1 min: it never comes
//! ```
//! No test says that something is fast. Where a time is all there is to be seen, the limit lies far above what a slow
//! machine takes, and far below what a broken product does: it waits for good, or for the whole of a patience.

use std::time::{Duration, Instant};

/// What normally takes milliseconds and has not come by then does not come.
pub const SOON: Duration = Duration::from_mins(1);

/// What a session held is free by then if it was given back; left to the server's own patience with silent
/// connections, it is not.
pub const FREED: Duration = Duration::from_secs(20);

/// How often the session that asks was made to wait for a lock on metadata, so long as it lives: by another's DDL, by
/// the backup lock, by the global read lock. The server counts, so no time is taken.
pub const METADATA_WAITS: &str = "SELECT COUNT_STAR FROM performance_schema.events_waits_summary_by_thread_by_event_name \
     WHERE THREAD_ID = PS_CURRENT_THREAD_ID() AND EVENT_NAME = 'wait/lock/metadata/sql/mdl'";

/// Waits until something is so, and panics when it does not come.
pub async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    within(SOON, what, is_so).await;
}

/// The same with a limit of one's own.
pub async fn within(limit: Duration, what: &str, is_so: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
