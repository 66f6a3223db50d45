//! A small archive with one of everything, and the check that finds it again. What it holds is part of the golden
//! archives: it must not change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::archive::manifest::{
    BackupType, BinlogPosition, ByteCounts, Digits, LsnRange, Origin, PageCounts, RedoInfo, Server,
};
use crate::archive::memory::MemoryStore;
use crate::archive::*;
use crate::innodb::ids::{PageNo, PageSize, SpaceId};
use crate::innodb::lsn::Lsn;

pub const WINDOW: usize = 4 << 20;

/// Bytes that look random and are the same everywhere, forever.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A page that compresses to about a tenth, or noise.
pub fn page(seed: u64, size: usize, random: bool) -> Vec<u8> {
    if random {
        return noise(seed, size);
    }
    let mut bytes = noise(seed, size / 16);
    bytes.resize(size, 0x20);
    bytes
}

/// One stream's contents.
pub struct Stream {
    pub id: StreamId,
    pub unit: usize,
    pub bytes: Vec<u8>,
}

impl Stream {
    /// `pages`: '.' zero, 'a' compressible, 'r' random; `x254` repeats the last so often.
    fn pages(space: u32, unit: usize, pages: &str) -> Self {
        let mut bytes = Vec::new();
        for (number, kind) in pages.chars().enumerate() {
            let seed = u64::from(space) << 32 | u64::try_from(number).unwrap();
            match kind {
                '.' => bytes.resize(bytes.len() + unit, 0),
                kind => bytes.extend(page(seed, unit, kind == 'r')),
            }
        }
        Self { id: StreamId::Space(SpaceId(space)), unit, bytes }
    }

    fn file(number: u32, bytes: Vec<u8>) -> Self {
        Self { id: StreamId::File(number), unit: 4096, bytes }
    }

    pub fn window(&self, window_no: usize) -> &[u8] {
        let start = window_no * WINDOW;
        &self.bytes[start..(start + WINDOW).min(self.bytes.len())]
    }

    pub fn windows(&self) -> usize {
        self.bytes.len().div_ceil(WINDOW)
    }

    pub fn zero_flags(&self, window_no: usize) -> Vec<bool> {
        self.window(window_no).chunks(self.unit).map(|unit| unit.iter().all(|byte| *byte == 0)).collect()
    }

    pub fn store(&self, writer: &mut PackWriter, window_no: usize) -> Result<(), ArchiveError> {
        writer.frame(&FrameInput {
            stream: self.id,
            window_no: u32::try_from(window_no).unwrap(),
            unit_size: u32::try_from(self.unit).unwrap(),
            bytes: self.window(window_no),
            zero: &self.zero_flags(window_no),
        })
    }
}

/// One redo segment.
pub struct Segment {
    pub start: Lsn,
    pub end: Lsn,
    pub spaces: Option<BTreeSet<SpaceId>>,
    pub blocks: Vec<u8>,
}

/// All that the sample holds.
pub struct Sample {
    pub streams: Vec<Stream>,
    pub segments: Vec<Segment>,
    pub table: FileTable,
}

impl Sample {
    pub fn new() -> Self {
        let gap = ".".repeat(250);
        let streams = vec![
            Stream::pages(0, 16384, "ar.a"),
            // Two windows: zero pages in between, then a part of a window.
            Stream::pages(7, 16384, &format!("aa{gap}raa.a.")),
            Stream::pages(8, 1024, "a.rrra..a.a"),
            Stream::pages(u32::MAX - 1, 65536, "a"),
            Stream::file(1, noise(99, 9001)),
            Stream::file(2, [vec![b'x'; 5000], vec![0; 8192], vec![7; 3]].concat()),
            Stream::file(3, Vec::new()),
        ];
        let segment = |start: u64, end: u64, spaces: Option<&[u32]>| Segment {
            start: Lsn::new(start),
            end: Lsn::new(end),
            spaces: spaces.map(|spaces| spaces.iter().copied().map(SpaceId).collect()),
            blocks: page(start, usize::try_from((end - start).next_multiple_of(512)).unwrap(), false),
        };
        let segments = vec![
            segment(8192, 8192 + 6 * 512, Some(&[0, 7])),
            segment(8192 + 6 * 512, 8192 + 8 * 512, Some(&[])),
            segment(8192 + 8 * 512, 8192 + 10 * 512 + 77, None),
        ];
        Self { table: file_table(&streams), streams, segments }
    }

    /// The sample with LSNs of its manifest.
    pub fn lsn(&self) -> LsnRange {
        LsnRange { checkpoint: Lsn::new(8192 + 100), end: self.segments.last().unwrap().end, page_tracking_start: None }
    }
}

