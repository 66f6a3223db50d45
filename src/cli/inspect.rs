//! `stillframe inspect`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::args::{BackupArgs, KeyArgs};
use super::backup::redo_line;
use super::output::{self, Fields, Output, ReportFormat, Side, Table, count};
use crate::ops::inspect::{
    BackupInspection, BlockLine, BlockState, CheckpointSlot, EncryptionLine, EntryCounts, InspectReport,
    PageInspection, RedoFileLine, RedoInspection, SpaceInspection, Verdict,
};
use crate::ops::options::{InspectOptions, Lsn, PageNo, PageSize};
use crate::ops::{self, Context, Error};
use crate::util::units::{format_bytes, parse_bytes};

/// The options.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Headers, checkpoints and blocks of redo files
    Redo(RedoArgs),
    /// One page of a tablespace file: header and verdict
    Page(PageArgs),
    /// A tablespace file: page 0, and its pages by type and verdict
    Space(SpaceArgs),
    /// The objects and inner tables of a stored backup
    Backup(StoredArgs),
}

/// How the report is written, and what opens encrypted files.
#[derive(Debug, ClapArgs)]
struct FileArgs {
    /// The data file of the server's component_keyring_file, to open what is encrypted
    #[arg(long, value_name = "FILE")]
    keyring_file: Option<PathBuf>,
    /// How the report is written
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: ReportFormat,
}

#[derive(Debug, ClapArgs)]
struct RedoArgs {
    /// A redo file, a directory of them, or a data directory
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Show blocks from the one that holds this LSN on
    #[arg(long, value_name = "LSN")]
    from: Option<Lsn>,
    /// Show so many blocks at most
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
    #[command(flatten)]
    common: FileArgs,
}

#[derive(Debug, ClapArgs)]
struct PageArgs {
    /// The file
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// The page, counted from 0 in this file
    #[arg(value_name = "PAGE")]
    page: u32,
    /// Take this page size and do not ask page 0, where that is damaged
    #[arg(long, value_name = "BYTES", value_parser = page_size)]
    page_size: Option<PageSize>,
    #[command(flatten)]
    common: FileArgs,
}

#[derive(Debug, ClapArgs)]
struct SpaceArgs {
    /// The file
    #[arg(value_name = "PATH")]
    path: PathBuf,
    #[command(flatten)]
    common: FileArgs,
}

#[derive(Debug, ClapArgs)]
struct StoredArgs {
    #[command(flatten)]
    backup: BackupArgs,
    #[command(flatten)]
    keys: KeyArgs,
    /// How the report is written
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: ReportFormat,
}

impl Args {
    /// Whether it takes long enough to be watched.
    pub(super) fn is_long(&self) -> bool {
        matches!(self.what, What::Space(_))
    }

    /// The same as the engine wants it, and the format of the report.
    fn options(self) -> Result<(InspectOptions, ReportFormat), Error> {
        Ok(match self.what {
            What::Redo(RedoArgs { path, from, limit, common: FileArgs { keyring_file, output } }) => {
                (InspectOptions::Redo { path, from, limit, keyring_file }, output)
            }
            What::Page(PageArgs { path, page, page_size, common: FileArgs { keyring_file, output } }) => {
                (InspectOptions::Page { path, page: PageNo(page), page_size, keyring_file }, output)
            }
            What::Space(SpaceArgs { path, common: FileArgs { keyring_file, output } }) => {
                (InspectOptions::Space { path, keyring_file }, output)
            }
            What::Backup(StoredArgs { backup, keys, output }) => {
                let store = backup.store()?;
                let backup = backup.backup;
                (InspectOptions::Backup { store, backup, encryption_key_files: keys.files }, output)
            }
        })
    }
}

fn page_size(text: &str) -> Result<PageSize, String> {
    let bytes = parse_bytes(text).map_err(|error| error.to_string())?;
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    PageSize::new(bytes).map_err(|error| error.to_string())
}

