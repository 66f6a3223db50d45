//! Tests of the follower on redo files made here: recycled, torn, replaced, encrypted, cut.

use std::fs;
use std::os::unix::fs::FileExt as _;

use super::*;
use crate::capture::MEMORY_BYTES;
use crate::innodb::redo::block::empty_block;
use crate::innodb::redo::file::{RedoFileHeader, RedoFlags, encode_checkpoint, file_name};

const BLOCKS: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(20);

/// A full block of the log at `lsn`.
fn block(lsn: u64) -> Vec<u8> {
    let mut raw = empty_block(Lsn::new(lsn + 12)).unwrap().to_vec();
    raw[12..508].fill(0x5A);
    raw[4..6].copy_from_slice(&512_u16.to_be_bytes());
    let sum = crc32c::crc32c(&raw[..508]);
    raw[508..].copy_from_slice(&sum.to_be_bytes());
    raw
}

fn header(start: u64, uuid: u32, flags: u32) -> [u8; 512] {
    let creator = "MySQL 9.7.4".to_owned();
    RedoFileHeader { log_uuid: uuid, start_lsn: Lsn::new(start), creator, flags: RedoFlags(flags) }.encode()
}

/// A redo file of `BLOCKS` blocks, `written` of which are there.
fn write_file(dir: &std::path::Path, number: u64, start: u64, checkpoint: u64, written: u64) {
    let mut bytes = header(start, 7, 0).to_vec();
    bytes.extend(encode_checkpoint(Lsn::new(checkpoint)));
    bytes.extend([0; 512]);
    bytes.extend(encode_checkpoint(Lsn::ZERO));
    for index in 0..BLOCKS {
        bytes.extend(if index < written { block(start + index * 512) } else { vec![0; 512] });
    }
    let tmp = dir.join("tmp");
    fs::write(&tmp, bytes).unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test's stand-in for the server's rename")]
    fs::rename(tmp, dir.join(file_name(number))).unwrap();
}

/// Writes a file anew in its place, as a server does: one that is cut off for a moment is something else.
fn rewrite(path: &std::path::Path, bytes: &[u8]) {
    fs::File::options().write(true).open(path).unwrap().write_all_at(bytes, 0).unwrap();
}

/// Lets the log of a file that starts at 8192 end inside of the block that holds `end`. A block that is not full is taken when
/// the capture is to end in it, and not before: without that a quick follower is past the end when it hears of it.
fn end_inside(path: &std::path::Path, end: Lsn) {
    let mut bytes = fs::read(path).unwrap();
    let at = usize::try_from(2048 + end.block_start().get() - 8192).unwrap();
    cut_block(&mut bytes[at..at + 512], end, None).unwrap();
    fs::write(path, bytes).unwrap();
}

fn follower(dir: &std::path::Path, spool: &Arc<Spool>) -> RedoFollower {
    follower_with(dir, spool, MEMORY_BYTES)
}

fn follower_with(dir: &std::path::Path, spool: &Arc<Spool>, memory_bytes: usize) -> RedoFollower {
    let options = FollowOptions { redo_dir: dir.to_path_buf(), spool: Arc::clone(spool), memory_bytes, keyring: None };
    RedoFollower::start(options, &CancellationToken::new()).unwrap()
}

