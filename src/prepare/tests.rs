//! A small log made by hand, scanned, and applied to pages of every state that a copy may have.

use super::*;
use crate::innodb::checksum::stamp_page;
use crate::innodb::ids::{PageNo, PageSize};
use crate::innodb::keyring::Keyring;
use crate::innodb::page::crypt::{decrypt_page, encrypt_page};
use crate::innodb::page::{PageContext, PageScratch, PageType, UnverifiedPage, Verified};
use crate::innodb::redo::block::encode_block;
use crate::innodb::redo::stream::advance;
use crate::innodb::space::header::encryption_offset;
use crate::innodb::space::{TablespaceFlags, TablespaceKey};

const START: Lsn = Lsn::new(100 * 512);
const CHECKPOINT: Lsn = Lsn::new(100 * 512 + 12);
const SIZE: usize = 16384;
const PLAIN: u32 = 0x4021;
const ENCRYPTED: u32 = 0x6021;
const SPACE: SpaceId = SpaceId(5);

/// A log of these groups, and the LSN behind each.
fn log(groups: &[Vec<u8>]) -> (Vec<u8>, Vec<Lsn>) {
    let (mut payload, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for group in groups {
        starts.push(payload.len());
        payload.extend_from_slice(group);
        ends.push(advance(CHECKPOINT, payload.len()).unwrap());
    }
    let mut blocks = Vec::new();
    for (index, part) in payload.chunks(496).enumerate() {
        let first = starts.iter().find(|start| **start >= index * 496).map(|start| start - index * 496);
        let lsn = Lsn::new(START.get() + 512 * u64::try_from(index).unwrap());
        blocks.extend(encode_block(lsn, part, first.filter(|first| *first < part.len())).unwrap());
    }
    (blocks, ends)
}

/// A group that writes one byte.
fn write(page: u8, at: u16, value: u8) -> Vec<u8> {
    let [high, low] = at.to_be_bytes();
    vec![0x81, 5, page, high, low, value]
}

fn options(end: Lsn, keyring: Option<Keyring>) -> ScanOptions {
    let (zlib, spill_dir) = (Some("1.3.1".to_owned()), std::env::temp_dir());
    ScanOptions { checkpoint: CHECKPOINT, end, log_key: None, keyring, zlib, memory: 1 << 20, spill_dir }
}

fn copied(flags: u32) -> CopiedSpace {
    CopiedSpace { space: SPACE, flags: TablespaceFlags::decode(flags).unwrap(), pages: 4, last_file: PageNo(0) }
}

fn scan(groups: &[Vec<u8>], flags: u32, keyring: Option<Keyring>) -> Result<(Recovery, Vec<Lsn>), PrepareError> {
    let (blocks, ends) = log(groups);
    let mut scan = RedoScan::new(options(*ends.last().unwrap(), keyring), &[copied(flags)]).unwrap();
    scan.feed(&blocks)?;
    Ok((scan.finish()?, ends))
}

fn page(number: u32, lsn: Lsn) -> Vec<u8> {
    let mut page = vec![0; SIZE];
    page[4..8].copy_from_slice(&number.to_be_bytes());
    page[16..24].copy_from_slice(&lsn.get().to_be_bytes());
    page[24..26].copy_from_slice(&PageType::LobData.id().to_be_bytes());
    page[34..38].copy_from_slice(&SPACE.0.to_be_bytes());
    page[SIZE - 4..].copy_from_slice(&lsn.get().to_be_bytes()[4..]);
    stamp_page(&mut page).unwrap();
    page
}

fn assert_good(bytes: &[u8], number: u32, lsn: Lsn) {
    let context = PageContext { space: SPACE, flags: TablespaceFlags::decode(PLAIN).unwrap(), key: None };
    let verified = UnverifiedPage::new(bytes, PageNo(number)).verify(&context, &mut PageScratch::default()).unwrap();
    let Verified::Page(view) = verified else { panic!("no page") };
    assert_eq!(view.lsn(), lsn);
}

#[test]
fn a_page_takes_what_is_newer_than_itself_and_carries_the_end_of_the_last_group() {
    let groups = [write(3, 100, 1), write(3, 101, 2), write(2, 100, 9), write(3, 102, 3)];
    let (recovery, ends) = scan(&groups, PLAIN, None).unwrap();
    assert_eq!(recovery.counts().records, 4);
    let mut worker = PageWorker::new(&recovery);
    for (stored, expected) in [
        // Older than all, as old as the first group's end, just before the last.
        (page(3, CHECKPOINT), [1, 2, 3]),
        (page(3, ends[0]), [0, 2, 3]),
        (page(3, ends[2]), [0, 0, 3]),
    ] {
        worker.seek(SPACE, 3..4).unwrap();
        assert_eq!(worker.next_page().unwrap(), Some(PageNo(3)));
        let bytes = worker.recover(PageNo(3), Some(&stored)).unwrap().unwrap();
        assert_eq!(bytes[100..103], expected);
        assert_good(bytes, 3, ends[3]);
        assert_eq!(worker.next_page().unwrap(), None);
    }
    // One that has it all stays as it is.
    worker.seek(SPACE, 0..4).unwrap();
    assert_eq!(worker.next_page().unwrap(), Some(PageNo(2)));
    assert_eq!(worker.recover(PageNo(2), Some(&page(2, ends[2]))).unwrap(), None);
    assert_eq!(worker.next_page().unwrap(), Some(PageNo(3)));
    assert_eq!(worker.recover(PageNo(3), Some(&page(3, ends[3]))).unwrap(), None);
    assert_eq!(worker.tally(), Tally { applied: 6, skipped: 7, pages: 3, created: 0 });
}

#[test]
fn pages_that_only_redo_knows_are_made() {
    let init = |number: u8| vec![0x3B | 0x80, 5, number];
    // The file grows by two pages of 16 KiB.
    let extend = [vec![0x41 | 0x80, 5, 0], 65536_u64.to_be_bytes().to_vec(), 32768_u64.to_be_bytes().to_vec()].concat();
    let (recovery, ends) = scan(&[extend, init(3), init(5), write(5, 2000, 7)], PLAIN, None).unwrap();
    let space = recovery.space(SPACE).unwrap();
    assert_eq!((space.copied_pages(), space.pages), (4, 6));
    let mut worker = PageWorker::new(&recovery);
    worker.seek(SPACE, 0..256).unwrap();
    assert_eq!(worker.next_page().unwrap(), Some(PageNo(3)));
    assert_good(worker.recover(PageNo(3), Some(&vec![0; SIZE])).unwrap().unwrap(), 3, ends[1]);
    assert_eq!(worker.next_page().unwrap(), Some(PageNo(5)));
    let made = worker.recover(PageNo(5), None).unwrap().unwrap();
    assert_eq!(made[2000], 7);
    assert_good(made, 5, ends[3]);
    assert_eq!(worker.tally().created, 2);
}

#[test]
fn an_index_that_was_built_without_redo_is_only_announced() {
    let announced = [&[0x3D | 0x80, 5, 3][..], &77_u64.to_be_bytes()].concat();
    let (recovery, _) = scan(&[announced, write(2, 100, 1)], PLAIN, None).unwrap();
    assert_eq!(recovery.counts().records, 1);
    let mut worker = PageWorker::new(&recovery);
    worker.seek(SPACE, 0..4).unwrap();
    assert_eq!(worker.next_page().unwrap(), Some(PageNo(2)));
    let _ = worker.recover(PageNo(2), Some(&page(2, CHECKPOINT))).unwrap();
    assert_eq!(worker.next_page().unwrap(), None, "page 3 is as old as it was");
}

#[test]
fn pages_that_are_not_what_they_should_be_are_named() {
    let (recovery, ends) = scan(&[write(3, 100, 1)], PLAIN, None).unwrap();
    let mut worker = PageWorker::new(&recovery);
    let mut fail = |stored: &[u8]| {
        worker.seek(SPACE, 3..4).unwrap();
        worker.recover(PageNo(3), Some(stored)).unwrap_err()
    };
    let mut damaged = page(3, CHECKPOINT);
    damaged[5000] ^= 1;
    assert!(matches!(fail(&damaged), PrepareError::BadPage { .. }));
    assert!(matches!(fail(&page(2, CHECKPOINT)), PrepareError::BadPage { .. }));
    let error = fail(&page(3, Lsn::new(ends[0].get() + 1)));
    assert!(error.to_string().contains("page 3 of space 5 was changed at LSN"), "{error}");
}

#[test]
fn a_log_must_end_where_the_backup_does() {
    let (blocks, ends) = log(&[write(3, 100, 1), write(3, 101, 2)]);
    for (blocks, wanted) in [
        (&blocks[..], Lsn::new(ends[1].get() + 6)),
        (&blocks[..], ends[0]),
        (&[0_u8; 512][..], ends[1]),
        (&[][..], ends[1]),
    ] {
        let mut scan = RedoScan::new(options(wanted, None), &[copied(PLAIN)]).unwrap();
        scan.feed(blocks).unwrap();
        let error = scan.finish().unwrap_err();
        assert!(matches!(error, PrepareError::WrongEnd { .. }) && error.to_string().contains(&wanted.to_string()));
    }
}

#[test]
fn what_another_compressor_made_is_left_to_the_server() {
    // A plain secondary index of one column of four bytes, level 6.
    let index = [1, 1, 0, 1, 0, 1, 0x80, 4];
    let record = |kind: u8| [&[kind | 0x80, 5, 3][..], &index, &[6]].concat();
    let scan_with = |kind, zlib: Option<&str>| {
        let (blocks, ends) = log(&[record(kind)]);
        let options = ScanOptions { zlib: zlib.map(str::to_owned), ..options(ends[0], None) };
        let mut scan = RedoScan::new(options, &[copied(0x4029)]).unwrap();
        scan.feed(&blocks)?;
        scan.finish()
    };
    for kind in [73, 74] {
        for (zlib, named) in [(Some("1.3.1.zlib-ng"), "its zlib 1.3.1.zlib-ng is"), (None, "was not recorded")] {
            let error = scan_with(kind, zlib).unwrap_err();
            assert!(matches!(&error, PrepareError::NotNative { .. }), "{error}");
            assert!(error.to_string().contains(named), "{error}");
        }
        assert_eq!(scan_with(kind, Some("1.2.13")).unwrap().counts().records, 1);
    }
}

fn keyring(master: &[u8; 32]) -> Keyring {
    let (name, data) = (format!("INNODBKey-{}-1", "u".repeat(36)), hex::encode(master));
    let element = format!(r#"{{"user":"","data_id":"{name}","data_type":"AES","data":"{data}","extension":[]}}"#);
    Keyring::parse(format!(r#"{{"version":"1.0","elements":[{element}]}}"#).as_bytes()).unwrap()
}

/// Encryption info that wraps a key of equal bytes.
fn info(master: &[u8; 32], key: u8) -> Vec<u8> {
    use aes::cipher::{BlockEncrypt, KeyInit};
    let plain = [[key; 32], [key; 32]].concat();
    let mut wrapped = plain.clone();
    let cipher = aes::Aes256::new(master.into());
    for block in wrapped.chunks_exact_mut(16) {
        cipher.encrypt_block(block.into());
    }
    [b"lCC\0\0\0\x01".to_vec(), vec![b'u'; 36], wrapped, crc32c::crc32c(&plain).to_be_bytes().to_vec()].concat()
}

/// Page 0 with this encryption info.
fn page0(info: &[u8]) -> Vec<u8> {
    let mut page = page(0, CHECKPOINT);
    page[38..42].copy_from_slice(&SPACE.0.to_be_bytes());
    page[54..58].copy_from_slice(&ENCRYPTED.to_be_bytes());
    let at = encryption_offset(TablespaceFlags::decode(ENCRYPTED).unwrap()).unwrap();
    page[at..at + info.len()].copy_from_slice(info);
    stamp_page(&mut page).unwrap();
    page
}

#[test]
fn a_page_that_is_newer_than_the_log_is_refused() {
    let (recovery, ends) = scan(&[write(3, 100, 1)], PLAIN, None).unwrap();
    let mut worker = PageWorker::new(&recovery);
    worker.seek(SPACE, 3..4).unwrap();
    assert_eq!(worker.next_page().unwrap(), Some(PageNo(3)));
    let newer = page(3, ends[0].checked_add(1).unwrap());
    let refused = worker.recover(PageNo(3), Some(&newer)).unwrap_err();
    assert!(matches!(refused, PrepareError::NewerThanLog { end, .. } if end == ends[0]), "{refused}");
}

#[test]
fn encrypted_pages_are_opened_with_the_key_that_fits_and_closed_with_the_last() {
    let master = [8; 32];
    let key = |byte| TablespaceKey::new([byte; 32], [byte; 16]);
    let at = u16::try_from(encryption_offset(TablespaceFlags::decode(ENCRYPTED).unwrap()).unwrap()).unwrap();
    // The redo gives page 0 another key: info of 111 bytes.
    let new_key = [&[0x1E | 0x80, 5, 0][..], &at.to_be_bytes(), &[0, 111], &info(&master, 2)].concat();
    let groups = [write(3, 100, 7), new_key];
    assert!(matches!(scan(&groups, ENCRYPTED, None), Err(PrepareError::Key { .. })), "without a keyring");
    let (recovery, ends) = scan(&groups, ENCRYPTED, Some(keyring(&master))).unwrap();
    assert!(recovery.needs_page0(SPACE));
    recovery.learn(SPACE, &page0(&info(&master, 1))).unwrap();
    assert!(!recovery.needs_page0(SPACE));
    let mut worker = PageWorker::new(&recovery);
    for stored_with in [1, 2] {
        let mut stored = page(3, CHECKPOINT);
        encrypt_page(&mut stored, &key(stored_with)).unwrap();
        worker.seek(SPACE, 3..4).unwrap();
        let mut bytes = worker.recover(PageNo(3), Some(&stored)).unwrap().unwrap().to_vec();
        decrypt_page(&mut bytes, PageType::Encrypted, &key(2)).unwrap();
        assert_eq!(bytes[100], 7);
        assert_good(&bytes, 3, ends[0]);
    }
    // Page 0 is never encrypted.
    worker.seek(SPACE, 0..1).unwrap();
    let bytes = worker.recover(PageNo(0), Some(&page0(&info(&master, 1)))).unwrap().unwrap();
    assert_eq!(bytes[usize::from(at)..][..111], info(&master, 2));
    assert_good(bytes, 0, ends[1]);
}

#[test]
fn the_clean_log_begins_behind_every_page() {
    let (recovery, ends) = scan(&[vec![0x3E | 0x80, 7, 1, 2, 60], write(3, 100, 1)], PLAIN, None).unwrap();
    assert_eq!((recovery.metadata().table_count(), recovery.end()), (1, ends[1]));
    let log = clean_log(recovery.end(), recovery.metadata(), PageSize::DEFAULT, 1, "MySQL 9.7.4").unwrap();
    assert!(log.checkpoint > ends[1]);
}

#[test]
fn redo_says_how_large_one_tablespace_becomes() {
    let size = |space: u8, pages: u8| vec![4 | 0x80, space, 0, 0, 46, pages];
    let (blocks, ends) = log(&[write(3, 100, 1), size(5, 9), size(5, 6), size(6, 99), write(3, 101, 1)]);
    let mut growth = Growth::new(CHECKPOINT, None, copied(PLAIN));
    growth.feed(&blocks).unwrap();
    assert_eq!(growth.finish(ends[4]).unwrap(), 9);

    let mut growth = Growth::new(CHECKPOINT, None, copied(PLAIN));
    growth.feed(&blocks).unwrap();
    let error = growth.finish(ends[3]).unwrap_err();
    assert!(matches!(error, PrepareError::WrongEnd { .. }), "it is no other log's size: {error}");

    let (blocks, ends) = log(&[write(3, 100, 1)]);
    let mut growth = Growth::new(CHECKPOINT, None, copied(PLAIN));
    growth.feed(&blocks).unwrap();
    assert_eq!(growth.finish(ends[0]).unwrap(), 4, "as large as it was copied");
}