/// Looks.
pub(super) async fn run(args: Args, context: &Context) -> Result<Output, Error> {
    let (options, format) = args.options()?;
    let report = ops::inspect::run(context, options).await?;
    output::render(format, &report, text).map(Output::report)
}

/// The report for people.
fn text(report: &InspectReport) -> String {
    match report {
        InspectReport::Redo(redo) => redo_text(redo),
        InspectReport::Page(page) => page_text(page),
        InspectReport::Space(space) => space_text(space),
        InspectReport::Backup(backup) => backup_text(backup),
    }
}

fn redo_text(redo: &RedoInspection) -> String {
    let mut fields = Fields::default();
    let checkpoint = redo.checkpoint.map_or_else(|| "none".to_owned(), |lsn| format!("LSN {lsn}"));
    fields.row("Path", redo.path.display().to_string()).row("Newest checkpoint", checkpoint);
    for file in &redo.files {
        fields.rows(&file.name, &redo_file_lines(file));
    }
    let mut text = fields.to_string();
    if !redo.blocks.is_empty() {
        text.push('\n');
        text.push_str(&blocks_table(&redo.blocks));
    }
    text
}

fn redo_file_lines(file: &RedoFileLine) -> Vec<String> {
    let flags = if file.flags.is_empty() { "none".to_owned() } else { file.flags.join(", ") };
    let mut lines = vec![
        format!("LSN {} to {}, {}", file.start, file.end, format_bytes(file.bytes)),
        format!("written by {}, log uuid {}, flags: {flags}", file.creator, file.log_uuid),
    ];
    lines.extend(file.checkpoints.iter().map(checkpoint_line));
    lines.extend(file.encryption.as_ref().map(encryption_line));
    lines
}

fn checkpoint_line(slot: &CheckpointSlot) -> String {
    let what = match (&slot.problem, slot.lsn, slot.valid) {
        (Some(problem), ..) => problem.clone(),
        (None, Some(lsn), true) => format!("LSN {lsn}"),
        (None, Some(lsn), false) => format!("LSN {lsn}, which is not in this file"),
        (None, None, _) => "none".to_owned(),
    };
    format!("checkpoint at byte {}: {what}", slot.offset)
}

fn encryption_line(encryption: &EncryptionLine) -> String {
    let opens = match encryption.opens {
        None => "no keyring file was given",
        Some(true) => "the keyring file opens it",
        Some(false) => "the keyring file does not open it",
    };
    format!("encrypted with {}; {opens}", encryption.master_key)
}

fn blocks_table(blocks: &[BlockLine]) -> String {
    let mut table = Table::new(&[
        ("LSN", Side::Right),
        ("FILE", Side::Left),
        ("USED", Side::Right),
        ("FIRST GROUP", Side::Right),
        ("STATE", Side::Left),
    ]);
    for block in blocks {
        let (used, first, state) = match &block.state {
            BlockState::Valid { data_bytes, first_group, encrypted, checked } => {
                let state = match (encrypted, checked) {
                    (false, _) => "good",
                    (true, true) => "good, encrypted",
                    (true, false) => "encrypted, not checked",
                };
                (data_bytes.to_string(), first_group.to_string(), state.to_owned())
            }
            BlockState::NotWritten => (String::new(), String::new(), "not written: the log ends here".to_owned()),
            BlockState::Overwritten { found } => {
                (String::new(), String::new(), format!("overwritten by the block of LSN {found}"))
            }
            BlockState::Bad { why } => (String::new(), String::new(), format!("BAD: {why}")),
        };
        table.row(vec![block.lsn.to_string(), block.file.clone(), used, first, state]);
    }
    table.to_string()
}

