//! What must never become a complete archive.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::sample::*;
use crate::archive::memory::MemoryStore;
use crate::archive::*;
use crate::innodb::ids::SpaceId;
use crate::innodb::lsn::Lsn;

fn writer(sink: Arc<dyn ObjectSink>) -> ArchiveWriter {
    ArchiveWriter::new(sink, options(Codec::None, 50_000, Vec::new())).unwrap()
}

fn memory() -> Arc<dyn ObjectSink> {
    Arc::new(MemoryStore::default())
}

fn store_all(writer: &ArchiveWriter, sample: &Sample) -> Result<(), ArchiveError> {
    let mut packs = writer.pack_writer();
    for stream in &sample.streams {
        for window_no in 0..stream.windows() {
            stream.store(&mut packs, window_no)?;
        }
    }
    packs.finish()
}

#[test]
fn a_pack_writer_that_is_open_or_was_dropped_is_missed() {
    let sample = Sample::new();
    let archive = writer(memory());
    store_all(&archive, &sample).unwrap();
    let open = archive.pack_writer();
    let error = archive.finish(&sample.table).unwrap_err();
    assert!(error.to_string().contains("not finished"), "{error}");
    drop(open);
    let error = archive.finish(&sample.table).unwrap_err();
    assert!(error.to_string().contains("ended before"), "{error}");
}

#[test]
fn a_missing_page_or_file_is_noticed() {
    let mut sample = Sample::new();
    let archive = writer(memory());
    store_all(&archive, &sample).unwrap();
    for change in [1_i64, -1] {
        let mut table = sample.table.clone();
        let space = &mut table.spaces[0];
        space.pages = space.pages.checked_add_signed(change.try_into().unwrap()).unwrap();
        space.pieces[0].pages = space.pages;
        let error = archive.finish(&table).unwrap_err();
        assert!(error.to_string().contains("space 0 has"), "{error}");
    }
    let mut table = sample.table.clone();
    table.files[0].bytes += 4096;
    assert!(archive.finish(&table).unwrap_err().to_string().contains("file 1 has"));
    sample.table.files.remove(0);
    assert!(archive.finish(&sample.table).unwrap_err().to_string().contains("not in the table"));
}

#[test]
fn an_archive_is_finished_once() {
    let sample = Sample::new();
    let archive = writer(memory());
    store_all(&archive, &sample).unwrap();
    archive.finish(&sample.table).unwrap();
    assert!(matches!(archive.finish(&sample.table), Err(ArchiveError::Incomplete { .. })));
}

#[test]
fn a_gap_in_the_redo_is_refused_at_once_and_for_good() {
    let sample = Sample::new();
    let archive = writer(memory());
    store_all(&archive, &sample).unwrap();
    let [first, second, third] = &sample.segments[..] else { panic!("three segments") };
    let store = |segment: &Segment| archive.redo_segment(segment.start, segment.end, None, &segment.blocks);
    store(first).unwrap();
    let error = store(third).unwrap_err();
    assert!(
        matches!(error, ArchiveError::RedoGap { expected, found } if expected == first.end && found == third.start)
    );
    store(second).unwrap();
    store(third).unwrap();
    assert!(matches!(archive.finish(&sample.table), Err(ArchiveError::RedoGap { .. })), "what was lost stays lost");
}

#[test]
fn redo_that_is_shorter_or_longer_than_its_lsns_is_refused() {
    let sample = Sample::new();
    let segment = &sample.segments[0];
    let long = [segment.blocks.as_slice(), &[0; 512]].concat();
    for blocks in [&segment.blocks[512..], &long, &[]] {
        let archive = writer(memory());
        store_all(&archive, &sample).unwrap();
        assert!(archive.redo_segment(segment.start, segment.end, None, blocks).is_err());
        assert!(matches!(archive.finish(&sample.table), Err(ArchiveError::Incomplete { .. })));
    }
    for (start, end) in [(8193_i64, 9000), (8192, 8192), (8192, 8000), (8192, 8192 + (64 << 20) + 512)] {
        let blocks = vec![1; usize::try_from((end - start).max(0)).unwrap().next_multiple_of(512)];
        let (start, end) = (Lsn::new(start.try_into().unwrap()), Lsn::new(end.try_into().unwrap()));
        let error = writer(memory()).redo_segment(start, end, None, &blocks).unwrap_err();
        assert!(matches!(error, ArchiveError::BadInput { .. }), "{error}");
    }
}

