//! Standard error, and the one thread that writes to it.
//!
//! ```text
//!   ops threads ── bytes ──► counters ───────────┐
//!              ── step, message ─┐               ▼
//!   log lines ───────────────────┴─bounded─► console thread ──► standard error
//! ```
//! A verb may hold locks on a database while it tells how far it is. So whoever tells never waits for a terminal or
//! a pipe that nobody reads: lines go through a bounded queue, and when that is full they are dropped and counted.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use super::meter::Snapshot;
use super::progress::{Bar, Lines, Quiet, Renderer};
use crate::ops::Progress;

/// Lines that may wait for the terminal.
const QUEUE: usize = 4096;
/// How long the last lines may take when the process ends.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const UNKNOWN: u64 = u64::MAX;

/// How a running verb shows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// A bar that is drawn again and again.
    Bar,
    /// A line now and then.
    Lines,
    /// Messages only.
    Quiet,
}

impl Style {
    /// A bar on a terminal, lines otherwise.
    pub(super) fn detect(quiet: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        match (quiet, io::stderr().is_terminal() && !dumb) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Bar,
            (false, false) => Self::Lines,
        }
    }
}

enum Event {
    /// A step begins. What the counters held goes to the step before.
    Step { name: String, before: Snapshot },
    /// Something to be written as it is, line feed included.
    Text(Vec<u8>),
    /// The verb is done.
    Close { last: Snapshot, reply: SyncSender<()> },
}

#[derive(Debug)]
struct Counters {
    done: AtomicU64,
    total: AtomicU64,
    redo_lag: AtomicU64,
    dropped: AtomicU64,
}

impl Counters {
    fn snapshot(&self) -> Snapshot {
        let lag = self.redo_lag.load(Ordering::Relaxed);
        Snapshot {
            done: self.done.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
            redo_lag: (lag != UNKNOWN).then_some(lag),
        }
    }

    fn reset(&self) -> Snapshot {
        let lag = self.redo_lag.swap(UNKNOWN, Ordering::Relaxed);
        Snapshot {
            done: self.done.swap(0, Ordering::Relaxed),
            total: self.total.swap(0, Ordering::Relaxed),
            redo_lag: (lag != UNKNOWN).then_some(lag),
        }
    }
}

/// A way to the console thread. Clones lead to the same one.
#[derive(Clone)]
pub(super) struct Console {
    queue: SyncSender<Event>,
    counters: Arc<Counters>,
    // Held while a step begins, so that two beginning at once do not mix up their counters.
    step: Arc<Mutex<()>>,
}

impl Console {
    /// Starts the thread.
    pub(super) fn start(style: Style) -> io::Result<Self> {
        match style {
            Style::Bar => Self::with(Bar::new()),
            Style::Lines => Self::with(Lines::new(io::stderr())),
            Style::Quiet => Self::with(Quiet::new(io::stderr())),
        }
    }