fn page_text(page: &PageInspection) -> String {
    let mut fields = Fields::default();
    let neighbour = |number: Option<PageNo>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
    let assumed = if page.size_assumed { ", as given" } else { "" };
    let name = page.type_name.clone().unwrap_or_else(|| "unknown".to_owned());
    fields
        .row("File", page.path.display().to_string())
        .row("Page", format!("{}, {} bytes{assumed}, at byte {}", page.page, page.page_size, page.offset))
        .row("Verdict", verdict_line(&page.verdict))
        .row("Number", page.number.to_string())
        .row("Space", page.space.to_string())
        .row("Type", format!("{} ({name})", page.type_id))
        .row("LSN", page.lsn.to_string())
        .row("Neighbours", format!("{}, {}", neighbour(page.previous), neighbour(page.next)))
        .row("Checksum", &page.checksum)
        .row_if("Key", page.encryption.as_ref().map(encryption_line));
    fields.to_string()
}

fn verdict_line(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Good => "good".to_owned(),
        Verdict::Empty => "empty: never written".to_owned(),
        Verdict::Unused => "not used: the doublewrite area of older servers".to_owned(),
        Verdict::Encrypted => "encrypted: its checksum cannot be compared without the key".to_owned(),
        Verdict::Bad { why } => format!("BAD: {why}"),
    }
}

fn space_text(space: &SpaceInspection) -> String {
    let mut fields = Fields::default();
    let names = if space.flag_names.is_empty() { String::new() } else { format!(" ({})", space.flag_names.join(", ")) };
    let size = if space.page_size == space.logical_page_size {
        format!("{} bytes", space.page_size)
    } else {
        format!("{} bytes, compressed from {}", space.page_size, space.logical_page_size)
    };
    let surplus = match space.surplus_bytes {
        0 => String::new(),
        surplus => format!(" and {}", count(surplus, "byte", "bytes")),
    };
    let bad = count(space.fault_count, "bad page", "bad pages");
    fields
        .row("File", space.path.display().to_string())
        .row("Verdict", if space.fault_count == 0 { "no bad page".to_owned() } else { format!("BAD: {bad}") })
        .row("Space", space.space.to_string())
        .row("Flags", format!("{}{names}", space.flags))
        .row("Page size", size)
        .row("Made by", format!("MySQL {}", space.server_version))
        .row(
            "Size",
            format!(
                "{}: {} pages{surplus}; {} pages by page 0",
                format_bytes(space.bytes),
                space.pages_in_file,
                space.pages_by_header
            ),
        )
        .row("Newest LSN", space.newest_lsn.to_string())
        .row_if("Key", space.encryption.as_ref().map(encryption_line));
    for fault in &space.faults {
        fields.row(&format!("Page {}", fault.page), &fault.why);
    }
    let unlisted = space.fault_count.saturating_sub(u64::try_from(space.faults.len()).unwrap_or(u64::MAX));
    fields.row_if("", (unlisted > 0).then(|| format!("and {unlisted} more")));
    format!("{fields}\n{}", types_table(space))
}

fn types_table(space: &SpaceInspection) -> String {
    let right = |name| (name, Side::Right);
    let mut table =
        Table::new(&[("TYPE", Side::Left), right("GOOD"), right("EMPTY"), right("ENCRYPTED"), right("BAD")]);
    for line in &space.types {
        let numbers = [line.good, line.empty, line.encrypted, line.bad].map(|number| number.to_string());
        table.row([line.name.clone()].into_iter().chain(numbers));
    }
    table.to_string()
}

fn backup_text(backup: &BackupInspection) -> String {
    let mut fields = Fields::default();
    fields
        .row("Backup", &backup.id)
        .row("Attempt", &backup.attempt)
        .row("Format", format!("{}, {}", backup.format, backup.codec))
        .rows("Keys", &key_lines(backup))
        .row("Stored", stored_line(backup))
        .row("Redo", redo_line(backup.lsn.checkpoint.get(), backup.lsn.end.get()))
        .rows("File table", &entry_lines(&backup.entries));
    format!("{fields}\n{}\n{}", objects_table(backup), segments_table(backup))
}

fn key_lines(backup: &BackupInspection) -> Vec<String> {
    if backup.key_ids.is_empty() { vec!["none: not encrypted".to_owned()] } else { backup.key_ids.clone() }
}

