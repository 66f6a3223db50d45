//! The decoder as a whole, on logs built here. Real logs are decoded by `tests/redo.rs`.

use proptest::prelude::*;

use super::block::{BLOCK_LEN, empty_block};
use super::decoder::{EndOfLog, Poll, RedoDecoder, RedoError};
use super::file::{put, stamp_crc};
use super::record::RecordKind;
use super::spaces::SpacesNamed;
use super::stream::{EndReason, advance};
use crate::innodb::ids::SpaceId;
use crate::innodb::lsn::Lsn;

const START: Lsn = Lsn::new(1 << 20);

/// Lays groups into blocks as a server does; the first begins at `START` + 12.
fn log_of(groups: &[Vec<u8>]) -> Vec<u8> {
    let payload = groups.concat();
    let mut starts: Vec<usize> = Vec::new();
    let mut at = 0;
    for group in groups {
        starts.push(at);
        at += group.len();
    }
    starts.push(at);
    let mut blocks = Vec::new();
    for index in 0..=payload.len() / 496 {
        let (from, to) = (index * 496, payload.len().min(index * 496 + 496));
        let lsn = Lsn::new(START.get() + 512 * u64::try_from(index).unwrap() + 12);
        let mut raw = empty_block(lsn).unwrap();
        raw[12..12 + to - from].copy_from_slice(&payload[from..to]);
        let full = to - from == 496;
        let first = starts.iter().find(|&&at| at >= from && (at < to || (at == to && !full)));
        let first = first.map_or(0, |at| u16::try_from(at - from + 12).unwrap());
        let length = if full { 512 } else { u16::try_from(to - from + 12).unwrap() };
        put(&mut raw, 4, &length.to_be_bytes());
        put(&mut raw, 6, &first.to_be_bytes());
        stamp_crc(&mut raw);
        blocks.extend_from_slice(&raw);
    }
    blocks
}

fn single(space: u8, value: u8) -> Vec<u8> {
    vec![0x81, space, 3, 0, 40, value & 0x7F]
}

/// A group of several records with `filling` bytes in the middle.
fn multi(space: u8, filling: usize) -> Vec<u8> {
    let mut group = vec![2, space, 3, 0, 40, 7];
    group.extend_from_slice(&[30, space, 4, 0, 60]);
    group.extend_from_slice(&u16::try_from(filling).unwrap().to_be_bytes());
    group.resize(group.len() + filling, 0xEE);
    group.push(31);
    group
}

#[derive(Debug, PartialEq)]
struct Got {
    groups: Vec<(Lsn, Lsn, Vec<u8>)>,
    before: usize,
    end: EndOfLog,
}

/// Decodes `blocks`, fed `step` blocks at a time.
fn decode(checkpoint: Lsn, blocks: &[u8], step: usize) -> Result<Got, RedoError> {
    let mut decoder = RedoDecoder::new(checkpoint, None);
    let (mut groups, mut before) = (Vec::new(), 0);
    for fed in blocks.chunks(step * BLOCK_LEN) {
        decoder.feed(fed)?;
        loop {
            match decoder.poll()? {
                Poll::Group(group) => {
                    groups.push((group.start, group.end, group.bytes().to_vec()));
                    before += group.records().filter(|record| record.before_checkpoint).count();
                    assert_eq!(group.records().count(), group.record_count());
                }
                Poll::NeedMore => break,
                Poll::End(end) => return Ok(Got { groups, before, end }),
            }
        }
    }
    decoder.finish();
    match decoder.poll()? {
        Poll::End(end) => Ok(Got { groups, before, end }),
        other => panic!("{other:?}"),
    }
}

fn first_lsn() -> Lsn {
    Lsn::new(START.get() + 12)
}

