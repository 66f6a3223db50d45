//! The order of rows, and what the pages above say of those below: for indexes whose layout the dictionary tells.
//!
//! ```text
//!   a page     rows ascend; what they take and what is freed is all of its heap
//!   neighbours the last row of one is before the first of the next
//!   a level    the children of its rows, in their order, are the level below, each once
//!   a leaf     off-page columns begin on pages that hold such
//! ```
//! Text is compared only where its bytes decide: by collations that are binary. What is not comparable is not judged.

use std::cmp::Ordering;

use super::describe::kind;
use super::dictionary::{Column, Element, IndexShape};
use super::extents::Extents;
use super::reading::NONE;
use super::{Check, Source};
use crate::innodb::FormatError;
use crate::innodb::apply::frame::Frame;
use crate::innodb::apply::index_page::{GARBAGE, HEAP_TOP, INDEX_ID, IndexPage, LEVEL};
use crate::innodb::apply::layout::{CHILD, INFO_DELETED, INFO_MIN, RowShape};
use crate::innodb::page::PageType;

const NEXT: usize = 12;
const DESCENDING: u32 = 3;
/// Where a root names the page of a segment of its.
const ROOT_SEGMENT: usize = 78;
/// All rows of a page.
const ALL: usize = usize::MAX;
/// Bytes of a pointer to an off-page column.
const REFERENCE: usize = 20;
/// In the first byte of its length: the row does not own it.
const NOT_OWNER: u8 = 0x80;

/// How a field is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    by: By,
    descending: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Bytes,
    /// As if the shorter went on with spaces.
    PaddedBytes,
    Float,
    Double,
    /// Only equal bytes are known to be equal.
    Unknown,
}

impl Order {
    pub(super) fn of(column: &Column, element: &Element) -> Self {
        /// Collations by which bytes decide, without and with padding.
        const BINARY: [u64; 2] = [63, 309];
        const PADDED: [u64; 4] = [46, 47, 65, 83];
        let by = match column.kind {
            kind::FLOAT => By::Float,
            kind::DOUBLE => By::Double,
            kind::GEOMETRY => By::Unknown,
            kind::VARCHAR | kind::STRING => by_collation(column, &BINARY, &PADDED),
            blob if kind::BLOBS.contains(&blob) => by_collation(column, &BINARY, &PADDED),
            _ => By::Bytes,
        };
        Self { by, descending: element.order == DESCENDING }
    }

    /// Compares two values, `None` where that is not known. NULL is before everything.
    fn compare(self, a: Option<&[u8]>, b: Option<&[u8]>) -> Option<Ordering> {
        let ordering = match (a, b) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(a), Some(b)) => match self.by {
                _ if a == b => Ordering::Equal,
                By::Bytes => a.cmp(b),
                By::PaddedBytes => padded(a, b),
                By::Float => {
                    f32::from_le_bytes(a.try_into().ok()?).partial_cmp(&f32::from_le_bytes(b.try_into().ok()?))?
                }
                By::Double => {
                    f64::from_le_bytes(a.try_into().ok()?).partial_cmp(&f64::from_le_bytes(b.try_into().ok()?))?
                }
                By::Unknown => return None,
            },
        };
        Some(if self.descending { ordering.reverse() } else { ordering })
    }
}

fn by_collation(column: &Column, binary: &[u64], padded: &[u64]) -> By {
    if binary.contains(&column.collation_id) {
        By::Bytes
    } else if padded.contains(&column.collation_id) {
        By::PaddedBytes
    } else {
        By::Unknown
    }
}

fn padded(a: &[u8], b: &[u8]) -> Ordering {
    let longest = a.len().max(b.len());
    let spaces = |bytes: &[u8]| bytes.iter().copied().chain(std::iter::repeat(b' ')).take(longest).collect::<Vec<u8>>();
    spaces(a).cmp(&spaces(b))
}

/// The fields that order a row, each NULL or its bytes; `None` for the smallest of a level.
type Key = Option<Vec<Option<Vec<u8>>>>;

/// A row as it was read.
struct Row {
    key: Key,
    child: u32,
    /// Pages of off-page columns that it owns.
    lobs: Vec<u32>,
}

/// Which pages are below others, and which must be: a bit each.
#[derive(Debug, Default)]
pub struct Levels {
    children: Bits,
    members: Bits,
}

#[derive(Debug, Default)]
struct Bits(Vec<u8>);

