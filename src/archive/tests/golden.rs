//! Archives that were written once and must be readable forever.
//!
//! `STILLFRAME_WRITE_GOLDEN=1 cargo test --lib archive::tests::golden` writes those that are missing (and the seeds of
//! the fuzz targets); it never replaces one. See testdata/golden/README.md.

use std::fs;
use std::path::{Path, PathBuf};

use super::sample::*;
use crate::archive::filetable::FileTable;
use crate::archive::frame::plan_frame;
use crate::archive::index::IndexRecord;
use crate::archive::memory::MemoryStore;
use crate::archive::*;

const GOLDEN: [(&str, &str, bool); 4] =
    [("zstd", "zstd:1", false), ("lz4", "lz4", false), ("none", "none", false), ("encrypted", "zstd:3", true)];
const PACK_BYTES: u64 = 30_000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden/format-1")
}

fn options_of(codec: &str, encrypted: bool) -> WriterOptions {
    options(codec.parse().unwrap(), PACK_BYTES, if encrypted { vec![key(1), key(2)] } else { Vec::new() })
}

fn writing() -> bool {
    std::env::var_os("STILLFRAME_WRITE_GOLDEN").is_some()
}

fn save(dir: &Path, stored: &Stored) {
    fs::create_dir_all(dir.join("keys")).unwrap();
    fs::create_dir_all(dir.join("objects")).unwrap();
    fs::write(dir.join("manifest.json"), &stored.manifest).unwrap();
    for key in &stored.wrapped {
        fs::write(dir.join("keys").join(format!("{}.json", key.key_id())), key.encode().unwrap()).unwrap();
    }
    for (name, bytes) in stored.store.objects().iter() {
        fs::write(dir.join("objects").join(name), bytes).unwrap();
    }
}

fn load(dir: &Path) -> Stored {
    let store = MemoryStore::default();
    for entry in fs::read_dir(dir.join("objects")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        store.objects().insert(name, fs::read(path).unwrap());
    }
    let keys = fs::read_dir(dir.join("keys")).into_iter().flatten();
    let wrapped = keys.map(|entry| WrappedKey::decode(&fs::read(entry.unwrap().path()).unwrap()).unwrap()).collect();
    Stored { store, manifest: fs::read(dir.join("manifest.json")).unwrap(), wrapped }
}

#[test]
fn golden_archives_are_read_forever() {
    let sample = Sample::new();
    for (name, codec, encrypted) in GOLDEN {
        let dir = root().join(name);
        if writing() && !dir.exists() {
            save(&dir, &write(&sample, &options_of(codec, encrypted)));
        }
        let stored = load(&dir);
        let keys = if encrypted { vec![key(2)] } else { Vec::new() };
        stored.check(&sample, &keys);
        assert!(Manifest::decode(&stored.manifest).unwrap().contents.pack_count > 1, "{name} has several packs");
    }
}

/// Without compressor and cipher nothing may differ: this catches a layout that drifts on both sides alike.
#[test]
fn the_plain_golden_archive_is_written_the_same_today() {
    let stored = load(&root().join("none"));
    let today = write(&Sample::new(), &options_of("none", false));
    assert!(*stored.store.objects() == *today.store.objects());
    assert_eq!(String::from_utf8(stored.manifest).unwrap(), String::from_utf8(today.manifest).unwrap());
}

#[test]
fn every_fuzz_target_has_seeds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, seeds) in seeds() {
        let dir = corpus.join(target);
        for (number, seed) in seeds.iter().enumerate() {
            let path = dir.join(format!("seed-{number}"));
            if writing() && !path.exists() {
                fs::create_dir_all(&dir).unwrap();
                fs::write(&path, seed).unwrap();
            }
        }
        assert!(fs::read_dir(&dir).unwrap().count() >= seeds.len(), "{target}");
        let run = fuzzing::TARGETS.iter().find(|(name, _)| *name == target).unwrap().1;
        for seed in &seeds {
            run(seed);
        }
    }
    assert_eq!(seeds().len(), fuzzing::TARGETS.len());
}

/// Good bytes of each kind, small.
fn seeds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let sample = Sample::new();
    let open = write(&sample, &options_of("none", false));
    let sealed = write(&sample, &options_of("zstd:1", true));
    let reader = open.open(&[]).unwrap();
    let page = |records: Vec<Vec<u8>>| {
        let count = u32::try_from(records.len()).unwrap().to_be_bytes().to_vec();
        [vec![count], records].concat().concat()
    };
    let records = |table: &FileTable| table.encode().into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>();
    let mut index = Vec::new();
    for stream in &sample.streams {
        reader
            .frames_of(stream.id, &mut |at| {
                index.push(at);
                Ok(())
            })
            .unwrap();
    }
    let index: Vec<IndexRecord> = index.iter().map(FrameRef::record).collect();
    let mut frames = Vec::new();
    for stream in [&sample.streams[2], &sample.streams[5]] {
        let zero = stream.zero_flags(0);
        let unit_size = u32::try_from(stream.unit).unwrap();
        let input = FrameInput { stream: stream.id, window_no: 0, unit_size, bytes: stream.window(0), zero: &zero };
        let mut scratch = Vec::new();
        let plan = plan_frame(&input, None, &mut scratch).unwrap();
        let length = u16::try_from(plan.meta.len()).unwrap().to_be_bytes();
        frames.push([&length, plan.meta.as_slice(), plan.body].concat());
    }
    let body = page_of_text();
    let mut bodies = Vec::new();
    for (number, codec) in [(0, Codec::None), (1, Codec::Zstd { level: 1 }), (2, Codec::Lz4)] {
        let mut compressor = codec::Compressor::new(codec).unwrap();
        let raw = u32::try_from(body.len()).unwrap().to_be_bytes();
        bodies.push([&[number], &raw[1..], compressor.compress(&body).unwrap().1].concat());
    }
    let objects = open.store.objects();
    let directory = |name: &str| {
        let bytes = &objects[name];
        let at = u64::from_be_bytes(*bytes[bytes.len() - 48..].first_chunk().unwrap());
        bytes[usize::try_from(at).unwrap() + 34..].to_vec()
    };
    vec![
        ("manifest", vec![open.manifest.clone(), sealed.manifest.clone()]),
        ("keys", sealed.wrapped.iter().map(|key| key.encode().unwrap()).chain([vec![b'7'; 64]]).collect()),
        ("file_table", vec![page(records(&sample.table)), page(Vec::new())]),
        ("index", vec![page(index.iter().map(IndexRecord::encode).collect())]),
        ("objects", vec![page(reader.objects.iter().map(PackRef::encode).collect())]),
        ("redo_table", vec![page(reader.redo_segments().iter().map(RedoRef::encode).collect())]),
        ("frame", frames),
        ("container", vec![directory("pack-000001"), directory("files")]),
        ("body", bodies),
    ]
}

fn page_of_text() -> Vec<u8> {
    b"a page holds rows, a row holds columns; ".repeat(40)
}
