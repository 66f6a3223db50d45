//! Damage of every class that the check knows: for each of its findings, something that is planted must be told by it.

use std::io::Write as _;

use stillframe::innodb::page::PageType;

use super::{File, busy_leaf, first_of, index_pages, pages_of, u16_of, u32_of};

/// What findings say, a text for each class: where it has a bar, a finding must hold both parts.
pub const CLASSES: [&str; 56] = [
    // Pages by themselves.
    "says that it is page",
    "newer than the end of the log",
    "cannot be recovered",
    // Index pages among each other.
    "as the next one, which is not in use",
    "as the previous one, which is not in use",
    "as the next one, which names page",
    "as the previous one, which names page",
    "behind it are of two indexes or levels",
    "and has neighbours",
    "and its segment at",
    "is a root of index|and so is page",
    "and no root of it",
    // Their rows.
    "heap of|slots",
    "level 64",
    "rows in its list",
    "freed ones,|in its heap",
    "the last insert at byte",
    "of its heap at byte",
    "of its heap twice",
    "behind its heap",
    "which owns",
    "of them used",
    // Rows by what the dictionary says.
    "bytes of rows and",
    "has rows of index|out of order",
    "has a column that goes on",
    "below it, which is not in use",
    "below it, and so has another",
    "below it, of another index or level",
    "is not the next below",
    "behind it have rows of index|out of order",
    "pages below that are no neighbours",
    "is below no other page",
    "should be of dictionary information",
    "dictionary information that is none",
    "dictionary information that is not whole",
    "dictionary information whose pages go in a circle",
    // Extents and segments.
    "not that of a tablespace's first page",
    "of them initialised",
    "not that of extent descriptors",
    "has state 9",
    "has a list that goes to byte",
    "has an extent in two lists",
    "has an extent of state",
    "has a list whose links do not fit",
    "extents, and|were found",
    "has a list of segments that goes",
    "has lists of segments that go|twice",
    "pages of segments, and",
    "without its mark",
    "a second time",
    "in segment|and it is free",
    "in no list",
    "in segment|which there is not",
    // Large objects and undo: see `CLASSES_OF_LISTS`.
    "parts, and|were found",
    "which is none of an off-page column",
    "has an undo log of",
];

/// The rest of them: lists of parts, and rollback segments.
pub const CLASSES_OF_LISTS: [&str; 7] = [
    "of parts that goes|which is free",
    "of parts that goes|of another kind",
    "for rollback segment|which is free",
    "should be rollback segment",
    "for an undo log, which is free",
    "should be an undo log's first page",
    "in its undo log, which is none of undo",
];

/// A finding of this class.
pub fn is_of(class: &str, finding: &str) -> bool {
    class.split('|').all(|part| finding.contains(part))
}

/// A page of a file of 16 KiB pages that nobody uses.
fn free_page(file: &File) -> [u8; 4] {
    let page0 = file.page(0);
    let limit = u32_of(page0, 50) as usize;
    let is_free = |page: &usize| page0[150 + page / 64 * 40 + 24 + page % 64 / 4] >> (page % 4 * 2) & 1 != 0;
    let page = (4..limit.min(file.bytes.len() / file.size())).find(is_free).unwrap();
    u32::try_from(page).unwrap().to_be_bytes()
}

/// Damage to a table with two levels and few pages.
pub fn of_table(bulk: &File) -> Vec<(&'static str, File)> {
    let free = free_page(bulk);
    let root = *index_pages(bulk, 1).first().unwrap();
    let top = bulk.page(root);
    let leaf = busy_leaf(bulk);
    let first_child = 99 + usize::from(u16_of(top, 97)) + 8;
    let (page0, inode) = (bulk.page(0), first_of(bulk, PageType::Inode));
    // The list that the first extent is in.
    let list = [78, 94].into_iter().find(|list| u32_of(page0, *list) != 0).unwrap();
    let none = [0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0];
    let first_node = usize::from(u16_of(page0, list + 8));
    let sdi = first_of(bulk, PageType::Sdi);
    let (object, stream) = description(bulk.page(sdi));
    vec![
        ("next page is free", bulk.with(leaf, 12, &free)),
        ("previous page is free", bulk.with(leaf, 8, &free)),
        ("another root", bulk.with(leaf, 74, &top[74..94])),
        ("far too high a tree", bulk.with(leaf, 64, &[0, 64])),
        ("heap's end among its rows", bulk.with(leaf, 40, &[0, 121])),
        ("one slot more", bulk.with(leaf, 38, &(u16_of(bulk.page(leaf), 38) + 1).to_be_bytes())),
        ("last insert", bulk.with(leaf, 48, &[0, 50])),
        ("child is free", bulk.with(root, first_child, &free)),
        ("first page's kind", bulk.with(0, 24, &PageType::Index.id().to_be_bytes())),
        ("extent's state is none", bulk.with(0, 150 + 20, &[0, 0, 0, 9])),
        ("an extent in two lists", bulk.with(0, 62, &page0[list..list + 16])),
        ("an extent in no list", bulk.with(0, list, &none)),
        ("link to the extent before", bulk.with(0, first_node, &[0, 0, 0, 0, 0, 238])),
        ("pages of segments", bulk.with(0, 138, &[0, 0, 0, 3])),
        ("number of pages of segments", bulk.with(0, 134, &[0, 0, 0, 5])),
        ("pages of segments in a circle", circle_of_inodes(bulk, inode)),
        ("dictionary information in a circle", bulk.with(sdi, 12, &u32::try_from(sdi).unwrap().to_be_bytes())),
        ("free page of a segment", bulk.with(inode, 50 + 64, &free)),
        ("kind of dictionary information", bulk.with(sdi, 24, &PageType::Index.id().to_be_bytes())),
        ("dictionary information of nothing", bulk.with(sdi, object, &stream)),
        ("dictionary information cut short", bulk.with(sdi, object + 20, &[0xFF; 40])),
    ]
}

