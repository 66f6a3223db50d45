//! Which kinds of records were met in real redo, and on which kinds of pages they were applied: counted in every case,
//! and written down as `docs/native-coverage.md`, from which nothing may get lost. What no server here writes is listed
//! with the test of a page made by hand that stands for it.
//!
//! `STILLFRAME_BLESS=1 cargo test --test native` writes the table anew. What was seen often enough to be seen again in
//! every run must be; what was seen less often, then or when the table was written before, is listed as such, and what
//! is seen beside is no fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;

use stillframe::innodb::apply::PageBuffer;
use stillframe::innodb::redo::body::Body;
use stillframe::innodb::redo::body::bytes::FileName;
use stillframe::innodb::redo::body::files::{FileCreate, FileDelete, Metadata};
use stillframe::innodb::redo::body::index::IndexInfo;
use stillframe::innodb::redo::{RecordKind, RedoRecord};
use stillframe::innodb::space::TablespaceFlags;

/// What no server here writes into its redo, why, and the test in `handmade.rs` that stands for it. A branch is named as
/// [`branch`] would name it.
const BY_HAND: [(RecordKind, &str, &str, &str); 13] = [
    (RecordKind::InitFilePage, MADE, "older servers only", "the_older_way_to_clear_a_page"),
    (
        RecordKind::SdiCreate,
        MADE,
        "dictionary information is never made in the oldest row format",
        "dictionary_information_in_the_oldest_format",
    ),
    (
        RecordKind::DynamicMeta,
        "corrupt indexes",
        "no index here gets corrupt",
        "corrupt_indexes_add_up` in `src/prepare/metadata.rs",
    ),
    (RecordKind::IndexLoad, "in a group of several", "it is always written by itself", "an_index_built_without_redo"),
    (
        RecordKind::Insert,
        "B-tree compact instant leaf clustered whole",
        OF_OLD_TABLES,
        "rows_that_say_how_many_columns_they_have",
    ),
    (
        RecordKind::UpdateInPlace,
        "B-tree compact instant leaf clustered",
        OF_OLD_TABLES,
        "rows_that_say_how_many_columns_they_have",
    ),
    (RecordKind::Insert, "B-tree compact instant leaf clustered like the row before", OF_OLD_TABLES, EVERY_KIND),
    (RecordKind::ClustDeleteMark, "B-tree compact instant leaf clustered set", OF_OLD_TABLES, EVERY_KIND),
    (RecordKind::Delete, "B-tree compact instant leaf clustered", OF_OLD_TABLES, EVERY_KIND),
    (RecordKind::Reorganize, "B-tree compact instant leaf clustered", OF_OLD_TABLES, EVERY_KIND),
    (RecordKind::ListEndCopyCreated, "B-tree compact instant leaf clustered", OF_OLD_TABLES, EVERY_KIND),
    (RecordKind::ListEndDelete, "B-tree compact instant leaf clustered", OF_OLD_TABLES, EVERY_KIND),
    (RecordKind::ListStartDelete, "B-tree compact instant leaf clustered", OF_OLD_TABLES, EVERY_KIND),
];
const OF_OLD_TABLES: &str = "tables that had columns added at once before 8.0.29";
const EVERY_KIND: &str = "every_kind_of_record_for_rows_that_say_how_many_columns_they_have";

#[test]
fn what_stands_for_others_is_there() {
    let sources = [include_str!("handmade.rs"), include_str!("../../src/prepare/metadata.rs")];
    for (.., test) in BY_HAND {
        // Where it is in another file, that follows.
        let name = test.split('`').next().unwrap_or(test);
        assert!(sources.iter().any(|source| source.contains(&format!("fn {name}()"))), "no test {name}");
    }
}

/// A branch that is taken less often in a run may be missing in the next: when a server purges, and which pages it has
/// on disk, to which their redo is not applied again, is its own affair.
const OFTEN: u64 = 30;
/// Stands behind such branches, which are listed and may be missing.
const SELDOM: &str = " (not in every run)";
/// Stands for the kind of page where a record makes the page, without a look at what it was: what it was depends on
/// which page the server took.
const MADE: &str = "whatever the page was";

/// What the cases that have passed have covered.
static PASSED: Mutex<(BTreeSet<String>, Coverage)> = Mutex::new((BTreeSet::new(), Coverage(BTreeMap::new())));

/// How often each branch was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(pub BTreeMap<(RecordKind, String), u64>);

impl Coverage {
    /// Counts a record that is about to be applied.
    pub fn note(&mut self, flags: TablespaceFlags, page: &PageBuffer, record: &RedoRecord<'_>) {
        self.count(record.kind, branch(flags, page, record));
    }

