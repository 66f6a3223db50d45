//! Rows come and go on compressed pages at random, and what the compressed bytes mean stays what the frame holds; and no
//! bytes make it panic or go on for ever.

use proptest::prelude::*;

use super::super::create;
use super::super::index_page::{GARBAGE, IndexPage};
use super::super::layout::{RowLayout, RowShape};
use super::*;
use crate::innodb::redo::body::Tree;
use crate::innodb::redo::body::bytes::Bytes;
use crate::innodb::redo::body::index::{FieldWidth, IndexInfo};
use crate::innodb::redo::body::reader::Reader;
use crate::innodb::redo::body::rows::{RowExtra, RowImage};

/// id INT, transaction, roll pointer, VARCHAR NULL, TEXT NULL.
const CLUSTERED: &[u8] = &[1, 1, 0, 5, 0, 1, 0x80, 4, 0x80, 6, 0x80, 7, 0, 0, 0x7F, 0xFF];
/// VARCHAR NULL, INT.
const SECONDARY: &[u8] = &[1, 1, 0, 2, 0, 2, 0, 0, 0x80, 4];

fn layout(bytes: &[u8]) -> RowLayout {
    RowLayout::new(&IndexInfo::decode(&mut Reader::new(bytes)).unwrap()).unwrap()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Clustered,
    Secondary,
    Node,
}

impl Shape {
    fn layout(self) -> RowLayout {
        layout(if self == Self::Secondary { SECONDARY } else { CLUSTERED })
    }

    /// A row of `len` bytes more than it must have, as a record holds it; `outside` where it can have an off-page column.
    fn row(self, id: u32, len: u8, outside: bool) -> (Vec<u8>, RowExtra) {
        let (mut bytes, status) = match self {
            Self::Clustered if outside => (vec![20 + len, 0xC0, len, 0], 0),
            Self::Clustered => (vec![len, 0b10], 0),
            Self::Secondary => (vec![len, 0], 0),
            Self::Node => (vec![0], 1),
        };
        bytes.extend_from_slice(&[0, 0, status, 0, 0]);
        let header_size = u16::try_from(bytes.len()).unwrap();
        if self != Self::Secondary {
            bytes.extend_from_slice(&id.to_be_bytes());
        }
        match self {
            Self::Clustered => {
                bytes.extend_from_slice(&[0xA0; 13]);
                bytes.extend(std::iter::repeat_n(b'v', usize::from(len)));
                if outside {
                    bytes.extend(std::iter::repeat_n(b't', usize::from(len)));
                    bytes.extend((0..20).map(|at| at | 0x80));
                }
            }
            Self::Secondary => {
                bytes.extend(std::iter::repeat_n(b's', usize::from(len)));
                bytes.extend_from_slice(&id.to_be_bytes());
            }
            Self::Node => bytes.extend_from_slice(&(id ^ 0x5555).to_be_bytes()),
        }
        (bytes, RowExtra { info_and_status: status, header_size, shared: 0 })
    }
}

/// An empty page.
fn page(shape: Shape, zip_size: u32) -> (Frame, ZipPage) {
    let mut frame = Frame::zeroed(PageSize::DEFAULT);
    create::index_page(&mut frame, Tree::Btree, true).unwrap();
    frame.set_u16(LEVEL, u16::from(shape == Shape::Node)).unwrap();
    let mut zip = ZipPage::new(PageSize::new(zip_size).unwrap());
    compress::compress(&mut zip, &mut frame, &shape.layout(), 6).unwrap();
    (frame, zip)
}

fn origins(frame: &mut Frame) -> Vec<usize> {
    let page = IndexPage::open(frame, true).unwrap();
    let (mut at, mut found) = (page.infimum(), Vec::new());
    loop {
        at = page.next_row(at).unwrap();
        if at == page.supremum() {
            return found;
        }
        found.push(at);
    }
}

/// Everything that a page says, but for what lies between its rows.
fn meaning(frame: &Frame, layout: &RowLayout) -> (Vec<Vec<u8>>, Vec<u8>, Vec<u8>) {
    let mut frame = frame.clone();
    let rows = origins(&mut frame).into_iter().map(|origin| {
        let mut shape = RowShape::default();
        layout.measure(frame.as_bytes(), origin, &mut shape).unwrap();
        frame.slice(origin - shape.extra, shape.size()).unwrap().to_vec()
    });
    let rows: Vec<_> = rows.collect();
    let slots = frame.place(38).unwrap() * 2;
    let slots = frame.slice(frame.size() - 8 - slots, slots).unwrap().to_vec();
    (rows, frame.slice(24, 96).unwrap().to_vec(), slots)
}

/// What the compressed bytes mean must be what the frame holds, and what is known of them must be what they say.
fn check(frame: &Frame, zip: &ZipPage, layout: &RowLayout) {
    let mut loaded = ZipPage::new(PageSize::new(u32::try_from(zip.data.size()).unwrap()).unwrap());
    let mut twin = Frame::zeroed(PageSize::DEFAULT);
    loaded.load(zip.as_bytes(), &mut twin).unwrap();
    assert_eq!((loaded.end, loaded.pointers), (zip.end, zip.pointers));
    assert_eq!(meaning(&twin, layout), meaning(frame, layout));
}