impl Bits {
    /// Sets a page's bit. False when it was set already.
    fn set(&mut self, page: u32) -> bool {
        let Ok(byte) = usize::try_from(page / 8) else { return true };
        if self.0.len() <= byte {
            self.0.resize(byte.saturating_add(1), 0);
        }
        let bit = 1_u8.checked_shl(page % 8).unwrap_or(0);
        let Some(known) = self.0.get_mut(byte) else { return true };
        let is_new = *known & bit == 0;
        *known |= bit;
        is_new
    }

    fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }
}

impl Levels {
    /// Pages that no other page has below it, and that are no roots.
    fn orphans(&self) -> impl Iterator<Item = u32> + '_ {
        self.members.0.iter().enumerate().flat_map(|(at, members)| {
            let lost = members & !self.children.byte(at);
            (0..8_u32)
                .filter(move |bit| lost & 1_u8.checked_shl(*bit).unwrap_or(0) != 0)
                .filter_map(move |bit| u32::try_from(at).ok()?.checked_mul(8)?.checked_add(bit))
        })
    }
}

impl<S: Source> Check<'_, S> {
    /// Checks the rows of a page against each other, its neighbours, and the pages below.
    pub(super) fn check_order(
        &mut self,
        number: u32,
        frame: &mut Frame,
        shape: &IndexShape,
        extents: &Extents,
        levels: &mut Levels,
    ) -> Result<(), S::Error> {
        let rows = match read_rows(frame, shape, ALL) {
            Ok(rows) => rows,
            Err(error) => {
                self.findings.add(number, format!("{error} (index {})", shape.title()));
                return Ok(());
            }
        };
        if !shape.spatial {
            for (before, row) in rows.iter().zip(rows.iter().skip(1)) {
                if is_behind(&shape.order, &before.key, &row.key) == Some(false) {
                    self.findings.add(number, format!("has rows of index {} out of order", shape.title()));
                    break;
                }
            }
        }
        // A root has its segments' places; all others are below another page.
        if frame.u32(ROOT_SEGMENT).unwrap_or(0) == 0 {
            levels.members.set(number);
        }
        self.check_children(number, frame, shape, extents, levels, &rows)?;
        for lob in rows.iter().flat_map(|row| &row.lobs) {
            let used = *lob < self.subject.pages && extents.is_used(*lob);
            let kind = if used { self.page(*lob)?.kind() } else { None };
            if !matches!(
                kind,
                Some(
                    PageType::LobFirst
                        | PageType::ZLobFirst
                        | PageType::Blob
                        | PageType::ZBlob
                        | PageType::SdiBlob
                        | PageType::SdiZBlob
                )
            ) {
                self.findings.add(number, format!("has a column that goes on on page {lob}, which holds none"));
            }
        }
        self.check_edge(number, frame, shape, &rows)
    }

    fn check_children(
        &mut self,
        number: u32,
        frame: &Frame,
        shape: &IndexShape,
        extents: &Extents,
        levels: &mut Levels,
        rows: &[Row],
    ) -> Result<(), S::Error> {
        let level = frame.u16(LEVEL).unwrap_or(0);
        let Some(below) = level.checked_sub(1) else { return Ok(()) };
        for (at, row) in rows.iter().enumerate() {
            if row.child >= self.subject.pages || !extents.is_used(row.child) {
                self.findings.add(number, format!("has page {} below it, which is not in use", row.child));
                continue;
            }
            if !levels.children.set(row.child) {
                self.findings.add(number, format!("has page {} below it, and so has another", row.child));
            }
            let child = self.page(row.child)?;
            let same = child.u64(INDEX_ID) == frame.u64(INDEX_ID).unwrap_or(0) && child.u16(LEVEL) == below;
            if !same || !matches!(child.kind(), Some(PageType::Index | PageType::Rtree | PageType::Sdi)) {
                self.findings.add(number, format!("has page {} below it, of another index or level", row.child));
            }
            let next = rows.get(at.saturating_add(1)).map(|next| next.child);
            if !shape.spatial && next.is_some_and(|next| child.u32(NEXT) != next) {
                let what = format!("has page {} below it, and the one behind that is not the next below", row.child);
                self.findings.add(number, what);
            }
        }
        Ok(())
    }

    /// The last row of a page is before the first of the next.
    fn check_edge(&mut self, number: u32, frame: &Frame, shape: &IndexShape, rows: &[Row]) -> Result<(), S::Error> {
        let next = frame.u32(NEXT).unwrap_or(NONE);
        // What is wrong with the link itself is found by its own check.
        let (Some(last), true) = (rows.last(), next < self.subject.pages && !shape.spatial) else { return Ok(()) };
        let page = self.page(next)?;
        let Ok(mut behind) = self.frame(next, &page) else { return Ok(()) };
        let Ok(rows) = read_rows(&mut behind, shape, 1) else { return Ok(()) };
        let Some(first) = rows.first() else { return Ok(()) };
        if is_behind(&shape.order, &last.key, &first.key) == Some(false) {
            let what = format!("and page {next} behind it have rows of index {} out of order", shape.title());
            self.findings.add(number, what);
        }
        let leaf = frame.u16(LEVEL).unwrap_or(0) == 0;
        if !leaf && last.child < self.subject.pages && self.page(last.child)?.u32(NEXT) != first.child {
            self.findings.add(number, format!("and page {next} behind it have pages below that are no neighbours"));
        }
        Ok(())
    }

    /// Every page of a tree but its root is below another.
    pub(super) fn check_orphans(&mut self, levels: &Levels) {
        for page in levels.orphans() {
            self.findings.add(page, "is below no other page of its index");
        }
    }
}

