//! Which kinds of records, on which kinds of pages, were applied with real redo: counted in every case, and written
//! down as `docs/native-coverage.md`, from which nothing may get lost.
//!
//! `STILLFRAME_BLESS=1 cargo test --test native` writes the table anew. It lists what was seen often enough to be seen
//! again in every run; what is seen beside is no fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;

use stillframe::innodb::apply::PageBuffer;
use stillframe::innodb::redo::body::Body;
use stillframe::innodb::redo::body::index::IndexInfo;
use stillframe::innodb::redo::{RecordKind, RedoRecord};
use stillframe::innodb::space::TablespaceFlags;

/// Kinds that no supported server here writes, or not so that a page changes, and what stands for them.
const NOT_WRITTEN: [(RecordKind, &str); 3] = [
    (RecordKind::IndexLoad, "it is always written by itself, and then changes no page"),
    (RecordKind::InitFilePage, "written by older servers only; `tests/native/handmade.rs`"),
    (
        RecordKind::SdiCreate,
        "written for the oldest row format of dictionary information, which is never made; `tests/native/handmade.rs`",
    ),
];

/// A branch that is taken less often in a run may be missing in the next.
const OFTEN: u64 = 4;

/// What the cases that have passed have covered.
static PASSED: Mutex<(BTreeSet<String>, Coverage)> = Mutex::new((BTreeSet::new(), Coverage(BTreeMap::new())));

/// How often each branch was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(pub BTreeMap<(RecordKind, String), u64>);

impl Coverage {
    /// Counts a record that is about to be applied.
    pub fn note(&mut self, flags: TablespaceFlags, page: &PageBuffer, record: &RedoRecord<'_>) {
        *self.0.entry((record.kind, branch(flags, page, record))).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (branch, count) in &other.0 {
            *self.0.entry(branch.clone()).or_default() += count;
        }
    }
}

/// The branch: kind of page, row format, what the index is like.
fn branch(flags: TablespaceFlags, page: &PageBuffer, record: &RedoRecord<'_>) -> String {
    let kind = page.frame().u16(24).unwrap_or(0);
    let mut words = vec![page_kind(kind)];
    if flags.zip_size().is_some() {
        words.push("compressed");
    }
    let body = record.body().unwrap();
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

const fn page_kind(kind: u16) -> &'static str {
    match kind {
        0 => "empty page",
        2 => "undo",
        3 => "inodes",
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
        _ => "other page",
    }
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
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/native-coverage.md");
    if std::env::var_os("STILLFRAME_BLESS").is_some() {
        std::fs::write(&path, table(coverage)).unwrap();
        return;
    }
    let (mut missing, mut kind) = (Vec::new(), String::new());
    for line in std::fs::read_to_string(&path).unwrap().lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            heading.clone_into(&mut kind);
        } else if let Some(branch) = line.strip_prefix("- ") {
            let taken = coverage.0.keys().any(|(of, name)| heading(*of) == kind && name == branch);
            if !taken {
                missing.push(format!("{kind}: {branch}"));
            }
        }
    }
    let not_listed = RecordKind::ALL.iter().filter(|kind| kind.changes_page() && !seen(coverage, **kind));
    let not_listed: Vec<_> = not_listed.filter(|kind| NOT_WRITTEN.iter().all(|(known, _)| known != *kind)).collect();
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

fn table(coverage: &Coverage) -> String {
    let mut text = String::from(
        "# What native recovery is proven with\n\n\
         Generated by `cargo test --test native`, which recovers the same files and the same redo by a server and by the\n\
         library and compares their pages byte by byte; [what may differ](native-differences.md) is a short list with its\n\
         reasons. Listed here is, for each kind of redo record that changes pages, on which kinds of pages and rows it was\n\
         applied with redo that MySQL 9.7 had written. A test fails when one of these is not taken any more;\n\
         `STILLFRAME_BLESS=1 cargo test --test native` writes the list anew.\n\n\
         \"Clustered\" and \"secondary\" are what the record itself says of its index, which for secondary indexes whose\n\
         columns are not all needed to be unique is not what the dictionary says.\n",
    );
    for kind in RecordKind::ALL.iter().filter(|kind| kind.changes_page()) {
        writeln!(text, "\n## {}\n", heading(*kind)).unwrap();
        if let Some((_, why)) = NOT_WRITTEN.iter().find(|(known, _)| known == kind) {
            writeln!(text, "Not with real redo: {why}.").unwrap();
        }
        let taken = coverage.0.iter().filter(|((of, _), count)| of == kind && **count >= OFTEN);
        for ((_, branch), _) in taken {
            writeln!(text, "- {branch}").unwrap();
        }
    }
    text
}
