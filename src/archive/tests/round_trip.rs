//! What goes into an archive comes out of it, whatever the codec and the keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::sample::*;
use crate::archive::index::RUN_RECORDS;
use crate::archive::memory::MemoryStore;
use crate::archive::*;
use crate::innodb::ids::{PageNo, SpaceId};

#[test]
fn everything_comes_back_with_every_codec_and_pack_size() {
    let sample = Sample::new();
    for codec in ["zstd:1", "zstd:9", "lz4", "none"] {
        for pack_bytes in [1, 100_000, 256 << 20] {
            for recipients in [vec![], vec![key(1), key(2)]] {
                let keys: Vec<_> = recipients.last().cloned().into_iter().collect();
                let stored = write(&sample, &options(codec.parse().unwrap(), pack_bytes, recipients));
                stored.check(&sample, &keys);
            }
        }
    }
}

#[test]
fn packs_are_bounded_and_zero_pages_cost_nothing() {
    let sample = Sample::new();
    let stored = write(&sample, &options(Codec::None, 200_000, Vec::new()));
    let reader = stored.open(&[]).unwrap();
    assert!(reader.packs().len() > 1);
    for pack in reader.packs() {
        let directory = u64::from(pack.frames) * 44 + 200;
        assert!(pack.bytes <= 200_000 + directory, "{} has {} bytes", pack.name, pack.bytes);
    }
    // Space 7 has 4 MiB, nearly all of it zero.
    let frame = reader.find(StreamId::Space(SpaceId(7)), 0).unwrap().unwrap();
    assert!(frame.stored_bytes() < 5 * 16384 + 200, "{} bytes", frame.stored_bytes());
    assert_eq!(frame.units, 256);
    let frame = reader.read_frame(&frame).unwrap();
    assert_eq!((frame.present_count(), frame.zero_count()), (5, 251));
    assert_eq!(frame.runs().count(), 2, "neighbours are written together");
    assert!(reader.find(StreamId::Space(SpaceId(7)), 2).unwrap().is_none());
    assert!(reader.find(StreamId::Space(SpaceId(6)), 0).unwrap().is_none());
    assert!(reader.find(StreamId::File(0), 0).unwrap().is_none());
}

#[test]
fn threads_share_a_writer() {
    let store = MemoryStore::default();
    let options = options(Codec::Lz4, 1 << 20, vec![key(1)]);
    let writer = ArchiveWriter::new(Arc::new(store.clone()), options.clone()).unwrap();
    let mut sample = Sample::new();
    sample.streams = (0..64)
        .map(|number| Stream {
            id: StreamId::File(number),
            unit: 4096,
            bytes: noise(number.into(), 50_000 + usize::try_from(number).unwrap()),
        })
        .collect();
    sample.table = FileTable::default();
    for stream in &sample.streams {
        let StreamId::File(number) = stream.id else { continue };
        sample.table.files.push(FileEntry {
            number,
            location: Location::Datadir(format!("f{number}").into_bytes()),
            kind: StoredFileKind::Sdi,
            bytes: u64::try_from(stream.bytes.len()).unwrap(),
        });
    }
    std::thread::scope(|scope| {
        for part in sample.streams.chunks(16) {
            let mut packs = writer.pack_writer();
            scope.spawn(move || {
                for stream in part {
                    stream.store(&mut packs, 0).unwrap();
                }
                packs.finish().unwrap();
            });
        }
        for segment in &sample.segments {
            writer.redo_segment(segment.start, segment.end, segment.spaces.as_ref(), &segment.blocks).unwrap();
        }
    });
    let contents = writer.finish(&sample.table).unwrap();
    assert_eq!(contents.frame_count, 64);
    let manifest = manifest(&sample, &options, contents, &writer).encode(writer.keys()).unwrap();
    Stored { store, manifest, wrapped: writer.wrapped_keys() }.check(&sample, &[key(1)]);
}

#[test]
fn a_manifest_is_sealed_whatever_zeros_are_in_it() {
    let stored = write(&Sample::new(), &options(Codec::None, 256 << 20, vec![key(1)]));
    let mut manifest = Manifest::decode(&stored.manifest).unwrap();
    let keys = ArchiveKeys::unwrap(&manifest.id, &stored.wrapped, &[key(1)]).unwrap();
    // As of a redo log that is encrypted: 512 bytes, most of them zero.
    let mut block = vec![0; 512];
    block[48..51].copy_from_slice(b"lCC");
    manifest.redo.encryption_block = Some(hex::encode(block));
    let bytes = manifest.encode(Some(&keys)).unwrap();
    Manifest::decode(&bytes).unwrap().verify_hmac(&keys).unwrap();
    let changed = String::from_utf8(bytes).unwrap().replacen("6c4343", "6c4344", 1);
    let decoded = Manifest::decode(changed.as_bytes()).unwrap();
    assert!(decoded.verify_hmac(&keys).is_err());
}

/// Counts what is read.
struct Counting {
    store: MemoryStore,
    bytes: AtomicU64,
}

impl ObjectSource for Counting {
    fn read(&self, name: &str, offset: u64, length: u64) -> Result<::bytes::Bytes, ObjectError> {
        self.bytes.fetch_add(length, Ordering::Relaxed);
        self.store.read(name, offset, length)
    }

    fn size(&self, name: &str) -> Result<u64, ObjectError> {
        self.store.size(name)
    }
}

