//! What no supported server here writes into its redo, by hand: groups laid into log blocks, decoded as any others, and
//! the page compared with what the reference says.

use stillframe::innodb::apply::{Layouts, PageBuffer, apply};
use stillframe::innodb::ids::{PageId, PageNo, SpaceId};
use stillframe::innodb::lsn::Lsn;
use stillframe::innodb::redo::block::empty_block;
use stillframe::innodb::redo::record::SINGLE_RECORD as SINGLE;
use stillframe::innodb::redo::{Poll, RecordKind, RedoDecoder};
use stillframe::innodb::space::TablespaceFlags;

const START: Lsn = Lsn::new((1 << 20) + 12);
const SPACE: u8 = 5;
const PAGE: u8 = 3;
const ID: PageId = PageId { space: SpaceId(5), page: PageNo(3) };

/// One block that holds a group.
fn block_of(group: &[u8]) -> Vec<u8> {
    let end = Lsn::new(START.get() + u64::try_from(group.len()).unwrap());
    let mut block = empty_block(end).unwrap().to_vec();
    block[12..12 + group.len()].copy_from_slice(group);
    block[6..8].copy_from_slice(&12_u16.to_be_bytes());
    let sum = crc32c::crc32c(&block[..508]);
    block[508..].copy_from_slice(&sum.to_be_bytes());
    block
}

/// Applies a group's records to a page, and gives it finished.
fn applied(page: &[u8], group: &[u8]) -> Result<Vec<u8>, String> {
    let mut buffer = PageBuffer::new(TablespaceFlags::decode(0x4021).unwrap());
    buffer.load(ID, page).unwrap();
    let mut decoder = RedoDecoder::new(START, None);
    decoder.feed(&block_of(group)).unwrap();
    let Poll::Group(group) = decoder.poll().unwrap() else { panic!("no group") };
    let mut layouts = Layouts::default();
    for record in group.records() {
        assert_eq!(record.page, Some(ID));
        apply(&mut buffer, &record, &mut layouts).map_err(|error| error.to_string())?;
    }
    Ok(buffer.finish(group.end).unwrap().to_vec())
}

fn page_of(byte: u8) -> Vec<u8> {
    let mut page = vec![byte; 16384];
    page[4..8].copy_from_slice(&[0, 0, 0, PAGE]);
    page[34..38].copy_from_slice(&[0, 0, 0, SPACE]);
    page[24..26].copy_from_slice(&17855_u16.to_be_bytes());
    page
}

/// What a page is without checksum and LSN.
fn inside(page: &[u8]) -> Vec<u8> {
    let mut page = page.to_vec();
    for range in [0..4, 16..24, 16376..16384] {
        page[range].fill(0);
    }
    page
}

#[test]
fn the_older_way_to_clear_a_page() {
    let cleared = applied(&page_of(0xAB), &[SINGLE | RecordKind::InitFilePage.id(), SPACE, PAGE]).unwrap();
    let mut expected = vec![0; 16384];
    expected[7] = PAGE;
    expected[37] = SPACE;
    assert_eq!(inside(&cleared), expected);
    assert_eq!(cleared[16..24], (START.get() + 3).to_be_bytes());
}

#[test]
fn dictionary_information_in_the_oldest_format() {
    let made = applied(&page_of(0xAB), &[SINGLE | RecordKind::SdiCreate.id(), SPACE, PAGE]).unwrap();
    assert_eq!(made[24..26], 17853_u16.to_be_bytes());
    assert_eq!(made[38..56], [0, 2, 0, 125, 0, 2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0]);
    assert_eq!(made[56..64], [0; 8], "newest transaction");
    assert_eq!(made[64..94], [0xAB; 30], "level, index and segments stay");
    assert_eq!(made[94..125], *b"\x08\x01\x00\x00\x03\x00\x74infimum\x00\x09\x01\x00\x08\x03\x00\x00supremum\x00");
    assert!(made[125..16372].iter().all(|&byte| byte == 0));
    assert_eq!(made[16372..16376], [0, 116, 0, 101], "two slots");
}

#[test]
fn an_index_built_without_redo() {
    // By itself it is not even looked at; in a group with others it changes nothing but the page's age.
    let page = page_of(0xAB);
    let mut group = vec![RecordKind::IndexLoad.id(), SPACE, PAGE, 0, 0, 0, 0, 0, 0, 0, 77];
    group.extend_from_slice(&[2, SPACE, PAGE, 3, 232, 9, RecordKind::MultiRecEnd.id()]);
    let length = u64::try_from(group.len()).unwrap();
    let announced = applied(&page, &group).unwrap();
    let mut expected = page;
    expected[1000..1002].copy_from_slice(&[0, 9]);
    assert_eq!(inside(&announced), inside(&expected));
    assert_eq!(announced[16..24], (START.get() + length).to_be_bytes());
}

