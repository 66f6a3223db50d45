//! `stillframe list`.

use clap::Args as ClapArgs;

use super::args::StoreArgs;
use super::output::{self, ListFormat, Output, Side, Table};
use crate::ops::options::ListOptions;
use crate::ops::report::ListEntry;
use crate::ops::{self, Context, Error};
use crate::util::units::format_bytes;

/// The options.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// How the list is written
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: ListFormat,
}

/// Lists the backups.
pub(super) async fn run(args: Args, context: &Context) -> Result<Output, Error> {
    let store = args.store.url()?;
    let nothing = format!("stillframe: no backups in {store}");
    let entries = ops::list::run(context, ListOptions { store }).await?;
    Ok(match args.output {
        ListFormat::Json => Output::report(output::json(&entries)?),
        ListFormat::Table if entries.is_empty() => Output { note: Some(nothing), ..Output::default() },
        ListFormat::Table => Output { report: table(&entries), note: problems(&entries), failure: None },
    })
}

fn table(entries: &[ListEntry]) -> String {
    let mut table = Table::new(&[
        ("ID", Side::Left),
        ("STATE", Side::Left),
        ("TYPE", Side::Left),
        ("STARTED", Side::Left),
        ("READ", Side::Right),
        ("STORED", Side::Right),
        ("END LSN", Side::Right),
        ("SERVER", Side::Left),
        ("KEY", Side::Left),
        ("KEEP", Side::Left),
    ]);
    for entry in entries {
        table.row(cells(entry));
    }
    table.to_string()
}

fn cells(entry: &ListEntry) -> Vec<String> {
    let start = [entry.id.clone(), entry.state.to_string()];
    let started = output::time(entry.start_time);
    let Some(contents) = &entry.contents else {
        let unknown = || "-".to_owned();
        let rest = [unknown(), started, unknown(), unknown(), unknown(), unknown(), unknown(), unknown()];
        return start.into_iter().chain(rest).collect();
    };
    let rest = [
        contents.backup_type.to_string(),
        started,
        format_bytes(contents.bytes.read),
        format_bytes(contents.bytes.stored),
        contents.lsn.end.to_string(),
        contents.server.version.clone(),
        if contents.encrypted { "needed" } else { "none" }.to_owned(),
        match (entry.pinned, entry.expiration_time) {
            (true, _) => "pinned".to_owned(),
            (false, Some(time)) => format!("until {}", output::time(time)),
            (false, None) => "-".to_owned(),
        },
    ];
    start.into_iter().chain(rest).collect()
}

/// What is wrong with the damaged ones, below the table.
fn problems(entries: &[ListEntry]) -> Option<String> {
    let lines: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.problem.as_ref().map(|problem| format!("stillframe: {}: {problem}", entry.id)))
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Verb;
    use crate::cli::tests::{parse, usage_error};
    use crate::ops::report::{BackupState, ListContents, samples};

    fn entries() -> Vec<ListEntry> {
        let backup = samples::backup();
        let contents = ListContents {
            backup_type: backup.backup_type,
            parent: None,
            completion_time: backup.completion_time,
            lsn: backup.lsn,
            bytes: backup.bytes,
            server: backup.server,
            encrypted: true,
        };
        let whole = ListEntry {
            name: backup.name,
            id: backup.id,
            state: BackupState::Complete,
            start_time: backup.start_time,
            pinned: true,
            expiration_time: None,
            contents: Some(contents),
            problem: None,
        };
        let damaged = ListEntry {
            id: "b-20260314T150926Z-1a2b3c4d".into(),
            state: BackupState::Damaged,
            contents: None,
            problem: Some("the manifest is cut short".into()),
            ..whole.clone()
        };
        vec![whole, damaged]
    }

    #[test]
    fn a_line_for_each_and_the_problems_below() {
        let text = table(&entries());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].contains("Complete  Full  2026-03-14 15:09:26 UTC  3.0 GiB  1.0 GiB"), "{text}");
        assert!(lines[1].ends_with("9.7.4   needed  pinned"), "{text}");
        assert!(lines[2].starts_with("b-20260314T150926Z-1a2b3c4d"), "{text}");
        assert_eq!(
            problems(&entries()).as_deref(),
            Some("stillframe: b-20260314T150926Z-1a2b3c4d: the manifest is cut short")
        );
        assert_eq!(problems(&entries()[..1]), None);
    }

    #[test]
    fn options() {
        let Verb::List(args) = parse("list --store file:///b -o json") else { panic!("not list") };
        assert_eq!(args.output, ListFormat::Json);
        assert_eq!(args.store.url().unwrap().to_string(), "file:///b");
        usage_error("list --store file:///b -o yaml");
        usage_error("list --store file:///b surplus");
    }
}