#[test]
fn groups_come_out_as_they_went_in_however_they_are_fed() {
    let groups: Vec<Vec<u8>> =
        (0..60).map(|at| if at % 3 == 0 { single(at, 1) } else { multi(at, usize::from(at) * 23) }).collect();
    let blocks = log_of(&groups);
    let whole = decode(first_lsn(), &blocks, 1000).unwrap();
    assert_eq!(whole.groups.iter().map(|(.., bytes)| bytes.clone()).collect::<Vec<_>>(), groups);
    assert_eq!(whole.groups[0].0, first_lsn());
    for pair in whole.groups.windows(2) {
        assert_eq!(pair[0].1, pair[1].0);
    }
    let end = advance(first_lsn(), groups.concat().len()).unwrap();
    assert_eq!(whole.end, EndOfLog { at: end, reason: EndReason::PartialBlock, unfinished_bytes: 0 });
    for step in 1..5 {
        assert_eq!(decode(first_lsn(), &blocks, step).unwrap(), whole);
    }
}

#[test]
fn records_carry_their_own_lsn_and_page() {
    let blocks = log_of(&[multi(9, 600), single(8, 1)]);
    let mut decoder = RedoDecoder::new(first_lsn(), None);
    decoder.feed(&blocks).unwrap();
    let Poll::Group(group) = decoder.poll().unwrap() else { panic!("no group") };
    let records: Vec<_> = group.records().collect();
    assert_eq!(records[0].lsn, first_lsn());
    assert_eq!(records[1].lsn, advance(first_lsn(), 6).unwrap());
    assert_eq!((records[1].kind, records[1].page.unwrap().space), (RecordKind::WriteString, SpaceId(9)));
    assert!(!group.is_single());
    let json = serde_json::to_value(group).unwrap();
    assert_eq!(json["records"][0]["kind"], "MLOG_2BYTES");
    assert_eq!(json["records"][0]["body"]["value"], 7);
    let Poll::Group(group) = decoder.poll().unwrap() else { panic!("no group") };
    assert!(group.is_single());
}

#[test]
fn a_group_that_fills_its_block_needs_the_next_one() {
    let fill = 496 - multi(1, 0).len();
    let blocks = log_of(&[multi(1, fill)]);
    assert_eq!(blocks.len(), 1024, "an empty block follows");
    let cut = decode(first_lsn(), &blocks[..512], 1).unwrap();
    assert_eq!((cut.groups.len(), cut.end.unfinished_bytes, cut.end.at), (0, 496, first_lsn()));
    let whole = decode(first_lsn(), &blocks, 1).unwrap();
    assert_eq!(whole.groups.len(), 1);
    assert_eq!(whole.end.at, Lsn::new(START.get() + 512 + 12));
}

#[test]
fn a_cut_off_group_is_dropped() {
    let blocks = log_of(&[single(1, 1), multi(2, 2000)]);
    for keep in 1..blocks.len() / BLOCK_LEN {
        let got = decode(first_lsn(), &blocks[..keep * BLOCK_LEN], 1).unwrap();
        assert_eq!(got.groups.len(), 1);
        assert_eq!(got.end.reason, EndReason::Finished);
        assert_eq!(got.end.at, advance(first_lsn(), 6).unwrap());
    }
    let mut torn = blocks;
    torn[2 * BLOCK_LEN + 100] ^= 1;
    let got = decode(first_lsn(), &torn, 1).unwrap();
    assert!(matches!(got.end.reason, EndReason::Torn { .. }), "{got:?}");
    torn[2 * BLOCK_LEN..].fill(0);
    assert_eq!(decode(first_lsn(), &torn, 9).unwrap().end.reason, EndReason::NotWritten);
}

#[test]
fn decoding_starts_at_the_first_group_of_the_checkpoints_block() {
    let blocks = log_of(&[multi(1, 700), single(2, 1), multi(3, 30), single(4, 1)]);
    // The checkpoint is inside the second record of the third group, in the second block.
    let third = advance(first_lsn(), multi(1, 700).len() + 6).unwrap();
    let checkpoint = advance(third, 20).unwrap();
    let got = decode(checkpoint, &blocks[512..], 1).unwrap();
    assert_eq!(got.groups.len(), 3, "the group that began before the block is not given");
    assert_eq!(got.before, 3, "one record before the checkpoint, and the two of the group that it is in");
    // No group begins in the block of the checkpoint: the next block's first is where decoding starts.
    let long = log_of(&[multi(1, 1200), single(2, 1)]);
    let got = decode(Lsn::new(START.get() + 512 + 200), &long[512..], 1).unwrap();
    assert_eq!((got.groups.len(), got.before), (1, 0));
}