/// The first rows of a page, at most so many; all rows when the heap is to be checked as well.
fn read_rows(frame: &mut Frame, shape: &IndexShape, most: usize) -> Result<Vec<Row>, FormatError> {
    let page = IndexPage::open(frame, shape.layout.is_compact())?;
    let (mut row_shape, mut rows, mut live) = (RowShape::default(), Vec::new(), 0_usize);
    let leaf = page.frame.u16(LEVEL)? == 0;
    let layout = shape.node_layout.as_ref().filter(|_| !leaf).unwrap_or(&shape.layout);
    let mut at = page.next_row(page.infimum())?;
    for _ in 0..page.heap_count()?.min(most) {
        if at == page.supremum() {
            break;
        }
        layout.measure(page.frame.as_bytes(), at, &mut row_shape)?;
        live = live.saturating_add(row_shape.size());
        rows.push(read_row(&page, at, shape, &row_shape, leaf)?);
        at = page.next_row(at)?;
    }
    let top = page.frame.place(HEAP_TOP)?;
    let (heap, garbage) = (top.saturating_sub(page.heap_start()), page.frame.place(GARBAGE)?);
    if most == ALL && live.saturating_add(garbage) != heap {
        let why = format!("{live} bytes of rows and {garbage} freed ones in a heap of {heap}");
        return Err(FormatError::Invalid { what: "index page", why });
    }
    Ok(rows)
}

fn read_row(
    page: &IndexPage<'_>,
    at: usize,
    shape: &IndexShape,
    row: &RowShape,
    leaf: bool,
) -> Result<Row, FormatError> {
    let info = page.frame.u8(page.info_at(at)?)?;
    let mut key = Vec::with_capacity(shape.order.len());
    for place in 0..shape.order.len().min(row.fields.len()) {
        let (start, len, field) = row.field(place)?;
        let value = if field.null { None } else { Some(page.frame.slice(at.saturating_add(start), len)?.to_vec()) };
        key.push(value);
    }
    let mut lobs = Vec::new();
    if leaf && info & INFO_DELETED == 0 {
        for place in 0..row.fields.len() {
            let (start, len, field) = row.field(place)?;
            if !field.external {
                continue;
            }
            let from = at.saturating_add(start).saturating_add(len).saturating_sub(REFERENCE);
            let owner = page.frame.u8(from.saturating_add(12))? & NOT_OWNER == 0;
            let lob = page.frame.u32(from.saturating_add(4))?;
            if owner && lob != 0 && lob != NONE {
                lobs.push(lob);
            }
        }
    }
    let child = if leaf { 0 } else { page.frame.u32(at.saturating_add(row.data).saturating_sub(CHILD))? };
    Ok(Row { key: (info & INFO_MIN == 0).then_some(key), child, lobs })
}

/// The second key is behind the first; `None` where that is not known.
fn is_behind(order: &[Order], before: &Key, after: &Key) -> Option<bool> {
    let (before, after) = match (before, after) {
        (None, Some(_)) => return Some(true),
        (_, None) => return Some(false),
        (Some(before), Some(after)) => (before, after),
    };
    for ((order, before), after) in order.iter().zip(before).zip(after) {
        match order.compare(before.as_deref(), after.as_deref())? {
            Ordering::Less => return Some(true),
            Ordering::Greater => return Some(false),
            Ordering::Equal => {}
        }
    }
    // Equal rows there are none, as far as all their fields were compared.
    Some(false)
}
