//! `stillframe restore`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;

use super::args::{BackupArgs, KeyArgs, account_password, choice, external_files, size, threads};
use super::backup::{binlog_line, redo_line};
use super::output::{self, Fields, Output, ReportFormat, count};
use crate::ops::options::{AccountPassword, ExternalFiles, Recovery, RestoreOptions, default_parallel};
use crate::ops::report::{RecoveryState, RestoreReport, StructureReport};
use crate::ops::{self, Context, Error, ErrorKind};
use crate::util::units::{self, format_bytes};

/// The options.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    backup: BackupArgs,
    /// The directory that becomes the database: empty, or not there yet
    #[arg(long, value_name = "DIR")]
    datadir: PathBuf,
    /// Who applies the captured redo: native, Stillframe while it restores, so that a server starts as after a clean
    /// shutdown; server, MySQL itself at its first start or here with --mysqld
    #[arg(long, value_name = "WHO", default_value_t = Recovery::default(), value_parser = choice::<Recovery>(Recovery::NAMES))]
    recovery: Recovery,
    /// Run this server once on the result, isolated from network, replication and events, and shut it down cleanly: it rolls
    /// back what was open and, with --recovery server, applies the redo before. With native it is not needed
    #[arg(long, value_name = "PATH")]
    mysqld: Option<PathBuf>,
    #[command(flatten)]
    keys: KeyArgs,
    /// The keyring data file that the restored server will use
    #[arg(long, value_name = "FILE")]
    keyring_file: Option<PathBuf>,
    /// Tablespaces that were outside of the data directory: keep their paths, put them inside, or move them by
    /// prefix (absolute paths; a backslash takes a comma or = in a path as it is)
    #[arg(long, value_name = "keep|inside|OLD=NEW[,OLD=NEW...]", default_value = "keep", value_parser = external_files())]
    external_files: ExternalFiles,
    /// Let the new server replicate and run events from its first start on, as the old one did
    #[arg(long)]
    keep_replication: bool,
    /// Give an account of the restored server another password: what FILE holds, without its line end. Without HOST, all
    /// accounts of that name. Name it once for each account
    #[arg(long = "account-password", value_name = "USER[@HOST]=FILE", value_parser = account_password())]
    account_passwords: Vec<AccountPassword>,
    /// Clear what an interrupted restore left in the directory; never anything else
    #[arg(long)]
    overwrite_incomplete: bool,
    /// Check the structure of every tablespace once it is recovered: trees and the order of their rows, extents, large
    /// objects, undo. Reads all of it once more
    #[arg(long)]
    check: bool,
    /// Writing threads [default: one per core, 8 at most]
    #[arg(long, value_name = "N", value_parser = threads)]
    parallel: Option<NonZeroUsize>,
    /// Memory for pages and redo on their way
    #[arg(long, value_name = "BYTES", default_value = "128M", value_parser = size)]
    memory: u64,
    /// How the report is written
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: ReportFormat,
}

impl Args {
    /// The same as the engine wants it.
    fn options(self) -> Result<RestoreOptions, Error> {
        Ok(RestoreOptions {
            store: self.backup.store()?,
            backup: self.backup.backup,
            datadir: self.datadir,
            recovery: self.recovery,
            mysqld: self.mysqld,
            encryption_key_files: self.keys.files,
            keyring_file: self.keyring_file,
            external_files: self.external_files,
            keep_replication: self.keep_replication,
            overwrite_incomplete: self.overwrite_incomplete,
            account_passwords: self.account_passwords,
            check_structure: self.check,
            overwrite: false,
            receipt: None,
            parallel: self.parallel.unwrap_or_else(default_parallel),
            memory: self.memory,
        })
    }
}

/// Brings the backup back.
pub(super) async fn run(args: Args, context: &Context) -> Result<Output, Error> {
    let format = args.output;
    let options = args.options()?;
    options.check()?;
    let report = ops::restore::run(context, options).await?;
    let failure = report.structure.as_ref().and_then(|structure| verdict(&report.id, structure));
    Ok(Output { report: output::render(format, &report, text)?, note: None, failure })
}

