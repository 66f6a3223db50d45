//! What native recovery refuses: each with its reason, and with the other way where that one can do it, before a byte is
//! written. And what is found only when writing has begun: the directory stays marked.

use std::path::Path;

use super::target::MARKER;
use crate::innodb::checksum::stamp_page;
use crate::innodb::space::TablespaceFlags;
use crate::innodb::space::header::encryption_offset;
use crate::ops::context::Context;
use crate::ops::error::{Error, ErrorKind};
use crate::ops::handmade::{archive, archive_with_log, page, redo};
use crate::ops::options::RestoreOptions;

const OTHER: &str = "--recovery server";

/// What it is, the groups of the log, the server's zlib; and what is said: kind, message, advice.
type Case<'a> = (&'a str, &'a [u8], Option<&'a str>, ErrorKind, &'a str, &'a str);

/// Restores an archive of these pages and this log. Gives the outcome, and the names of what is then beside the store.
async fn restore(pages: &[Vec<u8>], groups: Option<&[u8]>, zlib: Option<&str>) -> (Result<(), Error>, Vec<String>) {
    let (store, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (stored, mut manifest) = match groups {
        Some(groups) => archive_with_log(pages, groups),
        None => archive(pages, &redo()),
    };
    if let Some(zlib) = zlib {
        manifest.server.settings.insert("version_compile_zlib".to_owned(), zlib.to_owned());
    }
    let backup = store.path().join("backups").join(manifest.id.as_str());
    let data = backup.join("data").join(manifest.attempt.as_str());
    std::fs::create_dir_all(&data).unwrap();
    for (name, bytes) in stored.store.objects().iter() {
        std::fs::write(data.join(name), bytes).unwrap();
    }
    std::fs::write(backup.join("manifest.json"), manifest.encode(None).unwrap()).unwrap();

    let url = format!("file://{}", store.path().display()).parse().unwrap();
    let options = RestoreOptions::new(url, manifest.id.as_str(), place.path().join("data"));
    let outcome = super::run(&Context::silent(), options).await.map(drop);
    (outcome, names_below(place.path()))
}

fn names_below(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    entries
        .flat_map(|path| [name(&path)].into_iter().chain(if path.is_dir() { names_below(&path) } else { Vec::new() }))
        .collect()
}

/// A page as it was before the log.
fn old_page(number: u32) -> Vec<u8> {
    let mut page = page(number);
    page[16..24].copy_from_slice(&8200_u64.to_be_bytes());
    page[16380..].copy_from_slice(&8200_u32.to_be_bytes());
    stamp_page(&mut page).unwrap();
    page
}

#[tokio::test(flavor = "multi_thread")]
async fn what_native_recovery_refuses_it_refuses_before_a_byte_is_written() {
    // A record that compresses a page of a plain index anew.
    let compresses = [&[0xC9, 5, 1][..], &[1, 1, 0, 1, 0, 1, 0x80, 4], &[6]].concat();
    // The redo brings a key that a master key wraps, which no keyring here has.
    let at = u16::try_from(encryption_offset(TablespaceFlags::decode(0x4021).unwrap()).unwrap()).unwrap().to_be_bytes();
    let key = [&[0x9E, 5, 0, at[0], at[1], 0, 111][..], b"lCC\0\0\0\x01", &[b'u'; 36], &[0; 68]].concat();
    let cases: [Case<'_>; 10] = [
        (
            "a zlib that is not known",
            &compresses,
            Some("2.2.2.zlib-ng"),
            ErrorKind::Unsupported,
            "zlib 2.2.2.zlib-ng is not",
            OTHER,
        ),
        ("a zlib that nobody noted", &compresses, None, ErrorKind::Unsupported, "page 1 of space 5", OTHER),
        (
            "another tablespace",
            &[0x81, 9, 3, 0, 100, 1],
            None,
            ErrorKind::DamagedBackup,
            "(MLOG_1BYTE) changes space 9",
            OTHER,
        ),
        (
            "one that is deleted",
            b"\xA3\x05\x00\x00\x0A./d/t.ibd\x00",
            None,
            ErrorKind::DamagedBackup,
            "deletes space 5",
            OTHER,
        ),
        ("behind the end", &[0x81, 5, 9, 0, 100, 1], None, ErrorKind::DamagedBackup, "page 9 of space 5", OTHER),
        // No way of recovery can do without these.
        ("a kind that is not known", &[0xCD, 5, 1, 0], None, ErrorKind::UnsupportedFormat, "77", "or a later one"),
        (
            "flags",
            &[0x84, 5, 0, 0, 54, 0xD0, 0x40, 0x21],
            None,
            ErrorKind::UnsupportedFormat,
            "0x104021",
            "or a later one",
        ),
        ("a key", &key, None, ErrorKind::KeyMissing, "INNODBKey-uuuu", "--keyring-file"),
        (
            "a group without an end",
            &[1, 5, 1, 0, 100, 1],
            None,
            ErrorKind::DamagedBackup,
            "the redo ends at LSN 8292",
            "another backup",
        ),
        (
            "a record that is damaged",
            &[0x81, 5, 1, 0, 100, 0xF1],
            None,
            ErrorKind::DamagedBackup,
            "LSN",
            "another backup",
        ),
    ];
    for (name, groups, zlib, kind, message, advice) in cases {
        let (outcome, left) = restore(&[old_page(0), old_page(1)], Some(groups), zlib).await;
        let error = outcome.expect_err(name);
        assert_eq!(error.kind, kind, "{name}: {error}");
        assert!(error.to_string().contains(message), "{name}: {error}");
        assert!(error.advice().contains(advice), "{name}: {}", error.advice());
        assert!(left.is_empty(), "{name}: {left:?} was written");
    }
    let (outcome, left) = restore(&[page(0)], None, None).await;
    let error = outcome.expect_err("no system tablespace");
    assert!(error.kind == ErrorKind::DamagedBackup && error.to_string().contains("no system tablespace"), "{error}");
    assert!(left.is_empty(), "{left:?} was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_later_leaves_no_database_and_names_the_other_way() {
    let write: &[u8] = &[0x81, 5, 1, 0, 100, 7];
    // Of two bytes at the end of a page of 16 KiB, one is behind it.
    let behind: &[u8] = &[0x82, 5, 1, 0x3F, 0xFF, 7];
    for (name, pages, groups, message) in [
        ("a page that is newer", [old_page(0), page(1)], write, "page 1 of space 5 was changed at LSN 9000"),
        (
            "a page without redo that is newer",
            [page(0), old_page(1)],
            write,
            "page 0 of space 5 was changed at LSN 9000",
        ),
        ("a record that does not fit", [old_page(0), old_page(1)], behind, "page 1 of space 5"),
    ] {
        let (outcome, left) = restore(&pages, Some(groups), None).await;
        let error = outcome.expect_err(name);
        assert_eq!(error.kind, ErrorKind::RecoveryFailed, "{name}: {error}");
        assert!(error.to_string().contains(message), "{name}: {error}");
        assert!(error.advice().contains("--recovery server --overwrite-incomplete"), "{name}: {}", error.advice());
        assert!(left.iter().any(|left| left == MARKER) && !left.iter().any(|left| left == "#innodb_redo"), "{left:?}");
    }
    // It is not the archive's fault.
    let (outcome, left) = restore(&[old_page(0), old_page(1)], Some(write), None).await;
    outcome.unwrap();
    assert!(!left.iter().any(|left| left == MARKER) && left.iter().any(|left| left == "#innodb_redo"), "{left:?}");
}
