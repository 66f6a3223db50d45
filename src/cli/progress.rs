//! What a running verb looks like: a bar that is drawn again, lines now and then, or nothing but messages.
//!
//! ```text
//!   bar     copy tablespaces  ━━━━╸         1.2 GiB/3.0 GiB, 310.0 MiB/s, ETA 6.0s, lag 12.0 KiB
//!   lines     2.1s  copy tablespaces
//!            12.1s  copy tablespaces: 1.2 GiB of 3.0 GiB, 40%, …
//!            17.9s  copy tablespaces: done, 3.0 GiB in 15.8s
//! ```
//! Runs on the console thread only. A failing write is ignored: a verb does not end because nobody looks.

use std::io::{self, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::meter::{Meter, Snapshot, beside_bar};
use crate::util::units::{format_bytes, format_duration};

/// Shows a running verb. Times are counted from its start.
pub(super) trait Renderer: Send {
    /// How often it wants to be told how far the step is.
    const INTERVAL: Duration;

    /// A step begins; `before` is where the former one ended.
    fn step(&mut self, name: &str, at: Duration, before: &Snapshot);
    /// The step is so far.
    fn tick(&mut self, at: Duration, now: &Snapshot);
    /// Lines to be shown as they are.
    fn text(&mut self, text: &[u8]);
    /// The verb is done.
    fn close(&mut self, at: Duration, last: &Snapshot);
}

/// The running step.
struct Step {
    name: String,
    start: Duration,
    meter: Meter,
}

impl Step {
    fn begin(name: &str, at: Duration) -> Self {
        let mut meter = Meter::default();
        meter.note(at, 0);
        Self { name: name.to_owned(), start: at, meter }
    }

    /// `copy tablespaces: 3.0 GiB in 15.8s`
    fn summary(&self, at: Duration, last: &Snapshot) -> String {
        let took = format_duration(at.saturating_sub(self.start));
        match last.done {
            0 => format!("{}: {took}", self.name),
            bytes => format!("{}: {} in {took}", self.name, format_bytes(bytes)),
        }
    }
}

/// A line at the begin of each step, and one every few seconds.
pub(super) struct Lines<W> {
    out: W,
    step: Option<Step>,
}

impl<W: Write + Send> Lines<W> {
    /// Writes to `out`.
    pub(super) fn new(out: W) -> Self {
        Self { out, step: None }
    }

    fn line(&mut self, at: Duration, text: &str) {
        let _ = writeln!(self.out, "{:>7}  {text}", format_duration(at));
    }

    fn finish(&mut self, at: Duration, last: &Snapshot) {
        // A step that moved nothing was announced; that is enough.
        if let Some(step) = self.step.take()
            && last.done > 0
        {
            let summary = step.summary(at, last);
            self.line(at, &summary);
        }
    }
}

impl<W: Write + Send> Renderer for Lines<W> {
    const INTERVAL: Duration = Duration::from_secs(10);

    fn step(&mut self, name: &str, at: Duration, before: &Snapshot) {
        self.finish(at, before);
        self.line(at, name);
        self.step = Some(Step::begin(name, at));
    }

    fn tick(&mut self, at: Duration, now: &Snapshot) {
        let Some(step) = &mut self.step else { return };
        step.meter.note(at, now.done);
        let about = match step.meter.describe(now) {
            text if text.is_empty() => format!("for {}", format_duration(at.saturating_sub(step.start))),
            text => text,
        };
        let line = format!("{}: {about}", step.name);
        self.line(at, &line);
    }

    fn text(&mut self, text: &[u8]) {
        let _ = self.out.write_all(text);
    }

    fn close(&mut self, at: Duration, last: &Snapshot) {
        self.finish(at, last);
        let _ = self.out.flush();
    }
}

/// Messages only.
pub(super) struct Quiet<W>(W);

impl<W: Write + Send> Quiet<W> {
    /// Writes to `out`.
    pub(super) fn new(out: W) -> Self {
        Self(out)
    }
}

impl<W: Write + Send> Renderer for Quiet<W> {
    const INTERVAL: Duration = Duration::from_hours(1);

    fn step(&mut self, _name: &str, _at: Duration, _before: &Snapshot) {}
    fn tick(&mut self, _at: Duration, _now: &Snapshot) {}

    fn text(&mut self, text: &[u8]) {
        let _ = self.0.write_all(text);
    }

    fn close(&mut self, _at: Duration, _last: &Snapshot) {
        let _ = self.0.flush();
    }
}

/// A bar on a terminal, with finished steps as lines above it.
pub(super) struct Bar {
    bar: ProgressBar,
    step: Option<Step>,
}

impl Bar {
    /// Draws on standard error.
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Self { bar, step: None }
    }

    fn finish(&mut self, at: Duration, last: &Snapshot) {
        self.bar.finish_and_clear();
        if let Some(step) = self.step.take() {
            let _ = writeln!(io::stderr(), "  {}", step.summary(at, last));
        }
    }
}

