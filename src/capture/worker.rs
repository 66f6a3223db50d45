//! One worker of the copy: takes windows as they were read, checks every page, and hands them over.
//!
//! ```text
//!   reader ─ filled ─► each page ─┬─ good, zero ─────────► sink ─► the buffer goes back to the reader
//!                                 └─ bad: read again, a while later, up to 10 times ─ still bad: CorruptPage
//! ```
//! A page is read again past the page cache where that can be: what the cache has may be the same old half.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::ahead::Filled;
use super::copier::{CopySummary, Shared};
use super::owner::owner_of;
use super::plan::PlannedSpace;
use super::read::LiveFile;
use super::window::{Window, WindowSink};
use super::{CaptureError, SpacePiece};
use crate::innodb::ids::PageNo;
use crate::innodb::page::{
    PageContext, PageFault, PageScratch, UnverifiedPage, Verified, all_zero, is_legacy_doublewrite,
};
use crate::innodb::space::TablespaceKey;
use crate::innodb::space::header::SpaceHeader;
use crate::util::direct::{ALIGNMENT, AlignedBuffer};

/// How often a bad page is read before it is called corrupt.
pub(super) const MAX_READS: u32 = 10;

pub(super) struct Worker<'a> {
    shared: &'a Shared<'a>,
    pub(super) filled: Receiver<Result<Filled<'a>, CaptureError>>,
    pub(super) give_back: SyncSender<AlignedBuffer>,
    pub(super) sink: Box<dyn WindowSink>,
    /// The window that is worked on.
    buffer: AlignedBuffer,
    again: AlignedBuffer,
    scratch: PageScratch,
    zero: Vec<bool>,
    pub(super) summary: CopySummary,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        shared: &'a Shared<'a>,
        filled: Receiver<Result<Filled<'a>, CaptureError>>,
        give_back: SyncSender<AlignedBuffer>,
        sink: Box<dyn WindowSink>,
    ) -> Self {
        Self {
            shared,
            filled,
            give_back,
            sink,
            buffer: AlignedBuffer::new(0),
            again: AlignedBuffer::new((64 << 10) + 2 * ALIGNMENT),
            scratch: PageScratch::default(),
            zero: Vec::new(),
            summary: CopySummary::default(),
        }
    }

    /// Works on windows until none follows, or until told to leave.
    pub(super) fn copy_all(&mut self, leave: &dyn Fn() -> bool) -> Option<Result<(), CaptureError>> {
        while !leave() {
            let Ok(window) = self.filled.recv() else { return Some(Ok(())) };
            if let Err(error) = window.and_then(|window| self.copy(window)) {
                return Some(Err(error));
            }
        }
        None
    }

    fn copy(&mut self, window: Filled<'_>) -> Result<(), CaptureError> {
        let Filled { space, window_no, first_page, buffer, bytes } = window;
        if self.shared.cancel.is_cancelled() {
            return Err(CaptureError::Cancelled);
        }
        self.buffer = buffer;
        self.copy_window(space, window_no, first_page, bytes)?;
        // A reader that has read all takes none back.
        let _ = self.give_back.send(std::mem::replace(&mut self.buffer, AlignedBuffer::new(0)));
        Ok(())
    }

    fn copy_window(
        &mut self,
        space: &PlannedSpace,
        window_no: u32,
        first_page: PageNo,
        bytes: usize,
    ) -> Result<(), CaptureError> {
        self.verify_window(space, first_page, bytes)?;
        let window = Window {
            space: space.space,
            window_no,
            page_size: space.flags.physical_size(),
            first_page,
            pages: self.buffer.bytes().get(..bytes).unwrap_or_default(),
            zero: &self.zero,
        };
        self.sink.window(&window).map_err(CaptureError::Sink)?;
        let bytes = u64::try_from(bytes).unwrap_or(0);
        self.summary.bytes += bytes;
        self.shared.observer.bytes_read(bytes);
        Ok(())
    }

    fn verify_window(&mut self, space: &PlannedSpace, first_page: PageNo, bytes: usize) -> Result<(), CaptureError> {
        let size = space.flags.physical_size().len();
        self.zero.clear();
        for index in 0..bytes / size {
            let page = PageNo(first_page.0.saturating_add(u32::try_from(index).unwrap_or(u32::MAX)));
            let range = index * size..(index + 1) * size;
            let zero = if is_legacy_doublewrite(space.space, space.flags, page) {
                all_zero(self.buffer.bytes().get(range).unwrap_or_default())
            } else {
                self.verify_page(space, page, range)?
            };
            self.zero.push(zero);
            if zero {
                self.summary.zero += 1;
            } else {
                self.summary.pages += 1;
            }
        }
        Ok(())
    }

    /// Verifies one page in the buffer, reading it again where it must; says whether it is all zero.
    fn verify_page(
        &mut self,
        space: &PlannedSpace,
        page: PageNo,
        range: std::ops::Range<usize>,
    ) -> Result<bool, CaptureError> {
        let mut reads = 1;
        loop {
            let fault = match self.judge(space, page, &range)? {
                Judged::Zero => return Ok(true),
                Judged::Good => return Ok(false),
                Judged::Bad(fault) => fault,
            };
            if reads == 1 {
                self.summary.reread += 1;
            }
            let piece = piece_of(space, page)?;
            if reads >= MAX_READS || self.shared.cancel.is_cancelled() {
                if self.shared.cancel.is_cancelled() {
                    return Err(CaptureError::Cancelled);
                }
                return Err(CaptureError::CorruptPage {
                    path: piece.path.clone(),
                    space: space.space,
                    page,
                    owner: owner_of(space, &piece.path, self.buffer.bytes().get(range).unwrap_or_default()),
                    fault,
                    reads,
                });
            }
            std::thread::sleep(Duration::from_millis(u64::from(reads.min(10)) * 20));
            reads += 1;
            self.read_again(space, piece, page, range.clone())?;
        }
    }

    fn judge(
        &mut self,
        space: &PlannedSpace,
        page: PageNo,
        range: &std::ops::Range<usize>,
    ) -> Result<Judged, CaptureError> {
        let mut key = self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner).get(&space.space).cloned();
        loop {
            let bytes = self.buffer.bytes().get(range.clone()).unwrap_or_default();
            let context = PageContext { space: space.space, flags: space.flags, key: key.as_deref() };
            match UnverifiedPage::new(bytes, page).verify(&context, &mut self.scratch) {
                Ok(Verified::Zero) => return Ok(Judged::Zero),
                Ok(Verified::Page(view)) => {
                    self.summary.max_lsn = self.summary.max_lsn.max(view.lsn());
                    return Ok(Judged::Good);
                }
                Ok(Verified::Opaque(_)) => {
                    let Some(found) = self.find_key(space)? else {
                        self.summary.opaque += 1;
                        return Ok(Judged::Good);
                    };
                    key = Some(found);
                }
                Err(fault) => return Ok(Judged::Bad(fault)),
            }
        }
    }

    /// Looks for the key of an encrypted tablespace on its page 0, as it is now. `None`: go on without.
    fn find_key(&mut self, space: &PlannedSpace) -> Result<Option<Arc<TablespaceKey>>, CaptureError> {
        let path = piece_of(space, PageNo(0))?.path.clone();
        let missing = |why: String| CaptureError::KeyMissing { path: path.clone(), space: space.space, why };
        let Some(keyring) = &self.shared.options.keyring else {
            if self.shared.options.copy_unverified {
                return Ok(None);
            }
            return Err(missing("no keyring was given, so its pages cannot be checked".into()));
        };
        let mut page0 = AlignedBuffer::new(space.flags.physical_size().len().next_multiple_of(ALIGNMENT));
        let mut file = LiveFile::open(&path).map_err(CaptureError::io("open", &path))?;
        let _ = file.read(page0.bytes_mut(), 0).map_err(CaptureError::io("read", &path))?;
        let header = SpaceHeader::decode(page0.bytes()).map_err(CaptureError::format(&path))?;
        let info = header.encryption.ok_or_else(|| missing("its page 0 holds no key".into()))?;
        let key = Arc::new(info.unwrap_key(keyring).map_err(|error| missing(error.to_string()))?);
        let mut keys = self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(Arc::clone(keys.entry(space.space).or_insert(key))))
    }

    /// Reads one page once more, past the page cache where that can be, into its place in the buffer.
    fn read_again(
        &mut self,
        space: &PlannedSpace,
        piece: &SpacePiece,
        page: PageNo,
        range: std::ops::Range<usize>,
    ) -> Result<(), CaptureError> {
        let size = u64::from(space.flags.physical_size().bytes());
        let alignment = u64::try_from(ALIGNMENT).unwrap_or(1);
        let offset = u64::from(page.0.saturating_sub(piece.first_page.0)) * size;
        let start = offset - offset % alignment;
        let skip = usize::try_from(offset - start).unwrap_or(0);
        let length = (skip + range.len()).next_multiple_of(ALIGNMENT);
        let mut file = LiveFile::open(&piece.path).map_err(CaptureError::io("open", &piece.path))?;
        let target = self.again.bytes_mut().get_mut(..length).unwrap_or_default();
        let count = file.read(target, start).map_err(CaptureError::io("read", &piece.path))?;
        let fresh = self.again.bytes().get(skip..skip + range.len()).filter(|_| count >= skip + range.len());
        let (Some(fresh), Some(place)) = (fresh, self.buffer.bytes_mut().get_mut(range)) else {
            return Err(CaptureError::FileShrank { path: piece.path.clone() });
        };
        place.copy_from_slice(fresh);
        Ok(())
    }
}

enum Judged {
    Zero,
    Good,
    Bad(PageFault),
}

fn piece_of(space: &PlannedSpace, page: PageNo) -> Result<&SpacePiece, CaptureError> {
    let holds = |piece: &&SpacePiece| page.0 >= piece.first_page.0 && page.0 - piece.first_page.0 < piece.pages;
    let nothing = || CaptureError::MissingFile { path: PathBuf::new(), space: space.space };
    space.pieces.iter().find(holds).ok_or_else(nothing)
}
