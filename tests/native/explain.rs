//! What is told of pages that differ: enough to see at once which record went wrong, and with `STILLFRAME_DUMP=DIR` all
//! that is needed to try it again.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use stillframe::innodb::ids::PageId;
use stillframe::innodb::lsn::Lsn;

use crate::compare::{Difference, Outcome};
use crate::driver::Native;
use crate::log::{Log, each_group};

/// Differences that are told in full.
const IN_FULL: usize = 6;
/// Records of each, from the last one back.
const RECORDS: usize = 12;
const FIELDS: [(usize, usize, &str); 14] = [
    (0, 4, "checksum"),
    (4, 8, "page number"),
    (8, 12, "previous page"),
    (12, 16, "next page"),
    (16, 24, "page LSN"),
    (24, 26, "page type"),
    (26, 34, "flush LSN"),
    (34, 38, "space id"),
    (38, 56, "page header: slots, heap top, heap, free, garbage, last insert, direction, same direction, rows"),
    (56, 64, "page header: newest transaction"),
    (64, 66, "page header: level"),
    (66, 74, "page header: index"),
    (74, 94, "page header: segments"),
    (94, 99, "infimum's header"),
];
const INDEX_HEADER: [(usize, &str); 9] = [
    (38, "directory slots"),
    (40, "heap top"),
    (42, "rows in the heap"),
    (44, "first free row"),
    (46, "garbage"),
    (48, "last insert"),
    (50, "direction"),
    (52, "inserts in the direction"),
    (54, "rows"),
];

/// A record as it is told.
struct Told {
    text: String,
    group: (Lsn, Lsn),
    bytes: Vec<u8>,
}

/// Tells of all differences.
pub fn explain(outcome: &Outcome, native: Option<&Native>, log: &Log, name: &str) -> String {
    let mut text = format!("{name}: {outcome}\n");
    for size in &outcome.sizes {
        writeln!(text, "  size: {size}").unwrap();
    }
    for (id, file) in outcome.written_since.iter().take(200) {
        writeln!(text, "  written to since: {id} {file}").unwrap();
    }
    if outcome.differences.is_empty() {
        return text;
    }
    let records = records(log, &outcome.differences);
    let mut groups: BTreeMap<String, u32> = BTreeMap::new();
    for difference in &outcome.differences {
        *groups.entry(summary(difference)).or_default() += 1;
    }
    for (summary, count) in groups {
        writeln!(text, "  {count} x {summary}").unwrap();
    }
    // Wrong bytes first: a refusal says itself what is wrong.
    let (refused, wrong): (Vec<_>, Vec<_>) = outcome.differences.iter().partition(|found| found.native.is_err());
    for difference in wrong.into_iter().take(IN_FULL).chain(refused.into_iter().take(2)) {
        tell(&mut text, difference, native, records.get(&difference.id).map_or(&[], Vec::as_slice));
    }
    if let Some(dir) = std::env::var_os("STILLFRAME_DUMP") {
        for difference in &outcome.differences {
            dump(&Path::new(&dir).join(name), difference, &records[&difference.id]);
        }
    }
    text
}

fn page_type(page: &[u8]) -> u16 {
    u16::from_be_bytes([page[24], page[25]])
}

/// What many pages may have in common: the refusal without its numbers, or where the bytes differ.
fn summary(difference: &Difference) -> String {
    let kind = page_type(&difference.server);
    match &difference.native {
        Err(refusal) => {
            let text: String = refusal.chars().map(|sign| if sign.is_ascii_digit() { '#' } else { sign }).collect();
            format!("page type {kind}: {}", text.replace("##", "#").replace("##", "#").replace("##", "#"))
        }
        Ok(native) => {
            let names: Vec<_> = differing(native, &difference.server).map(|at| field(at, kind)).collect();
            let mut distinct: Vec<String> = Vec::new();
            for name in names {
                if distinct.last() != Some(&name) && distinct.len() < 6 {
                    distinct.push(name);
                }
            }
            format!("page type {kind}: {}", distinct.join(", "))
        }
    }
}

