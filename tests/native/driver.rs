//! Recovery by the library's `apply`, driven here as simply as can be: the whole log in order, every page that it names
//! kept in memory. Not how `prepare` does it: the two must come to the same result.

use std::collections::{BTreeMap, HashMap};

use stillframe::innodb::apply::{ApplyError, Layouts, PageBuffer, apply};
use stillframe::innodb::ids::{PageId, PageNo, SpaceId};
use stillframe::innodb::lsn::Lsn;
use stillframe::innodb::redo::body::Body;
use stillframe::innodb::redo::{MiniTransaction, RecordKind, RedoRecord};

use crate::cover::Coverage;
use crate::files::Pages;
use crate::log::{Log, each_group};
use crate::seeds::Seeds;

/// A page that the log names.
pub struct Touched {
    buffer: PageBuffer,
    /// What it had as it was copied.
    pub copied: Lsn,
    /// End of the last group that names it.
    last: Lsn,
    /// Records that were applied, and those that were in it already.
    pub applied: u32,
    pub skipped: u32,
    /// Why it was given up.
    pub refused: Option<ApplyError>,
}

/// What came of a base.
pub struct Native {
    pub touched: HashMap<PageId, Touched>,
    /// Pages that each tablespace must have at the least.
    pub sizes: BTreeMap<SpaceId, u32>,
    pub end: Lsn,
    /// How far there is something in the log: of a group, too, whose end the server did not come to write.
    pub scanned: Lsn,
    pub coverage: Coverage,
    seeds: Option<Seeds>,
}

/// What the driver does with records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Apply,
    /// Nothing but the LSN: what a recovery looks like that loses everything.
    Nothing,
    /// All but the record of a page at this LSN: what one looks like that loses a little.
    Without(PageId, Lsn),
}

/// Recovers `base` with all of `log`.
pub fn recover(base: &BTreeMap<SpaceId, Pages>, log: &Log, mode: Mode) -> Native {
    let mut native = Native {
        touched: HashMap::new(),
        sizes: BTreeMap::new(),
        end: log.checkpoint,
        scanned: log.checkpoint,
        coverage: Coverage::default(),
        seeds: Seeds::wanted(),
    };
    let mut layouts = Layouts::default();
    let end = each_group(log, log.checkpoint, 2048, |group| {
        native.end = group.end;
        if !group.is_single() {
            native.coverage.count(RecordKind::MultiRecEnd, "in any log".to_owned());
        }
        for record in group.records().filter(|record| !record.before_checkpoint) {
            // By itself, as it always is, the server does not even look whether the page needs it.
            let announcement = record.kind == RecordKind::IndexLoad && group.is_single();
            if announcement || !record.kind.changes_page() {
                native.coverage.note_other(&record);
            }
            let Some((id, pages)) = record.page.and_then(|id| Some((id, base.get(&id.space)?))) else { continue };
            native.note_size(id, pages, &record);
            if record.kind.changes_page() && !announcement {
                native.take(pages, &group, &record, mode, &mut layouts);
            }
        }
        true
    });
    native.scanned = scanned(native.end, end.expect("every group was taken").unfinished_bytes);
    if let Some(seeds) = &native.seeds {
        seeds.write();
    }
    native
}

/// Where a server says that it has scanned a log up to: behind so many bytes of a group that has no end, and where they
/// fill a block, behind that.
fn scanned(end: Lsn, unfinished: usize) -> Lsn {
    const HEADER: u64 = 12;
    const PAYLOAD: u64 = 496;
    let bytes = u64::try_from(unfinished).unwrap();
    let in_block = end.get() % 512 - HEADER + bytes;
    let at = end.get() + bytes + in_block / PAYLOAD * (512 - PAYLOAD);
    let is_full = bytes > 0 && at % 512 == HEADER;
    Lsn::new(if is_full { at - HEADER } else { at })
}

#[test]
fn a_scan_ends_behind_what_is_unfinished() {
    for (end, unfinished, wanted) in [(0, 0, 0), (0, 14, 14), (0, 15, 19), (0, 16, 32), (0, 15 + 496, 19 + 512)] {
        let end = Lsn::new(120_100_845 + end);
        assert_eq!(scanned(end, unfinished), Lsn::new(120_100_845 + wanted), "{unfinished} bytes");
    }
}

impl Native {
    /// A file grows by what page 0 says, and by what is said of it beside.
    fn note_size(&mut self, id: PageId, pages: &Pages, record: &RedoRecord<'_>) {
        const FSP_SIZE: u16 = 46;
        let page_bytes = u64::from(pages.space.flags.physical_size().bytes());
        let size = match record.body() {
            Ok(Body::FileExtend(extend)) => (extend.offset + extend.bytes) / page_bytes,
            Ok(Body::WriteNumber(write)) if id.page == PageNo(0) && write.offset == FSP_SIZE => write.value,
            _ => return,
        };
        let known = self.sizes.entry(id.space).or_default();
        *known = (*known).max(u32::try_from(size).unwrap());
    }

    fn take(
        &mut self,
        pages: &Pages,
        group: &MiniTransaction<'_>,
        record: &RedoRecord<'_>,
        mode: Mode,
        layouts: &mut Layouts,
    ) {
        let id = record.page.unwrap();
        let touched = self.touched.entry(id).or_insert_with(|| Touched::load(pages, id));
        touched.last = group.end;
        if touched.refused.is_some() {
            return;
        }
        // What the page that was copied holds already.
        let start = if group.is_single() { group.start } else { record.lsn };
        if start < touched.copied {
            touched.skipped += 1;
            return;
        }
        touched.applied += 1;
        if mode == Mode::Nothing || mode == Mode::Without(id, record.lsn) {
            return;
        }
        self.coverage.note(pages.space.flags, &touched.buffer, record);
        if let Some(seeds) = &mut self.seeds {
            seeds.note(pages.space.flags, &touched.buffer, record);
        }
        touched.refused = apply(&mut touched.buffer, record, layouts).err();
        if record.kind == RecordKind::InitFilePage {
            touched.copied = Lsn::ZERO;
        }
    }
}

impl Touched {
    fn load(pages: &Pages, id: PageId) -> Self {
        let mut buffer = PageBuffer::new(pages.space.flags);
        let refused = buffer.load(id, &pages.plain(id.page)).err();
        let copied = buffer.lsn();
        Self { buffer, copied, last: Lsn::ZERO, applied: 0, skipped: 0, refused }
    }

    /// The page as it is to be written; `None` when it is as it was copied.
    pub fn finished(&self) -> Result<Option<Vec<u8>>, ApplyError> {
        if let Some(refused) = &self.refused {
            return Err(refused.clone());
        }
        if self.applied == 0 {
            return Ok(None);
        }
        self.buffer.clone().finish(self.last).map(|page| Some(page.to_vec()))
    }
}
