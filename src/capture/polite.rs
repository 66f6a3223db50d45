//! The polite copy: as fast as a busy server does not notice, however slow that is, but never slower than a floor.
//!
//! ```text
//!   ├── copy, 0.8 s ──┤ hold ├ 0.24 s ┤── copy ──┤ hold ├ … ┤      three turns each, then:
//!     redo written: a          b                                   a < 98 % of b, per second?     pace x 3/4 or 1/2
//!     reads of a block: c      d                                   c > d by half?                 the same
//!                                                                  neither                        pace x 5/4
//!   server at rest (no redo, no reads)     no pace at all
//!   less than the floor for 10 s           the copying threads leave the idle class
//! ```
//! What counts is what the server gets done: how much redo it writes, which the redo follower sees anyway, in moments
//! with the copy and in moments without. Both are so close together that whatever else the machine does hits both. A
//! server that only reads writes none: there it is how long a block takes from its disk. Neither needs a right in the
//! server. Owns the rule and the thread that follows it; the redo follower is exempt: it never waits for a pace.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::throttle::Throttle;
use crate::util::direct::{ALIGNMENT, AlignedBuffer, open_direct};

/// The floor in bytes a second: a backup of 1 TiB ends within two days whatever the server does.
pub const LEAST_PACE: u64 = 8 << 20;
/// No disk in use is faster: a pace like that is none.
const MOST_PACE: u64 = 8 << 30;
/// Where a copy of a busy server begins.
const FIRST_PACE: u64 = 32 << 20;
/// Bytes that are read at once by a polite copy, so that nobody waits behind many.
pub(super) const PIECE_BYTES: usize = 256 << 10;

const LISTEN_EVERY: Duration = Duration::from_millis(40);
const COPY_TURN: Duration = Duration::from_millis(800);
const HELD_TURN: Duration = Duration::from_millis(240);
/// What is on its way when the copy is held has arrived after that.
const SILENCE: Duration = Duration::from_millis(60);
/// Turns of each kind before anything is concluded.
const TURNS: u32 = 3;
/// Redo that is written in this share at least, in percent, is as much as without the copy. What the capture of the redo
/// costs comes on top: it goes on in both kinds of turns.
const NOTHING_PERCENT: u64 = 98;
/// Below that the pace is halved.
const MUCH_PERCENT: u64 = 80;
/// A server that writes less in a turn without the copy is not measured by what it writes.
const LEAST_REDO: u64 = 32 << 10;
/// A difference of two reads that nobody notices, whatever the ratio.
const NOTHING: Duration = Duration::from_micros(200);
const FLOOR_WATCH: Duration = Duration::from_secs(10);

/// What a polite copy must know of the server.
#[derive(Clone)]
pub struct Politeness {
    /// A file of the server's data: the disk that queries wait for.
    pub data_file: PathBuf,
    /// Where the server's redo log ends, as far as is known.
    pub redo_end: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Told by whoever asks the server.
    pub activity: Arc<Activity>,
    /// Bytes a second that it always copies; [`LEAST_PACE`].
    pub least_pace: u64,
}

impl std::fmt::Debug for Politeness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Politeness").field("data_file", &self.data_file).finish_non_exhaustive()
    }
}

/// Whether the server works for somebody. Until it is known, it does.
#[derive(Debug, Default)]
pub struct Activity(AtomicBool);

impl Activity {
    /// Notes that nobody would notice if the server were slower.
    pub fn set_at_rest(&self, at_rest: bool) {
        self.0.store(at_rest, Ordering::Relaxed);
    }