#[test]
fn an_index_of_several_objects_is_one() {
    // More frames than an index object takes: windows of zeros, since they cost nothing.
    let frames = u32::try_from(RUN_RECORDS).unwrap() + 5000;
    let store = MemoryStore::default();
    let mut sample = Sample::new();
    let options = options(Codec::Zstd { level: 1 }, 256 << 20, Vec::new());
    let writer = ArchiveWriter::new(Arc::new(store.clone()), options.clone()).unwrap();
    let mut writers = [writer.pack_writer(), writer.pack_writer()];
    let zeros = vec![0; 65536];
    for number in (0..frames).rev() {
        // Two threads that take turns: neighbours are in different packs.
        let input = FrameInput {
            stream: StreamId::Space(SpaceId(number / 1000)),
            window_no: number % 1000,
            unit_size: 65536,
            bytes: &zeros,
            zero: &[true],
        };
        writers[usize::from(number % 2 == 0)].frame(&input).unwrap();
    }
    for packs in writers {
        packs.finish().unwrap();
    }
    for segment in &sample.segments {
        writer.redo_segment(segment.start, segment.end, None, &segment.blocks).unwrap();
    }
    let space = |number: u32| SpaceEntry {
        space: SpaceId(number),
        flags: 0,
        pages: (frames - number * 1000).min(1000),
        pieces: vec![PieceEntry {
            location: Location::Datadir(format!("{number}.ibd").into_bytes()),
            first_page: PageNo(0),
            pages: (frames - number * 1000).min(1000),
        }],
    };
    sample.table = FileTable { spaces: (0..frames.div_ceil(1000)).map(space).collect(), ..FileTable::default() };
    let contents = writer.finish(&sample.table).unwrap();
    assert_eq!(contents.index.len(), 2);
    assert!(contents.pack_count >= 16, "a pack has a bounded number of frames: {}", contents.pack_count);
    let index_bytes: u64 = contents.index.iter().map(|table| table.bytes).sum();
    assert!(index_bytes < u64::from(frames) * 40, "{index_bytes} bytes of index");
    let manifest = manifest(&sample, &options, contents, &writer).encode(None).unwrap();
    assert!(manifest.len() < 5000, "a manifest of {} bytes", manifest.len());
    let stored = Stored { store, manifest, wrapped: Vec::new() };
    let source = Arc::new(Counting { store: stored.store.clone(), bytes: AtomicU64::new(0) });
    let decoded = Manifest::decode(&stored.manifest).unwrap();
    let partly = ArchiveReader::open(&decoded, source.clone(), &[], &[]).unwrap();
    source.bytes.store(0, Ordering::Relaxed);
    partly.find(StreamId::Space(SpaceId(77)), 5).unwrap().unwrap();
    let read = source.bytes.load(Ordering::Relaxed);
    assert!(read < 250_000 && read < index_bytes / 20, "{read} of {index_bytes} bytes were read for one window");

    let reader = stored.open(&[]).unwrap();
    let check = reader.verify_tables().unwrap();
    assert_eq!((check.frames, check.problems), (frames.into(), Vec::new()));
    for number in [0, 999, 1000, 123_456, 200_001, frames - 1] {
        let found = reader.find(StreamId::Space(SpaceId(number / 1000)), number % 1000).unwrap().unwrap();
        assert_eq!(reader.read_frame(&found).unwrap().zero_count(), 1);
    }
    let mut windows = 0;
    let mut count = |at: FrameRef| {
        assert_eq!(at.window_no, windows);
        windows += 1;
        Ok(())
    };
    reader.frames_of(StreamId::Space(SpaceId(77)), &mut count).unwrap();
    assert_eq!(windows, 1000);
}

#[test]
fn an_increment_needs_no_other_format() {
    let store = MemoryStore::default();
    let sample = Sample::new();
    let options = options(Codec::Zstd { level: 1 }, 256 << 20, Vec::new());
    let writer = ArchiveWriter::new(Arc::new(store.clone()), options.clone()).unwrap();
    let mut packs = writer.pack_writer();
    let stream = &sample.streams[1];
    let present: Vec<bool> = (0..256).map(|page| page == 1 || page == 40 || page == 252).collect();
    let input = FrameInput {
        stream: stream.id,
        window_no: 0,
        unit_size: 16384,
        bytes: stream.window(0),
        zero: &stream.zero_flags(0),
    };
    packs.partial_frame(&input, &present).unwrap();
    packs.finish().unwrap();
    for segment in &sample.segments {
        writer.redo_segment(segment.start, segment.end, None, &segment.blocks).unwrap();
    }
    let full = writer.finish(&sample.table).unwrap_err();
    assert!(matches!(full, ArchiveError::Incomplete { .. }), "{full}");
    let contents = writer.finish_increment(&sample.table).unwrap();
    let manifest = Manifest {
        backup_type: manifest::BackupType::Incremental,
        parent: Some("golden-20260313T150926Z-00000000".parse().unwrap()),
        ..manifest(&sample, &options, contents, &writer)
    };
    let stored = Stored { store, manifest: manifest.encode(None).unwrap(), wrapped: Vec::new() };
    assert_eq!(stored.problems(&[]), Vec::<String>::new());
    let reader = stored.open(&[]).unwrap();
    let frame = reader.read_frame(&reader.find(stream.id, 0).unwrap().unwrap()).unwrap();
    assert_eq!(frame.units().map(|(unit, _)| unit).collect::<Vec<_>>(), [1, 252]);
    assert!(frame.is_zero(40) && !frame.is_zero(41) && !frame.is_whole());
}
