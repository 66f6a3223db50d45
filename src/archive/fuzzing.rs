//! Front doors for fuzzers: each takes any bytes, must not panic, and must not take memory that the bytes do not pay for.
//!
//! Digests and seals would stop a fuzzer at the first block, so these go behind them: what is decoded here was believed
//! already. `fuzz/` has a target for each; a test drives all of them over the seeds in `testdata/` and mutations of these.

#![expect(clippy::missing_panics_doc, reason = "a panic is how a fuzz target says that it found something")]

use super::codec::{BodyCodec, Decompressor};
use super::container::{self, Kind, Place};
use super::filetable::{FileRecord, FileTable};
use super::frame::{Frame, FrameHead};
use super::index::IndexRecord;
use super::keys::{RecipientKey, WrappedKey};
use super::manifest::Manifest;
use super::packs::PackRef;
use super::redo::RedoRef;
use super::table::decode_records;

/// A target: name, function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("manifest", fuzz_manifest),
    ("keys", fuzz_keys),
    ("file_table", fuzz_file_table),
    ("index", fuzz_index),
    ("objects", fuzz_objects),
    ("redo_table", fuzz_redo_table),
    ("frame", fuzz_frame),
    ("container", fuzz_container),
    ("body", fuzz_body),
];

/// A manifest: what is accepted must be written and read again as the same.
pub fn fuzz_manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes)
        && manifest.cipher.is_none()
    {
        let again = manifest.encode(None).and_then(|bytes| Manifest::decode(&bytes));
        assert!(again.is_ok_and(|again| Manifest {
            hmac: manifest.hmac.clone(),
            digest: manifest.digest.clone(),
            ..again
        } == manifest));
    }
}

/// Key files and wrapped keys.
pub fn fuzz_keys(bytes: &[u8]) {
    drop(RecipientKey::parse(bytes));
    drop(WrappedKey::decode(bytes));
}

/// A page of the file table; what is accepted must come back the same.
pub fn fuzz_file_table(bytes: &[u8]) {
    let Some(table) = page(bytes, FileRecord::decode).and_then(|records| FileTable::from_records(records).ok()) else {
        return;
    };
    let mut records = Vec::new();
    for (_, record) in table.encode() {
        let mut input = super::wire::Input::new(&record, "record");
        records.extend(FileRecord::decode(&mut input));
    }
    let mut sorted = table.clone();
    sorted.spaces.sort_by_key(|space| space.space);
    sorted.files.sort_by_key(|file| file.number);
    assert!(FileTable::from_records(records).is_ok_and(|again| again == sorted));
}

/// A page of the index.
pub fn fuzz_index(bytes: &[u8]) {
    for record in page(bytes, IndexRecord::decode).into_iter().flatten() {
        let encoded = record.encode();
        let again = IndexRecord::decode(&mut super::wire::Input::new(&encoded, "record"));
        assert_eq!(again, Ok(record));
    }
}

/// A page of the list of packs.
pub fn fuzz_objects(bytes: &[u8]) {
    for record in page(bytes, PackRef::decode).into_iter().flatten() {
        let encoded = record.encode();
        assert_eq!(PackRef::decode(&mut super::wire::Input::new(&encoded, "record")), Ok(record));
    }
}

/// A page of the redo table.
pub fn fuzz_redo_table(bytes: &[u8]) {
    for record in page(bytes, RedoRef::decode).into_iter().flatten() {
        let encoded = record.encode();
        assert_eq!(RedoRef::decode(&mut super::wire::Input::new(&encoded, "record")), Ok(record));
    }
}

/// A frame's payload: meta and body, not compressed.
pub fn fuzz_frame(bytes: &[u8]) {
    let Ok((meta, body_at)) = container::split_payload(bytes) else { return };
    let Ok(head) = FrameHead::decode(meta) else { return };
    let body = bytes::Bytes::copy_from_slice(bytes.get(body_at..).unwrap_or_default());
    if let Ok(frame) = head.with_body(body) {
        walk(&frame);
    }
}

fn walk(frame: &Frame) {
    let by_units: usize = frame.units().map(|(_, bytes)| bytes.len()).sum();
    let by_runs: usize = frame.runs().map(|run| run.bytes.len()).sum();
    assert_eq!((by_units, by_runs), (frame.body().len(), frame.body().len()));
    let zeros: u64 = frame.zero_runs().map(|run| u64::from(run.bytes)).sum();
    assert!(zeros + super::wire::to_u64(by_runs) <= frame.span_bytes().into());
}

/// Footer, heads and directory, as they stand in an object.
pub fn fuzz_container(bytes: &[u8]) {
    let (Ok(backup), Ok(attempt)) = ("a-20260314T150926Z-1a2b3c4d".parse(), "0123456789abcdef".parse()) else { return };
    let place = Place { backup: &backup, attempt: &attempt, name: "pack-000001", kind: Kind::Pack };
    let tail = bytes.get(bytes.len().saturating_sub(container::FOOTER_BYTES)..).unwrap_or_default();
    drop(container::Footer::decode(tail, &place, false, super::wire::to_u64(bytes.len())));
    drop(container::Head::decode(bytes.get(..16).unwrap_or_default()));
    let count = bytes.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    if let Some((meta, body)) = bytes.split_at_checked(4) {
        drop(container::decode_directory(meta, body, count, super::wire::to_u64(bytes.len())));
    }
}

/// A compressed body: first byte the codec, then three of the raw size.
pub fn fuzz_body(bytes: &[u8]) {
    let Some((&[codec, a, b, c], body)) = bytes.split_first_chunk::<4>() else { return };
    let (Ok(codec), Ok(mut decompressor)) = (BodyCodec::from_number(codec), Decompressor::new()) else { return };
    let raw_len = super::wire::to_len(u32::from_be_bytes([0, a, b, c]));
    if let Ok(raw) = decompressor.decompress(codec, body, raw_len) {
        assert_eq!(raw.len(), raw_len);
    }
}

/// First four bytes the count, the rest the page.
fn page<T>(
    bytes: &[u8],
    record: fn(&mut super::wire::Input<'_>) -> Result<T, super::wire::Malformed>,
) -> Option<Vec<T>> {
    let (count, body) = bytes.split_at_checked(4)?;
    decode_records(count, body, record).ok()
}