/// The page of segments is behind itself, in a list that says that it is endless.
fn circle_of_inodes(bulk: &File, inode: usize) -> File {
    let this = [u32::try_from(inode).unwrap().to_be_bytes().as_slice(), &[0, 38]].concat();
    bulk.with(0, 134, &u32::MAX.to_be_bytes()).with(inode, 38 + 6, &this)
}

/// Where a page holds the description of a table, and a shorter one that says nothing.
fn description(page: &[u8]) -> (usize, Vec<u8>) {
    let inflate = |at: usize| {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(&page[at..]), &mut text).ok()?;
        String::from_utf8(text).ok()
    };
    let is_table = |text: &String| text.contains("\"dd_object_type\"") && text.contains("\"columns\"");
    let mut starts =
        (120..page.len() - 2).filter(|at| page[*at] == 0x78 && inflate(*at).as_ref().is_some_and(is_table));
    let at = starts.next_back().unwrap();
    let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    deflate.write_all(b"{}").unwrap();
    (at, deflate.finish().unwrap())
}

/// Damage to a table whose rows are on compressed pages.
pub fn of_compressed(file: &File) -> (&'static str, File) {
    let leaf = *index_pages(file, 0).first().unwrap();
    ("compressed rows", file.with(leaf, 100, &[0xFF; 60]))
}

/// Damage to the list of parts of a large object.
pub fn of_large_object(file: &File) -> Vec<(&'static str, File)> {
    let lob = first_of(file, PageType::LobFirst);
    let endless = u32::MAX.to_be_bytes();
    // An entry that is behind itself, in a list that says that it is endless.
    let entry = usize::from(u16_of(file.page(lob), 72));
    let here = [u32::try_from(lob).unwrap().to_be_bytes().as_slice(), &file.page(lob)[72..74]].concat();
    vec![
        ("parts in a circle", file.with(lob, 64, &endless).with(lob, entry + 6, &here)),
        ("parts on a free page", file.with(lob, 68, &free_page(file))),
        ("parts on another's page", file.with(lob, 68, &[0, 0, 0, 2])),
    ]
}

/// Damage to rollback segments; `segment` has an undo log in this slot.
pub fn of_undo(undo: &File, array: usize, segment: usize, slot: usize) -> Vec<(&'static str, File)> {
    let (free, log) = (free_page(undo), u32_of(undo.page(segment), 72 + slot * 4) as usize);
    let this = u32::try_from(log).unwrap().to_be_bytes();
    let circle = undo.with(log, 70, &u32::MAX.to_be_bytes()).with(log, 50, &this).with(log, 54, &[0, 44]);
    vec![
        ("undo log in a circle", circle),
        ("rollback segment on a free page", undo.with(array, 56, &free)),
        ("undo log on a free page", undo.with(segment, 72 + slot * 4, &free)),
        ("undo log's first page is another's", undo.with(log, 74, &[0, 0, 0, 2])),
    ]
}

/// Damage to a table of so many pages of 4 KiB that its tree has three levels, and the tablespace a second page of extent
/// descriptors.
pub fn of_many_pages(bulk: &File) -> Vec<(&'static str, File)> {
    let middle = *index_pages(bulk, 1).iter().find(|page| u32_of(bulk.page(**page), 12) != u32::MAX).unwrap();
    let page = bulk.page(middle);
    let rows: Vec<usize> = std::iter::successors(Some(99), |row| {
        let next = (row + usize::from(u16_of(page, row - 2))) & 0xFFFF;
        (next != 112).then_some(next)
    })
    .collect();
    let (first, last) = (rows[1], rows[rows.len() - 1]);
    assert!(first != last);
    let child = page[first + 8..first + 12].to_vec();
    let descriptors = pages_of(bulk, PageType::Xdes);
    vec![
        ("last child of a page", bulk.with(middle, last + 8, &child)),
        ("kind of extent descriptors", bulk.with(descriptors[0], 24, &PageType::Index.id().to_be_bytes())),
    ]
}
