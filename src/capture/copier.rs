//! The copier: every page of every tablespace, verified, in windows, by several threads.
//!
//! ```text
//!   read ahead (4 MiB) ─► verify each page ─┬─ good, zero ───────────► sink
//!                                           └─ bad: read again, up to 10 times, 20–200 ms apart
//!                                                    └─ still bad: CorruptPage, the copy ends
//! ```
//! A page may be read while the server writes it: half old, half new. Redo cannot mend that, so such a page is read
//! again until its checksum fits. Knows no SQL and does not lock; the doublewrite area of the system tablespace
//! has no meaning and is not verified (MySQL 9.7; tablespace-files reference, sections 4 and 6).

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use super::CaptureError;
use super::ahead::{BUFFERS, Jobs, Reader};
use super::plan::CopyPlan;
use super::polite::{DiskProbe, Politeness, govern};
use super::throttle::Throttle;
use super::window::{WINDOW_BYTES, WindowSink};
use super::worker::Worker;
use crate::innodb::ids::SpaceId;
use crate::innodb::keyring::Keyring;
use crate::innodb::lsn::Lsn;
use crate::innodb::space::TablespaceKey;
use crate::util::direct::AlignedBuffer;
use crate::util::priority::{give_way, step_back};

/// How to copy.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// Number of workers, each with a reader beside it; as many sinks must be given.
    pub parallel: NonZeroUsize,
    /// The limit that all threads share.
    pub throttle: Arc<Throttle>,
    /// Keys of encrypted tablespaces.
    pub keyring: Option<Arc<Keyring>>,
    /// Copy encrypted pages whose key is missing; else such a page ends the copy.
    pub copy_unverified: bool,
    /// Copy only as fast as the server does not notice.
    pub polite: Option<Politeness>,
}

/// Hears how the copy goes on, from all threads.
pub trait CopyObserver: Send + Sync {
    /// So many more bytes were read and verified.
    fn bytes_read(&self, bytes: u64);
}

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopySummary {
    /// Good pages.
    pub pages: u64,
    /// All-zero pages.
    pub zero: u64,
    /// Pages that had to be read again.
    pub reread: u64,
    /// Encrypted pages that nobody looked into.
    pub opaque: u64,
    /// Bytes read.
    pub bytes: u64,
    /// The newest change on any page.
    pub max_lsn: Lsn,
}

/// Copies all tablespaces of `plan`; one thread for each sink. The first failure stops all.
pub fn copy_spaces(
    plan: &CopyPlan,
    options: &CopyOptions,
    sinks: Vec<Box<dyn WindowSink>>,
    observer: &dyn CopyObserver,
    cancel: &CancellationToken,
) -> Result<CopySummary, CaptureError> {
    let shared = Shared {
        jobs: Jobs::new(plan),
        options,
        observer,
        keys: Mutex::default(),
        cancel: cancel.child_token(),
        roused: AtomicBool::new(options.polite.is_none()),
    };
    let probe = options.polite.as_ref().map(|polite| (polite, DiskProbe::open(polite)));
    let (probe, polite) = match probe {
        Some((polite, probe)) => (Some(probe.map_err(CaptureError::io("open", &polite.data_file))?), Some(polite)),
        None => (None, None),
    };
    let over = CancellationToken::new();
    let outcomes: Vec<Result<CopySummary, CaptureError>> = std::thread::scope(|scope| {
        let _over = over.clone().drop_guard();
        if let (Some(polite), Some(probe)) = (polite, probe) {
            scope.spawn(|| govern(polite, probe, &options.throttle, &shared.roused, &over));
        }
        let start = |sink| scope.spawn(|| copy_some(&shared, sink));
        let threads: Vec<_> = sinks.into_iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(CaptureError::Panicked))).collect()
    });
    let mut sum = CopySummary::default();
    let mut failure = None;
    for outcome in outcomes {
        match outcome {
            Ok(part) => sum.add(&part),
            // A thread that was stopped by another's failure is not the reason.
            Err(CaptureError::Cancelled) if failure.is_some() => {}
            Err(error) if failure.is_none() || matches!(failure, Some(CaptureError::Cancelled)) => {
                failure = Some(error);
            }
            Err(_) => {}
        }
    }
    failure.map_or(Ok(sum), Err)
}

impl CopySummary {
    fn add(&mut self, other: &Self) {
        let Self { pages, zero, reread, opaque, bytes, max_lsn } = *other;
        self.pages += pages;
        self.zero += zero;
        self.reread += reread;
        self.opaque += opaque;
        self.bytes += bytes;
        self.max_lsn = self.max_lsn.max(max_lsn);
    }
}

