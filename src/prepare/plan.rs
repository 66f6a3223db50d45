//! Which records change which page: everything that the log says of pages, sorted, in bounded memory.
//!
//! ```text
//!   push (log order) ─► a run fills ─► its thread sorts it ─► sorted runs in memory
//!                                                                └─ no room for the next ─► the oldest goes to a file
//!   reader.seek(window) ─► next_page ─► each record of it, in log order ─► next_page ─► …
//! ```
//! Records themselves are sorted, not references to them: a window is then read in one go, whatever the log's size. Runs
//! in the file are older than those in memory, and there are 64 of them at most in the end.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use super::PrepareError;
use super::run::{Cursor, Kept, MemoryRun};
use super::spill::{FileRun, SpillFile, merge, write_run};
use crate::innodb::ids::{PageId, PageNo, SpaceId};

pub use super::run::Kept as PlannedRecord;

/// Runs that the memory is divided into. Of these, one is being filled, one sorted, and one may be on its way to the
/// file: more of them keep more of a log that nearly fits, and make more runs in the file of one that does not.
const RUNS_IN_MEMORY: u64 = 6;
/// Those others that stay in memory meanwhile.
const RESTING: usize = 4;

/// Collects records.
#[derive(Debug)]
pub(super) struct PlanBuilder {
    /// Memory for one run.
    share: u64,
    dir: PathBuf,
    enciphered: bool,
    filling: MemoryRun,
    /// In the order of the log.
    sorted: VecDeque<MemoryRun>,
    spare: Option<MemoryRun>,
    at_work: Option<JoinHandle<Result<Done, PrepareError>>>,
    file: Option<SpillFile>,
    runs: Vec<FileRun>,
    records: u64,
}

/// What the thread that sorts and writes gives back.
#[derive(Debug)]
struct Done {
    sorted: MemoryRun,
    written: Option<Written>,
}

/// A run that is in the file now, and the memory that it had.
#[derive(Debug)]
struct Written {
    file: SpillFile,
    run: FileRun,
    memory: MemoryRun,
}

impl PlanBuilder {
    /// Keeps `budget` bytes in memory; more goes to a file on the file system of `dir`.
    pub fn new(budget: u64, dir: &Path, enciphered: bool) -> Result<Self, PrepareError> {
        let share = budget / RUNS_IN_MEMORY;
        Ok(Self {
            share,
            dir: dir.to_path_buf(),
            enciphered,
            filling: MemoryRun::new(share).map_err(no_memory)?,
            sorted: VecDeque::new(),
            spare: None,
            at_work: None,
            file: None,
            runs: Vec::new(),
            records: 0,
        })
    }

    /// Adds the next record of the log.
    pub fn push(&mut self, kept: &Kept<'_>) -> Result<(), PrepareError> {
        self.records = self.records.saturating_add(1);
        if !self.filling.push(kept).map_err(no_memory)? {
            self.hand_over()?;
            let _ = self.filling.push(kept).map_err(no_memory)?;
        }
        if self.filling.used_bytes() > self.share { self.hand_over() } else { Ok(()) }
    }

    /// Has a thread sort the run that is full, and write the oldest where the next would find no room; once it has
    /// done so with the one before.
    fn hand_over(&mut self) -> Result<(), PrepareError> {
        self.collect()?;
        let oldest = if self.sorted.len() < RESTING { None } else { self.sorted.pop_front() };
        let write = oldest.map(|oldest| self.writing(oldest)).transpose()?;
        let empty = self.spare.take().map_or_else(|| MemoryRun::new(self.share), Ok).map_err(no_memory)?;
        let mut sorted = std::mem::replace(&mut self.filling, empty);
        let work = move || {
            sorted.sort();
            Ok(Done { sorted, written: write.map(|write| write()).transpose()? })
        };
        let thread = std::thread::Builder::new().name("redo-sort".into()).spawn(work);
        self.at_work = Some(thread.map_err(|error| self.failed(error))?);
        Ok(())
    }

    /// What writes a run behind those that the file has.
    fn writing(
        &mut self,
        mut memory: MemoryRun,
    ) -> Result<impl FnOnce() -> Result<Written, PrepareError> + Send + use<>, PrepareError> {
        let file = match self.file.take() {
            Some(file) => file,
            None => SpillFile::create(&self.dir, self.enciphered)?,
        };
        let start = self.runs.iter().map(FileRun::bytes).sum();
        Ok(move || {
            let run = write_run(&file, start, memory.kept())?;
            memory.clear();
            Ok(Written { file, run, memory })
        })
    }

