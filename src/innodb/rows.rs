//! The rows of a clustered index, in their order, of a tablespace at rest.
//!
//! ```text
//!   root ─► first row's child ─► … ─► first leaf ─► rows ─► next leaf ─► rows …
//!   row: the field of a column, by the column's name, as the dictionary information places it
//! ```
//! Does no I/O: pages come from the caller, decrypted and decompressed. Damaged pages are errors, not panics, and a walk ends
//! after as many pages as there are.

use super::FormatError;
use super::apply::PageBuffer;
use super::apply::index_page::{IndexPage, LEVEL};
use super::apply::layout::{CHILD, RowShape};
use super::check::{IndexShape, Source, Subject};
use super::ids::{PageId, PageNo};
use super::page::fil;

/// Where an index page names its index.
const INDEX_ID: usize = 66;
/// Marks a row that was deleted and is still there.
const DELETED: u8 = 0x20;
const NO_PAGE: u32 = u32::MAX;

/// Why rows could not be read.
#[derive(Debug)]
pub enum RowsError<E> {
    /// A page could not be had.
    Read(E),
    /// A page is not what it should be.
    Page {
        /// The page.
        page: PageId,
        /// What is wrong.
        source: FormatError,
    },
}

/// A row.
#[derive(Debug)]
pub struct Row<'p> {
    /// The page that it is on.
    pub page: PageNo,
    bytes: &'p [u8],
    origin: usize,
    shape: &'p RowShape,
    index: &'p IndexShape,
}

/// The bytes of a column in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'p> {
    /// Where on the page they begin.
    pub at: usize,
    /// They themselves; where the column goes on elsewhere, what of it is here.
    pub bytes: &'p [u8],
    /// It goes on elsewhere.
    pub external: bool,
}

impl<'p> Row<'p> {
    /// A column, `None` where it is NULL or newer than the row. An error where the index has no such column.
    pub fn field(&self, column: &str) -> Result<Option<Field<'p>>, FormatError> {
        let number = self.index.columns.iter().position(|name| name == column);
        let number = number.and_then(|number| u32::try_from(number).ok()).ok_or_else(|| FormatError::Invalid {
            what: "index",
            why: format!("{} has no column {column}", self.index.title()),
        })?;
        let (start, len, end) = self.shape.field(self.index.layout.place_of(number)?)?;
        if end.null || !end.present {
            return Ok(None);
        }
        let at = self.origin.saturating_add(start);
        let bytes = self.bytes.get(at..at.saturating_add(len)).ok_or(FormatError::Truncated {
            what: "row",
            needed: at.saturating_add(len),
            got: self.bytes.len(),
        })?;
        Ok(Some(Field { at, bytes, external: end.external }))
    }
}

/// Hands out the rows of the index `id`, those marked as deleted left out.
pub fn each_row<S: Source>(
    subject: &Subject,
    source: &mut S,
    (id, index): (u64, &IndexShape),
    each: &mut dyn FnMut(&Row<'_>) -> Result<(), FormatError>,
) -> Result<(), RowsError<S::Error>> {
    let mut number = index.root.map_or(NO_PAGE, |root| root.0);
    let mut bytes = vec![0; subject.flags.physical_size().len()];
    let mut buffer = PageBuffer::new(subject.flags);
    for _ in 0..subject.pages {
        if number == NO_PAGE {
            return Ok(());
        }
        let page = PageId { space: subject.space, page: PageNo(number) };
        let bad = |source| RowsError::Page { page, source };
        if number >= subject.pages {
            return Err(bad(invalid(format!("its tablespace has {} pages", subject.pages))));
        }
        source.read(page.page, &mut bytes).map_err(RowsError::Read)?;
        buffer.load(page, &bytes).map_err(|error| bad(invalid(error.to_string())))?;
        number = rows_of_page(&mut buffer, page.page, (id, index), each).map_err(bad)?;
    }
    let page = PageId { space: subject.space, page: PageNo(number) };
    Err(RowsError::Page { page, source: invalid(format!("the pages of index {} go in a circle", index.title())) })
}

/// Hands out a leaf's rows. Gives the page that comes next: a leaf's neighbour, or the first child.
fn rows_of_page(
    buffer: &mut PageBuffer,
    page: PageNo,
    (id, index): (u64, &IndexShape),
    each: &mut dyn FnMut(&Row<'_>) -> Result<(), FormatError>,
) -> Result<u32, FormatError> {
    let mut frame = buffer.frame().clone();
    let found = frame.u64(INDEX_ID)?;
    if found != id {
        return Err(invalid(format!("it is of index {found}, not of {id} ({})", index.title())));
    }
    let next = frame.u32(fil::NEXT)?;
    let rows = IndexPage::open_any(&mut frame)?;
    let leaf = rows.frame.u16(LEVEL)? == 0;
    let mut shape = RowShape::default();
    let mut at = rows.next_row(rows.infimum())?;
    for _ in 0..rows.heap_count()? {
        if at == rows.supremum() {
            break;
        }
        index.layout.measure(rows.frame.as_bytes(), at, &mut shape)?;
        if !leaf {
            return rows.frame.u32(at.saturating_add(shape.data).saturating_sub(CHILD));
        }
        if rows.frame.u8(rows.info_at(at)?)? & DELETED == 0 {
            each(&Row { page, bytes: rows.frame.as_bytes(), origin: at, shape: &shape, index })?;
        }
        at = rows.next_row(at)?;
    }
    if leaf { Ok(next) } else { Err(invalid("it is above others, and has no row".to_owned())) }
}

fn invalid(why: String) -> FormatError {
    FormatError::Invalid { what: "page of rows", why }
}
