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
use super::apply::index_page::{INDEX_ID, IndexPage, LEVEL};
use super::apply::layout::{CHILD, INFO_DELETED, RowShape};
use super::check::{IndexShape, Source, Subject};
use super::ids::{PageId, PageNo};
use super::page::fil;

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
        if rows.frame.u8(rows.info_at(at)?)? & INFO_DELETED == 0 {
            each(&Row { page, bytes: rows.frame.as_bytes(), origin: at, shape: &shape, index })?;
        }
        at = rows.next_row(at)?;
    }
    if leaf { Ok(next) } else { Err(invalid("it is above others, and has no row".to_owned())) }
}

fn invalid(why: String) -> FormatError {
    FormatError::Invalid { what: "page of rows", why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::innodb::apply::layout::RowLayout;
    use crate::innodb::ids::SpaceId;
    use crate::innodb::lsn::Lsn;
    use crate::innodb::redo::body::index::IndexInfo;
    use crate::innodb::redo::body::reader::Reader;
    use crate::innodb::space::TablespaceFlags;

    struct Zeros;

    impl Source for Zeros {
        type Error = ();

        fn read(&mut self, number: PageNo, page: &mut [u8]) -> Result<(), ()> {
            page.fill(0);
            (number.0 != 9).then_some(()).ok_or(())
        }
    }

    fn walk(root: Option<u32>) -> Result<(), RowsError<()>> {
        let info = [1, 1, 0, 3, 0, 1, 0x80, 4, 0x80, 6, 0x80, 7];
        let layout = RowLayout::new(&IndexInfo::decode(&mut Reader::new(&info)).unwrap()).unwrap();
        let index = IndexShape {
            table: "t".into(),
            name: "PRIMARY".into(),
            root: root.map(PageNo),
            columns: vec!["id".into(), "DB_TRX_ID".into(), "DB_ROLL_PTR".into()],
            layout,
            node_layout: None,
            order: Vec::new(),
            spatial: false,
        };
        let flags = TablespaceFlags::decode(0x4021).unwrap();
        let subject = Subject { space: SpaceId(5), flags, pages: 10, end: Lsn::new(1 << 20) };
        each_row(&subject, &mut Zeros, (7, &index), &mut |row| panic!("{row:?}"))
    }

    #[test]
    fn what_is_no_page_of_the_index_is_named() {
        let said = |root| match walk(Some(root)) {
            Err(RowsError::Page { page, source }) => format!("{page}: {source}"),
            other => panic!("{other:?}"),
        };
        assert!(
            said(4).contains("page 4") && said(4).contains("it is of index 0, not of 7 (PRIMARY of t)"),
            "{}",
            said(4)
        );
        assert!(said(10).contains("its tablespace has 10 pages"), "{}", said(10));
        assert!(matches!(walk(Some(9)), Err(RowsError::Read(()))));
        walk(None).unwrap();
    }
}
