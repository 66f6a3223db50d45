//! The structure of restored tablespaces, checked where they are: what `restore --check` and `verify --deep` do.
//!
//! ```text
//!   tablespaces, one per thread ─► their files, 1 MiB at a time ─► decrypt, decompress ─► innodb::check ─► problems
//! ```
//! For files that are recovered. What is checked of a page is `innodb::check`'s.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;

use crate::innodb::check::{Checked, Finding, Source, Subject, check_space};
use crate::innodb::ids::{PageNo, SpaceId};
use crate::innodb::keyring::Keyring;
use crate::innodb::lsn::Lsn;
use crate::innodb::page::{PageType, compress, crypt, fil};
use crate::innodb::space::header::PREFIX_SIZE;
use crate::innodb::space::{SpaceHeader, TablespaceFlags, TablespaceKey};
use crate::ops::error::{Error, ErrorKind};
use crate::ops::report::{Problem, StructureReport};

/// Problems that a report lists; all are counted.
const LISTED_PROBLEMS: usize = 100;
/// Bytes read at once.
const WINDOW: usize = 1 << 20;

/// A restored tablespace.
#[derive(Debug, Clone)]
pub struct Restored {
    /// Its id.
    pub space: SpaceId,
    /// Its flags.
    pub flags: TablespaceFlags,
    /// Its files, in the order of their pages.
    pub files: Vec<PathBuf>,
}

/// The id of a tablespace whose files a server has had: it truncates undo tablespaces whenever it likes, and then each has
/// another id and the same number.
pub fn id_now(space: SpaceId, first: Option<&Path>) -> Result<SpaceId, Error> {
    let (Some(number), Some(path)) = (space.undo_number(), first) else { return Ok(space) };
    let mut prefix = [0; PREFIX_SIZE];
    let file = File::open(path).map_err(|error| io(path, &error))?;
    file.read_exact_at(&mut prefix, 0).map_err(|error| io(path, &error))?;
    let now = SpaceHeader::decode_prefix(&prefix).map_or(space, |header| header.space);
    Ok(if now.undo_number() == Some(number) { now } else { space })
}

/// Checks tablespaces that were recovered up to `end`. Errors are those of reading; what is wrong is in the report.
pub fn check(
    spaces: &[Restored],
    keyring: Option<&Keyring>,
    end: Lsn,
    parallel: NonZeroUsize,
    cancel: &CancellationToken,
) -> Result<StructureReport, Error> {
    let (next, sum) = (AtomicUsize::new(0), Mutex::new((StructureReport::default(), None)));
    std::thread::scope(|scope| {
        for _ in 0..parallel.get().min(spaces.len().max(1)) {
            let _ = scope.spawn(|| {
                while let Some(space) = spaces.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = check_one(space, keyring, end, cancel);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    match outcome {
                        Ok((checked, findings)) => add(&mut sum.0, space, checked, &findings),
                        Err(error) => {
                            let _ = sum.1.get_or_insert(error);
                        }
                    }
                    if sum.1.is_some() {
                        return;
                    }
                }
            });
        }
    });
    let (report, failure) = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    failure.map_or(Ok(report), Err)
}

fn add(report: &mut StructureReport, space: &Restored, checked: Checked, findings: &[Finding]) {
    report.tablespaces = report.tablespaces.saturating_add(1);
    report.pages = report.pages.saturating_add(checked.pages);
    report.index_pages = report.index_pages.saturating_add(checked.index_pages);
    report.ordered_pages = report.ordered_pages.saturating_add(checked.ordered_pages);
    for finding in findings {
        report.problem_count = report.problem_count.saturating_add(1);
        if report.problems.len() < LISTED_PROBLEMS {
            let name = space.files.first().map(|path| path.display().to_string()).unwrap_or_default();
            report.problems.push(Problem { object: name, what: finding.to_string() });
        }
    }
}

fn check_one(
    space: &Restored,
    keyring: Option<&Keyring>,
    end: Lsn,
    cancel: &CancellationToken,
) -> Result<(Checked, Vec<Finding>), Error> {
    let mut files = Files::open(space, keyring, cancel)?;
    let subject = Subject { space: space.space, flags: space.flags, pages: files.pages, end };
    check_space(&subject, &mut files)
}