#[test]
fn a_partial_block_can_be_fed_again_when_it_has_grown() {
    let groups = [single(1, 1), multi(2, 100), single(3, 3)];
    let mut decoder = RedoDecoder::new(first_lsn(), None);
    for count in 1..=3 {
        decoder.feed(&log_of(&groups[..count])).unwrap();
        assert!(matches!(decoder.poll(), Ok(Poll::Group(_))));
        assert!(matches!(decoder.poll(), Ok(Poll::End(_))));
        assert_eq!(decoder.next_block(), START);
    }
    decoder.feed(&log_of(&groups[..2])).unwrap_err();
    assert!(decoder.poll().is_err(), "an error stays");
}

#[test]
fn filling_is_given_in_runs() {
    let mut blocks = vec![vec![32; 600], single(1, 1), vec![32, 31]];
    let got = decode(first_lsn(), &log_of(&blocks), 50).unwrap();
    assert_eq!(got.groups.len(), 4, "a run, a group, one filling byte, an empty group");
    blocks.push(vec![32, 0x81]);
    let got = decode(first_lsn(), &log_of(&blocks), 50).unwrap();
    assert_eq!(got.end.unfinished_bytes, 1);
}

#[test]
fn what_is_not_known_is_named_with_its_lsn() {
    let bad_lsn = advance(first_lsn(), 6).unwrap();
    let cases: [(Vec<u8>, &str); 5] = [
        (vec![0xC2, 1, 1], "redo at LSN LSN: redo record type 66 is not supported"),
        (vec![9, 1, 1], "redo at LSN LSN: redo record type 9 (of the log format before MySQL 8.0.30) is not supported"),
        (vec![0xC3, 1, 1, 2], "redo at LSN LSN (MLOG_REC_INSERT): version of the index description 2 is not supported"),
        (
            vec![0xC3, 1, 1, 1, 8],
            "redo at LSN LSN (MLOG_REC_INSERT): flags of the index description 0x08 is not supported",
        ),
        (
            vec![0x9F],
            "redo at LSN LSN (MLOG_MULTI_REC_END): redo record type 0x9f (MLOG_MULTI_REC_END with the flag of a single record) is not supported",
        ),
    ];
    for (bad, message) in cases {
        let error = decode(first_lsn(), &log_of(&[single(1, 1), bad]), 9).unwrap_err();
        assert_eq!(error.to_string(), message.replace("LSN LSN", &format!("LSN {bad_lsn}")));
    }
    let inside = [multi(1, 0)[..6].to_vec(), single(1, 1)].concat();
    let error = decode(first_lsn(), &log_of(&[inside]), 9).unwrap_err();
    assert_eq!(error.lsn, bad_lsn);
}

#[test]
fn groups_are_bounded() {
    let blocks = log_of(&[multi(1, 60000)]);
    let mut decoder = RedoDecoder::new(first_lsn(), None).with_group_limit(10_000);
    let fed = blocks.chunks(512).take_while(|block| {
        decoder.feed(block).unwrap();
        matches!(decoder.poll(), Ok(Poll::NeedMore))
    });
    assert!(fed.count() < 25);
    assert!(decoder.poll().is_err());
}

#[test]
fn spaces_are_charged_to_the_segment_that_a_group_ends_in() {
    let blocks = log_of(&[single(1, 1), multi(2, 2000), single(3, 1)]);
    let mut named = SpacesNamed::new(first_lsn(), None);
    named.feed(&blocks[..1024]).unwrap();
    assert_eq!(named.take().into_iter().collect::<Vec<_>>(), [SpaceId(1)]);
    named.feed(&blocks[1024..]).unwrap();
    assert_eq!(named.take().into_iter().collect::<Vec<_>>(), [SpaceId(2), SpaceId(3)]);
}

#[test]
fn blocks_must_be_whole_and_in_order() {
    let blocks = log_of(&[single(1, 1), multi(2, 2000)]);
    assert!(RedoDecoder::new(first_lsn(), None).feed(&blocks[..700]).is_err());
    let error = RedoDecoder::new(first_lsn(), None).feed(&blocks[512..]).unwrap_err();
    assert!(error.to_string().contains("is in its place"), "{error}");
}

