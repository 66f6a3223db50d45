//! Rows come and go at random on pages of both formats, and the page stays what a server would take for one; and no
//! bytes make `apply` panic.

use proptest::prelude::*;

use super::frame::Frame;
use super::index_page::*;
use super::layout::{RowLayout, RowShape};
use super::rows::{self, NewRow};
use super::*;
use crate::innodb::ids::{PageId, PageNo, PageSize, SpaceId};
use crate::innodb::page::{PageContext, PageScratch, UnverifiedPage, Verified};
use crate::innodb::redo::body::index::IndexInfo;
use crate::innodb::redo::body::reader::Reader;
use crate::innodb::redo::body::{Body, Tree};
use crate::innodb::space::TablespaceFlags;

/// A secondary index of one VARCHAR.
const VARIABLE: &[u8] = &[1, 1, 0, 1, 0, 1, 0x80, 0];
const REDUNDANT: &[u8] = &[1, 0];

fn layout(bytes: &[u8]) -> RowLayout {
    RowLayout::new(&IndexInfo::decode(&mut Reader::new(bytes)).unwrap()).unwrap()
}

fn empty(compact: bool) -> Frame {
    let mut frame = Frame::zeroed(PageSize::new(4096).unwrap());
    create::index_page(&mut frame, Tree::Btree, compact).unwrap();
    frame
}

fn row(compact: bool, text: &[u8]) -> NewRow {
    let len = u8::try_from(text.len()).unwrap();
    let mut bytes = if compact { vec![len, 0, 0, 0, 0, 0] } else { vec![len, 0, 0, 0, 3, 0, 0] };
    let origin = bytes.len();
    bytes.extend_from_slice(text);
    let mut shape = RowShape::default();
    layout(if compact { VARIABLE } else { REDUNDANT }).measure(&bytes, origin, &mut shape).unwrap();
    assert_eq!(shape.size(), bytes.len());
    NewRow { bytes, origin, shape }
}

/// Everything that must hold of a page; gives the texts of its rows.
fn check(page: &IndexPage<'_>, layout: &RowLayout) -> Vec<Vec<u8>> {
    let (mut slot, mut owned, mut at, mut texts) = (0, 0, page.infimum(), Vec::new());
    let mut shape = RowShape::default();
    loop {
        owned += 1;
        let own = page.owned(at).unwrap();
        if own != 0 {
            assert_eq!((page.slot(slot).unwrap(), own), (at, owned), "slot {slot}");
            let last = at == page.supremum();
            assert!(if slot == 0 { own == 1 } else { (if last { 1 } else { 4 }..=8).contains(&own) }, "{own}");
            (slot, owned) = (slot + 1, 0);
        }
        if at == page.supremum() {
            break;
        }
        if at != page.infimum() {
            layout.measure(page.frame.as_bytes(), at, &mut shape).unwrap();
            texts.push(page.frame.slice(at, shape.data).unwrap().to_vec());
        }
        at = page.next_row(at).unwrap();
    }
    assert_eq!(slot, page.slot_count().unwrap());
    assert_eq!(texts.len(), page.frame.place(ROW_COUNT).unwrap());
    let (mut free, mut freed) = (page.frame.place(FREE).unwrap(), 0);
    while free != 0 {
        freed += 1;
        free = page.next(free).unwrap().unwrap_or(0);
    }
    assert_eq!(texts.len() + freed + 2, page.heap_count().unwrap());
    texts
}

fn nth(page: &IndexPage<'_>, number: usize) -> usize {
    (0..number).fold(page.infimum(), |at, _| page.next_row(at).unwrap())
}