/// The files of a tablespace, read by windows.
struct Files<'c> {
    pieces: Vec<(PathBuf, File, u32)>,
    pages: u32,
    size: usize,
    key: Option<TablespaceKey>,
    window: Vec<u8>,
    /// The piece and the byte that the window begins at.
    at: Option<(usize, u64)>,
    inflated: Vec<u8>,
    cancel: &'c CancellationToken,
}

impl<'c> Files<'c> {
    fn open(space: &Restored, keyring: Option<&Keyring>, cancel: &'c CancellationToken) -> Result<Self, Error> {
        let size = space.flags.physical_size().len();
        let (mut pieces, mut pages) = (Vec::new(), 0_u32);
        for path in &space.files {
            let file = File::open(path).map_err(|error| io(path, &error))?;
            let bytes = file.metadata().map_err(|error| io(path, &error))?.len();
            let size = u64::from(space.flags.physical_size().bytes());
            let count = u32::try_from(bytes.checked_div(size).unwrap_or(0)).unwrap_or(u32::MAX);
            pages = pages.saturating_add(count);
            pieces.push((path.clone(), file, count));
        }
        let mut files =
            Self { pieces, pages, size, key: None, window: Vec::new(), at: None, inflated: Vec::new(), cancel };
        files.key = files.find_key(keyring)?;
        Ok(files)
    }

    /// The key of its pages, as page 0 carries it.
    fn find_key(&mut self, keyring: Option<&Keyring>) -> Result<Option<TablespaceKey>, Error> {
        let mut page0 = vec![0; self.size];
        self.raw(PageNo(0), &mut page0)?;
        let Ok(header) = SpaceHeader::decode(&page0) else { return Ok(None) };
        let Some((info, keyring)) = header.encryption.as_ref().zip(keyring) else { return Ok(None) };
        info.unwrap_key(keyring).map(Some).map_err(|error| {
            let path = self.pieces.first().map(|(path, ..)| path.display().to_string()).unwrap_or_default();
            Error::new(ErrorKind::KeyMissing, format!("{path}: {error}")).caused_by(error)
        })
    }

    fn raw(&mut self, number: PageNo, page: &mut [u8]) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::cancelled());
        }
        let mut within = number.0;
        for (piece, (path, file, count)) in self.pieces.iter().enumerate() {
            if within >= *count {
                within = within.saturating_sub(*count);
                continue;
            }
            let size = u64::try_from(self.size).unwrap_or(u64::MAX);
            let offset = u64::from(within).saturating_mul(size);
            let inside = |at: u64, window: &[u8]| {
                let from = usize::try_from(offset.checked_sub(at)?).ok()?;
                Some(from..from.saturating_add(page.len())).filter(|range| range.end <= window.len())
            };
            let range = self.at.filter(|at| at.0 == piece).and_then(|(_, at)| inside(at, &self.window));
            let range = if let Some(range) = range {
                range
            } else {
                let left = u64::from(count.saturating_sub(within)).saturating_mul(size);
                self.window.resize(WINDOW.min(usize::try_from(left).unwrap_or(WINDOW)), 0);
                file.read_exact_at(&mut self.window, offset).map_err(|error| io(path, &error))?;
                self.at = Some((piece, offset));
                0..page.len()
            };
            page.copy_from_slice(self.window.get(range).unwrap_or_default());
            return Ok(());
        }
        Err(Error::new(ErrorKind::Failed, format!("page {number} is behind the end of its tablespace")))
    }
}

impl Source for Files<'_> {
    type Error = Error;

    fn read(&mut self, number: PageNo, page: &mut [u8]) -> Result<(), Error> {
        self.raw(number, page)?;
        let bad = |error| Error::new(ErrorKind::DamagedBackup, format!("page {number} of a tablespace: {error}"));
        let kind = |page: &[u8]| {
            let raw = page.get(fil::TYPE..).and_then(|raw| raw.first_chunk::<2>()).copied().unwrap_or_default();
            PageType::try_from(u16::from_be_bytes(raw)).ok()
        };
        if let (Some(found), Some(key)) = (kind(page).filter(|kind| kind.is_encrypted()), &self.key) {
            crypt::decrypt_page(page, found, key).map_err(bad)?;
        }
        if kind(page) == Some(PageType::Compressed) {
            compress::decompress_page(page, &mut self.inflated).map_err(bad)?;
            page.copy_from_slice(&self.inflated);
        }
        Ok(())
    }
}

fn io(path: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::LocalIo, format!("cannot read {}: {error}", path.display()))
}
