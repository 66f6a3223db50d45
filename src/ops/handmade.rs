//! For tests of the verbs: archives whose every digest is right, of pages and redo blocks that a test makes up. A writer
//! with a mistake in it, or whoever may write to a store, leaves such.

use crate::archive::codec::Codec;
use crate::archive::manifest::Manifest;
use crate::archive::tests::sample::{Sample, Segment, Stored, Stream, options, write};
use crate::archive::{FileTable, Location, PieceEntry, SpaceEntry, StreamId};
use crate::innodb::checksum::stamp_page;
use crate::innodb::ids::{PageNo, SpaceId};
use crate::innodb::lsn::{LOG_BLOCK_SIZE, Lsn};
use crate::innodb::redo::block::encode_block;

/// The one tablespace, of pages of 16 KiB.
pub const SPACE: SpaceId = SpaceId(5);
/// The first LSN of the redo. The checkpoint is in the block that begins here.
pub const REDO: u64 = 8192;
/// The name of the one pack.
pub const PACK: &str = "pack-000001";

/// A page of an index that is good in its place.
pub fn page(number: u32) -> Vec<u8> {
    let mut page = vec![0_u8; 16384];
    page[4..8].copy_from_slice(&number.to_be_bytes());
    page[16..24].copy_from_slice(&9000_u64.to_be_bytes());
    page[24..26].copy_from_slice(&17855_u16.to_be_bytes());
    page[34..38].copy_from_slice(&SPACE.0.to_be_bytes());
    page[100] = 1;
    page[16380..].copy_from_slice(&9000_u32.to_be_bytes());
    stamp_page(&mut page).unwrap();
    page
}

/// The log block number `index`, with so many bytes of payload: 496 make it full.
pub fn block(index: u64, payload: usize) -> Vec<u8> {
    encode_block(Lsn::new(REDO + index * LOG_BLOCK_SIZE), &vec![0x5A; payload], None).unwrap().to_vec()
}

/// Three blocks, the last of which is not full.
pub fn redo() -> Vec<Vec<u8>> {
    vec![block(0, 496), block(1, 496), block(2, 100)]
}

/// An archive of these pages, which are all of the tablespace, and of these blocks, two in a segment. The last is taken for
/// the one that [`redo`] ends with.
pub fn archive(pages: &[Vec<u8>], blocks: &[Vec<u8>]) -> (Stored, Manifest) {
    let start = |index: usize| REDO + u64::try_from(index).unwrap() * LOG_BLOCK_SIZE;
    let segment = |(number, some): (usize, &[Vec<u8>])| {
        let behind = 2 * number + some.len();
        let end = if behind < blocks.len() { start(behind) } else { start(behind - 1) + 112 };
        Segment { start: Lsn::new(start(2 * number)), end: Lsn::new(end), spaces: None, blocks: some.concat() }
    };
    stored(pages, blocks.chunks(2).enumerate().map(segment).collect(), None)
}

/// Where the archives' checkpoint lies in the first block of the redo.
const CHECKPOINT: u64 = 100;

/// An archive of these pages, with a system tablespace, and of a log that has these groups from the checkpoint on.
pub fn archive_with_log(pages: &[Vec<u8>], groups: &[u8]) -> (Stored, Manifest) {
    let before = usize::try_from(CHECKPOINT).unwrap() - 12;
    let payload = [&vec![0x5A; before], groups].concat();
    let end = Lsn::new(REDO + 12 + u64::try_from(payload.len()).unwrap());
    let blocks = encode_block(Lsn::new(REDO), &payload, Some(before)).unwrap().to_vec();
    let segment = Segment { start: Lsn::new(REDO), end, spaces: None, blocks };
    let piece = PieceEntry { location: Location::Datadir(b"ibdata1".to_vec()), first_page: PageNo(0), pages: 1 };
    let system = SpaceEntry { space: SpaceId::SYSTEM, flags: 0, pages: 1, pieces: vec![piece] };
    stored(pages, vec![segment], Some(&system))
}

fn stored(pages: &[Vec<u8>], segments: Vec<Segment>, system: Option<&SpaceEntry>) -> (Stored, Manifest) {
    let count = u32::try_from(pages.len()).unwrap();
    let location = Location::Datadir(b"db/t.ibd".to_vec());
    let piece = PieceEntry { location, first_page: PageNo(0), pages: count };
    let space = SpaceEntry { space: SPACE, flags: 0x4021, pages: count, pieces: vec![piece] };
    let empty = system.into_iter().map(|system| Stream {
        id: StreamId::Space(system.space),
        unit: 16384,
        bytes: vec![0; 16384],
    });
    let spaces = system.into_iter().cloned().chain([space]).collect();
    let sample = Sample {
        streams: empty.chain([Stream { id: StreamId::Space(SPACE), unit: 16384, bytes: pages.concat() }]).collect(),
        segments,
        table: FileTable { spaces, directories: vec![b"db".to_vec()], ..FileTable::default() },
    };
    let stored = write(&sample, &options(Codec::None, 1 << 20, Vec::new()));
    let manifest = Manifest::decode(&stored.manifest).unwrap();
    (stored, manifest)
}