    /// Waits for the thread.
    fn collect(&mut self) -> Result<(), PrepareError> {
        let Some(at_work) = self.at_work.take() else { return Ok(()) };
        let ended = || self.failed(io::Error::other("the thread that sorts and writes it ended"));
        let Done { sorted, written } = at_work.join().map_err(|_| ended())??;
        self.sorted.push_back(sorted);
        if let Some(Written { file, run, memory }) = written {
            self.runs.push(run);
            (self.file, self.spare) = (Some(file), Some(memory));
        }
        Ok(())
    }

    fn failed(&self, source: io::Error) -> PrepareError {
        PrepareError::Spill { act: "write", dir: self.dir.clone(), source }
    }

    pub fn finish(mut self) -> Result<ApplyPlan, PrepareError> {
        self.collect()?;
        self.spare = None;
        self.filling.sort();
        self.sorted.push_back(self.filling);
        let memory = self.sorted.into_iter().filter(|run| !run.is_empty()).collect();
        let (file, runs) = match self.file {
            Some(file) => merge(file, self.runs).map(|(file, runs)| (Some(file), runs))?,
            None => (None, self.runs),
        };
        Ok(ApplyPlan { file, runs, memory, records: self.records })
    }
}

fn no_memory(source: io::Error) -> PrepareError {
    PrepareError::Memory { source }
}

/// All records by page. Shared by threads, each of which has a reader.
#[derive(Debug)]
pub struct ApplyPlan {
    file: Option<SpillFile>,
    runs: Vec<FileRun>,
    /// What is behind that in the log.
    memory: Vec<MemoryRun>,
    records: u64,
}

impl ApplyPlan {
    /// A reader of it.
    pub fn reader(&self) -> PlanReader<'_> {
        let memory = self.memory.iter().map(Cursor::of_memory);
        let files = self.file.iter().flat_map(|file| self.runs.iter().map(move |run| Cursor::of_file(file, run)));
        PlanReader { plan: self, cursors: files.chain(memory).collect(), space: SpaceId::SYSTEM }
    }

    /// Number of records.
    pub const fn record_count(&self) -> u64 {
        self.records
    }

    /// Memory that it takes.
    pub fn memory_bytes(&self) -> u64 {
        let fences = self.runs.iter().map(FileRun::memory_bytes);
        self.memory.iter().map(MemoryRun::memory_bytes).chain(fences).sum()
    }

    /// Bytes that lie in a file.
    pub fn spilled_bytes(&self) -> u64 {
        self.runs.iter().map(FileRun::bytes).sum()
    }

    fn unreadable(&self, error: io::Error) -> PrepareError {
        match &self.file {
            Some(file) => file.unreadable(error),
            None => PrepareError::Spill { act: "read", dir: PathBuf::new(), source: error },
        }
    }
}

/// Reads parts of a plan.
#[derive(Debug)]
pub struct PlanReader<'p> {
    plan: &'p ApplyPlan,
    cursors: Vec<Cursor<'p>>,
    space: SpaceId,
}

