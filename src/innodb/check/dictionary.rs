//! The dictionary information that a tablespace carries of its tables, as far as it says how the rows of their indexes
//! are laid out and ordered (read off files of MySQL 9.7.4).
//!
//! ```text
//!   page 0, behind the encryption info: version │ root ─► B-tree of (type, id, …, lengths, zlib of JSON)
//!   JSON: columns, and indexes with their columns ─► description as redo records have it ─► RowLayout
//! ```
//! An object that does not fit into its row goes on in a chain of pages: as it is, or (in compressed tablespaces) compressed
//! once more as a whole.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;

use serde::Deserialize;

use super::describe::{WHOLE, describe};
use super::order::Order;
use super::reading::{NONE, Page};
use super::{Check, Source};
use crate::innodb::FormatError;
use crate::innodb::apply::index_page::{IndexPage, LEVEL};
use crate::innodb::apply::layout::{INFO_DELETED, RowLayout, RowShape};
use crate::innodb::ids::PageNo;
use crate::innodb::page::{PageType, fil};
use crate::innodb::redo::body::index::IndexInfo;
use crate::innodb::redo::body::reader::{Fault, Reader};
use crate::innodb::space::encryption::ENCRYPTION_INFO_SIZE;
use crate::innodb::space::header::encryption_offset;

/// Behind the encryption info: 4 reserved bytes and the version.
const ROOT: usize = 8;
/// The description of the tree itself: type, id, system fields, two lengths, data.
const TREE: &[u8] = &[1, 1, 0, 7, 0, 2, 0x80, 4, 0x80, 8, 0x80, 6, 0x80, 7, 0x80, 4, 0x80, 4, 0xFF, 0xFF];
const REDUNDANT_TREE: &[u8] = &[1, 0];
/// An object is a table, not a tablespace.
const TABLE: u32 = 1;
/// No object is larger: a table of 1017 columns has some 2 MiB.
const MOST_JSON: u64 = 64 << 20;
/// More pages than any object has, be they the smallest.
const MOST_PARTS: u64 = MOST_JSON >> 10;

/// How the rows of an index are laid out and ordered.
#[derive(Debug)]
pub struct IndexShape {
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The page that its tree begins with.
    pub root: Option<PageNo>,
    /// The columns of its rows, in the order of the fields that the layout describes.
    pub columns: Vec<String>,
    /// The layout of its rows.
    pub layout: RowLayout,
    /// That of the rows above the leaves, where it is another.
    pub node_layout: Option<RowLayout>,
    /// How the fields that order it are compared.
    pub order: Vec<Order>,
    /// It is an R-tree: its rows are in no order.
    pub spatial: bool,
}

impl IndexShape {
    /// Its name and its table's.
    pub fn title(&self) -> String {
        format!("{} of {}", self.name, self.table)
    }
}

/// The indexes of a tablespace, by their ids.
pub type Dictionary = HashMap<u64, IndexShape>;

#[derive(Debug, Deserialize)]
struct Object {
    dd_object: Table,
}

#[derive(Debug, Deserialize)]
struct Table {
    name: String,
    row_format: u32,
    columns: Vec<Column>,
    indexes: Vec<Index>,
    #[serde(default)]
    partitions: Vec<Partition>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: u32,
    pub is_nullable: bool,
    pub char_length: u64,
    pub numeric_precision: u64,
    pub numeric_scale: u64,
    pub datetime_precision: u64,
    pub collation_id: u64,
    #[serde(rename = "column_type_utf8")]
    pub declared: String,
    #[serde(default)]
    pub elements: Vec<serde::de::IgnoredAny>,
    pub se_private_data: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    name: String,
    #[serde(rename = "type")]
    kind: u32,
    se_private_data: String,
    elements: Vec<Element>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Element {
    pub column_opx: usize,
    pub length: u64,
    pub order: u32,
}

#[derive(Debug, Deserialize)]
struct Partition {
    #[serde(default)]
    indexes: Vec<PartitionIndex>,
    #[serde(default)]
    subpartitions: Vec<Partition>,
}

#[derive(Debug, Deserialize)]
struct PartitionIndex {
    se_private_data: String,
    index_opx: usize,
}

/// Kinds of indexes.
mod kind {
    pub const FULL_TEXT: u32 = 4;
    pub const SPATIAL: u32 = 5;
}

/// Row formats of tables.
mod format {
    pub const REDUNDANT: u32 = 4;
}

impl<S: Source> Check<'_, S> {
    /// Reads what the tablespace says of its tables.
    pub(super) fn dictionary(&mut self) -> Result<Dictionary, S::Error> {
        let mut dictionary = Dictionary::new();
        if !self.subject.flags.has_sdi() {
            return Ok(dictionary);
        }
        let page0 = self.page(0)?;
        let at = encryption_offset(self.subject.flags).unwrap_or(0);
        let root = page0.u32(at.saturating_add(ENCRYPTION_INFO_SIZE).saturating_add(ROOT));
        for (number, json) in self.objects(root)? {
            match serde_json::from_slice::<Object>(&json) {
                Ok(object) => add_table(&mut dictionary, &object.dd_object),
                Err(error) => self.findings.add(number, format!("has dictionary information that is none: {error}")),
            }
        }
        Ok(dictionary)
    }