fn entry_lines(entries: &EntryCounts) -> [String; 2] {
    let spaces = count(entries.spaces, "tablespace", "tablespaces");
    let pieces = count(entries.pieces, "file", "files");
    let pages = count(entries.pages, "page", "pages");
    let others = count(entries.files, "other file", "other files");
    let external = count(entries.external, "file", "files");
    let directories = count(entries.directories, "directory", "directories");
    [
        format!("{spaces} of {pages} in {pieces}, {others}, {directories}"),
        format!("{external} outside of the data directory"),
    ]
}

fn stored_line(backup: &BackupInspection) -> String {
    let objects = count(u64::try_from(backup.objects.len()).unwrap_or(u64::MAX), "object", "objects");
    format!("{objects}, {}, {}", format_bytes(backup.bytes), count(backup.frames, "frame", "frames"))
}

fn objects_table(backup: &BackupInspection) -> String {
    let mut table = Table::new(&[("OBJECT", Side::Left), ("BYTES", Side::Right), ("FRAMES", Side::Right)]);
    for object in &backup.objects {
        let frames = object.frames.map_or_else(String::new, |frames| frames.to_string());
        table.row([object.name.clone(), object.bytes.to_string(), frames]);
    }
    table.to_string()
}

fn segments_table(backup: &BackupInspection) -> String {
    let right = |name| (name, Side::Right);
    let mut table = Table::new(&[right("REDO FROM LSN"), right("TO LSN"), right("BYTES"), right("SPACES")]);
    for segment in &backup.redo {
        let spaces = segment.spaces.map_or_else(|| "any".to_owned(), |spaces| spaces.to_string());
        table.row([segment.start.to_string(), segment.end.to_string(), segment.bytes.to_string(), spaces]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Verb;
    use crate::cli::tests::{parse, usage_error};
    use crate::ops::inspect::{FaultLine, ObjectLine, SegmentLine, TypeLine};
    use crate::ops::options::{SpaceId, StoreUrl};
    use crate::ops::report::LsnRange;

    fn options(line: &str) -> (InspectOptions, ReportFormat) {
        match parse(&format!("inspect {line}")) {
            Verb::Inspect(args) => args.options().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_option_goes_to_its_field() {
        let (redo, _) = options("redo /d --from 8204 --limit 3 --keyring-file kr");
        let InspectOptions::Redo { path, from, limit, keyring_file } = redo else { panic!("{redo:?}") };
        assert_eq!((path, from, limit), (PathBuf::from("/d"), Some(Lsn::new(8204)), 3));
        assert_eq!(keyring_file, Some("kr".into()));

        let (page, format) = options("page /t.ibd 4 --page-size 8K --keyring-file kr -o json");
        let InspectOptions::Page { path, page, page_size, keyring_file } = page else { panic!("{page:?}") };
        assert_eq!((path, page, page_size.map(PageSize::bytes)), (PathBuf::from("/t.ibd"), PageNo(4), Some(8192)));
        assert_eq!((keyring_file, format), (Some("kr".into()), ReportFormat::Json));

        let (space, _) = options("space /t.ibd --keyring-file kr");
        assert!(matches!(space, InspectOptions::Space { keyring_file: Some(_), .. }));

        let (backup, _) = options("backup --store file:///b nightly --encryption-key-file k");
        let InspectOptions::Backup { store, backup, encryption_key_files } = backup else { panic!("{backup:?}") };
        assert_eq!((store, backup.as_str()), ("file:///b".parse::<StoreUrl>().unwrap(), "nightly"));
        assert_eq!(encryption_key_files, [PathBuf::from("k")]);

        for bad in ["", "redo", "redo /d --from x", "page /t.ibd", "page /t.ibd -1", "page /t.ibd 1 --page-size 5000"] {
            usage_error(&format!("inspect {bad}"));
        }
    }

    #[test]
    fn redo_is_shown_file_by_file_and_block_by_block() {
        let slot = |offset, lsn, valid| CheckpointSlot { offset, lsn, valid, problem: None };
        let file = RedoFileLine {
            name: "#ib_redo0".into(),
            bytes: 65536,
            log_uuid: 7,
            creator: "MySQL 9.7.4".into(),
            start: Lsn::new(8192),
            end: Lsn::new(71_680),
            flags: vec!["full"],
            checkpoints: vec![slot(512, Some(Lsn::new(8204)), true), slot(1536, None, false)],
            encryption: None,
        };
        let block = |state| BlockLine { lsn: Lsn::new(8192), file: "#ib_redo0".into(), state };
        let redo = RedoInspection {
            path: "/d".into(),
            files: vec![file],
            checkpoint: Some(Lsn::new(8204)),
            blocks: vec![
                block(BlockState::Valid { data_bytes: 512, first_group: 12, encrypted: false, checked: true }),
                block(BlockState::NotWritten),
            ],
        };
        let text = redo_text(&redo);
        for wanted in [
            "Newest checkpoint  LSN 8204\n",
            "#ib_redo0          LSN 8192 to 71680, 64.0 KiB\n",
            "checkpoint at byte 512: LSN 8204\n",
            "checkpoint at byte 1536: none\n",
            "8192  #ib_redo0   512           12  good\n",
            "not written: the log ends here\n",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
    }

    #[test]
    fn a_bad_space_is_called_bad() {
        let space = SpaceInspection {
            path: "/t.ibd".into(),
            bytes: 65536 + 100,
            space: SpaceId(5),
            flags: "0x4021".into(),
            flag_names: vec!["sdi"],
            page_size: PageSize::DEFAULT,
            logical_page_size: PageSize::DEFAULT,
            server_version: "9.7.4".into(),
            pages_by_header: 4,
            pages_in_file: 4,
            surplus_bytes: 100,
            encryption: Some(EncryptionLine { master_key: "INNODBKey-u-1".into(), opens: None }),
            newest_lsn: Lsn::new(1234),
            types: vec![TypeLine { name: "Index".into(), good: 2, empty: 0, encrypted: 0, bad: 2 }],
            faults: vec![FaultLine { page: PageNo(2), why: "it says that it is page 3".into() }],
            fault_count: 2,
        };
        let text = space_text(&space);
        for wanted in [
            "Verdict     BAD: 2 bad pages\n",
            "Flags       0x4021 (sdi)\n",
            "Size        64.0 KiB: 4 pages and 100 bytes; 4 pages by page 0\n",
            "Key         encrypted with INNODBKey-u-1; no keyring file was given\n",
            "Page 2      it says that it is page 3\n            and 1 more\n",
            "Index     2      0          0    2\n",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
    }

    #[test]
    fn a_backup_is_shown_with_its_objects() {
        let backup = BackupInspection {
            id: "a-20260314T150926Z-1a2b3c4d".into(),
            attempt: "0011223344556677".into(),
            format: 1,
            codec: "zstd:1".into(),
            key_ids: vec![],
            frames: 12,
            bytes: 4096,
            lsn: LsnRange { checkpoint: Lsn::new(8204), end: Lsn::new(9228) },
            objects: vec![
                ObjectLine { name: "pack-000001".into(), bytes: 4000, frames: Some(12) },
                ObjectLine { name: "files".into(), bytes: 96, frames: None },
            ],
            redo: vec![SegmentLine { start: Lsn::new(8192), end: Lsn::new(9228), bytes: 1536, spaces: None }],
            entries: EntryCounts { spaces: 2, pieces: 3, pages: 100, external: 1, files: 1, directories: 1 },
        };
        let text = backup_text(&backup);
        for wanted in [
            "Keys        none: not encrypted\n",
            "File table  2 tablespaces of 100 pages in 3 files, 1 other file, 1 directory\n",
            "Stored      2 objects, 4.0 KiB, 12 frames\n",
            "pack-000001   4000      12\nfiles           96\n",
            "         8192    9228   1536     any\n",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
    }
}