fn setup() -> (tempfile::TempDir, tempfile::TempDir, Arc<Spool>) {
    let (redo, parent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let spool = Spool::create(parent.path(), 1 << 30, "t").unwrap();
    (redo, parent, spool)
}

#[test]
fn the_log_is_followed_over_files_and_cut_exactly() {
    let (redo, _parent, spool) = setup();
    let end_of_first = 8192 + BLOCKS * 512;
    write_file(redo.path(), 0, 8192, 8192 + 512 + 100, BLOCKS);
    let follower = follower(redo.path(), &spool);
    assert_eq!(follower.checkpoint(), Lsn::new(8192 + 512 + 100));
    while follower.position() < Lsn::new(end_of_first) {
        std::thread::sleep(Duration::from_millis(1));
    }
    // From here on the server writes past the end before that is known.
    follower.hold();
    write_file(redo.path(), 1, end_of_first, 0, 10);
    std::thread::sleep(POLL * 5);
    assert_eq!(follower.position(), Lsn::new(end_of_first), "nothing is captured meanwhile");
    let end = Lsn::new(end_of_first + 5 * 512 + 77);
    let captured = follower.finish_at(end, PATIENCE).unwrap();
    assert_eq!((captured.checkpoint, captured.end, captured.log_uuid), (Lsn::new(8804), end, 7));
    let segment = follower.take_segment().unwrap();
    assert_eq!((segment.start, segment.end), (Lsn::new(8704), end));
    let blocks = segment.into_blocks().unwrap();
    let bytes = blocks.bytes();
    assert_eq!(bytes.len(), usize::try_from((BLOCKS - 1 + 6) * 512).unwrap());
    let last = &bytes[bytes.len() - 512..];
    let BlockRead::Valid(last) = decode_block(last, end.block_start(), None).unwrap() else { panic!("not valid") };
    assert_eq!(last.end(), end);
    assert!(follower.is_drained());
}

#[test]
fn a_file_that_is_recycled_under_the_reader_is_noticed() {
    let (redo, _parent, spool) = setup();
    write_file(redo.path(), 0, 8192, 8192 + 100, 3);
    let follower = follower(redo.path(), &spool);
    while follower.position() < Lsn::new(8192 + 3 * 512) {
        std::thread::sleep(Duration::from_millis(1));
    }
    // The same inode gets a later part of the log, as when the server recycles a file.
    let path = redo.path().join(file_name(0));
    let mut bytes = fs::read(&path).unwrap();
    bytes[..512].copy_from_slice(&header(8192 + BLOCKS * 512 * 9, 7, 0));
    bytes[2048..2560].copy_from_slice(&block(8192 + BLOCKS * 512 * 9));
    rewrite(&path, &bytes);
    let error = follower.finish_at(Lsn::new(8192 + 50 * 512 + 50), PATIENCE).unwrap_err();
    assert!(matches!(error, CaptureError::RedoOverwritten { .. }), "{error}");
    assert_eq!(spool.used(), 0, "nothing of a broken capture is kept");
}

#[test]
fn a_lapped_block_is_noticed_by_its_number() {
    let (redo, _parent, spool) = setup();
    write_file(redo.path(), 0, 8192, 8192 + 100, 3);
    let follower = follower(redo.path(), &spool);
    let path = redo.path().join(file_name(0));
    let mut bytes = fs::read(&path).unwrap();
    bytes[2048 + 3 * 512..2048 + 4 * 512].copy_from_slice(&block(8192 + 900 * 512));
    rewrite(&path, &bytes);
    let error = follower.finish_at(Lsn::new(8192 + 50 * 512 + 50), PATIENCE).unwrap_err();
    assert!(
        matches!(error, CaptureError::RedoOverwritten { wanted, .. } if wanted == Lsn::new(8192 + 3 * 512)),
        "{error}"
    );
}

#[test]
fn a_torn_block_is_read_again() {
    let (redo, _parent, spool) = setup();
    write_file(redo.path(), 0, 8192, 8192 + 100, 10);
    let path = redo.path().join(file_name(0));
    let end = Lsn::new(8192 + 9 * 512 + 12);
    end_inside(&path, end);
    let good = fs::read(&path).unwrap();
    let mut torn = good.clone();
    torn[2048 + 4 * 512 + 200] ^= 1;
    fs::write(&path, torn).unwrap();
    let follower = follower(redo.path(), &spool);
    while follower.position() < Lsn::new(8192 + 4 * 512) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(follower.position(), Lsn::new(8192 + 4 * 512));
    rewrite(&path, &good);
    assert_eq!(follower.finish_at(end, PATIENCE).unwrap().end, end);
}

#[test]
fn a_log_that_is_switched_off_or_replaced_ends_the_capture() {
    let (redo, _parent, spool) = setup();
    write_file(redo.path(), 0, 8192, 8192 + 100, 3);
    for (uuid, flags) in [(7, RedoFlags::NO_LOGGING | RedoFlags::CRASH_UNSAFE), (8, 0)] {
        let follower = follower(redo.path(), &spool);
        let path = redo.path().join(file_name(0));
        let good = fs::read(&path).unwrap();
        let mut changed = good.clone();
        changed[..512].copy_from_slice(&header(8192, uuid, flags));
        rewrite(&path, &changed);
        let error = follower.finish_at(Lsn::new(8192 + 50 * 512 + 50), PATIENCE).unwrap_err();
        let expected = if flags == 0 {
            matches!(error, CaptureError::RedoReplaced { expected: 7, found: 8 })
        } else {
            matches!(error, CaptureError::RedoDisabled { flags: 3, .. })
        };
        assert!(expected, "{error}");
        rewrite(&path, &good);
    }
}

#[test]
fn a_full_spool_and_a_silent_log_are_named() {
    let (redo, parent, _) = setup();
    write_file(redo.path(), 0, 8192, 8192 + 100, 10);
    let end = Lsn::new(8192 + 9 * 512 + 12);
    end_inside(&redo.path().join(file_name(0)), end);
    let small = Spool::create(parent.path(), 2048, "small").unwrap();
    let error = follower_with(redo.path(), &small, 0).finish_at(end, PATIENCE).unwrap_err();
    assert!(matches!(error, CaptureError::SpoolFull { limit: 2048, .. }), "{error}");
    let spool = Spool::create(parent.path(), 1 << 30, "silent").unwrap();
    let silent = follower(redo.path(), &spool);
    let error = silent.finish_at(Lsn::new(8192 + 20 * 512 + 12), Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, CaptureError::RedoStalled { .. }), "{error}");
}

#[test]
fn how_far_it_fell_behind_is_known_afterwards() {
    const FILE_BYTES: u64 = BLOCKS * 512;
    let (redo, _parent, spool) = setup();
    write_file(redo.path(), 0, 8192, 8192 + 100, BLOCKS);
    let follower = follower(redo.path(), &spool);
    let mut behind = 0;
    for number in 1.. {
        let start = 8192 + number * FILE_BYTES;
        while follower.position() < Lsn::new(start) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(POLL * 5);
        behind = follower.take_behind();
        if behind > 0 {
            break;
        }
        // As much at once as when the process was stopped meanwhile.
        write_file(redo.path(), number, start, 0, BLOCKS);
        assert!(number < 100, "it never says that it was behind");
    }
    // The first file is the way to the log's end, and counts for nothing.
    assert!(behind >= FILE_BYTES && behind.is_multiple_of(FILE_BYTES), "{behind}");
    assert!(follower.position().get() - 8192 > behind);
    assert_eq!(follower.take_behind(), 0, "it was told");
}