    /// Counts a record that changes no page.
    pub fn note_other(&mut self, record: &RedoRecord<'_>) {
        let what = match record.body().unwrap() {
            Body::DynamicMeta(meta) => match meta.metadata {
                Metadata::AutoIncrement(_) => "AUTO_INCREMENT",
                Metadata::CorruptIndexes(_) => "corrupt indexes",
            },
            Body::FileCreate(FileCreate { path, .. }) | Body::FileDelete(FileDelete { path }) => kind_of_file(path),
            Body::FileRename(rename) => kind_of_file(rename.to),
            Body::IndexLoad { .. } => "by itself",
            _ => "in any log",
        };
        self.count(record.kind, what.to_owned());
    }

    /// Counts a branch of a kind of record.
    pub fn count(&mut self, kind: RecordKind, branch: String) {
        *self.0.entry((kind, branch)).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (branch, count) in &other.0 {
            *self.0.entry(branch.clone()).or_default() += count;
        }
    }
}

fn kind_of_file(path: FileName<'_>) -> &'static str {
    if path.0.ends_with(b".ibd") { "table or general tablespace" } else { "undo tablespace" }
}

/// The branch: kind of page, row format, what the index is like.
fn branch(flags: TablespaceFlags, page: &PageBuffer, record: &RedoRecord<'_>) -> String {
    let body = record.body().unwrap();
    let kind = page.frame().u16(24).unwrap_or(0);
    let other = format!("page of type {kind}");
    let made =
        matches!(body, Body::InitFilePage | Body::InitFilePage2 | Body::PageCreate { .. } | Body::IbufBitmapInit);
    let mut words = vec![if made { MADE } else { page_kind(kind).unwrap_or(&other) }];
    if flags.zip_size().is_some() {
        words.push("compressed");
    }
    let index = index_of(&body);
    if let Some(index) = index {
        words.push(if index.flags.is_compact() { "compact" } else { "redundant" });
        if index.flags.is_versioned() {
            words.push("versioned");
        }
        if index.flags.is_instant() {
            words.push("instant");
        }
        let leaf = page.frame().u16(64).unwrap_or(0) == 0;
        words.push(if leaf { "leaf" } else { "node" });
        if index.flags.is_compact() {
            words.push(if index.is_clustered() { "clustered" } else { "secondary" });
        }
    } else if matches!(body, Body::SecDeleteMark { .. }) {
        let compact = page.frame().u16(42).unwrap_or(0) & 0x8000 != 0;
        words.push(if compact { "compact" } else { "redundant" });
    }
    words.extend(detail(&body));
    words.join(" ")
}

/// What a record of one kind can do in several ways.
fn detail(body: &Body<'_>) -> Option<&'static str> {
    match body {
        Body::Insert(insert) => Some(if insert.row.extra.is_some() { "whole" } else { "like the row before" }),
        Body::UpdateInPlace(update) if update.system.keeps() => Some("keeping its transaction"),
        Body::UpdateInPlace(update) if update.fields.iter().any(|field| field.value.is_none()) => Some("to NULL"),
        Body::ClustDeleteMark(mark) => Some(if mark.deleted { "set" } else { "taken back" }),
        Body::SecDeleteMark { deleted, .. } => Some(if *deleted { "set" } else { "taken back" }),
        _ => None,
    }
}

fn index_of<'a>(body: &Body<'a>) -> Option<IndexInfo<'a>> {
    match body {
        Body::Insert(insert) => Some(insert.index),
        Body::ClustDeleteMark(mark) => Some(mark.index),
        Body::Delete(at) | Body::ListEndDelete(at) | Body::ListStartDelete(at) => Some(at.index),
        Body::UpdateInPlace(update) => Some(update.index),
        Body::ListEndCopyCreated(copy) => Some(copy.index),
        Body::Reorganize { index } | Body::ZipReorganize { index, .. } | Body::ZipCompressNoData { index, .. } => {
            Some(*index)
        }
        _ => None,
    }
}

const fn page_kind(kind: u16) -> Option<&'static str> {
    Some(match kind {
        0 => "empty page",
        2 => "undo",
        3 => "inodes",
        4 => "change buffer",
        5 => "bitmap",
        6 => "system",
        7 => "transaction system",
        8 => "page 0",
        9 => "extents",
        10..=12 => "old large object",
        18 | 19 => "large dictionary information",
        21 => "rollback segments",
        22..=24 => "large object",
        25..=29 => "compressed large object",
        17853 => "dictionary information",
        17854 => "R-tree",
        17855 => "B-tree",
        _ => return None,
    })
}