fn file_table(streams: &[Stream]) -> FileTable {
    let mut table =
        FileTable { directories: vec![b"empty@002dschema".to_vec(), b"db".to_vec()], ..FileTable::default() };
    for stream in streams {
        match stream.id {
            StreamId::Space(space) => {
                let pages = u32::try_from(stream.bytes.len() / stream.unit).unwrap();
                let mut pieces = vec![PieceEntry {
                    location: Location::Datadir(format!("db/secret_table_{space}.ibd").into_bytes()),
                    first_page: PageNo(0),
                    pages,
                }];
                if space.0 == 7 {
                    pieces[0] = PieceEntry {
                        location: Location::External(b"/else/where/secret\xFF\n.ibd".to_vec()),
                        first_page: PageNo(0),
                        pages: 100,
                    };
                    pieces.push(PieceEntry {
                        location: Location::Datadir(b"secret_second".to_vec()),
                        first_page: PageNo(100),
                        pages: pages - 100,
                    });
                }
                table.spaces.push(SpaceEntry { space, flags: 0x4021, pages, pieces });
            }
            StreamId::File(number) => table.files.push(FileEntry {
                number,
                location: Location::Datadir(format!("db/secret_{number}.MYD").into_bytes()),
                kind: if number == 1 { StoredFileKind::NonTransactional } else { StoredFileKind::BinlogTail },
                bytes: u64::try_from(stream.bytes.len()).unwrap(),
            }),
        }
    }
    table
}

pub fn key(seed: u8) -> RecipientKey {
    RecipientKey::parse(&(0..32).map(|i: u8| i.wrapping_mul(7).wrapping_add(seed)).collect::<Vec<u8>>()).unwrap()
}

pub fn options(codec: Codec, pack_bytes: u64, recipients: Vec<RecipientKey>) -> WriterOptions {
    WriterOptions {
        backup: "golden-20260314T150926Z-1a2b3c4d".parse().unwrap(),
        attempt: "0123456789abcdef".parse().unwrap(),
        codec,
        redo_codec: codec,
        pack_bytes,
        recipients,
    }
}

/// A stored archive, as a store would have it.
pub struct Stored {
    pub store: MemoryStore,
    pub manifest: Vec<u8>,
    pub wrapped: Vec<WrappedKey>,
}

pub fn write(sample: &Sample, options: &WriterOptions) -> Stored {
    let store = MemoryStore::default();
    let writer = ArchiveWriter::new(Arc::new(store.clone()), options.clone()).unwrap();
    let mut packs = writer.pack_writer();
    for stream in &sample.streams {
        for window_no in 0..stream.windows() {
            stream.store(&mut packs, window_no).unwrap();
        }
    }
    packs.finish().unwrap();
    for segment in &sample.segments {
        writer.redo_segment(segment.start, segment.end, segment.spaces.as_ref(), &segment.blocks).unwrap();
    }
    let contents = writer.finish(&sample.table).unwrap();
    assert_eq!(contents.total_bytes, writer.stored_bytes());
    let manifest = manifest(sample, options, contents, &writer);
    Stored { store, manifest: manifest.encode(writer.keys()).unwrap(), wrapped: writer.wrapped_keys() }
}

pub fn manifest(sample: &Sample, options: &WriterOptions, contents: Contents, writer: &ArchiveWriter) -> Manifest {
    Manifest {
        format: 1,
        name: options.backup.name().to_owned(),
        id: options.backup.clone(),
        attempt: options.attempt.clone(),
        labels: BTreeMap::from([("team".to_owned(), "shop".to_owned())]),
        origin: Origin { namespace: Some("prod".to_owned()), ..Origin::default() },
        backup_type: BackupType::Full,
        parent: None,
        server: Server {
            version: "9.7.4".to_owned(),
            version_comment: "MySQL Community Server - GPL".to_owned(),
            uuid: "3e11fa47-71ca-11e1-9e33-c80aa9429562".to_owned(),
            page_size: PageSize::DEFAULT,
            lower_case_table_names: 0,
            master_keys: Vec::new(),
            settings: BTreeMap::from([("innodb_data_file_path".to_owned(), "ibdata1:12M:autoextend".to_owned())]),
            untested: false,
            role: None,
            channels: Vec::new(),
        },
        lsn: sample.lsn(),
        redo: RedoInfo { log_uuid: 0x1234_5678, creator: "MySQL 9.7.4".to_owned(), encryption_block: None },
        binlog: Some(BinlogPosition { file: "binlog.000008".to_owned(), position: 158 }),
        gtid_executed: "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-23".to_owned(),
        gtid_purged: String::new(),
        start_time: Timestamp::from_second(1_773_500_966).unwrap(),
        completion_time: Timestamp::from_second(1_773_500_987).unwrap(),
        duration_seconds: 21,
        lock_held_milliseconds: 20_340,
        global_read_lock_milliseconds: 212,
        ddl_wait_milliseconds: 0,
        bytes: ByteCounts { read: 5_000_000, stored: contents.total_bytes },
        pages: PageCounts { copied: 20, zero: 260, reread: 0, unverified: 0 },
        codec: options.codec,
        cipher: writer.cipher_info().unwrap(),
        contents,
        warnings: Vec::new(),
        hmac: Digits::default(),
        digest: Digits::default(),
    }
}