/// Files whose structure is damaged are a report *and* a failure.
fn verdict(id: &str, structure: &StructureReport) -> Option<Error> {
    let problems = count(structure.problem_count, "problem", "problems");
    let message = format!("the tablespaces restored from {id} are damaged: {problems}");
    (structure.problem_count > 0).then(|| Error::new(ErrorKind::DamagedBackup, message))
}

/// The report for people.
fn text(report: &RestoreReport) -> String {
    let mut fields = Fields::default();
    fields
        .row("Restored", &report.id)
        .row("Into", report.datadir.display().to_string())
        .row("State", state_line(report.recovery, report.mode))
        .row("Server", format!("MySQL {} ({})", report.server.version, report.server.uuid))
        .row("Duration", duration_line(report))
        .row("Size", size_line(report))
        .row("Redo", redo_line(report.lsn.checkpoint.get(), report.lsn.end.get()))
        .rows("Applied", &report.applied.iter().map(ToString::to_string).collect::<Vec<_>>())
        .row("Binary log", binlog_line(report.binlog.as_ref().map(|at| (at.file.as_str(), at.position))))
        .row("GTID set", output::gtid_set(&report.gtid_executed))
        .rows("Structure", &report.structure.as_ref().map(structure_lines).unwrap_or_default())
        .rows("Start with", &report.settings)
        .rows("Isolated", &report.isolation)
        .rows("Passwords", &report.accounts)
        .rows("Warning", &report.warnings);
    fields.to_string()
}

/// What the check of the structure found.
pub(super) fn structure_lines(structure: &StructureReport) -> Vec<String> {
    let looked_at = format!(
        "{} and {} in {} checked, the order of the rows in {}",
        count(structure.index_pages, "index page", "index pages"),
        count(structure.pages.saturating_sub(structure.index_pages), "other page", "other pages"),
        count(structure.tablespaces, "tablespace", "tablespaces"),
        structure.ordered_pages
    );
    let problems = structure.problems.iter().map(|problem| format!("{}: {}", problem.object, problem.what));
    std::iter::once(looked_at).chain(problems).collect()
}

fn state_line(state: RecoveryState, mode: Recovery) -> &'static str {
    match (state, mode) {
        (RecoveryState::Recovered, Recovery::Server) => "recovered by the server and shut down cleanly: ready to start",
        (RecoveryState::Recovered, Recovery::Native) => {
            "recovered here; a server ran on it once and was shut down cleanly: ready to start"
        }
        (RecoveryState::Applied, _) => "recovered: a server starts on it as after a clean shutdown",
        (RecoveryState::AtFirstStart, _) => "the first server that starts on it recovers it from the captured redo",
    }
}

fn duration_line(report: &RestoreReport) -> String {
    let took = output::seconds(report.duration_seconds);
    match units::rate(report.bytes.written, Duration::from_secs(report.duration_seconds)) {
        0 => took,
        rate => format!("{took}, {}/s written", format_bytes(rate)),
    }
}