    fn with<R: Renderer + 'static>(renderer: R) -> io::Result<Self> {
        let (queue, events) = sync_channel(QUEUE);
        let counters = Arc::new(Counters {
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            redo_lag: AtomicU64::new(UNKNOWN),
            dropped: AtomicU64::new(0),
        });
        let shared = Arc::clone(&counters);
        thread::Builder::new().name("console".into()).spawn(move || show(renderer, &events, &shared))?;
        Ok(Self { queue, counters, step: Arc::default() })
    }

    /// Writes a line, unless too many wait already.
    pub(super) fn line(&self, text: &str) {
        self.send(Event::Text(format!("{text}\n").into_bytes()));
    }

    /// Takes down the bar and waits until everything was written, but not forever.
    pub(super) fn close(&self) {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let (reply, closed) = sync_channel(1);
        let mut event = Event::Close { last: self.counters.snapshot(), reply };
        while let Err(TrySendError::Full(returned)) = self.queue.try_send(event) {
            if Instant::now() >= deadline {
                return;
            }
            event = returned;
            thread::sleep(Duration::from_millis(5));
        }
        // Either it was closed or nobody reads: in both cases there is nothing left to wait for.
        let _ = closed.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }

    fn send(&self, event: Event) {
        if self.queue.try_send(event).is_err() {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Progress for Console {
    fn step(&self, name: &str) {
        let _one_at_a_time = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.counters.reset();
        self.send(Event::Step { name: name.to_owned(), before });
    }

    fn total(&self, bytes: u64) {
        self.counters.total.store(bytes, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        self.counters.done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn redo_lag(&self, bytes: u64) {
        self.counters.redo_lag.store(bytes.min(UNKNOWN - 1), Ordering::Relaxed);
    }

    fn message(&self, text: &str) {
        self.line(text);
    }
}

/// One event of the log on its way to the console thread.
pub(super) struct LogLine {
    console: Console,
    bytes: Vec<u8>,
}

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        self.console.send(Event::Text(std::mem::take(&mut self.bytes)));
    }
}

impl<'w> MakeWriter<'w> for Console {
    type Writer = LogLine;

    fn make_writer(&'w self) -> LogLine {
        LogLine { console: self.clone(), bytes: Vec::new() }
    }
}

/// The console thread.
fn show<R: Renderer>(mut renderer: R, events: &Receiver<Event>, counters: &Counters) {
    let start = Instant::now();
    let mut next_tick = start + R::INTERVAL;
    loop {
        match events.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
            Ok(Event::Step { name, before }) => {
                renderer.step(&name, start.elapsed(), &before);
                next_tick = Instant::now() + R::INTERVAL;
            }
            Ok(Event::Text(text)) => renderer.text(&text),
            Ok(Event::Close { last, reply }) => {
                report_dropped(&mut renderer, counters);
                renderer.close(start.elapsed(), &last);
                // Nobody waits for it any more: the process ends.
                let _ = reply.try_send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if Instant::now() >= next_tick {
            report_dropped(&mut renderer, counters);
            renderer.tick(start.elapsed(), &counters.snapshot());
            next_tick = Instant::now() + R::INTERVAL;
        }
    }
}

fn report_dropped<R: Renderer>(renderer: &mut R, counters: &Counters) {
    let dropped = counters.dropped.swap(0, Ordering::Relaxed);
    if dropped > 0 {
        renderer.text(format!("stillframe: {dropped} lines were dropped, standard error is too slow\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Shared {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn steps_messages_and_log_lines_come_in_order() {
        let out = Shared::default();
        let console = Console::with(Lines::new(out.clone())).unwrap();
        console.step("copy tablespaces");
        console.total(2048);
        console.advance(2048);
        console.message("a table was left out");
        writeln!(console.make_writer(), "a log line").unwrap();
        console.step("upload");
        console.close();
        let text = out.text();
        let found: Vec<usize> = ["copy tablespaces", "a table was left out", "a log line", "2.0 KiB", "upload"]
            .iter()
            .map(|wanted| text.find(wanted).unwrap_or_else(|| panic!("{wanted} is not in {text}")))
            .collect();
        assert!(found.is_sorted(), "{text}");
    }

    /// A terminal that nobody reads from.
    struct Stuck;

    impl Renderer for Stuck {
        const INTERVAL: Duration = Duration::from_hours(1);

        fn step(&mut self, _: &str, _: Duration, _: &Snapshot) {}
        fn tick(&mut self, _: Duration, _: &Snapshot) {}
        fn close(&mut self, _: Duration, _: &Snapshot) {}
        fn text(&mut self, _: &[u8]) {
            thread::park();
        }
    }

    #[test]
    fn a_terminal_that_is_not_read_holds_nobody_up() {
        let console = Console::with(Stuck).unwrap();
        let start = Instant::now();
        for _ in 0..QUEUE + 100 {
            console.message("x");
        }
        assert!(console.counters.dropped.load(Ordering::Relaxed) >= 99);
        console.close();
        assert!(start.elapsed() < CLOSE_TIMEOUT + Duration::from_mins(1), "closing gave up by itself");
    }
}