    /// The tables' descriptions, with the pages that they are on.
    fn objects(&mut self, root: u32) -> Result<Vec<(u32, Vec<u8>)>, S::Error> {
        let (mut found, mut number, mut met) = (Vec::new(), root, HashSet::new());
        while number != NONE && number < self.subject.pages {
            if !met.insert(number) {
                self.findings.add(number, "is of dictionary information whose pages go in a circle");
                break;
            }
            let page = self.page(number)?;
            if page.kind() != Some(PageType::Sdi) {
                self.findings.add(number, "should be of dictionary information, and is not");
                break;
            }
            match self.rows_of_tree(number, &page) {
                Err(error) => {
                    self.findings.bad(number, &error);
                    break;
                }
                Ok(Rows::Child(child)) => number = child,
                Ok(Rows::Leaf(rows)) => {
                    for row in rows {
                        match self.whole(row)?.and_then(|bytes| inflate(&bytes)) {
                            Some(json) => found.push((number, json)),
                            None => self.findings.add(number, "has dictionary information that is not whole"),
                        }
                    }
                    number = page.u32(fil::NEXT);
                }
            }
        }
        Ok(found)
    }

    fn rows_of_tree(&self, number: u32, page: &Page) -> Result<Rows, FormatError> {
        let loaded = self.frame(number, page);
        let mut frame =
            loaded.map_err(|error| FormatError::Invalid { what: "dictionary information", why: error.to_string() })?;
        let index = IndexPage::open_any(&mut frame)?;
        let layout = layout_of(if index.is_compact() { TREE } else { REDUNDANT_TREE })?;
        let leaf = index.frame.u16(LEVEL)? == 0;
        let (mut rows, mut shape) = (Vec::new(), RowShape::default());
        let mut at = index.next_row(index.infimum())?;
        for _ in 0..index.heap_count()? {
            if at == index.supremum() {
                break;
            }
            layout.measure(index.frame.as_bytes(), at, &mut shape)?;
            if !leaf {
                let child = index.frame.u32(at.saturating_add(shape.data).saturating_sub(4))?;
                return Ok(Rows::Child(child));
            }
            let deleted = index.frame.u8(index.info_at(at)?)? & INFO_DELETED != 0;
            if !deleted && index.frame.u32(at)? == TABLE {
                let (start, len, field) = shape.field(6)?;
                let bytes = index.frame.slice(at.saturating_add(start), len)?.to_vec();
                rows.push(Stored { bytes, external: field.external });
            }
            at = index.next_row(at)?;
        }
        Ok(Rows::Leaf(rows))
    }

    /// What is stored in a row, with what is off page; `None` where that is not all there.
    fn whole(&mut self, row: Stored) -> Result<Option<Vec<u8>>, S::Error> {
        const REFERENCE: usize = 20;
        if !row.external {
            return Ok(Some(row.bytes));
        }
        let Some(local) = row.bytes.len().checked_sub(REFERENCE) else { return Ok(None) };
        let reference = Page::new(row.bytes.get(local..).unwrap_or_default().to_vec());
        let mut bytes = row.bytes.get(..local).unwrap_or_default().to_vec();
        let (first, len) = (reference.u32(4), usize::try_from(reference.u32(16)).unwrap_or(usize::MAX));
        let zip = self.subject.flags.zip_size().is_some();
        let Some(parts) = self.off_page(first, if zip { &ZIP_PARTS } else { &PARTS })? else { return Ok(None) };
        let parts = if zip { inflate(&parts) } else { Some(parts) };
        let Some(parts) = parts.filter(|parts| parts.len() == len) else { return Ok(None) };
        bytes.extend_from_slice(&parts);
        Ok(Some(bytes))
    }

    /// The bytes on a chain of pages.
    fn off_page(&mut self, first: u32, parts: &Parts) -> Result<Option<Vec<u8>>, S::Error> {
        let (mut bytes, mut number) = (Vec::new(), first);
        for _ in 0..MOST_PARTS {
            if number == NONE {
                return Ok(Some(bytes));
            }
            if number >= self.subject.pages || u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MOST_JSON {
                break;
            }
            let page = self.page(number)?;
            if page.kind() != Some(parts.kind) {
                break;
            }
            let end =
                parts.len.map(|len| usize::try_from(page.u32(len)).unwrap_or(usize::MAX).saturating_add(parts.data));
            let Some(part) = page.bytes().get(parts.data..end.unwrap_or(page.bytes().len())) else { break };
            bytes.extend_from_slice(part);
            number = page.u32(parts.next);
        }
        Ok(None)
    }
}

