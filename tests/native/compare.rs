//! Two recoveries of the same base, page by page, every byte.
//!
//! ```text
//!   for each page that either has:   equal ──► counted
//!                                    newer than the log, in the server's ──► it has worked on since: listed, and few
//!                                    else ──► a difference, told with all that was done to the page
//! ```
//! Nothing may differ but what is on the list in `docs/native-differences.md`, with a reason each: here, pages that the
//! server changed after recovery, and what [`forget_headers`] forgets. Encrypted and page-compressed pages are compared as
//! they are inside, since keys' places and compressors' outcomes are not redo's.

use std::collections::BTreeMap;

use stillframe::innodb::ids::{PageId, PageNo, SpaceId};
use stillframe::innodb::lsn::Lsn;
use stillframe::innodb::page::{PageType, fil};

use crate::driver::Native;
use crate::files::{Pages, Space};

/// A page that is not what the server made of it.
pub struct Difference {
    pub id: PageId,
    pub file: String,
    pub copied: Vec<u8>,
    pub native: Result<Vec<u8>, String>,
    pub server: Vec<u8>,
}

/// What was found.
#[derive(Default)]
pub struct Outcome {
    /// Pages that the log changed, and are equal.
    pub changed: u64,
    /// Pages that it named, but that were newer, and are equal.
    pub newer_than_log: u64,
    /// Pages that it did not name, and are equal.
    pub untouched: u64,
    /// Pages that the server wrote to after recovery.
    pub written_since: Vec<(PageId, String)>,
    pub differences: Vec<Difference>,
    /// Files that are of another size.
    pub sizes: Vec<String>,
}

/// Pages that a server may have written to between the end of recovery and its death: transaction system, dictionary,
/// undo, all of them by itself.
const MOST_WRITTEN_SINCE: usize = 30;

impl Outcome {
    pub fn is_good(&self) -> bool {
        self.differences.is_empty() && self.sizes.is_empty() && self.written_since.len() <= MOST_WRITTEN_SINCE
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} pages changed and equal, {} newer than what names them, {} not named, {} written to since, \
             {} different, {} files of another size",
            self.changed,
            self.newer_than_log,
            self.untouched,
            self.written_since.len(),
            self.differences.len(),
            self.sizes.len()
        )
    }
}

/// Compares what `native` made of `base` with the server's files.
pub fn compare(base: &BTreeMap<SpaceId, Pages>, native: &Native, server: &BTreeMap<SpaceId, Space>) -> Outcome {
    let mut outcome = Outcome::default();
    for (id, copied) in base {
        let Some(space) = server.get(id) else {
            outcome.sizes.push(format!("{} is gone", copied.space.path.display()));
            continue;
        };
        let theirs = Pages::read(space);
        compare_sizes(copied, native, &theirs, &mut outcome);
        for number in 0..theirs.count().max(copied.count()) {
            compare_page(copied, native, &theirs, PageNo(number), &mut outcome);
        }
    }
    outcome
}

/// A file may be longer than its tablespace says, never shorter.
fn compare_sizes(copied: &Pages, native: &Native, theirs: &Pages, outcome: &mut Outcome) {
    let id = copied.space.id;
    let ours = copied.count().max(native.sizes.get(&id).copied().unwrap_or(0));
    let highest = native.touched.iter().filter(|(page, touched)| page.space == id && touched.applied > 0);
    let highest = highest.map(|(page, _)| page.page.0 + 1).max().unwrap_or(0);
    if ours != theirs.count() || highest > ours {
        let name = copied.space.path.display();
        outcome.sizes.push(format!("{name}: {ours} pages, the server has {}, redo names {highest}", theirs.count()));
    }
}

/// What sealing a page for its file leaves in its header, the server's last one over ours, is no content.
pub fn forget_headers(ours: &mut [u8], server: &mut [u8], [copied, theirs]: [&Pages; 2], page: PageNo) {
    let kind = theirs.kind(page);
    let forgotten = match kind {
        // Written with a header of its own.
        Some(PageType::Compressed | PageType::CompressedAndEncrypted) => fil::FLUSH_LSN..fil::SPACE_ID,
        // Its type was in the midst of that of the compression that it had been read with.
        Some(PageType::Encrypted) if copied.kind(page) == Some(PageType::CompressedAndEncrypted) => {
            fil::ORIGINAL_TYPE..fil::ORIGINAL_SIZE
        }
        _ => return,
    };
    ours[forgotten.clone()].fill(0);
    server[forgotten].fill(0);
}

fn compare_page(copied: &Pages, native: &Native, theirs: &Pages, page: PageNo, outcome: &mut Outcome) {
    let id = PageId { space: copied.space.id, page };
    let touched = native.touched.get(&id);
    if touched.is_none() && copied.raw(page).is_some() && copied.raw(page) == theirs.raw(page) {
        outcome.untouched += 1;
        return;
    }
    let mut server = theirs.plain(page);
    let ours = touched.map_or(Ok(None), crate::driver::Touched::finished);
    let changed = matches!(ours, Ok(Some(_)));
    let mut ours = ours.map(|page_bytes| page_bytes.unwrap_or_else(|| copied.plain(page)));
    if let Ok(ours) = &mut ours {
        forget_headers(ours, &mut server, [copied, theirs], page);
    }
    if ours.as_ref() == Ok(&server) {
        match (changed, touched.is_some()) {
            (true, _) => outcome.changed += 1,
            (false, true) => outcome.newer_than_log += 1,
            (false, false) => outcome.untouched += 1,
        }
        return;
    }
    let lsn = Lsn::new(u64::from_be_bytes(server[16..24].try_into().unwrap()));
    let file = copied.space.path.display().to_string();
    // Where native gives up, what the server did later is no excuse.
    if ours.is_ok() && lsn > native.end {
        outcome.written_since.push((id, file));
        return;
    }
    let copied = copied.plain(page);
    outcome.differences.push(Difference { id, file, copied, native: ours.map_err(|error| error.to_string()), server });
}
