//! Being told to stop: Ctrl-C, SIGTERM, SIGHUP.
//!
//! ```text
//!   first signal ──► the verb's token is cancelled ──► locks released, remains removed ──► exit code 3
//!                      │ second signal: exit at once, 128 + its number (130, 143, 129)
//!                      └ not done after GRACE: exit code 3 nevertheless
//! ```
//! Has a thread and a reactor of its own: a second Ctrl-C works even if everything else is stuck. A signal that was
//! ignored when the process began stays ignored, so that `nohup` and background jobs mean what they say.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::console::Console;
use crate::ops::ErrorKind;

/// How long a cancelled verb may take to clean up. Locks go within the first second of it; the rest is for objects
/// in the store. Below the 30 s that Kubernetes and systemd leave between SIGTERM and SIGKILL at least.
pub(super) const GRACE: Duration = Duration::from_secs(20);

/// The signals that mean "stop", as a person calls them.
const SIGNALS: [(i32, &str); 3] = [(1, "SIGHUP"), (2, "Ctrl-C"), (15, "SIGTERM")];

/// Watches for signals until dropped at the process's end.
#[derive(Clone)]
pub(super) struct Watch {
    finished: Arc<AtomicBool>,
}

impl Watch {
    /// Cancels `token` on the first signal.
    pub(super) fn start(token: CancellationToken, console: Console) -> io::Result<Self> {
        let finished = Arc::new(AtomicBool::new(false));
        let watch = Self { finished: Arc::clone(&finished) };
        let reactor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Registered before the verb begins, not when the thread gets to it.
        let signals = {
            let _inside = reactor.enter();
            Signals::register(ignored_at_start(&own_status()))?
        };
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || reactor.block_on(watch_over(signals, &token, &console, &finished)))?;
        Ok(watch)
    }

    /// The verb has returned: from here on a signal ends the process at once.
    pub(super) fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
    }
}

struct Signals(Vec<(i32, &'static str, Signal)>);

impl Signals {
    fn register(ignored: u64) -> io::Result<Self> {
        let mut streams = Vec::new();
        for (number, name) in SIGNALS {
            if !is_ignored(ignored, number) {
                streams.push((number, name, signal(SignalKind::from_raw(number))?));
            }
        }
        Ok(Self(streams))
    }

    async fn next(&mut self) -> (i32, &'static str) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let waits = self.0.iter_mut().map(|(number, name, stream)| {
            Box::pin(async move {
                if stream.recv().await.is_none() {
                    std::future::pending::<()>().await;
                }
                (*number, *name)
            })
        });
        futures::future::select_all(waits).await.0
    }
}

async fn watch_over(mut signals: Signals, token: &CancellationToken, console: &Console, finished: &AtomicBool) {
    let (number, name) = signals.next().await;
    if finished.load(Ordering::Relaxed) {
        leave(console, exit_code_of_signal(number));
    }
    token.cancel();
    console.line(&format!("stillframe: {name}: stopping, the server's locks go first; once more ends at once"));
    tokio::select! {
        (number, _) = signals.next() => leave(console, exit_code_of_signal(number)),
        () = tokio::time::sleep(GRACE) => {
            console.line(&format!("stillframe: not done with cleaning up after {} s: leaving", GRACE.as_secs()));
            leave(console, i32::from(ErrorKind::Cancelled.exit_code()));
        }
    }
}

fn leave(console: &Console, code: i32) -> ! {
    console.close();
    std::process::exit(code)
}

/// What a shell shows for a process that the signal ended.
const fn exit_code_of_signal(number: i32) -> i32 {
    128 + number
}

fn own_status() -> String {
    std::fs::read_to_string("/proc/self/status").unwrap_or_default()
}

/// The set of ignored signals, as a bit mask, from the text of `/proc/self/status`.
fn ignored_at_start(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn is_ignored(mask: u64, number: i32) -> bool {
    u32::try_from(number - 1).is_ok_and(|bit| mask >> bit & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_kernels_text() {
        let mask = ignored_at_start("Name:\tx\nSigBlk:\t0000000000000003\nSigIgn:\t0000000000001001\n");
        assert!(is_ignored(mask, 1) && is_ignored(mask, 13));
        assert!(!is_ignored(mask, 2) && !is_ignored(mask, 15));
        assert_eq!(ignored_at_start(""), 0);
        assert!(own_status().contains("SigIgn:"), "this kernel tells it");
    }

    #[test]
    fn codes_are_those_that_shells_use() {
        assert_eq!(SIGNALS.map(|(number, _)| exit_code_of_signal(number)), [129, 130, 143]);
    }
}