/// What all threads of a copy have in common.
pub(super) struct Shared<'a> {
    jobs: Jobs<'a>,
    pub(super) options: &'a CopyOptions,
    pub(super) observer: &'a dyn CopyObserver,
    pub(super) keys: Mutex<HashMap<SpaceId, Arc<TablespaceKey>>>,
    pub(super) cancel: CancellationToken,
    /// The idle class is not, or no more, for this copy.
    roused: AtomicBool,
}

impl Shared<'_> {
    fn is_roused(&self) -> bool {
        self.roused.load(Ordering::Relaxed)
    }

    /// Runs `turn` on a thread of the class that the copy is in now, and again on another if it was told to leave: the
    /// copy left the idle class, which no thread can.
    fn in_class<T: Send>(
        &self,
        mut turn: impl FnMut(&dyn Fn() -> bool) -> Option<T> + Send,
    ) -> Result<T, CaptureError> {
        loop {
            let is_idle = !self.is_roused();
            let enter = if is_idle { step_back } else { give_way };
            let run = || {
                enter();
                turn(&|| is_idle && self.is_roused())
            };
            let outcome = std::thread::scope(|scope| scope.spawn(run).join()).map_err(|_| CaptureError::Panicked)?;
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
        }
    }
}

/// One worker and its reader.
fn copy_some(shared: &Shared<'_>, sink: Box<dyn WindowSink>) -> Result<CopySummary, CaptureError> {
    // Both have room for all buffers there are: a send never waits.
    let (give_back, empty) = sync_channel(BUFFERS);
    let (hand_over, filled) = sync_channel(BUFFERS);
    for _ in 0..BUFFERS {
        let _ = give_back.send(AlignedBuffer::new(usize::try_from(WINDOW_BYTES).unwrap_or(0)));
    }
    let outcome = std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut reader = Reader::new(&shared.jobs, shared.options, &shared.cancel, empty, hand_over);
            shared.in_class(|leave| reader.read_ahead(leave))
        });
        let mut worker = Worker::new(shared, filled, give_back, sink);
        let copied = shared.in_class(|leave| worker.copy_all(leave)).flatten();
        if copied.is_err() {
            shared.cancel.cancel();
        }
        // The worker's ends of the channels go: that is how its reader learns of the end. A reader that died looks to
        // the worker like one that has read all; it is not.
        let Worker { sink, summary, filled, give_back, .. } = worker;
        drop((filled, give_back));
        reader.join().map_err(|_| CaptureError::Panicked).flatten().and(copied.map(|()| (sink, summary)))
    });
    let outcome = outcome.and_then(|(sink, summary)| sink.finish().map(|()| summary).map_err(CaptureError::Sink));
    if outcome.is_err() {
        shared.cancel.cancel();
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::capture::plan::{PlannedSpace, SpacePiece};
    use crate::capture::window::{SinkError, Window};
    use crate::capture::worker::MAX_READS;
    use crate::innodb::checksum::stamp_page;
    use crate::innodb::ids::PageNo;
    use crate::innodb::space::TablespaceFlags;

    fn page(space: u32, number: u32) -> Vec<u8> {
        let mut page = vec![0_u8; 16384];
        page[4..8].copy_from_slice(&number.to_be_bytes());
        page[16..24].copy_from_slice(&u64::from(number + 1).to_be_bytes());
        page[24..26].copy_from_slice(&17855_u16.to_be_bytes());
        page[34..38].copy_from_slice(&space.to_be_bytes());
        page[16380..].copy_from_slice(&(number + 1).to_be_bytes());
        stamp_page(&mut page).unwrap();
        page
    }

    fn space(path: &Path, id: u32, pages: u32) -> PlannedSpace {
        let piece = SpacePiece { path: path.to_path_buf(), relative: None, first_page: PageNo(0), pages };
        PlannedSpace { space: SpaceId(id), flags: TablespaceFlags::decode(0x4021).unwrap(), pieces: vec![piece] }
    }

    fn options() -> CopyOptions {
        CopyOptions {
            parallel: NonZeroUsize::new(2).unwrap(),
            throttle: Arc::new(Throttle::new(None)),
            keyring: None,
            copy_unverified: false,
            polite: None,
        }
    }

    type Got = Arc<Mutex<HashMap<(SpaceId, u32), (Vec<u8>, Vec<bool>)>>>;

    struct Collect(Got);

    impl WindowSink for Collect {
        fn window(&mut self, window: &Window<'_>) -> Result<(), SinkError> {
            let value = (window.pages.to_vec(), window.zero.to_vec());
            assert!(self.0.lock().unwrap().insert((window.space, window.window_no), value).is_none());
            Ok(())
        }

        fn finish(self: Box<Self>) -> Result<(), SinkError> {
            Ok(())
        }
    }

    struct Quiet;

    impl CopyObserver for Quiet {
        fn bytes_read(&self, _: u64) {}
    }

    fn copy(spaces: Vec<PlannedSpace>) -> (Result<CopySummary, CaptureError>, Got) {
        let got = Got::default();
        let sinks = (0..2).map(|_| Box::new(Collect(Arc::clone(&got))) as Box<dyn WindowSink>).collect();
        let plan = CopyPlan { spaces, ..CopyPlan::default() };
        (copy_spaces(&plan, &options(), sinks, &Quiet, &CancellationToken::new()), got)
    }

    #[test]
    fn every_page_arrives_once_and_zero_ones_are_marked() {
        let dir = tempfile::tempdir().unwrap();
        let mut content = Vec::new();
        for number in 0..600 {
            content.extend(if number % 10 == 3 { vec![0; 16384] } else { page(5, number) });
        }
        let path = dir.path().join("t.ibd");
        fs::write(&path, &content).unwrap();
        let (summary, got) = copy(vec![space(&path, 5, 600)]);
        let summary = summary.unwrap();
        assert_eq!((summary.pages, summary.zero, summary.reread), (540, 60, 0));
        assert_eq!(summary.max_lsn, Lsn::new(600));
        let got = got.lock().unwrap();
        let all: Vec<u8> = (0..3).flat_map(|window| got[&(SpaceId(5), window)].0.clone()).collect();
        assert_eq!(all, content);
        assert!(got[&(SpaceId(5), 0)].1[13] && !got[&(SpaceId(5), 0)].1[14]);
    }

    #[test]
    fn a_damaged_page_is_named_after_many_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop/orders@002d24.ibd");
        fs::create_dir(dir.path().join("shop")).unwrap();
        let mut content: Vec<u8> = (0..8).flat_map(|number| page(5, number)).collect();
        content[6 * 16384 + 5000] ^= 1;
        fs::write(&path, content).unwrap();
        let error = copy(vec![space(&path, 5, 8)]).0.unwrap_err();
        let CaptureError::CorruptPage { page: PageNo(6), space: SpaceId(5), reads: MAX_READS, .. } = error else {
            panic!("{error}")
        };
        let text = error.to_string();
        assert!(text.contains("orders@002d24.ibd (space 5), page 6 of table `shop`.`orders-24`: "), "{text}");
    }

    #[test]
    fn a_torn_page_heals() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.ibd");
        let good: Vec<u8> = (0..8).flat_map(|number| page(5, number)).collect();
        let mut torn = good.clone();
        torn[6 * 16384 + 5000] ^= 1;
        fs::write(&path, &torn).unwrap();
        let (file, healed) =
            (fs::File::options().write(true).open(&path).unwrap(), good[6 * 16384..7 * 16384].to_vec());
        // Late enough for the first read on a busy machine, long before the last one.
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(400));
            file.write_all_at(&healed, 6 * 16384).unwrap();
        });
        let (summary, got) = copy(vec![space(&path, 5, 8)]);
        writer.join().unwrap();
        assert_eq!(summary.unwrap().reread, 1);
        assert_eq!(got.lock().unwrap()[&(SpaceId(5), 0)].0, good);
    }

    #[test]
    fn the_system_tablespace_runs_on_over_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("ibdata1"), dir.path().join("ibdata2"));
        fs::write(&a, (0..30).flat_map(|number| page(0, number)).collect::<Vec<u8>>()).unwrap();
        fs::write(&b, (30..300).flat_map(|number| page(0, number)).collect::<Vec<u8>>()).unwrap();
        let mut system = space(&a, 0, 30);
        system.pieces.push(SpacePiece { path: b, relative: None, first_page: PageNo(30), pages: 270 });
        let (summary, got) = copy(vec![system]);
        assert_eq!(summary.unwrap().pages, 300);
        let got = got.lock().unwrap();
        assert_eq!(got[&(SpaceId(0), 0)].0[255 * 16384..], page(0, 255));
        assert_eq!(got[&(SpaceId(0), 1)].0[..16384], page(0, 256));
    }

    #[test]
    fn an_encrypted_page_without_key_ends_the_copy_unless_told_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret.ibd");
        let mut sealed = page(5, 1);
        sealed[24..26].copy_from_slice(&15_u16.to_be_bytes());
        fs::write(&path, [page(5, 0), sealed].concat()).unwrap();
        let error = copy(vec![space(&path, 5, 2)]).0.unwrap_err();
        assert!(matches!(error, CaptureError::KeyMissing { space: SpaceId(5), .. }), "{error}");
        let got = Got::default();
        let plan = CopyPlan { spaces: vec![space(&path, 5, 2)], ..CopyPlan::default() };
        let lenient = CopyOptions { copy_unverified: true, ..options() };
        let sink: Vec<Box<dyn WindowSink>> = vec![Box::new(Collect(got))];
        let summary = copy_spaces(&plan, &lenient, sink, &Quiet, &CancellationToken::new()).unwrap();
        assert_eq!((summary.pages, summary.opaque), (2, 1));
    }
}
