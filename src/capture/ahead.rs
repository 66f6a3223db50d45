//! Reading ahead: the next window comes from the disk while the last one is checked, compressed and stored.
//!
//! ```text
//!   spaces, largest first ─► windows ─► next free reader
//!
//!   reader thread ──filled──► worker         one reader for each worker, two buffers for each pair:
//!        ▲────────empty─────────┘            one is filled while the other is worked on
//! ```
//! Owns the order of windows and their reading; what is in them is the worker's business.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use tokio_util::sync::CancellationToken;

use super::CaptureError;
use super::copier::CopyOptions;
use super::plan::{CopyPlan, PlannedSpace};
use super::polite::PIECE_BYTES;
use super::read::LiveFile;
use super::window::WINDOW_BYTES;
use crate::innodb::ids::PageNo;
use crate::util::direct::AlignedBuffer;

/// Windows that a worker and its reader hold.
pub(super) const BUFFERS: usize = 2;

/// A window as it was read.
pub(super) struct Filled<'a> {
    pub(super) space: &'a PlannedSpace,
    pub(super) window_no: u32,
    pub(super) first_page: PageNo,
    pub(super) buffer: AlignedBuffer,
    /// Bytes of the buffer that are filled.
    pub(super) bytes: usize,
}

/// All windows of all spaces, numbered, largest spaces first so that threads end together.
pub(super) struct Jobs<'a> {
    spaces: Vec<(&'a PlannedSpace, u64)>,
    total: u64,
    next: AtomicU64,
}

impl<'a> Jobs<'a> {
    pub(super) fn new(plan: &'a CopyPlan) -> Self {
        let mut spaces: Vec<_> = plan.spaces.iter().map(|space| (space, 0)).collect();
        spaces.sort_by_key(|(space, _)| std::cmp::Reverse(space.bytes()));
        let mut total = 0;
        for (space, first) in &mut spaces {
            *first = total;
            total += space.bytes().div_ceil(WINDOW_BYTES);
        }
        Self { spaces, total, next: AtomicU64::new(0) }
    }

    /// The next space and window that nobody has taken.
    fn take(&self) -> Option<(&'a PlannedSpace, u32)> {
        let job = self.next.fetch_add(1, Ordering::Relaxed);
        if job >= self.total {
            return None;
        }
        let index = self.spaces.partition_point(|(_, first)| *first <= job).checked_sub(1)?;
        let (space, first) = self.spaces.get(index)?;
        Some((space, u32::try_from(job - first).ok()?))
    }
}

/// Reads windows into empty buffers, as they come back, until none is left or nobody takes them any more.
pub(super) struct Reader<'a> {
    jobs: &'a Jobs<'a>,
    options: &'a CopyOptions,
    cancel: &'a CancellationToken,
    empty: Receiver<AlignedBuffer>,
    filled: SyncSender<Result<Filled<'a>, CaptureError>>,
    /// The file that was read last: most windows follow one another.
    open: Option<(PathBuf, LiveFile)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        jobs: &'a Jobs<'a>,
        options: &'a CopyOptions,
        cancel: &'a CancellationToken,
        empty: Receiver<AlignedBuffer>,
        filled: SyncSender<Result<Filled<'a>, CaptureError>>,
    ) -> Self {
        Self { jobs, options, cancel, empty, filled, open: None }
    }

    /// Reads to the end, or until told to leave.
    pub(super) fn read_ahead(&mut self, leave: &dyn Fn() -> bool) -> Option<()> {
        while !leave() {
            let Ok(mut buffer) = self.empty.recv() else { return Some(()) };
            if self.cancel.is_cancelled() {
                let _ = self.filled.send(Err(CaptureError::Cancelled));
                return Some(());
            }
            let Some((space, window_no)) = self.jobs.take() else { return Some(()) };
            let page_size = space.flags.physical_size();
            let first = u64::from(window_no) * (WINDOW_BYTES / u64::from(page_size.bytes()));
            let first_page = PageNo(u32::try_from(first).unwrap_or(u32::MAX));
            let read = self.window(space, first_page, &mut buffer);
            let read = read.map(|bytes| Filled { space, window_no, first_page, buffer, bytes });
            let is_over = read.is_err();
            if self.filled.send(read).is_err() || is_over {
                return Some(());
            }
        }
        None
    }

    /// Fills the buffer with a window's pages, from all files that hold some of them; says how many bytes those are.
    fn window(
        &mut self,
        space: &PlannedSpace,
        first_page: PageNo,
        buffer: &mut AlignedBuffer,
    ) -> Result<usize, CaptureError> {
        let size = space.flags.physical_size().len();
        let capacity = buffer.bytes().len() / size;
        let mut filled = 0;
        for piece in &space.pieces {
            let skip = u64::from(first_page.0) + u64::try_from(filled / size).unwrap_or(0);
            let Some(within) =
                skip.checked_sub(u64::from(piece.first_page.0)).filter(|at| *at < u64::from(piece.pages))
            else {
                continue;
            };
            let left = usize::try_from(u64::from(piece.pages) - within).unwrap_or(usize::MAX);
            let wanted = left.min(capacity - filled / size) * size;
            let offset = within * u64::try_from(size).unwrap_or(0);
            let target = buffer.bytes_mut().get_mut(filled..filled + wanted).unwrap_or_default();
            self.read_exact(&piece.path, target, offset)?;
            filled += wanted;
        }
        Ok(filled)
    }

    fn read_exact(&mut self, path: &Path, target: &mut [u8], offset: u64) -> Result<(), CaptureError> {
        let mut file = match self.open.take() {
            Some((open, file)) if open == path => file,
            _ => LiveFile::open(path).map_err(CaptureError::io("open", path))?,
        };
        // A polite copy never has more on its way than a query that comes now can wait for.
        let piece = if self.options.polite.is_some() { PIECE_BYTES } else { target.len().max(1) };
        let mut at = offset;
        for target in target.chunks_mut(piece) {
            let count = file.read(target, at).map_err(CaptureError::io("read", path))?;
            if count < target.len() {
                return Err(CaptureError::FileShrank { path: path.to_path_buf() });
            }
            let bytes = u64::try_from(count).unwrap_or(0);
            self.options.throttle.take(bytes, self.cancel);
            at = at.saturating_add(bytes);
        }
        self.open = Some((path.to_path_buf(), file));
        Ok(())
    }
}
