//! Whose a page is, in words that a person can act on.
//!
//! ```text
//!   …/shop/orders@002d24#p#p1#sp#s0.ibd    table `shop`.`orders-24`, partition `p1`, subpartition `s0`
//!   ibdata1, mysql.ibd, undo_001, far.ibd  the tablespace, and the index by its id where the page says one
//! ```
//! Names come from the file's path, which is what `CHECK TABLE` needs; SQL is not asked.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::plan::PlannedSpace;
use crate::innodb::cursor::{u16_at, u64_at};
use crate::innodb::ids::SpaceId;
use crate::innodb::page::{PageType, fil};
use crate::util::names::{from_file_name, quoted};

const WHAT: &str = "page header";
/// Where an index page has its index's id.
const INDEX_ID: usize = fil::BODY + 28;

/// The table or tablespace of `space` that a page with these `bytes`, in the file `path`, belongs to.
pub(super) fn owner_of(space: &PlannedSpace, path: &Path, bytes: &[u8]) -> String {
    let tablespace = match space.space {
        SpaceId::SYSTEM => "the system tablespace",
        SpaceId::DICTIONARY => "the data dictionary",
        undo if undo.undo_number().is_some() => return "an undo tablespace".to_owned(),
        _ if space.flags.is_shared() => "a general tablespace",
        _ => return table(path),
    };
    match index_id(bytes) {
        Some(index) => format!("{tablespace}, index {index}"),
        None => tablespace.to_owned(),
    }
}

/// What the page says of its index. It is damaged: this is a hint.
fn index_id(bytes: &[u8]) -> Option<u64> {
    let kind = u16_at(bytes, fil::TYPE, WHAT).ok()?;
    [PageType::Index, PageType::Rtree]
        .iter()
        .any(|index| index.id() == kind)
        .then(|| u64_at(bytes, INDEX_ID, WHAT).ok())
        .flatten()
}

fn table(path: &Path) -> String {
    let name = |part: &[u8]| quoted(&from_file_name(part));
    let schema = path.parent().and_then(Path::file_name).map_or(&b""[..], OsStr::as_bytes);
    let stem = path.file_stem().map_or(&b""[..], OsStr::as_bytes);
    // In a name itself it would be `@0023`.
    let mut parts = stem.split(|byte| *byte == b'#');
    let mut text = format!("table {}.{}", name(schema), name(parts.next().unwrap_or_default()));
    while let (Some(kind), Some(part)) = (parts.next(), parts.next()) {
        let kind = if kind.eq_ignore_ascii_case(b"sp") { "subpartition" } else { "partition" };
        text = format!("{text}, {kind} {}", name(part));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::innodb::space::TablespaceFlags;

    fn owner(space: u32, flags: u32, path: &str, bytes: &[u8]) -> String {
        let flags = TablespaceFlags::decode(flags).unwrap();
        owner_of(&PlannedSpace { space: SpaceId(space), flags, pieces: Vec::new() }, Path::new(path), bytes)
    }

    #[test]
    fn a_page_of_a_table_names_it_as_sql_does() {
        let table = |path: &str| owner(7, 0x4021, path, &[0; 16384]);
        assert_eq!(table("/data/shop/orders.ibd"), "table `shop`.`orders`");
        assert_eq!(table("/far/we@0020ird/t@002d1.ibd"), "table `we ird`.`t-1`");
        assert_eq!(table("/data/shop/t#p#p2024.ibd"), "table `shop`.`t`, partition `p2024`");
        assert_eq!(table("/data/shop/t#P#p@002d1#SP#s0.ibd"), "table `shop`.`t`, partition `p-1`, subpartition `s0`");
    }

    #[test]
    fn a_page_of_many_tables_names_tablespace_and_index() {
        let mut page = vec![0_u8; 16384];
        page[66..74].copy_from_slice(&153_u64.to_be_bytes());
        assert_eq!(owner(0, 0x4021, "/data/ibdata1", &page), "the system tablespace");
        page[24..26].copy_from_slice(&17855_u16.to_be_bytes());
        assert_eq!(owner(0, 0x4021, "/data/ibdata1", &page), "the system tablespace, index 153");
        assert_eq!(owner(9, 0x4821, "/data/far.ibd", &page), "a general tablespace, index 153");
        assert_eq!(owner(0xFFFF_FFFE, 0x4821, "/data/mysql.ibd", &page), "the data dictionary, index 153");
        assert_eq!(owner(0xFFFF_FFEF, 0x4021, "/data/undo_001", &page), "an undo tablespace");
        assert_eq!(owner(9, 0x4821, "/data/far.ibd", &page[..40]), "a general tablespace", "cut short");
    }
}