fn shapes() -> impl Strategy<Value = Shape> {
    prop_oneof![Just(Shape::Clustered), Just(Shape::Secondary), Just(Shape::Node)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn rows_come_and_go(
        shape in shapes(),
        zip_size in prop_oneof![Just(1024_u32), Just(4096), Just(8192), Just(16384)],
        steps in proptest::collection::vec((any::<u16>(), 0_u8..60, 0_u8..12, any::<bool>()), 1..250),
    ) {
        let layout = shape.layout();
        let (mut frame, mut zip) = page(shape, zip_size);
        let mut count = 0_usize;
        for (id, (at, len, choice, outside)) in (0_u32..).zip(steps) {
            let rows = origins(&mut frame);
            prop_assert_eq!(rows.len(), count);
            let some = usize::from(at) % (count + 1);
            match choice {
                0..=6 => {
                    let cursor = if some == 0 { 99 } else { rows[some - 1] };
                    let (bytes, extra) = shape.row(id, len, outside);
                    let image = RowImage { extra: Some(extra), tail: Bytes(&bytes) };
                    // Where it does not fit, the frame alone gets it: what follows then is what a log has there.
                    if rows::insert(&mut frame, &mut zip, &layout, cursor, &image).is_err() {
                        return Ok(());
                    }
                    count += 1;
                    prop_assert_eq!(zip.behind, frame.slice(38, 18).unwrap() != zip.data.slice(38, 18).unwrap());
                    if zip.behind {
                        prop_assert!(zip.clone().stamp(&frame, Lsn::new(7)).is_err(), "the row would be lost");
                        lists::reorganize(&mut frame, &layout).unwrap();
                        prop_assert_eq!(frame.u16(GARBAGE), Ok(0));
                        if compress::compress(&mut zip, &mut frame, &layout, 6).is_err() {
                            return Ok(());
                        }
                    }
                }
                7 | 8 if some > 0 => {
                    rows::delete(&mut frame, &mut zip, &layout, rows[some - 1]).unwrap();
                    count -= 1;
                }
                9 if some > 0 => rows::mark(&mut frame, &mut zip, rows[some - 1], outside).unwrap(),
                10 if some > 0 && len < 5 => {
                    rows::delete_end(&mut frame, &mut zip, &layout, rows[some - 1]).unwrap();
                    count = some - 1;
                }
                11 if some > 0 && len < 5 => {
                    rows::delete_start(&mut frame, &mut zip, &layout, rows[some - 1]).unwrap();
                    count -= some - 1;
                }
                _ => continue,
            }
            check(&frame, &zip, &layout);
        }
        // Compressed again it means the same.
        if compress::compress(&mut zip, &mut frame, &layout, 9).is_ok() {
            check(&frame, &zip, &layout);
        }
    }

    #[test]
    fn damaged_pages_never_panic(
        shape in shapes(),
        count in 0_u32..80,
        changes in proptest::collection::vec((0_usize..4096, any::<u8>()), 1..6),
        near in any::<bool>(),
        kind in 0..crate::innodb::redo::RecordKind::ALL.len(),
        body in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let layout = shape.layout();
        let (mut frame, mut zip) = page(shape, 4096);
        for id in 0..count {
            let (bytes, extra) = shape.row(id, 9, id % 3 == 0);
            let image = RowImage { extra: Some(extra), tail: Bytes(&bytes) };
            let _ = rows::insert(&mut frame, &mut zip, &layout, 99, &image);
        }
        for (at, byte) in &changes {
            // The header and the directory are a small part of a page, and the one that all hangs on.
            let at = if near { 4095 - at % 300 } else { *at };
            zip.data.set_u8(if near && at % 2 == 0 { 38 + at % 60 } else { at }, *byte).unwrap();
        }
        let mut loaded = zip.clone();
        let mut twin = Frame::zeroed(PageSize::DEFAULT);
        let _ = loaded.load(zip.as_bytes(), &mut twin);
        let kind = crate::innodb::redo::RecordKind::ALL[kind];
        let bytes = [if shape == Shape::Secondary { SECONDARY } else { CLUSTERED }, &body].concat();
        for bytes in [&bytes, &body] {
            if let Ok(body) = Body::decode(kind, &mut Reader::new(bytes)) {
                // On a page that is read from what is damaged, and on one whose two parts differ.
                let _ = apply(&mut twin, &mut loaded, &body, &mut Layouts::default());
                let _ = apply(&mut frame, &mut zip, &body, &mut Layouts::default());
            }
        }
        let _ = zip.stamp(&frame, Lsn::new(7));
    }
}

#[test]
fn rows_are_described_as_servers_do() {
    let clustered = layout(CLUSTERED);
    // id, then transaction and roll pointer together; both texts; the transaction's place.
    assert_eq!(fields::encode(&clustered, true), [4 << 1 | 1, 13 << 1 | 1, 0, 126, 1]);
    // Node pointers have the id, and bits for both texts.
    assert_eq!(fields::encode(&clustered, false), [4 << 1 | 1, 2]);
    assert_eq!(fields::encode(&layout(SECONDARY), true), [0, 4 << 1 | 1, 0]);
    // Fixed columns of 500 bytes twice: 1000 do not go together; then one that may be NULL.
    let wide = [1, 1, 0, 4, 0, 4, 0x81, 0xF4, 0x81, 0xF4, 0x80, 9, 0, 70];
    let encoded = fields::encode(&layout(&wide), true);
    let (five_hundred, with_nine) = (500 << 1 | 1, 509 << 1 | 1);
    let two = |value: u16| [0x80 | value.to_be_bytes()[0], value.to_be_bytes()[1]];
    assert_eq!(encoded, [&two(five_hundred)[..], &two(with_nine), &two(70 << 1), &[0]].concat());
    let described = fields::decode(&encoded, true).unwrap();
    let widths: Vec<_> = described.layout.fields().iter().map(|field| (field.nullable, field.width)).collect();
    assert_eq!(
        widths,
        [(false, 500), (false, 509), (true, 70)].map(|(nullable, len)| (nullable, FieldWidth::Fixed(len)))
    );
    for bad in [&[][..], &[0x80], &[9, 5], &[9, 0x80, 0, 0]] {
        assert!(fields::decode(bad, true).is_err(), "{bad:?}");
    }
}

#[test]
fn streams_of_another_zlib_are_told_apart() {
    let layout = Shape::Secondary.layout();
    let (mut frame, mut zip) = page(Shape::Secondary, 8192);
    let mut index = IndexPage::open(&mut frame, true).unwrap();
    for id in 0..200 {
        let (bytes, extra) = Shape::Secondary.row(id * id, 30, false);
        let image = RowImage { extra: Some(extra), tail: Bytes(&bytes) };
        super::super::rows::insert_image(&mut index, &layout, 99, &image).unwrap();
    }
    for level in 0..=9 {
        compress::compress(&mut zip, &mut frame, &layout, level).unwrap();
        let known = zip.is_ours(&frame, 6).unwrap();
        assert_eq!(known, (level > 0).then_some(true), "level {level}");
    }
    // The same rows, compressed with less memory: as good a stream, but another one.
    let mut other = Vec::new();
    let description = fields::encode(&layout, true);
    let mut writer = flate2::write::ZlibEncoder::new(&mut other, flate2::Compression::fast());
    std::io::Write::write_all(&mut writer, &description).unwrap();
    std::io::Write::flush(&mut writer).unwrap();
    let mut next = HEAP;
    let mut rows: Vec<_> = origins(&mut frame);
    rows.sort_unstable();
    for origin in rows {
        std::io::Write::write_all(&mut writer, &frame.as_bytes()[next..origin - HEADER]).unwrap();
        next = origin;
    }
    let top = frame.place(40).unwrap();
    std::io::Write::write_all(&mut writer, &frame.as_bytes()[next..top]).unwrap();
    writer.finish().unwrap();
    let size = zip.data.size();
    zip.data.fill(94, size - 600, 0).unwrap();
    zip.data.write(94, &other).unwrap();
    // A window of 32 KiB in the header is more than a page's.
    zip.data.write(94, &[0x68, 0x81]).unwrap();
    let mut loaded = ZipPage::new(PageSize::new(8192).unwrap());
    let mut twin = Frame::zeroed(PageSize::DEFAULT);
    loaded.load(zip.as_bytes(), &mut twin).unwrap();
    assert_eq!(meaning(&twin, &layout), meaning(&frame, &layout));
    assert_eq!(loaded.is_ours(&twin, 1), Ok(Some(false)));
    let index = IndexInfo::decode(&mut Reader::new(SECONDARY)).unwrap();
    let anew = Body::ZipCompressNoData { index, level: 6 };
    let error = apply(&mut twin, &mut loaded, &anew, &mut Layouts::default()).unwrap_err();
    assert!(error.to_string().contains("another zlib"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused_with_the_other_way_out() {
    let (mut frame, _) = page(Shape::Secondary, 8192);
    let layout = Shape::Secondary.layout();
    let mut index = IndexPage::open(&mut frame, true).unwrap();
    // Texts that do not repeat do not get smaller.
    let mut noise = 1_u64;
    for id in 0..60 {
        let (mut bytes, extra) = Shape::Secondary.row(id, 120, false);
        for byte in bytes.iter_mut().skip(7) {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = u8::try_from(noise >> 56).unwrap();
        }
        let image = RowImage { extra: Some(extra), tail: Bytes(&bytes) };
        super::super::rows::insert_image(&mut index, &layout, 99, &image).unwrap();
    }
    let mut zip = ZipPage::new(PageSize::new(4096).unwrap());
    let error = compress::compress(&mut zip, &mut frame, &layout, 9).unwrap_err();
    assert!(error.to_string().contains("--recovery server"), "{error}");
}