fn size_line(report: &RestoreReport) -> String {
    let bytes = report.bytes;
    let files = count(report.files, "file", "files");
    format!("{} fetched, {} written to {files}", format_bytes(bytes.fetched), format_bytes(bytes.written))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Verb;
    use crate::cli::tests::{parse, usage_error};
    use crate::ops::report::{AppliedRedo, Problem, RestoreBytes, samples};

    fn options(line: &str) -> RestoreOptions {
        match parse(&format!("restore {line}")) {
            Verb::Restore(args) => args.options().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_the_engines() {
        let options = options("--store file:///b nightly --datadir /d");
        let wanted = RestoreOptions::new("file:///b".parse().unwrap(), "nightly", "/d");
        assert_eq!(format!("{options:?}"), format!("{wanted:?}"));
    }

    #[test]
    fn every_option_goes_to_its_field() {
        let options = options(
            "--store file:///b nightly --datadir /d --recovery native --mysqld /m --encryption-key-file k1 \
             --encryption-key-file k2 --keyring-file kr --external-files /a=/b,/c=/d --keep-replication \
             --overwrite-incomplete --check --parallel 5 --memory 1G -o json --account-password root@localhost=/p=1 \
             --account-password app=p2",
        );
        assert_eq!(options.recovery, Recovery::Native);
        assert_eq!(options.mysqld, Some("/m".into()));
        assert_eq!(options.encryption_key_files, [PathBuf::from("k1"), PathBuf::from("k2")]);
        assert_eq!(options.keyring_file, Some("kr".into()));
        let pairs = vec![("/a".into(), "/b".into()), ("/c".into(), "/d".into())];
        assert_eq!(options.external_files, ExternalFiles::Map(pairs));
        assert!(options.keep_replication && options.overwrite_incomplete && options.check_structure);
        assert_eq!((options.parallel.get(), options.memory), (5, 1 << 30));
        let account = |user: &str, host: Option<&str>, file: &str| AccountPassword {
            user: user.to_owned(),
            host: host.map(str::to_owned),
            password_file: file.into(),
        };
        let accounts = [account("root", Some("localhost"), "/p=1"), account("app", None, "p2")];
        assert_eq!(options.account_passwords, accounts);
    }

    #[test]
    fn contradictions_are_usage_errors() {
        for bad in [
            "--store file:///b nightly",
            "--store file:///b --datadir /d",
            "--store file:///b nightly --datadir /d --external-files elsewhere",
            "--store file:///b nightly --datadir /d --recovery xtrabackup",
            "--store file:///b nightly --datadir /d --memory 0",
            "--store file:///b nightly --datadir /d --account-password root",
            "--store file:///b nightly --datadir /d --account-password @localhost=p",
            "--store file:///b nightly --datadir /d --account-password root=",
        ] {
            usage_error(&format!("restore {bad}"));
        }
    }

    #[test]
    fn the_report_says_what_comes_next() {
        let backup = samples::backup();
        let mut report = RestoreReport {
            name: backup.name,
            id: backup.id,
            datadir: "/var/lib/mysql-new".into(),
            recovery: RecoveryState::AtFirstStart,
            mode: Recovery::Server,
            applied: None,
            lsn: backup.lsn,
            binlog: backup.binlog,
            gtid_executed: "a:1-3,\nb:1".into(),
            server: backup.server,
            bytes: RestoreBytes { fetched: 1 << 30, written: 3 << 30 },
            files: 1,
            duration_seconds: 10,
            structure: None,
            settings: vec!["innodb_page_size=4096".into()],
            isolation: vec!["replication does not start by itself: RESET PERSIST skip_replica_start".into()],
            accounts: vec!["'root'@'%'".into()],
            warnings: vec![],
        };
        let text = super::text(&report);
        for wanted in [
            "Into        /var/lib/mysql-new\n",
            "the first server that starts on it recovers it",
            "1.0 GiB fetched, 3.0 GiB written to 1 file\n",
            "GTID set    a:1-3,\n            b:1\n",
            "Start with  innodb_page_size=4096\n",
            "Isolated    replication does not start",
            "Passwords   'root'@'%'",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
        report.recovery = RecoveryState::Recovered;
        assert!(super::text(&report).contains("recovered by the server and shut down cleanly: ready to start"));
        report.mode = Recovery::Native;
        assert!(super::text(&report).contains("recovered here; a server ran on it once and was shut down cleanly"));
        let problem = Problem { object: "/d/t.ibd".into(), what: "page 4: is below no other page".into() };
        let structure =
            StructureReport { tablespaces: 1, problems: vec![problem], problem_count: 1, ..Default::default() };
        assert_eq!(verdict("x", &structure).unwrap().kind, ErrorKind::DamagedBackup);
        assert!(verdict("x", &StructureReport::default()).is_none());
        report.structure = Some(structure);
        assert!(super::text(&report).contains("/d/t.ibd: page 4: is below no other page\n"));
        assert!(super::text(&report).contains("ready to start"));
        report.recovery = RecoveryState::Applied;
        report.applied = Some(AppliedRedo { records: 90, skipped: 10, pages: 8, created: 1, ..AppliedRedo::default() });
        let text = super::text(&report);
        assert!(text.contains("Applied     90 records to 8 pages, 1 of them new; 10 were there already\n"), "{text}");
        assert!(text.contains("as after a clean shutdown"), "{text}");
    }
}