#[test]
fn a_segment_that_names_very_many_spaces_may_name_any() {
    let many = (0..2000).map(SpaceId).collect();
    let sample = Sample::new();
    let archive = writer(memory());
    store_all(&archive, &sample).unwrap();
    let store = MemoryStore::default();
    let mut sample = Sample::new();
    sample.segments[0].spaces = Some(many);
    let options = options(Codec::None, 1 << 20, Vec::new());
    let archive = ArchiveWriter::new(Arc::new(store.clone()), options.clone()).unwrap();
    store_all(&archive, &sample).unwrap();
    for segment in &sample.segments {
        archive.redo_segment(segment.start, segment.end, segment.spaces.as_ref(), &segment.blocks).unwrap();
    }
    let contents = archive.finish(&sample.table).unwrap();
    let manifest = manifest(&sample, &options, contents, &archive).encode(None).unwrap();
    let reader = Stored { store, manifest, wrapped: Vec::new() }.open(&[]).unwrap();
    let [first, second, third] = reader.redo_segments() else { panic!("three segments") };
    assert!(first.spaces.is_none() && first.may_name(SpaceId(5000)));
    assert!(!second.may_name(SpaceId(0)));
    assert!(third.may_name(SpaceId(0)));
}

/// Fails once a number of writes were done.
struct Failing {
    store: MemoryStore,
    left: Arc<AtomicUsize>,
    cancelled: bool,
}

struct FailingWriter {
    inner: Box<dyn ObjectWriter>,
    left: Arc<AtomicUsize>,
    cancelled: bool,
}

impl FailingWriter {
    fn step(&self) -> Result<(), ObjectError> {
        let step = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match (step, self.cancelled) {
            (Ok(_), _) => Ok(()),
            (Err(_), true) => Err(ObjectError::Cancelled),
            (Err(_), false) => {
                Err(ObjectError::Failed { name: "it".into(), act: "write", source: "store is full".into() })
            }
        }
    }
}

impl ObjectSink for Failing {
    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, ObjectError> {
        let inner = self.store.create(name)?;
        Ok(Box::new(FailingWriter { inner, left: Arc::clone(&self.left), cancelled: self.cancelled }))
    }
}

impl ObjectWriter for FailingWriter {
    fn write(&mut self, bytes: Bytes) -> Result<(), ObjectError> {
        self.step()?;
        self.inner.write(bytes)
    }

    fn finish(self: Box<Self>) -> Result<(), ObjectError> {
        self.step()?;
        self.inner.finish()
    }
}

#[test]
fn a_store_that_fails_anywhere_leaves_nothing_complete() {
    let sample = Sample::new();
    for cancelled in [false, true] {
        let mut steps = 0;
        loop {
            let left = Arc::new(AtomicUsize::new(steps));
            let sink = Failing { store: MemoryStore::default(), left, cancelled };
            let archive = writer(Arc::new(sink));
            let stored = store_all(&archive, &sample);
            let mut redo = Ok(());
            for segment in &sample.segments {
                redo = redo.and(archive.redo_segment(segment.start, segment.end, None, &segment.blocks));
            }
            let finished = archive.finish(&sample.table);
            if let Err(error) = &stored {
                assert_eq!(matches!(error, ArchiveError::Cancelled), cancelled, "{error}");
            }
            if finished.is_ok() {
                assert!(stored.is_ok() && redo.is_ok(), "after {steps} steps");
                break;
            }
            steps += 1;
        }
        assert!(steps > 15, "the store was asked {steps} times only");
    }
}