/// Bytes known: a bar. Unknown: something that moves.
fn bar_style(known: bool) -> ProgressStyle {
    let template = if known { "  {prefix}  {bar:12}  {wide_msg}" } else { "{spinner} {prefix}  {wide_msg}" };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸ ")
        .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}

impl Renderer for Bar {
    const INTERVAL: Duration = Duration::from_millis(125);

    fn step(&mut self, name: &str, at: Duration, before: &Snapshot) {
        self.finish(at, before);
        self.step = Some(Step::begin(name, at));
        self.bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        self.bar.set_style(bar_style(false));
        self.bar.set_prefix(name.to_owned());
        self.bar.tick();
    }

    fn tick(&mut self, at: Duration, now: &Snapshot) {
        let Some(step) = &mut self.step else { return };
        step.meter.note(at, now.done);
        if now.total > 0 && self.bar.length().is_none() {
            self.bar.set_style(bar_style(true));
        }
        if now.total > 0 {
            self.bar.set_length(now.total);
        }
        self.bar.set_position(now.done.min(now.total));
        self.bar.set_message(beside_bar(&step.meter.describe(now)));
        self.bar.tick();
    }

    fn text(&mut self, text: &[u8]) {
        self.bar.suspend(|| {
            let _ = io::stderr().write_all(text);
        });
    }

    fn close(&mut self, at: Duration, last: &Snapshot) {
        self.finish(at, last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn lines_tell_each_step_once_and_then_how_far_it_is() {
        let mut out = Vec::new();
        let mut lines = Lines::new(&mut out);
        lines.step("connect", at(0), &Snapshot::default());
        lines.step("copy tablespaces", at(1), &Snapshot::default());
        lines.tick(at(11), &Snapshot { done: 100 << 20, total: 200 << 20, redo_lag: Some(1024) });
        lines.step("wait for the lock", at(21), &Snapshot { done: 200 << 20, total: 200 << 20, redo_lag: None });
        lines.tick(at(31), &Snapshot::default());
        lines.close(at(32), &Snapshot::default());
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "    0ms  connect",
                "   1.0s  copy tablespaces",
                "  11.0s  copy tablespaces: 100.0 MiB of 200.0 MiB, 50%, 10.0 MiB/s, ETA 10.0s, redo lag 1.0 KiB",
                "  21.0s  copy tablespaces: 200.0 MiB in 20.0s",
                "  21.0s  wait for the lock",
                "  31.0s  wait for the lock: for 10.0s",
            ]
        );
    }

    #[test]
    fn quiet_still_shows_messages() {
        let mut out = Vec::new();
        let mut quiet = Quiet::new(&mut out);
        quiet.step("copy", at(0), &Snapshot::default());
        quiet.tick(at(10), &Snapshot::default());
        quiet.text(b"a warning\n");
        quiet.close(at(11), &Snapshot::default());
        assert_eq!(out, b"a warning\n");
    }

    #[test]
    fn the_bars_templates_are_right() {
        for template in ["  {prefix}  {bar:12}  {wide_msg}", "{spinner} {prefix}  {wide_msg}"] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
        let mut bar = Bar::new();
        bar.step("copy", at(0), &Snapshot::default());
        bar.tick(at(1), &Snapshot { done: 5, total: 10, redo_lag: None });
        assert_eq!((bar.bar.length(), bar.bar.position()), (Some(10), 5));
    }
}