impl Stored {
    pub fn open(&self, keys: &[RecipientKey]) -> Result<ArchiveReader, ArchiveError> {
        let manifest = Manifest::decode(&self.manifest)?;
        ArchiveReader::open(&manifest, Arc::new(self.store.clone()), &self.wrapped, keys)
    }

    /// Reads everything, as `verify` does; gives back what is wrong.
    pub fn problems(&self, keys: &[RecipientKey]) -> Vec<String> {
        let reader = match self.open(keys) {
            Ok(reader) => reader,
            Err(error) => return vec![error.to_string()],
        };
        let mut problems = Vec::new();
        for pack in reader.packs() {
            problems.extend(reader.read_pack(&pack, &mut |_| Ok(())).err().map(|error| error.to_string()));
        }
        for segment in reader.redo_segments() {
            problems.extend(reader.read_redo(segment).err().map(|error| error.to_string()));
        }
        let tables = reader.verify_tables().unwrap();
        assert_eq!(tables.problem_count, u64::try_from(tables.problems.len()).unwrap());
        problems.extend(tables.problems.into_iter().map(|problem| format!("{}: {}", problem.object, problem.what)));
        problems
    }

    /// Finds the sample again, by packs and by the index.
    pub fn check(&self, sample: &Sample, keys: &[RecipientKey]) {
        assert_eq!(self.problems(keys), Vec::<String>::new());
        let reader = self.open(keys).unwrap();
        let mut table = sample.table.clone();
        table.spaces.sort_by_key(|space| space.space);
        assert_eq!(reader.file_table().unwrap(), table);
        let mut found: BTreeMap<StreamId, Vec<u8>> = BTreeMap::new();
        for pack in reader.packs() {
            let mut put = |frame: Frame| {
                assert!(frame.is_whole());
                place(&frame, found.entry(frame.stream).or_default());
                Ok(())
            };
            reader.read_pack(&pack, &mut put).unwrap();
        }
        for stream in sample.streams.iter().filter(|stream| !stream.bytes.is_empty()) {
            assert!(found.get(&stream.id) == Some(&stream.bytes), "{} by packs", stream.id);
            let mut bytes = Vec::new();
            let mut windows = 0;
            let mut put = |at: FrameRef| {
                assert_eq!((at.stream, at.window_no), (stream.id, windows));
                windows += 1;
                place(&reader.read_frame(&at)?, &mut bytes);
                Ok(())
            };
            reader.frames_of(stream.id, &mut put).unwrap();
            assert!(bytes == stream.bytes, "{} by the index", stream.id);
        }
        assert_eq!(reader.redo_segments().len(), sample.segments.len());
        for (stored, segment) in reader.redo_segments().iter().zip(&sample.segments) {
            assert_eq!((stored.start, stored.end), (segment.start, segment.end));
            let spaces = segment.spaces.as_ref().map(|spaces| spaces.iter().copied().collect::<Vec<_>>());
            assert_eq!(stored.spaces, spaces);
            assert_eq!(reader.read_redo(stored).unwrap(), segment.blocks);
        }
        let mut objects = reader.objects();
        objects.sort();
        let stored = self.store.objects();
        let sizes = stored.iter().map(|(name, bytes)| (name.clone(), u64::try_from(bytes.len()).unwrap()));
        assert_eq!(objects, sizes.collect::<Vec<_>>());
    }
}

/// Puts a frame where it belongs, as a restore does.
pub fn place(frame: &Frame, bytes: &mut Vec<u8>) {
    let end = usize::try_from(frame.position()).unwrap() + usize::try_from(frame.span_bytes()).unwrap();
    bytes.resize(bytes.len().max(end), 0);
    for run in frame.runs() {
        let at = usize::try_from(run.position).unwrap();
        bytes[at..at + run.bytes.len()].copy_from_slice(run.bytes);
    }
}