    fn is_at_rest(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Asks the disk how long it takes.
pub(super) trait Probe: Send {
    /// Does what the server's clients wait for, and says how long it took.
    fn listen(&mut self) -> io::Result<Duration>;
}

/// A read of one block past the page cache. Where the file system knows none such, nothing is heard.
pub(super) struct DiskProbe {
    data: Option<File>,
    buffer: AlignedBuffer,
}

impl DiskProbe {
    pub(super) fn open(politeness: &Politeness) -> io::Result<Self> {
        let data = open_direct(File::options().read(true), &politeness.data_file)?;
        Ok(Self { data, buffer: AlignedBuffer::new(ALIGNMENT) })
    }
}

impl Probe for DiskProbe {
    fn listen(&mut self) -> io::Result<Duration> {
        let began = Instant::now();
        if let Some(data) = &self.data {
            let _ = data.read_at(self.buffer.bytes_mut(), 0)?;
        }
        Ok(began.elapsed())
    }
}

/// What was seen in turns of one kind.
#[derive(Debug, Default)]
struct Seen {
    redo: u64,
    time: Duration,
    reads: Vec<Duration>,
    copied: u64,
}

impl Seen {
    /// Bytes a second.
    fn rate(&self, bytes: u64) -> u64 {
        let millis = self.time.as_millis().max(1);
        u64::try_from(u128::from(bytes) * 1000 / millis).unwrap_or(u64::MAX)
    }

    fn median_read(&self) -> Duration {
        let mut reads = self.reads.clone();
        reads.sort_unstable();
        reads.get(reads.len() / 2).copied().unwrap_or_default()
    }
}

/// The rule: from what was seen to a pace.
#[derive(Debug)]
struct Governor {
    least: u64,
    pace: u64,
    slowest: u64,
}

impl Governor {
    fn new(least: u64) -> Self {
        let pace = FIRST_PACE.max(least);
        Self { least, pace, slowest: pace }
    }

    /// The pace that follows. One that is not used up does not grow: something else bounds the copy, and what a higher
    /// one does is not known.
    fn judge(&mut self, with: &Seen, without: &Seen) -> u64 {
        let copied = with.rate(with.copied);
        let used = self.pace.min(copied.saturating_mul(2));
        let percent = slowed_to(with, without);
        let wanted = if percent < MUCH_PERCENT {
            used / 2
        } else if percent < NOTHING_PERCENT {
            used / 4 * 3
        } else if copied > self.pace / 2 {
            self.pace / 4 * 5
        } else {
            self.pace
        };
        self.pace = wanted.clamp(self.least, MOST_PACE.max(self.least));
        self.slowest = self.slowest.min(self.pace);
        tracing::debug!(
            pace = self.pace >> 20,
            copied = copied >> 20,
            percent,
            redo = with.rate(with.redo) >> 10,
            redo_without = without.rate(without.redo) >> 10,
            read = ?with.median_read(),
            read_without = ?without.median_read(),
            "polite copy"
        );
        self.pace
    }
}

/// What the server gets done beside the copy, in percent of what it gets done without.
fn slowed_to(with: &Seen, without: &Seen) -> u64 {
    if without.redo >= LEAST_REDO {
        return with.rate(with.redo).saturating_mul(100) / without.rate(without.redo).max(1);
    }
    let (beside, alone) = (with.median_read(), without.median_read());
    if beside > alone + alone / 2 + NOTHING { NOTHING_PERCENT - 1 } else { 100 }
}

/// Follows the rule until `done`. Lets go of the copy however it ends.
pub(super) fn govern(
    politeness: &Politeness,
    mut probe: impl Probe,
    throttle: &Throttle,
    roused: &AtomicBool,
    done: &CancellationToken,
) {
    let _freed = Freed(throttle);
    let mut governor = Governor::new(politeness.least_pace);
    let mut floor = FloorWatch::new(politeness.least_pace, throttle);
    let (mut with, mut without, mut turns) = (Seen::default(), Seen::default(), 0);
    while !done.is_cancelled() {
        if floor.is_missed(throttle) && !roused.swap(true, Ordering::Relaxed) {
            tracing::info!("the copy got no time to run in the idle class: it goes on beside the others");
        }
        if politeness.activity.is_at_rest() {
            throttle.set_pace(None);
            (with, without, turns) = (Seen::default(), Seen::default(), 0);
            std::thread::sleep(LISTEN_EVERY);
            continue;
        }
        throttle.set_pace(Some(governor.pace));
        let mut turn = |seen, length| take_turn(politeness, &mut probe, throttle, done, seen, length);
        let copied = turn(&mut with, COPY_TURN);
        throttle.hold(true);
        std::thread::sleep(SILENCE);
        let held = turn(&mut without, HELD_TURN);
        throttle.hold(false);
        turns += 1;
        if let Err(error) = copied.and(held) {
            // Not to hear how the server does is no reason to hurt it.
            tracing::debug!(%error, "the server's disk cannot be listened to: copying at the slowest pace");
            governor.pace = politeness.least_pace;
            (with, without, turns) = (Seen::default(), Seen::default(), 0);
        } else if turns >= TURNS {
            governor.judge(&with, &without);
            (with, without, turns) = (Seen::default(), Seen::default(), 0);
        }
    }
    tracing::debug!(pace = governor.pace, slowest = governor.slowest, "polite copy, done");
}

/// Sees for so long how the server does.
fn take_turn(
    politeness: &Politeness,
    probe: &mut impl Probe,
    throttle: &Throttle,
    done: &CancellationToken,
    seen: &mut Seen,
    length: Duration,
) -> io::Result<()> {
    let (began, redo, copied) = (Instant::now(), (politeness.redo_end)(), throttle.taken());
    let mut reads = Vec::new();
    while began.elapsed() < length && !done.is_cancelled() {
        std::thread::sleep(LISTEN_EVERY);
        reads.push(probe.listen()?);
    }
    let time = began.elapsed();
    // Of a process that stood still meanwhile, stopped or without a processor, the turn tells nothing.
    if time < length * 2 {
        seen.redo = seen.redo.saturating_add((politeness.redo_end)().saturating_sub(redo));
        seen.copied = seen.copied.saturating_add(throttle.taken().saturating_sub(copied));
        seen.time += time;
        seen.reads.append(&mut reads);
    }
    Ok(())
}

/// However a governor ends, the copy is not left waiting.
struct Freed<'a>(&'a Throttle);

impl Drop for Freed<'_> {
    fn drop(&mut self) {
        self.0.hold(false);
        self.0.set_pace(None);
    }
}

