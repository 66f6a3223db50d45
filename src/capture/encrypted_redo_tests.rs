//! A redo log that is encrypted while it is followed: every block is checked, or the capture ends.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aes::Aes256;
use aes::cipher::{BlockEncrypt, KeyInit};
use tokio_util::sync::CancellationToken;

use super::{CaptureError, FollowOptions, MEMORY_BYTES, RedoFollower, Spool};
use crate::innodb::FormatError;
use crate::innodb::keyring::Keyring;
use crate::innodb::lsn::Lsn;
use crate::innodb::redo::block::{cut_block, empty_block, encrypt_block};
use crate::innodb::redo::file::{RedoFileHeader, RedoFlags, encode_checkpoint, file_name};
use crate::innodb::space::TablespaceKey;

const UUID: &str = "00000000-1111-2222-3333-444444444444";
const MASTER: [u8; 32] = [7; 32];
const START: u64 = 8192;
const BLOCKS: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(30);

fn key() -> TablespaceKey {
    TablespaceKey::new([1; 32], [2; 16])
}

fn keyring() -> Arc<Keyring> {
    let data = hex::encode(MASTER);
    let json = format!(
        r#"{{"version":"1.0","elements":[{{"user":"","data_id":"INNODBKey-{UUID}-1","data_type":"AES","data":"{data}","extension":[]}}]}}"#
    );
    Arc::new(Keyring::parse(json.as_bytes()).unwrap())
}

/// The third block of a file's header, with the log's key.
fn encryption_block() -> Vec<u8> {
    let mut plain = [1_u8; 64];
    plain[32..48].fill(2);
    let sum = crc32c::crc32c(&plain);
    for block in plain.chunks_exact_mut(16) {
        Aes256::new(&MASTER.into()).encrypt_block(block.into());
    }
    let mut bytes = vec![0; 48];
    bytes.extend(b"lCC\0\0\0\x01");
    bytes.extend(UUID.as_bytes());
    bytes.extend(plain);
    bytes.extend(sum.to_be_bytes());
    bytes.resize(512, 0);
    bytes
}

fn block(index: u64, encrypted: bool) -> Vec<u8> {
    let mut raw = empty_block(Lsn::new(START + index * 512 + 12)).unwrap().to_vec();
    raw[12..508].fill(0x5A);
    raw[4..6].copy_from_slice(&512_u16.to_be_bytes());
    let sum = crc32c::crc32c(&raw[..508]);
    raw[508..].copy_from_slice(&sum.to_be_bytes());
    if encrypted {
        encrypt_block(&mut raw, &key()).unwrap();
    }
    raw
}

/// A file of ten blocks, of which those from the third to the seventh are encrypted. The last one is not full: it is taken when
/// the capture is to end in it, and not before.
fn log() -> Vec<u8> {
    let creator = "MySQL 9.7.4".to_owned();
    let header = RedoFileHeader { log_uuid: 7, start_lsn: Lsn::new(START), creator, flags: RedoFlags(0) };
    let mut bytes = header.encode().to_vec();
    bytes.extend(encode_checkpoint(Lsn::new(START + 100)));
    bytes.extend([0; 512]);
    bytes.extend(encode_checkpoint(Lsn::ZERO));
    bytes.extend((0..BLOCKS).flat_map(|index| block(index, (2..7).contains(&index))));
    let last = bytes.len() - 512;
    cut_block(&mut bytes[last..], end(), None).unwrap();
    bytes
}

fn follow(dir: &Path, keyring: Option<Arc<Keyring>>) -> (RedoFollower, tempfile::TempDir) {
    let parent = tempfile::tempdir().unwrap();
    let spool = Spool::create(parent.path(), 1 << 30, "t").unwrap();
    let options = FollowOptions { redo_dir: dir.to_path_buf(), spool, memory_bytes: MEMORY_BYTES, keyring };
    (RedoFollower::start(options, &CancellationToken::new()).unwrap(), parent)
}

fn end() -> Lsn {
    Lsn::new(START + 9 * 512 + 77)
}

#[test]
fn the_key_of_a_log_that_is_encrypted_meanwhile_is_found_when_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(file_name(0));
    fs::write(&path, log()).unwrap();
    let (follower, _parent) = follow(dir.path(), Some(keyring()));
    while follower.position() < Lsn::new(START + 2 * 512) {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(follower.position(), Lsn::new(START + 2 * 512), "nothing is taken that cannot be checked");
    // In its place, as a server writes.
    fs::File::options().write(true).open(&path).unwrap().write_all_at(&encryption_block(), 1024).unwrap();
    let captured = follower.finish_at(end(), PATIENCE).unwrap();
    assert_eq!(captured.end, end());
    assert_eq!(captured.encryption_block, Some(encryption_block()));
    assert!(follower.key().is_some_and(|found| found == key()));
}

#[test]
fn encrypted_redo_without_keyring_ends_the_capture_though_it_is_plain_again_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(file_name(0)), log()).unwrap();
    let (follower, _parent) = follow(dir.path(), None);
    let error = follower.finish_at(end(), PATIENCE).unwrap_err();
    assert!(matches!(error, CaptureError::Format { source: FormatError::KeyMissing { .. }, .. }), "{error}");
}