fn differing<'a>(ours: &'a [u8], theirs: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    (0..theirs.len()).filter(|at| ours.get(*at) != theirs.get(*at))
}

/// What the byte at an offset belongs to.
fn field(at: usize, kind: u16) -> String {
    let index = (17853..=17855).contains(&kind);
    if index && (38..56).contains(&at) {
        let name = INDEX_HEADER.iter().rev().find(|(start, _)| *start <= at).map_or("", |(_, name)| name);
        return format!("page header: {name}");
    }
    let known = FIELDS.iter().find(|(start, end, _)| (*start..*end).contains(&at) && (index || *start < 38));
    known.map_or_else(|| "body".to_owned(), |(_, _, name)| (*name).to_owned())
}

fn tell(text: &mut String, difference: &Difference, native: Option<&Native>, records: &[Told]) {
    let Difference { id, file, copied, server, .. } = difference;
    let lsn = |page: &[u8]| u64::from_be_bytes(page[16..24].try_into().unwrap());
    let touched = native.and_then(|native| native.touched.get(id));
    let counts = touched.map_or((0, 0), |touched| (touched.applied, touched.skipped));
    writeln!(
        text,
        "  {id} ({file}), type {} (copied: {}), LSN {} (copied: {}), {} records applied, {} in it before",
        page_type(server),
        page_type(copied),
        lsn(server),
        lsn(copied),
        counts.0,
        counts.1
    )
    .unwrap();
    match &difference.native {
        Err(refusal) => writeln!(text, "    refused: {refusal}").unwrap(),
        Ok(ours) => {
            let offsets: Vec<usize> = differing(ours, server).collect();
            writeln!(text, "    {} bytes differ", offsets.len()).unwrap();
            for at in offsets.iter().take(24) {
                let name = field(*at, page_type(server));
                writeln!(
                    text,
                    "    {at:>5} {name}: copied {:02x}, native {:02x}, server {:02x}",
                    copied[*at], ours[*at], server[*at]
                )
                .unwrap();
            }
        }
    }
    for record in records.iter().rev().take(RECORDS).rev() {
        let mut shown = record.text.clone();
        if shown.len() > 700 {
            let cut = (0..=700).rev().find(|at| shown.is_char_boundary(*at)).unwrap();
            shown.truncate(cut);
            shown.push('…');
        }
        writeln!(text, "    {} {shown}", record.group.0).unwrap();
    }
}

/// All records of the pages that differ.
fn records(log: &Log, differences: &[Difference]) -> HashMap<PageId, Vec<Told>> {
    let mut found: HashMap<PageId, Vec<Told>> =
        differences.iter().map(|difference| (difference.id, Vec::new())).collect();
    each_group(log, log.checkpoint, 2048, |group| {
        for record in group.records().filter(|record| !record.before_checkpoint) {
            if let Some(told) = record.page.and_then(|page| found.get_mut(&page)) {
                let text = serde_json::to_string(&record).unwrap();
                let group = (if group.is_single() { group.start } else { record.lsn }, group.end);
                told.push(Told { text, group, bytes: record.bytes.to_vec() });
            }
        }
        true
    });
    found
}

/// Writes `SPACE-PAGE.copied`, `.native`, `.server` (as they are inside), and `.records`: start and end LSN, bytes, JSON.
fn dump(dir: &Path, difference: &Difference, records: &[Told]) {
    std::fs::create_dir_all(dir).unwrap();
    let name = |end: &str| dir.join(format!("{}-{}.{end}", difference.id.space, difference.id.page));
    std::fs::write(name("copied"), &difference.copied).unwrap();
    std::fs::write(name("server"), &difference.server).unwrap();
    if let Ok(native) = &difference.native {
        std::fs::write(name("native"), native).unwrap();
    }
    let mut text = String::new();
    for record in records {
        let (start, end) = record.group;
        writeln!(text, "{start} {end} {} {}", hex::encode(&record.bytes), record.text).unwrap();
    }
    std::fs::write(name("records"), text).unwrap();
}