/// A clustered index of a table with columns added at once before 8.0.29, upgraded since: an id, the two system fields,
/// and three more of which the last two came later.
const INSTANT: [u8; 20] = [1, 1 | 4, 0, 6, 0, 4, 0, 1, 0x80, 4, 0x80, 6, 0x80, 7, 0, 4, 0, 4, 0, 4];

/// A row of that table: length part, header, values; `count` is its number of fields where it says so.
fn instant_row(id: u32, count: Option<u8>, fields: &[u32]) -> Vec<u8> {
    // None of the nullable ones is NULL. The number of fields is between that and the header.
    let mut row = vec![0];
    row.extend(count);
    row.extend_from_slice(&[0, 0, 0, 0, 0]);
    row.extend_from_slice(&(id | 0x8000_0000).to_be_bytes());
    row.extend_from_slice(&[0, 0, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7]);
    for field in fields {
        row.extend_from_slice(&(field | 0x8000_0000).to_be_bytes());
    }
    row
}

/// A record that inserts a whole row behind the one at `cursor`.
fn insert(cursor: u16, info: u8, header: usize, row: &[u8]) -> Vec<u8> {
    let mut record = vec![67, SPACE, PAGE];
    record.extend_from_slice(&INSTANT);
    record.extend_from_slice(&cursor.to_be_bytes());
    let length = u8::try_from(row.len() * 2 + 1).unwrap();
    assert!(length < 0x80);
    record.extend_from_slice(&[length, info, u8::try_from(header).unwrap(), 0]);
    record.extend_from_slice(row);
    record
}

#[test]
fn rows_that_say_how_many_columns_they_have() {
    // Before the columns came: four fields, as the description has it for rows without the bit.
    let old = instant_row(1, None, &[7]);
    // After: they say six.
    let new = instant_row(2, Some(6), &[7, 8, 9]);
    let mut group = vec![37, SPACE, PAGE];
    group.extend_from_slice(&[2, SPACE, PAGE, 0, 64, 0]);
    group.extend(insert(99, 0, 6, &old));
    let first = 120 + 6;
    group.extend(insert(first, 0x80, 7, &new));
    group.push(31);
    let page = applied(&page_of(0), &group).unwrap();
    let end = 120 + old.len() + new.len();
    assert_eq!(page[54..56], [0, 2], "rows");
    assert_eq!(usize::from(u16::from_be_bytes([page[40], page[41]])), end, "heap top");
    let second = 120 + old.len() + 7;
    assert_eq!(page[usize::from(first)..][..4], [0x80, 0, 0, 1]);
    assert_eq!(page[second..][..4], [0x80, 0, 0, 2]);
    assert_eq!(page[second - 5] & 0xF0, 0x80, "the bit that says so");
    assert_eq!(page[second - 6], 6, "and how many");
    assert_eq!(page[second + 25..][..4], [0x80, 0, 0, 9], "the last field");

    // The fifth field of the row that has it, in its place.
    let mut update = vec![SINGLE | RecordKind::UpdateInPlace.id(), SPACE, PAGE];
    update.extend_from_slice(&INSTANT);
    update.extend_from_slice(&[0, 1, 9, 9, 9, 9, 9, 9, 9, 0, 0, 0, 0, 8]);
    update.extend_from_slice(&u16::try_from(second).unwrap().to_be_bytes());
    update.extend_from_slice(&[0x80, 1, 4, 4, 0xFE, 0xFD, 0xFC, 0xFB]);
    let changed = applied(&page, &update).unwrap();
    assert_eq!(changed[second + 21..][..4], [0xFE, 0xFD, 0xFC, 0xFB]);
    assert_eq!(changed[second + 4..][..13], [0, 0, 0, 0, 0, 8, 9, 9, 9, 9, 9, 9, 9], "system fields");

    // The row that does not have it has nothing to change there.
    let at = update.len() - 10;
    update[at..at + 2].copy_from_slice(&first.to_be_bytes());
    assert!(applied(&page, &update).is_err());
}

/// A record that says of its index only where a row is.
fn at(kind: RecordKind, row: u16) -> Vec<u8> {
    [&[SINGLE | kind.id(), SPACE, PAGE][..], &INSTANT, &row.to_be_bytes()].concat()
}

/// The rows of a page in their order: origin, id and info bits.
fn rows_of(page: &[u8]) -> Vec<(u16, u32, u8)> {
    let (mut origin, mut rows) = (99_u16, Vec::new());
    loop {
        let here = usize::from(origin);
        origin = origin.wrapping_add(u16::from_be_bytes([page[here - 2], page[here - 1]]));
        if origin == 112 {
            return rows;
        }
        let row = usize::from(origin);
        let id = u32::from_be_bytes(page[row..row + 4].try_into().unwrap());
        rows.push((origin, id & 0x7FFF_FFFF, page[row - 5] & 0xF0));
    }
}