/// How off-page bytes lie on their pages.
struct Parts {
    kind: PageType,
    /// Where the number of the next page is.
    next: usize,
    /// Where it says how many bytes there are; all of the page otherwise.
    len: Option<usize>,
    data: usize,
}

const PARTS: Parts = Parts { kind: PageType::SdiBlob, next: 42, len: Some(38), data: 46 };
/// In a compressed tablespace they are one zlib stream, and zeros behind it.
const ZIP_PARTS: Parts = Parts { kind: PageType::SdiZBlob, next: 12, len: None, data: 38 };

/// What a page of the tree has.
enum Rows {
    /// The first page below it.
    Child(u32),
    /// Tables.
    Leaf(Vec<Stored>),
}

struct Stored {
    bytes: Vec<u8>,
    external: bool,
}

fn inflate(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut json = Vec::new();
    flate2::read::ZlibDecoder::new(bytes).take(MOST_JSON).read_to_end(&mut json).ok()?;
    Some(json)
}

fn layout_of(description: &[u8]) -> Result<RowLayout, FormatError> {
    let info = IndexInfo::decode(&mut Reader::new(description)).map_err(|fault| match fault {
        Fault::Bad(error) => error,
        Fault::Short => FormatError::Invalid { what: "index description", why: "it is cut short".into() },
    })?;
    RowLayout::new(&info)
}

/// A number among `name=value;` pairs.
pub(super) fn private(data: &str, name: &str) -> Option<u64> {
    data.split(';').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

fn add_table(dictionary: &mut Dictionary, table: &Table) {
    for (number, index) in table.indexes.iter().enumerate() {
        if index.kind == kind::FULL_TEXT {
            continue;
        }
        let trees = Tree::of(&index.se_private_data).into_iter();
        let trees: Vec<Tree> = trees.chain(partition_trees(&table.partitions, number)).collect();
        for tree in trees {
            // An index that is not understood is checked as one of which nothing is known.
            if let Some(shape) = shape(table, index, tree.root) {
                dictionary.insert(tree.id, shape);
            }
        }
    }
}

/// A tree that an index has: one, or one for each partition.
struct Tree {
    id: u64,
    root: Option<PageNo>,
}

impl Tree {
    fn of(data: &str) -> Option<Self> {
        let root = private(data, "root").and_then(|root| u32::try_from(root).ok()).map(PageNo);
        Some(Self { id: private(data, "id")?, root })
    }
}

fn partition_trees(partitions: &[Partition], number: usize) -> Vec<Tree> {
    let mut trees = Vec::new();
    for partition in partitions {
        let own = partition.indexes.iter().filter(|index| index.index_opx == number);
        trees.extend(own.filter_map(|index| Tree::of(&index.se_private_data)));
        trees.extend(partition_trees(&partition.subpartitions, number));
    }
    trees
}

fn shape(table: &Table, index: &Index, root: Option<PageNo>) -> Option<IndexShape> {
    let clustered = is_first(table, index);
    let columns: Option<Vec<(&Element, &Column)>> =
        index.elements.iter().map(|element| Some((element, table.columns.get(element.column_opx)?))).collect();
    let columns = columns?;
    let mut fields: Vec<(u64, &Column)> = columns.iter().map(|(element, column)| (element.length, *column)).collect();
    let mut unique = fields.len();
    if clustered {
        unique = fields.iter().position(|(_, column)| column.name == "DB_TRX_ID")?;
        // The number that the full-text index gives a row is stored with it, and not named among the index's columns.
        let document = table.columns.iter().find(|column| column.name == "FTS_DOC_ID");
        let document = document.filter(|document| !fields.iter().any(|(_, column)| column.name == document.name));
        fields.extend(document.map(|document| (WHOLE, document)));
    }
    let layout = |fields: &[(u64, &Column)], unique| {
        if table.row_format == format::REDUNDANT {
            return layout_of(REDUNDANT_TREE).ok();
        }
        layout_of(&describe(&table.columns, fields, unique, clustered)?).ok()
    };
    let spatial = index.kind == kind::SPATIAL;
    Some(IndexShape {
        table: table.name.clone(),
        name: index.name.clone(),
        root,
        columns: fields.iter().map(|(_, column)| column.name.clone()).collect(),
        layout: layout(&fields, unique)?,
        // Above the leaves of an R-tree there are rectangles alone.
        node_layout: if spatial { Some(layout(fields.get(..1)?, 1)?) } else { None },
        order: columns.iter().take(unique).map(|(element, column)| Order::of(column, element)).collect(),
        spatial,
    })
}

/// The clustered index is the first that the dictionary names.
fn is_first(table: &Table, index: &Index) -> bool {
    table.indexes.first().is_some_and(|first| first.name == index.name)
}
