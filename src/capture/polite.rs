//! The polite copy: as fast as a busy server does not notice, however slow that is, but never slower than a floor.
//!
//! ```text
//!   every 5 s   hold the copy for a moment, listen     how long the disk takes when only the server uses it: calm
//!   20 times/s  listen while the copy runs             median of 7 above calm by a tenth? pace x 3/4 : pace x 9/8
//!               server at rest (no redo, no reads)     no pace at all
//!               less than the floor for 10 s           copying threads leave the idle class
//! ```
//! To listen is to sync the newest redo file, which a commit waits for, and to read one block past the page cache,
//! which a query waits for. Both are what the server does itself, so they need no right in it. Owns the rule and the
//! thread that follows it; the redo follower is exempt: it never waits for a pace.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::throttle::Throttle;
use crate::innodb::redo::file::file_number;
use crate::util::direct::{ALIGNMENT, AlignedBuffer, open_direct};

/// The floor in bytes a second: a backup of 1 TiB ends within two days whatever the server does.
pub const LEAST_PACE: u64 = 8 << 20;
/// No disk in use is faster: a pace like that is none.
const MOST_PACE: u64 = 8 << 30;
/// Where a copy of a busy server begins.
const FIRST_PACE: u64 = 32 << 20;
/// Bytes that are read at once by a polite copy, so that nobody waits behind many.
pub(super) const PIECE_BYTES: usize = 256 << 10;

const LISTEN_EVERY: Duration = Duration::from_millis(50);
const CALM_EVERY: Duration = Duration::from_secs(5);
/// What is on its way when the copy is held has arrived after that.
const SILENCE: Duration = Duration::from_millis(60);
const CALM_SAMPLES: usize = 9;
const SAMPLES: usize = 7;
/// A difference that nobody notices, whatever the ratio.
const NOTHING: Duration = Duration::from_micros(50);
const SPEED_OVER: Duration = Duration::from_millis(300);
const FLOOR_WATCH: Duration = Duration::from_secs(10);

/// What a polite copy must know of the server.
#[derive(Debug, Clone)]
pub struct Politeness {
    /// `#innodb_redo`: the disk that commits wait for.
    pub redo_dir: PathBuf,
    /// A file of the server's data: the disk that queries wait for.
    pub data_file: PathBuf,
    /// Told by whoever asks the server.
    pub activity: std::sync::Arc<Activity>,
    /// Bytes a second that it always copies; [`LEAST_PACE`].
    pub least_pace: u64,
}

/// Whether the server works for somebody. Until it is known, it does.
#[derive(Debug, Default)]
pub struct Activity(AtomicBool);

impl Activity {
    /// Notes that nobody would notice if the server's disk were slower.
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

/// A sync of a redo file and a read of a data file.
pub(super) struct DiskProbe {
    redo: File,
    data: Option<File>,
    buffer: AlignedBuffer,
}

impl DiskProbe {
    pub(super) fn open(politeness: &Politeness) -> io::Result<Self> {
        let redo = File::open(newest_redo_file(&politeness.redo_dir)?)?;
        let data = open_direct(File::options().read(true), &politeness.data_file)?;
        Ok(Self { redo, data, buffer: AlignedBuffer::new(ALIGNMENT) })
    }
}

impl Probe for DiskProbe {
    fn listen(&mut self) -> io::Result<Duration> {
        let began = Instant::now();
        self.redo.sync_data()?;
        if let Some(data) = &self.data {
            let _ = data.read_at(self.buffer.bytes_mut(), 0)?;
        }
        Ok(began.elapsed())
    }
}

/// Any redo file does: what is synced is the disk's cache. The newest one is removed last.
fn newest_redo_file(dir: &Path) -> io::Result<PathBuf> {
    let number = |path: &Path| file_number(path.file_name()?.to_str()?);
    let mut newest = None;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        newest = newest.max(number(&path).map(|number| (number, path)));
    }
    newest.map(|(_, path)| path).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The rule: from what was heard to a pace.
#[derive(Debug)]
struct Governor {
    least: u64,
    pace: u64,
    calm: Option<Duration>,
    heard: VecDeque<Duration>,
    slowest: u64,
}

impl Governor {
    fn new(least: u64) -> Self {
        let pace = FIRST_PACE.max(least);
        Self { least, pace, calm: None, heard: VecDeque::new(), slowest: pace }
    }

