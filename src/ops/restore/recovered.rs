//! Pages of a tablespace as they will be once they are restored, read before anything is written.
//!
//! ```text
//!   page ─► its window: frame in the store ─► redo applied ─► kept, a few at a time ─► decrypted, decompressed
//! ```

use std::collections::VecDeque;

use crate::archive::filetable::SpaceEntry;
use crate::archive::frame::WINDOW_BYTES;
use crate::archive::{ArchiveReader, StreamId};
use crate::innodb::FormatError;
use crate::innodb::check::{Source, Subject};
use crate::innodb::ids::{PageId, PageNo, SpaceId};
use crate::innodb::keyring::Keyring;
use crate::innodb::page::{PageContext, PageFault, PageScratch, UnverifiedPage};
use crate::innodb::space::{SpaceHeader, TablespaceFlags, TablespaceKey};
use crate::ops::error::{Error, ErrorKind};
use crate::prepare::Recovery;

use super::native::{NewPages, Recoverer, window_pages};
use super::pages::page_at;

/// Windows that are kept.
const WINDOWS: usize = 4;

/// A tablespace to be restored.
pub struct RecoveredSpace<'a> {
    reader: &'a ArchiveReader,
    recoverer: Recoverer<'a>,
    subject: Subject,
    key: Option<TablespaceKey>,
    /// The one that was used last comes first.
    windows: VecDeque<(u32, Vec<u8>)>,
    scratch: PageScratch,
}

impl<'a> RecoveredSpace<'a> {
    /// Opens it; its key is on its page 0.
    pub fn open(
        entry: &SpaceEntry,
        reader: &'a ArchiveReader,
        recovery: &'a Recovery,
        keyring: Option<&Keyring>,
    ) -> Result<Self, Error> {
        let flags = TablespaceFlags::decode(entry.flags).map_err(|error| {
            Error::new(ErrorKind::UnsupportedFormat, format!("space {}", entry.space)).caused_by(error)
        })?;
        let pages = recovery.space(entry.space).map_or(entry.pages, |space| space.pages.max(entry.pages));
        let subject = Subject { space: entry.space, flags, pages, end: recovery.end() };
        let recoverer = Recoverer::new(recovery, reader);
        let windows = VecDeque::new();
        let mut space = Self { reader, recoverer, subject, key: None, windows, scratch: PageScratch::default() };
        space.key = space.find_key(keyring)?;
        Ok(space)
    }

    /// What it is.
    pub const fn subject(&self) -> Subject {
        self.subject
    }

    /// The key of its pages.
    pub const fn key(&self) -> Option<&TablespaceKey> {
        self.key.as_ref()
    }

    fn find_key(&mut self, keyring: Option<&Keyring>) -> Result<Option<TablespaceKey>, Error> {
        let page0 = self.stored(PageNo(0))?.to_vec();
        let header =
            SpaceHeader::decode(&page0).map_err(|error| bad_page(self.subject.space, PageNo(0), &error.into()))?;
        let Some((info, keyring)) = header.encryption.as_ref().zip(keyring) else { return Ok(None) };
        let key = info.unwrap_key(keyring);
        key.map(Some).map_err(|error| bad_page(self.subject.space, PageNo(0), &error.into()))
    }

    /// A page as it will be in its file.
    fn stored(&mut self, page: PageNo) -> Result<&[u8], Error> {
        let size = self.subject.flags.physical_size();
        let per_window = window_pages(self.subject.flags);
        let number = page.0 / per_window;
        if let Some(at) = self.windows.iter().position(|(kept, _)| *kept == number) {
            self.windows.swap(0, at);
        } else {
            let window = self.window(number)?;
            self.windows.truncate(WINDOWS - 1);
            self.windows.push_front((number, window));
        }
        let at = usize::try_from(page.0 % per_window).unwrap_or(usize::MAX).saturating_mul(size.len());
        let window = self.windows.front().map_or(&[][..], |(_, window)| window);
        let behind = || Error::new(ErrorKind::Failed, format!("page {page} is behind the end of its tablespace"));
        window.get(at..at.saturating_add(size.len())).ok_or_else(behind)
    }

    fn window(&mut self, number: u32) -> Result<Vec<u8>, Error> {
        let Subject { space, flags, pages, .. } = self.subject;
        let size = flags.physical_size().len();
        let first = number.saturating_mul(window_pages(flags));
        let mut window = Window { first, size, bytes: vec![0; usize::try_from(WINDOW_BYTES).unwrap_or(0)] };
        match self.reader.find(StreamId::Space(space), number)? {
            Some(found) => {
                let frame = self.reader.read_frame(&found)?;
                self.recoverer.begin(space, flags, &frame)?;
                for run in frame.runs() {
                    let start = page_at(&frame, run.first_unit);
                    self.created(start, &mut window)?;
                    window.put(start, self.recoverer.patch(start, size, run.bytes)?);
                }
            }
            None => self.recoverer.begin_new(NewPages::window(space, flags, number, pages), flags)?,
        }
        self.created(PageNo(u32::MAX), &mut window)?;
        Ok(window.bytes)
    }

    fn created(&mut self, until: PageNo, window: &mut Window) -> Result<(), Error> {
        while let Some((first, run)) = self.recoverer.created(until)? {
            window.put(first, run);
        }
        Ok(())
    }
}

/// Pages that stand together.
struct Window {
    first: u32,
    size: usize,
    bytes: Vec<u8>,
}

impl Window {
    fn put(&mut self, page: PageNo, run: &[u8]) {
        let at = usize::try_from(page.0.saturating_sub(self.first)).unwrap_or(usize::MAX).saturating_mul(self.size);
        if let Some(place) = self.bytes.get_mut(at..at.saturating_add(run.len())) {
            place.copy_from_slice(run);
        }
    }
}

impl Source for RecoveredSpace<'_> {
    type Error = Error;

    fn read(&mut self, number: PageNo, page: &mut [u8]) -> Result<(), Error> {
        let Subject { space, flags, .. } = self.subject;
        page.copy_from_slice(self.stored(number)?);
        let context = PageContext { space, flags, key: self.key.as_ref() };
        let stored = page.to_vec();
        let opened = UnverifiedPage::new(&stored, number).open(&context, &mut self.scratch);
        match opened.map_err(|fault| bad_page(space, number, &fault))? {
            Some(plain) => page.copy_from_slice(plain.bytes),
            None => page.fill(0),
        }
        Ok(())
    }
}

/// A page that is not what it should be, or whose key is not at hand.
pub fn bad_page(space: SpaceId, page: PageNo, fault: &PageFault) -> Error {
    let kind = match fault {
        PageFault::Format(FormatError::KeyMissing { .. }) => ErrorKind::KeyMissing,
        _ => ErrorKind::DamagedBackup,
    };
    Error::new(kind, format!("{}: {fault}", PageId { space, page }))
}