impl PlanReader<'_> {
    /// Goes to some pages of a tablespace.
    pub fn seek(&mut self, space: SpaceId, pages: Range<u32>) -> Result<(), PrepareError> {
        self.space = space;
        let id = |page| PageId { space, page: PageNo(page) };
        for cursor in &mut self.cursors {
            cursor.seek(id(pages.start), id(pages.end)).map_err(|error| self.plan.unreadable(error))?;
        }
        Ok(())
    }

    /// The next of these pages that has records.
    pub fn next_page(&mut self) -> Result<Option<PageNo>, PrepareError> {
        let mut next: Option<PageNo> = None;
        for cursor in &mut self.cursors {
            let page = cursor.page().map_err(|error| self.plan.unreadable(error))?;
            if let Some(page) = page.filter(|page| page.space == self.space) {
                next = Some(next.map_or(page.page, |least| least.min(page.page)));
            }
        }
        Ok(next)
    }

    /// Hands out the records of `page`, which is the next one, in log order. They are used up by that.
    pub fn each<E: From<PrepareError>>(
        &mut self,
        page: PageNo,
        mut each: impl FnMut(PlannedRecord<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let id = PageId { space: self.space, page };
        for cursor in &mut self.cursors {
            while cursor.page().map_err(|error| self.plan.unreadable(error))? == Some(id) {
                match cursor.take().map_err(|error| self.plan.unreadable(error))? {
                    Some(kept) => each(kept)?,
                    None => break,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::innodb::lsn::Lsn;

    type Pages = BTreeMap<(u32, u32), Vec<(u64, Vec<u8>)>>;

    /// Records on few pages, so that each has many; the LSN says which one it is.
    fn records(seed: u32, count: u32) -> Vec<(PageId, Lsn, Vec<u8>)> {
        let mut state = seed.wrapping_mul(2_654_435_761).max(1);
        let mut random = move |below: u32| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state % below
        };
        (0..count)
            .map(|number| {
                let page = PageId { space: SpaceId(random(5)), page: PageNo(random(300)) };
                let len = if random(500) == 0 { 100_000 } else { random(80) };
                let byte = u8::try_from(random(256)).unwrap();
                (page, Lsn::new(u64::from(number)), vec![byte; usize::try_from(len).unwrap()])
            })
            .collect()
    }

    fn plan(records: &[(PageId, Lsn, Vec<u8>)], budget: u64, enciphered: bool) -> ApplyPlan {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = PlanBuilder::new(budget, dir.path(), enciphered).unwrap();
        for (page, lsn, bytes) in records {
            let end = Lsn::new(lsn.get() + 1);
            builder.push(&Kept { page: *page, lsn: *lsn, end, bytes }).unwrap();
        }
        builder.finish().unwrap()
    }

    fn expected(records: &[(PageId, Lsn, Vec<u8>)]) -> Pages {
        let mut pages = Pages::new();
        for (page, lsn, bytes) in records {
            pages.entry((page.space.0, page.page.0)).or_default().push((lsn.get(), bytes.clone()));
        }
        pages
    }

    /// Reads windows of so many pages, in some order.
    fn read(plan: &ApplyPlan, window: u32) -> Pages {
        let mut pages = Pages::new();
        let mut reader = plan.reader();
        for space in [3, 0, 4, 2, 1] {
            for first in (0..300).step_by(usize::try_from(window).unwrap()).rev() {
                reader.seek(SpaceId(space), first..first + window).unwrap();
                let mut last = None;
                while let Some(page) = reader.next_page().unwrap() {
                    assert!(last < Some(page) && (first..first + window).contains(&page.0));
                    last = Some(page);
                    let here = pages.entry((space, page.0)).or_default();
                    let each = |kept: PlannedRecord<'_>| {
                        assert_eq!(kept.end.get(), kept.lsn.get() + 1);
                        here.push((kept.lsn.get(), kept.bytes.to_vec()));
                        Ok::<_, PrepareError>(())
                    };
                    reader.each(page, each).unwrap();
                }
            }
        }
        pages
    }

    #[test]
    fn every_record_is_found_once_and_in_order_in_memory_and_on_disk() {
        let all = records(7, 20_000);
        for (budget, enciphered, runs) in
            [(1 << 30, false, 0), (100_000, false, 64), (100_000, true, 64), (3_000, false, 64)]
        {
            let plan = plan(&all, budget, enciphered);
            assert!(plan.runs.len() <= runs, "{} runs", plan.runs.len());
            assert_eq!(plan.record_count(), 20_000);
            assert_eq!(plan.spilled_bytes() > 0, runs > 0);
            assert_eq!(read(&plan, 64), expected(&all), "budget {budget}");
        }
    }

    #[test]
    fn what_does_not_fit_is_spilled() {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = PlanBuilder::new(16 << 20, dir.path(), false).unwrap();
        let bytes = vec![1; 10_000];
        let mut most = 0;
        for number in 0..5_000_u32 {
            let page = PageId { space: SpaceId(1), page: PageNo(number % 1000) };
            let lsn = Lsn::new(u64::from(number));
            builder.push(&Kept { page, lsn, end: lsn, bytes: &bytes }).unwrap();
            let rest = builder.sorted.iter().map(MemoryRun::memory_bytes).sum::<u64>();
            // One is being sorted, one written.
            most = most.max(builder.filling.memory_bytes() + rest + 2 * builder.share);
        }
        assert!(most <= (16 << 20) + (8 << 20), "{most} bytes were taken");
        let plan = builder.finish().unwrap();
        let (kept, spilled) = (plan.memory_bytes(), plan.spilled_bytes());
        assert!(kept < 17 << 20 && spilled > 30_000_000, "{kept} bytes are kept, {spilled} were spilled");
        let mut reader = plan.reader();
        reader.seek(SpaceId(1), 999..1000).unwrap();
        let mut count = 0;
        let each = |_: PlannedRecord<'_>| {
            count += 1;
            Ok::<_, PrepareError>(())
        };
        reader.each(PageNo(999), each).unwrap();
        assert_eq!(count, 5);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn any_records_come_back(seed in 1_u32.., window in 1_u32..300, budget in 8_000_u64..90_000) {
            let all = records(seed, 3_000);
            prop_assert_eq!(read(&plan(&all, budget, false), window), expected(&all));
        }
    }
}