    /// What the disk takes without the copy. Blends with what was known, for one moment may lie.
    fn set_calm(&mut self, samples: &mut [Duration]) {
        let Some(now) = median(samples) else { return };
        self.calm = Some(self.calm.map_or(now, |calm| (calm + now) / 2));
        self.heard.clear();
    }

    /// What the disk takes while the copy runs, which makes so many bytes a second; gives the pace that follows. A pace
    /// that is not used up does not grow: something else bounds the copy, and what a higher one does is not known.
    fn hear(&mut self, latency: Duration, copied: u64) -> u64 {
        self.heard.push_back(latency);
        let Some(calm) = self.calm.filter(|_| self.heard.len() >= SAMPLES) else { return self.pace };
        let is_slow = median(self.heard.make_contiguous()).is_some_and(|heard| heard > calm + calm / 10 + NOTHING);
        self.heard.clear();
        let wanted = if is_slow {
            self.pace.min(copied.saturating_mul(2)) / 4 * 3
        } else if copied > self.pace / 2 {
            self.pace / 8 * 9
        } else {
            self.pace
        };
        self.pace = wanted.clamp(self.least, MOST_PACE.max(self.least));
        self.slowest = self.slowest.min(self.pace);
        self.pace
    }
}

fn median(samples: &mut [Duration]) -> Option<Duration> {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied()
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
    let mut speed = Speed { since: Instant::now(), taken: throttle.taken(), rate: 0 };
    let mut calm_at = None::<Instant>;
    while !done.is_cancelled() {
        if floor.is_missed(throttle) && !roused.swap(true, Ordering::Relaxed) {
            tracing::info!("the copy got no time to run in the idle class: it goes on beside the others");
        }
        if politeness.activity.is_at_rest() {
            throttle.set_pace(None);
            std::thread::sleep(LISTEN_EVERY);
            continue;
        }
        let outcome = if calm_at.is_none_or(|at| at.elapsed() > CALM_EVERY) {
            throttle.hold(true);
            let outcome = calm_moment(&mut probe, &mut governor);
            throttle.hold(false);
            throttle.set_pace(Some(governor.pace));
            calm_at = Some(Instant::now());
            outcome
        } else {
            std::thread::sleep(LISTEN_EVERY);
            let copied = speed.since_last(throttle);
            probe.listen().map(|latency| throttle.set_pace(Some(governor.hear(latency, copied))))
        };
        if let Err(error) = outcome {
            // Not to hear how the server does is no reason to hurt it.
            tracing::debug!(%error, "the server's disk cannot be listened to: copying at the slowest pace");
            throttle.set_pace(Some(politeness.least_pace));
            std::thread::sleep(LISTEN_EVERY);
        }
    }
    tracing::debug!(pace = governor.pace, slowest = governor.slowest, calm = ?governor.calm, "polite copy");
}

fn calm_moment(probe: &mut impl Probe, governor: &mut Governor) -> io::Result<()> {
    std::thread::sleep(SILENCE);
    let mut samples = Vec::with_capacity(CALM_SAMPLES);
    for _ in 0..CALM_SAMPLES {
        samples.push(probe.listen()?);
        std::thread::sleep(LISTEN_EVERY / 10);
    }
    governor.set_calm(&mut samples);
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

/// Bytes a second that are copied, over the last second or so.
struct Speed {
    since: Instant,
    taken: u64,
    rate: u64,
}

impl Speed {
    fn since_last(&mut self, throttle: &Throttle) -> u64 {
        let elapsed = self.since.elapsed();
        if elapsed > SPEED_OVER {
            let moved = throttle.taken().saturating_sub(self.taken);
            let rate = u128::from(moved) * 1000 / elapsed.as_millis().max(1);
            *self =
                Self { since: Instant::now(), taken: throttle.taken(), rate: u64::try_from(rate).unwrap_or(u64::MAX) };
        }
        self.rate
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
    use super::*;

    const CALM: Duration = Duration::from_millis(1);
    const FAST: u64 = u64::MAX / 4;

    fn governor() -> Governor {
        let mut governor = Governor::new(LEAST_PACE);
        governor.set_calm(&mut [CALM; CALM_SAMPLES]);
        governor
    }

    fn hear(governor: &mut Governor, latency: Duration, copied: u64) -> u64 {
        (0..SAMPLES).map(|_| governor.hear(latency, copied)).last().unwrap()
    }

    #[test]
    fn a_slower_disk_means_a_slower_copy_down_to_the_floor_and_no_further() {
        let mut governor = governor();
        let mut last = governor.pace;
        while last > LEAST_PACE {
            let pace = hear(&mut governor, CALM * 3, FAST);
            assert!(pace < last, "{pace} after {last}");
            last = pace;
        }
        assert_eq!(hear(&mut governor, CALM * 100, FAST), LEAST_PACE);
        assert_eq!(governor.slowest, LEAST_PACE);
    }

    #[test]
    fn a_disk_that_answers_as_ever_lets_the_copy_grow_but_only_while_it_uses_its_pace() {
        let mut governor = governor();
        let first = governor.pace;
        let grown = hear(&mut governor, CALM, FAST);
        assert!(grown > first);
        assert_eq!(hear(&mut governor, CALM, grown / 4), grown);
        for _ in 0..200 {
            hear(&mut governor, CALM, FAST);
        }
        assert_eq!(governor.pace, MOST_PACE);
    }

    #[test]
    fn one_slow_answer_means_nothing() {
        let mut governor = governor();
        let first = governor.pace;
        for index in 0..SAMPLES {
            governor.hear(if index == 2 { CALM * 50 } else { CALM }, FAST);
        }
        assert!(governor.pace > first);
    }

    /// A disk that is slow whenever something was copied since it was asked last.
    struct Touchy<'a>(&'a Throttle, u64);

    impl Probe for Touchy<'_> {
        fn listen(&mut self) -> io::Result<Duration> {
            let is_busy = self.0.taken() != std::mem::replace(&mut self.1, self.0.taken());
            Ok(if is_busy { CALM * 10 } else { CALM })
        }
    }

    #[test]
    fn a_copy_that_hurts_is_slowed_down_and_freed_at_the_end() {
        let throttle = Throttle::new(None);
        let dir = tempfile::tempdir().unwrap();
        let politeness = Politeness {
            redo_dir: dir.path().into(),
            data_file: dir.path().join("ibdata1"),
            activity: std::sync::Arc::default(),
            least_pace: LEAST_PACE,
        };
        let (done, over) = (CancellationToken::new(), CancellationToken::new());
        std::thread::scope(|scope| {
            scope.spawn(|| govern(&politeness, Touchy(&throttle, 0), &throttle, &AtomicBool::new(false), &done));
            scope.spawn(|| {
                while !over.is_cancelled() {
                    throttle.take(64 << 10, &over);
                    std::thread::sleep(Duration::from_micros(200));
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
    fn the_disk_of_the_newest_redo_file_is_listened_to() {
        let dir = tempfile::tempdir().unwrap();
        let politeness = Politeness {
            redo_dir: dir.path().into(),
            data_file: dir.path().join("ibdata1"),
            activity: std::sync::Arc::default(),
            least_pace: LEAST_PACE,
        };
        assert!(DiskProbe::open(&politeness).is_err(), "no redo file");
        for name in ["#ib_redo9", "#ib_redo10", "#ib_redo11_tmp"] {
            fs::write(dir.path().join(name), vec![0; 8192]).unwrap();
        }
        assert_eq!(newest_redo_file(dir.path()).unwrap(), dir.path().join("#ib_redo10"));
        fs::write(&politeness.data_file, vec![0; 8192]).unwrap();
        DiskProbe::open(&politeness).unwrap().listen().unwrap();
    }
}