proptest! {
    #[test]
    fn rows_come_and_go(compact: bool, steps in proptest::collection::vec((any::<u16>(), 0_usize..30, 0_u8..10), 1..300)) {
        let layout = layout(if compact { VARIABLE } else { REDUNDANT });
        let mut frame = empty(compact);
        let mut model: Vec<Vec<u8>> = Vec::new();
        for (number, (at, len, choice)) in steps.into_iter().enumerate() {
            let mut page = IndexPage::open(&mut frame, compact).unwrap();
            match choice {
                0..=5 if model.len() < 90 => {
                    let at = usize::from(at) % (model.len() + 1);
                    let text = vec![u8::try_from(number % 251).unwrap(); len];
                    let cursor = nth(&page, at);
                    if rows::insert(&mut page, &layout, cursor, &row(compact, &text)).is_err() {
                        // Full of what was freed: a server would put it in order, too.
                        lists::reorganize(&mut frame, &layout).unwrap();
                        prop_assert_eq!(frame.u16(GARBAGE), Ok(0));
                        continue;
                    }
                    model.insert(at, text);
                }
                6..=8 if !model.is_empty() => {
                    let at = usize::from(at) % model.len();
                    let row = nth(&page, at + 1);
                    rows::delete(&mut page, &layout, row).unwrap();
                    model.remove(at);
                }
                9 if model.len() > 20 => {
                    let at = usize::from(at) % model.len();
                    let row = nth(&page, at + 1);
                    if at.is_multiple_of(2) {
                        lists::delete_end(&mut page, &layout, row).unwrap();
                        model.truncate(at);
                    } else {
                        lists::delete_start(&mut page, &layout, row).unwrap();
                        model.drain(..at);
                    }
                }
                _ => lists::reorganize(&mut frame, &layout).unwrap(),
            }
            let page = IndexPage::open(&mut frame, compact).unwrap();
            prop_assert_eq!(&check(&page, &layout), &model);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        kind in 0..RecordKind::ALL.len(),
        body in proptest::collection::vec(any::<u8>(), 0..64),
        changes in proptest::collection::vec((0_usize..4096, any::<u8>()), 0..40),
        description in 0_usize..4,
    ) {
        let kind = RecordKind::ALL[kind];
        let mut page = PageBuffer::new(TablespaceFlags::decode(0x40e1).unwrap());
        let id = PageId { space: SpaceId(7), page: PageNo(3) };
        page.load(id, &[0; 4096]).unwrap();
        create::index_page(page.frame_mut(), Tree::Btree, description != 3).unwrap();
        for number in 0..20 {
            let compact = description != 3;
            let layout = layout(if compact { VARIABLE } else { REDUNDANT });
            let mut index = IndexPage::open(page.frame_mut(), compact).unwrap();
            let cursor = nth(&index, number);
            rows::insert(&mut index, &layout, cursor, &row(compact, &[9; 11])).unwrap();
        }
        for (at, byte) in changes {
            page.frame_mut().set_u8(at, byte).unwrap();
        }
        let descriptions: [&[u8]; 4] = [VARIABLE, &[1, 1, 0, 2, 0, 1, 0, 0, 0x7F, 0xFF], &[], REDUNDANT];
        let body = [descriptions[description], &body].concat();
        if let Ok(body) = Body::decode(kind, &mut Reader::new(&body)) {
            let _ = apply_body(&mut page, &body, &mut Layouts::default());
        }
        let _ = page.finish(Lsn::new(9000));
    }
}

#[test]
fn a_finished_page_is_one_that_a_server_accepts() {
    let flags = TablespaceFlags::decode(0x40e1).unwrap();
    let mut page = PageBuffer::new(flags);
    let id = PageId { space: SpaceId(7), page: PageNo(3) };
    page.load(id, &[0; 4096]).unwrap();
    assert_eq!(page.lsn(), Lsn::ZERO);
    apply_body(&mut page, &Body::InitFilePage2, &mut Layouts::default()).unwrap();
    apply_body(&mut page, &Body::PageCreate { tree: Tree::Btree, compact: true }, &mut Layouts::default()).unwrap();
    let bytes = page.finish(Lsn::new(123_456)).unwrap();
    let context = PageContext { space: SpaceId(7), flags, key: None };
    let mut scratch = PageScratch::default();
    let Ok(Verified::Page(view)) = UnverifiedPage::new(bytes, PageNo(3)).verify(&context, &mut scratch) else {
        panic!("not a good page")
    };
    assert_eq!(view.lsn(), Lsn::new(123_456));
    assert!(page.load(id, &[0; 100]).is_err());
}

#[test]
fn undo_pages_grow_log_by_log() {
    let mut frame = Frame::zeroed(PageSize::DEFAULT);
    undo::init(&mut frame, crate::innodb::redo::body::writes::UndoType::Update).unwrap();
    frame.set_u16(42, 86).unwrap();
    undo::create_header(&mut frame, 77).unwrap();
    assert_eq!((frame.u16(58), frame.u64(86), frame.u16(42)), (Ok(86), Ok(77), Ok(132)));
    undo::insert(&mut frame, &[1, 2, 3]).unwrap();
    assert_eq!((frame.u16(132), frame.u16(137), frame.u16(42)), (Ok(139), Ok(132), Ok(139)));
    undo::create_header(&mut frame, 78).unwrap();
    assert_eq!((frame.u16(86 + 30), frame.u16(139 + 32), frame.u16(58)), (Ok(139), Ok(86), Ok(139)));
    undo::erase_end(&mut frame).unwrap();
    assert_eq!((frame.u8(16375), frame.u8(16376)), (Ok(0xFF), Ok(0)));
    assert!(undo::insert(&mut frame, &vec![0; 16200]).is_err(), "it does not fit");
}