/// What a page says of its freed rows: the newest, the bytes of all; and how many rows it has.
fn freed(page: &[u8]) -> [u16; 3] {
    [44, 46, 54].map(|at| u16::from_be_bytes([page[at], page[at + 1]]))
}

#[test]
fn every_kind_of_record_for_rows_that_say_how_many_columns_they_have() {
    const OLD: u16 = 27;
    const NEW: u16 = 36;
    let old = |id| instant_row(id, None, &[7]);
    let new = |id| instant_row(id, Some(6), &[7, 8, 9]);
    let create = [37, SPACE, PAGE, 2, SPACE, PAGE, 0, 64, 0];
    // As the row before but for what begins with its id.
    let tail = new(4)[7..].to_vec();
    let alike = u8::try_from(tail.len() * 2).unwrap();
    let like_the_second = [&[67, SPACE, PAGE][..], &INSTANT, &[0, 154, alike], &tail].concat();
    let rows = [insert(99, 0, 6, &old(1)), insert(126, 0x80, 7, &new(2)), like_the_second, insert(154, 0, 6, &old(3))];
    let page = applied(&page_of(0), &[&create[..], &rows.concat(), &[31]].concat()).unwrap();
    assert_eq!(rows_of(&page), [(126, 1, 0), (154, 2, 0x80), (225, 3, 0), (190, 4, 0x80)]);
    assert_eq!(freed(&page), [0, 0, 4]);

    let mut marked = page.clone();
    for row in [154_u16, 225] {
        let system = [0, 1, 1, 9, 9, 9, 9, 9, 9, 9, 0, 0, 0, 0, 8];
        let kind = SINGLE | RecordKind::ClustDeleteMark.id();
        let mark = [&[kind, SPACE, PAGE][..], &INSTANT, &system, &row.to_be_bytes()].concat();
        marked = applied(&marked, &mark).unwrap();
        assert_eq!(marked[usize::from(row) + 4..][..13], [0, 0, 0, 0, 0, 8, 9, 9, 9, 9, 9, 9, 9], "system fields");
    }
    assert_eq!(rows_of(&marked), [(126, 1, 0), (154, 2, 0xA0), (225, 3, 0x20), (190, 4, 0x80)]);

    let deleted = applied(&page, &at(RecordKind::Delete, 154)).unwrap();
    assert_eq!(rows_of(&deleted), [(126, 1, 0), (225, 3, 0), (190, 4, 0x80)]);
    assert_eq!(freed(&deleted), [154, NEW, 3]);

    let reorganize = [&[SINGLE | RecordKind::Reorganize.id(), SPACE, PAGE][..], &INSTANT].concat();
    let ordered = applied(&deleted, &reorganize).unwrap();
    assert_eq!(rows_of(&ordered), [(126, 1, 0), (153, 3, 0), (181, 4, 0x80)]);
    assert_eq!((freed(&ordered), ordered[181 - 6]), ([0, 0, 3], 6));
    assert_eq!(ordered[181..][..29], tail, "and what it holds");

    let shortened = applied(&page, &at(RecordKind::ListEndDelete, 225)).unwrap();
    assert_eq!(rows_of(&shortened), [(126, 1, 0), (154, 2, 0x80)]);
    assert_eq!(freed(&shortened), [225, OLD + NEW, 2]);
    let beheaded = applied(&page, &at(RecordKind::ListStartDelete, 225)).unwrap();
    assert_eq!(rows_of(&beheaded), [(225, 3, 0), (190, 4, 0x80)]);
    assert_eq!(freed(&beheaded), [154, OLD + NEW, 2]);

    let image =
        |info: u8, header: u8, row: &[u8]| [&[u8::try_from(row.len() * 2 + 1).unwrap(), info, header, 0], row].concat();
    let images = [image(0, 6, &old(1)), image(0x80, 7, &new(2)), [&[alike][..], &tail].concat()].concat();
    let length = u32::try_from(images.len()).unwrap().to_be_bytes();
    let copy = [&[RecordKind::ListEndCopyCreated.id(), SPACE, PAGE][..], &INSTANT, &length, &images].concat();
    let copied = applied(&page_of(0), &[&create[..], &copy, &[31]].concat()).unwrap();
    assert_eq!(rows_of(&copied), [(126, 1, 0), (154, 2, 0x80), (190, 4, 0x80)]);
    assert_eq!(freed(&copied), [0, 0, 3]);
}