/// Takes in what a case covered. When it was the last of all cases of this process, the table is compared.
pub fn passed(case: &str, coverage: &Coverage, all: &[&str]) {
    let mut passed = PASSED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    passed.0.insert(case.to_owned());
    passed.1.add(coverage);
    if all.iter().all(|case| passed.0.contains(*case)) {
        compare_table(&passed.1);
    }
}

fn compare_table(coverage: &Coverage) {
    for ((kind, branch), count) in coverage.0.iter().filter(|(_, count)| **count < 2 * OFTEN) {
        println!("taken {count} times: {}: {branch}", kind.name());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/native-coverage.md");
    let before = lines(&std::fs::read_to_string(&path).unwrap());
    if std::env::var_os("STILLFRAME_BLESS").is_some() {
        std::fs::write(&path, table(coverage, &before)).unwrap();
        return;
    }
    let taken: BTreeSet<_> = coverage.0.keys().map(|(kind, branch)| listed(*kind, branch)).collect();
    let missing: Vec<_> = before.iter().filter(|line| !line.ends_with(SELDOM) && !taken.contains(*line)).collect();
    let not_listed = RecordKind::ALL.iter().filter(|kind| !seen(coverage, **kind));
    let not_listed: Vec<_> = not_listed.filter(|kind| BY_HAND.iter().all(|(known, ..)| known != *kind)).collect();
    assert!(
        missing.is_empty() && not_listed.is_empty(),
        "not covered by real redo any more: {missing:#?}, kinds: {not_listed:?}; where that is meant, \
         STILLFRAME_BLESS=1 cargo test --test native writes {} anew",
        path.display()
    );
}

fn seen(coverage: &Coverage, kind: RecordKind) -> bool {
    coverage.0.keys().any(|(seen, _)| *seen == kind)
}

fn heading(kind: RecordKind) -> String {
    format!("{} {}", kind.id(), kind.name())
}

/// A branch and what it is a branch of.
fn listed(kind: RecordKind, branch: &str) -> String {
    format!("{}: {branch}", heading(kind))
}

/// The branches of a table, as [`listed`], each with [`SELDOM`] behind it where the table has it.
fn lines(table: &str) -> BTreeSet<String> {
    let (mut lines, mut kind) = (BTreeSet::new(), "");
    for line in table.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            kind = heading;
        } else if let Some(branch) = line.strip_prefix("- ") {
            lines.insert(format!("{kind}: {branch}"));
        }
    }
    lines
}

/// The table, where what was seldom `before` stays so, also where it was not taken this time.
fn table(coverage: &Coverage, before: &BTreeSet<String>) -> String {
    let mut text = String::from(
        "# What native recovery is proven with\n\n\
         Generated by `cargo test --test native`, which recovers the same files and the same redo by a server and by the\n\
         library and compares their pages byte by byte; [what may differ](native-differences.md) is a short list with its\n\
         reasons. Listed here is, for each kind of redo record, on which kinds of pages and rows it was applied with redo\n\
         that MySQL 9.7 had written. A test fails when one of these is not taken any more, but for those that were taken\n\
         a few times only, which depends on when the server does what it does by itself;\n\
         `STILLFRAME_BLESS=1 cargo test --test native` writes the list anew.\n\n\
         \"Clustered\" and \"secondary\" are what the record itself says of its index, which for secondary indexes whose\n\
         columns are not all needed to be unique is not what the dictionary says. What is named *by hand* is written by no\n\
         server that these tests can run: a page that was made by hand, in `tests/native/handmade.rs`, stands for it.\n",
    );
    for kind in RecordKind::ALL {
        writeln!(text, "\n## {}\n", heading(*kind)).unwrap();
        let seldom_before =
            before.iter().filter_map(|line| line.strip_prefix(&listed(*kind, ""))?.strip_suffix(SELDOM));
        let mut branches: BTreeMap<_, _> = seldom_before.map(|branch| (branch, SELDOM)).collect();
        for ((_, branch), count) in coverage.0.iter().filter(|((of, _), _)| of == kind) {
            branches.entry(branch).or_insert(if *count < OFTEN { SELDOM } else { "" });
        }
        for (branch, how_often) in branches {
            writeln!(text, "- {branch}{how_often}").unwrap();
        }
        for (_, branch, why, test) in BY_HAND.iter().filter(|(known, ..)| known == kind) {
            writeln!(text, "* by hand: {branch} ({why}; `{test}`)").unwrap();
        }
    }
    text
}