proptest! {
    /// Whatever stands in the payload: an end or an error in bounded steps, and groups that follow one another.
    #[test]
    fn arbitrary_payload_never_panics(payload in proptest::collection::vec(any::<u8>(), 0..3000), step in 1_usize..4) {
        if let Ok(got) = decode(first_lsn(), &log_of(&[payload]), step) {
            for pair in got.groups.windows(2) {
                prop_assert_eq!(pair[0].1, pair[1].0);
            }
        }
    }

    #[test]
    fn mutated_logs_never_panic(at in 0_usize..4000, with: [u8; 3], first: u16, checkpoint in 0_u64..600) {
        let mut blocks = log_of(&[single(1, 1), multi(2, 900), vec![32; 40], multi(3, 1500), single(4, 9)]);
        let at = at % (blocks.len() - 3);
        blocks[at..at + 3].copy_from_slice(&with);
        let block = at / 512 * 512;
        if with[0] & 1 == 1 {
            put(&mut blocks[block..block + 512], 6, &first.to_be_bytes());
        }
        stamp_crc(&mut blocks[block..block + 512]);
        for step in [1, 100] {
            let _ = decode(Lsn::new(START.get() + checkpoint), &blocks, step);
        }
    }

    /// Feeding bit by bit or at once makes no difference, errors included.
    #[test]
    fn how_it_is_fed_makes_no_difference(payload in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let groups = [multi(5, 300), payload];
        let blocks = log_of(&groups);
        let whole = decode(first_lsn(), &blocks, 1000).map(|got| got.groups);
        let steps = decode(first_lsn(), &blocks, 1).map(|got| got.groups);
        prop_assert_eq!(whole, steps);
    }
}

/// Groups of every kind that a real server wrote.
fn real_groups() -> Vec<(Lsn, Vec<u8>)> {
    let text = include_str!("../../../testdata/9.7.4/redo/groups.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split_once(' ').unwrap())
        .map(|(lsn, bytes)| (lsn.parse().unwrap(), hex::decode(bytes).unwrap()))
        .collect()
}

#[test]
fn real_groups_of_every_kind() {
    let groups = real_groups();
    let bytes: Vec<_> = groups.iter().map(|(_, bytes)| bytes.clone()).collect();
    let mut decoder = RedoDecoder::new(first_lsn(), None);
    decoder.feed(&log_of(&bytes)).unwrap();
    let mut kinds = std::collections::BTreeSet::new();
    for bytes in &bytes {
        let Poll::Group(group) = decoder.poll().unwrap() else { panic!("no group") };
        assert_eq!(group.bytes(), bytes);
        for record in group.records() {
            let json = serde_json::to_value(record).unwrap();
            assert!(json.get("fault").is_none(), "{json}");
            kinds.insert(record.kind);
        }
    }
    assert!(matches!(decoder.poll(), Ok(Poll::End(_))));
    // Ends of groups are no records; the other two no server writes any more.
    let missing: Vec<_> = RecordKind::ALL.iter().filter(|kind| !kinds.contains(kind)).collect();
    assert_eq!(missing, [&RecordKind::InitFilePage, &RecordKind::MultiRecEnd, &RecordKind::SdiCreate]);
}

proptest! {
    /// Real groups with some bytes changed: an error, an end, or other groups; never a panic, and everything prints.
    #[test]
    fn mutated_real_groups_never_panic(pick: prop::sample::Index, at: prop::sample::Index, with: Vec<u8>, cut: prop::sample::Index) {
        let groups = real_groups();
        let mut group = pick.get(&groups).1.clone();
        let at = at.index(group.len());
        for (byte, with) in group[at..].iter_mut().zip(&with) {
            *byte = *with;
        }
        group.truncate(cut.index(group.len()) + 1);
        let mut decoder = RedoDecoder::new(first_lsn(), None);
        decoder.feed(&log_of(&[group, single(1, 1)])).unwrap();
        let mut polls = 0;
        while let Ok(Poll::Group(group)) = decoder.poll() {
            prop_assert!(serde_json::to_string(&group).is_ok());
            polls += 1;
            prop_assert!(polls < 10_000);
        }
    }
}