/// Sees when the copy falls behind its floor for long, which in the idle class is a matter of processors.
struct FloorWatch {
    least: u64,
    since: Instant,
    taken: u64,
}

impl FloorWatch {
    fn new(least: u64, throttle: &Throttle) -> Self {
        Self { least, since: Instant::now(), taken: throttle.taken() }
    }

    fn is_missed(&mut self, throttle: &Throttle) -> bool {
        if self.since.elapsed() < FLOOR_WATCH {
            return false;
        }
        let (moved, time) = (throttle.taken().saturating_sub(self.taken), self.since.elapsed().as_secs());
        *self = Self::new(self.least, throttle);
        // Who asked for less gets less.
        let least = throttle.limit().map_or(self.least, |limit| limit.min(self.least));
        moved < least.saturating_mul(time) / 2
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn seen(redo: u64, copied: u64, read: Duration) -> Seen {
        Seen { redo, copied, time: SECOND, reads: vec![read; 9] }
    }

    #[test]
    fn a_server_that_gets_less_done_means_a_slower_copy_down_to_the_floor_and_no_further() {
        let mut governor = Governor::new(LEAST_PACE);
        let mut last = governor.pace;
        while last > LEAST_PACE {
            let pace = governor.judge(&seen(900_000, last, NOTHING), &seen(1_000_000, 0, NOTHING));
            assert!(pace < last, "{pace} after {last}");
            last = pace;
        }
        assert_eq!(governor.judge(&seen(1, last, NOTHING), &seen(1_000_000, 0, NOTHING)), LEAST_PACE);
        assert_eq!(governor.slowest, LEAST_PACE);
    }

    #[test]
    fn the_more_is_lost_the_faster_it_backs_off() {
        let after =
            |redo| Governor::new(LEAST_PACE).judge(&seen(redo, FIRST_PACE, NOTHING), &seen(1_000_000, 0, NOTHING));
        assert_eq!(after(950_000), FIRST_PACE / 4 * 3);
        assert_eq!(after(500_000), FIRST_PACE / 2);
        assert!(after(985_000) > FIRST_PACE, "a difference that nobody notices");
    }

    #[test]
    fn a_server_that_does_as_ever_lets_the_copy_grow_but_only_while_it_uses_its_pace() {
        let mut governor = Governor::new(LEAST_PACE);
        let same = seen(1_000_000, 0, NOTHING);
        let grown = governor.judge(&seen(1_000_000, FIRST_PACE, NOTHING), &same);
        assert!(grown > FIRST_PACE);
        assert_eq!(governor.judge(&seen(1_000_000, grown / 4, NOTHING), &same), grown);
        for _ in 0..100 {
            governor.judge(&seen(1_000_000, u64::MAX / 4, NOTHING), &same);
        }
        assert_eq!(governor.pace, MOST_PACE);
    }

    #[test]
    fn of_a_server_that_writes_nothing_the_reads_count() {
        let after = |read| {
            let mut governor = Governor::new(LEAST_PACE);
            governor.judge(&seen(0, FIRST_PACE, read), &seen(0, 0, Duration::from_millis(1)))
        };
        assert!(after(Duration::from_millis(3)) < FIRST_PACE);
        assert!(after(Duration::from_micros(1100)) > FIRST_PACE);
    }

    struct Silent;

    impl Probe for Silent {
        fn listen(&mut self) -> io::Result<Duration> {
            Ok(Duration::ZERO)
        }
    }

    fn politeness(redo_end: impl Fn() -> u64 + Send + Sync + 'static) -> Politeness {
        Politeness {
            data_file: PathBuf::new(),
            redo_end: Arc::new(redo_end),
            activity: Arc::default(),
            least_pace: LEAST_PACE,
        }
    }

    /// A server that writes only while nothing is copied: the redo grows by time, but for the time of the copy.
    #[test]
    fn a_copy_that_hurts_is_slowed_down_and_freed_at_the_end() {
        let throttle = Arc::new(Throttle::new(None));
        let (written, busy) = (Arc::new(AtomicU64::new(0)), Arc::clone(&throttle));
        let politeness = {
            let written = Arc::clone(&written);
            politeness(move || written.load(Ordering::Relaxed))
        };
        let (done, over) = (CancellationToken::new(), CancellationToken::new());
        std::thread::scope(|scope| {
            scope.spawn(|| govern(&politeness, Silent, &throttle, &AtomicBool::new(false), &done));
            scope.spawn(|| {
                while !over.is_cancelled() {
                    throttle.take(64 << 10, &over);
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
            scope.spawn(|| {
                let mut last = 0;
                while !over.is_cancelled() {
                    std::thread::sleep(Duration::from_millis(20));
                    let taken = busy.taken();
                    let hurt = std::mem::replace(&mut last, taken) != taken;
                    written.fetch_add(if hurt { 100 } else { 100_000 }, Ordering::Relaxed);
                }
            });
            // However long it takes: it comes down to the floor, and is never below.
            while throttle.pace() != Some(LEAST_PACE) {
                assert!(throttle.pace().is_none_or(|pace| pace >= LEAST_PACE));
                std::thread::sleep(Duration::from_millis(5));
            }
            politeness.activity.set_at_rest(true);
            while throttle.pace().is_some() {
                std::thread::sleep(Duration::from_millis(5));
            }
            politeness.activity.set_at_rest(false);
            done.cancel();
            over.cancel();
        });
        assert_eq!(throttle.pace(), None, "whoever still takes is not left waiting");
    }

    #[test]
    fn a_turn_in_which_the_process_stood_still_is_not_counted() {
        struct Stopped;
        impl Probe for Stopped {
            fn listen(&mut self) -> io::Result<Duration> {
                std::thread::sleep(HELD_TURN * 2);
                Ok(Duration::ZERO)
            }
        }
        let (throttle, done) = (Throttle::new(None), CancellationToken::new());
        let politeness = politeness(|| 7);
        let mut seen = Seen::default();
        take_turn(&politeness, &mut Stopped, &throttle, &done, &mut seen, HELD_TURN).unwrap();
        assert!(seen.time.is_zero() && seen.reads.is_empty());
        take_turn(&politeness, &mut Silent, &throttle, &done, &mut seen, HELD_TURN).unwrap();
        assert!(seen.time >= HELD_TURN && !seen.reads.is_empty());
    }

    #[test]
    fn a_copy_that_gets_nowhere_leaves_the_idle_class() {
        let throttle = Throttle::new(None);
        let mut watch = FloorWatch::new(LEAST_PACE, &throttle);
        assert!(!watch.is_missed(&throttle), "not at once");
        watch.since = Instant::now().checked_sub(FLOOR_WATCH).unwrap();
        assert!(watch.is_missed(&throttle));
        watch.since = Instant::now().checked_sub(FLOOR_WATCH).unwrap();
        throttle.take(LEAST_PACE * 20, &CancellationToken::new());
        assert!(!watch.is_missed(&throttle));

        let slow = Throttle::new(Some(1 << 20));
        let mut watch = FloorWatch::new(LEAST_PACE, &slow);
        watch.since = Instant::now().checked_sub(FLOOR_WATCH).unwrap();
        slow.take(9 << 20, &CancellationToken::new());
        assert!(!watch.is_missed(&slow), "a limit that was asked for is not missed");
    }

    #[test]
    fn a_block_of_the_data_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let politeness = Politeness { data_file: dir.path().join("ibdata1"), ..politeness(|| 0) };
        assert!(DiskProbe::open(&politeness).is_err(), "it is not there");
        std::fs::write(&politeness.data_file, vec![0; 8192]).unwrap();
        DiskProbe::open(&politeness).unwrap().listen().unwrap();
    }
}
