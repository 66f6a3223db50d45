//! Redo applied to one page: what a server's recovery does to it, byte for byte (format 6, MySQL 8.0.30 to 9.7;
//! redo-records reference).
//!
//! ```text
//!   page as copied ─► PageBuffer::load ─► apply(record) … in log order ─► finish(LSN) ─► page as recovery writes it
//!                        frame: the page, uncompressed
//!                        zip:   the compressed page beside it, for ROW_FORMAT=COMPRESSED
//!
//!   writes          plain numbers and bytes                    create   index pages, cleared pages, bitmaps
//!   rows, lists     rows of index pages                        undo     undo logs
//!   zip             compressed pages
//! ```
//! Pages are independent of each other, so any order of pages gives the same result. Which records a page takes part
//! in is the caller's to decide: those whose LSN is not below the page's own at the time it was loaded. What records
//! mean beyond their page (files, sizes, keys, tables' metadata) is `prepare`'s.

pub mod frame;
pub mod index_page;
pub mod layout;

mod create;
mod lists;
mod page;
mod rows;
mod undo;
mod writes;
mod zip;

#[cfg(test)]
mod tests;

pub use layout::Layouts;
pub use page::PageBuffer;

use self::index_page::IndexPage;
use super::FormatError;
use super::ids::PageId;
use super::lsn::Lsn;
use super::redo::body::Body;
use super::redo::body::index::IndexInfo;
use super::redo::{RecordKind, RedoRecord};

/// Why a page cannot be brought up to date.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A record and its page do not fit each other.
    #[error("redo at LSN {lsn} ({kind}) cannot be applied to {page}: {source}")]
    Record {
        /// The record's.
        lsn: Lsn,
        /// What it does.
        kind: RecordKind,
        /// The page.
        page: PageId,
        /// What is wrong.
        source: FormatError,
    },
    /// A page cannot be read or written as one of its tablespace.
    #[error("{page} cannot be recovered: {source}")]
    Page {
        /// The page.
        page: PageId,
        /// What is wrong.
        source: FormatError,
    },
}

/// Applies a record to its page.
pub fn apply(page: &mut PageBuffer, record: &RedoRecord<'_>, layouts: &mut Layouts) -> Result<(), ApplyError> {
    let outcome = record.body().and_then(|body| apply_body(page, &body, layouts));
    outcome.map_err(|source| ApplyError::Record { lsn: record.lsn, kind: record.kind, page: page.id(), source })
}

fn apply_body(page: &mut PageBuffer, body: &Body<'_>, layouts: &mut Layouts) -> Result<(), FormatError> {
    if let Some((frame, zip)) = page.zip_mut()
        && zip::apply(frame, zip, body, layouts)?
    {
        return Ok(());
    }
    match body {
        Body::WriteNumber(write) => writes::number(page, write),
        Body::WriteString(write) => writes::string(page, write),
        Body::InitFilePage | Body::InitFilePage2 => page.clear(),
        Body::PageCreate { tree, compact } => create::index_page(page.frame_mut(), *tree, *compact),
        Body::IbufBitmapInit => {
            let physical = page.physical_size();
            create::bitmap(page.frame_mut(), physical)
        }
        Body::UndoInsert { bytes } => undo::insert(page.frame_mut(), bytes.0),
        Body::UndoEraseEnd => undo::erase_end(page.frame_mut()),
        Body::UndoInit { undo } => undo::init(page.frame_mut(), *undo),
        Body::UndoHeaderReuse { transaction } => undo::reuse_header(page.frame_mut(), *transaction),
        Body::UndoHeaderCreate { transaction } => undo::create_header(page.frame_mut(), *transaction),
        Body::MinRecMark { row, compact } => {
            let mut index = IndexPage::open(page.frame_mut(), *compact)?;
            rows::mark(&mut index, usize::from(*row), layout::INFO_MIN, true)
        }
        // Announces pages that were built without redo; changes none.
        Body::IndexLoad { .. } => Ok(()),
        Body::MultiRecEnd
        | Body::Dummy
        | Body::DynamicMeta(_)
        | Body::FileCreate(_)
        | Body::FileRename(_)
        | Body::FileDelete(_)
        | Body::FileExtend(_) => Err(FormatError::Invalid { what: "record", why: "it changes no page".into() }),
        _ => apply_rows(page, body, layouts),
    }
}

fn apply_rows(page: &mut PageBuffer, body: &Body<'_>, layouts: &mut Layouts) -> Result<(), FormatError> {
    let frame = page.frame_mut();
    let mut layout = |info: &IndexInfo<'_>| layouts.get(info);
    match body {
        Body::SecDeleteMark { deleted, row } => {
            rows::mark(&mut IndexPage::open_any(frame)?, usize::from(*row), layout::INFO_DELETED, *deleted)
        }
        Body::Insert(insert) => {
            let layout = layout(&insert.index)?;
            let mut index = IndexPage::open(frame, layout.is_compact())?;
            rows::insert_image(&mut index, &layout, usize::from(insert.cursor), &insert.row).map(|_| ())
        }
        Body::ClustDeleteMark(change) => {
            let layout = layout(&change.index)?;
            rows::mark_clustered(&mut IndexPage::open(frame, layout.is_compact())?, &layout, change)
        }
        Body::Delete(at) => {
            let layout = layout(&at.index)?;
            rows::delete(&mut IndexPage::open(frame, layout.is_compact())?, &layout, usize::from(at.row))
        }
        Body::UpdateInPlace(change) => {
            let layout = layout(&change.index)?;
            rows::update(&mut IndexPage::open(frame, layout.is_compact())?, &layout, change)
        }
        Body::ListEndCopyCreated(copy) => {
            let layout = layout(&copy.index)?;
            lists::copy_created(&mut IndexPage::open(frame, layout.is_compact())?, &layout, &copy.rows)
        }
        Body::ListEndDelete(at) => {
            let layout = layout(&at.index)?;
            lists::delete_end(&mut IndexPage::open(frame, layout.is_compact())?, &layout, usize::from(at.row))
        }
        Body::ListStartDelete(at) => {
            let layout = layout(&at.index)?;
            lists::delete_start(&mut IndexPage::open(frame, layout.is_compact())?, &layout, usize::from(at.row))
        }
        Body::Reorganize { index } => {
            let layout = layout(index)?;
            lists::reorganize(frame, &layout)
        }
        _ => Err(FormatError::Invalid { what: "record", why: "it is for a compressed page, and this is none".into() }),
    }
}
