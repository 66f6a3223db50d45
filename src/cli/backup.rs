//! `stillframe backup`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;

use super::args::{Budget, ServerArgs, StoreArgs, budget, choice, rate, size, threads, time};
use super::output::{self, Fields, Output, ReportFormat, share};
use crate::ops::options::{
    BackupOptions, Codec, EncryptedPages, IncrementalFrom, LockPolicy, NonTransactional, Origin, RedoConsumer,
    default_parallel,
};
use crate::ops::report::BackupReport;
use crate::ops::{self, Context, Error};
use crate::util::units::{self, format_bytes, format_duration};

/// The options.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// The backup's name; several may share it
    #[arg(long, value_name = "NAME", default_value = BackupOptions::DEFAULT_NAME)]
    name: String,
    #[command(flatten)]
    server: ServerArgs,
    /// Where the server's data directory is mounted here, if not where the server says
    #[arg(long, value_name = "DIR")]
    datadir: Option<PathBuf>,
    /// The data file of the server's component_keyring_file
    #[arg(long, value_name = "FILE")]
    keyring_file: Option<PathBuf>,
    /// Encrypted pages whose key is not at hand: refuse the backup, or copy them without a look inside
    #[arg(long, value_name = "POLICY", default_value_t = EncryptedPages::default(), value_parser = choice::<EncryptedPages>(EncryptedPages::NAMES))]
    encrypted_pages: EncryptedPages,
    /// Not there yet: store only what changed since another backup (auto or its name)
    #[arg(long, value_name = "auto|NAME")]
    incremental_from: Option<String>,
    /// zstd, zstd:LEVEL, lz4 or none
    #[arg(long, value_name = "CODEC", default_value_t = BackupOptions::DEFAULT_COMPRESSION)]
    compression: Codec,
    /// Encrypt for the key in this file; give it several times and any of the keys opens the backup
    #[arg(long = "encryption-key-file", value_name = "FILE")]
    encryption_key_files: Vec<PathBuf>,
    /// Copying threads [default: one per core, 8 at most]
    #[arg(long, value_name = "N", value_parser = threads)]
    parallel: Option<NonZeroUsize>,
    /// Read so many bytes a second at most from the server's files: 50M
    #[arg(long, value_name = "BYTES/s", value_parser = rate)]
    throttle: Option<u64>,
    /// Copy only as fast as a busy server does not notice: in the idle class, backing off while it gets less
    /// done than in moments without the copy; 8 MiB a second at least. Captured redo is compressed little
    #[arg(long)]
    polite: bool,
    /// When DDL is made to wait: full, for the whole copy; short, for a moment after it (not there yet)
    #[arg(long, value_name = "POLICY", default_value_t = LockPolicy::default(), value_parser = choice::<LockPolicy>(LockPolicy::NAMES))]
    lock_policy: LockPolicy,
    /// How long to try for a lock, in short attempts behind which nobody queues
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = time)]
    lock_timeout: Duration,
    /// Give up when DDL has waited so long for the backup lock; or unlimited
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = budget)]
    ddl_wait_budget: Budget,
    /// MyISAM, CSV, ARCHIVE and MERGE tables: copy them under a short global read lock, refuse the backup, or leave
    /// them out and say so
    #[arg(long, value_name = "POLICY", default_value_t = NonTransactional::default(), value_parser = choice::<NonTransactional>(NonTransactional::NAMES))]
    non_transactional: NonTransactional,
    /// Give up when copying them takes so long, for nobody can write meanwhile; or unlimited
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = budget)]
    read_lock_budget: Budget,
    /// Ask the server to keep its redo until it is captured: where it allows that, always or never. A consumer that
    /// does not advance can stall the server; docs/runbooks/redo.md says how that is prevented
    #[arg(long, value_name = "WHEN", default_value_t = RedoConsumer::default(), value_parser = choice::<RedoConsumer>(RedoConsumer::NAMES))]
    redo_consumer: RedoConsumer,
    /// Where redo waits for the store [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR")]
    spool_dir: Option<PathBuf>,
    /// How much may wait there
    #[arg(long, value_name = "BYTES", default_value = "4G", value_parser = size)]
    spool_bytes: u64,
    /// Back up a server of a version that no recorded test run covers
    #[arg(long)]
    allow_untested_server: bool,
    /// How the report is written
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: ReportFormat,
}

impl Args {
    /// The same as the engine wants it.
    fn options(self) -> Result<BackupOptions, Error> {
        Ok(BackupOptions {
            store: self.store.url()?,
            name: self.name,
            id: None,
            origin: Origin::default(),
            server: self.server.connect_options(),
            datadir: self.datadir,
            keyring_file: self.keyring_file,
            encrypted_pages: self.encrypted_pages,
            incremental_from: self.incremental_from.map(|from| match from.as_str() {
                "auto" => IncrementalFrom::Auto,
                _ => IncrementalFrom::Backup(from),
            }),
            compression: self.compression,
            encryption_key_files: self.encryption_key_files,
            parallel: self.parallel.unwrap_or_else(default_parallel),
            throttle: self.throttle,
            polite: self.polite,
            lock_policy: self.lock_policy,
            lock_timeout: self.lock_timeout,
            ddl_wait_budget: self.ddl_wait_budget.0,
            non_transactional: self.non_transactional,
            read_lock_budget: self.read_lock_budget.0,
            redo_consumer: self.redo_consumer,
            spool_dir: self.spool_dir.unwrap_or_else(std::env::temp_dir),
            spool_bytes: self.spool_bytes,
            allow_untested_server: self.allow_untested_server,
        })
    }
}

/// Takes the backup.
pub(super) async fn run(args: Args, context: &Context) -> Result<Output, Error> {
    let format = args.output;
    let options = args.options()?;
    options.check()?;
    let report = ops::backup::run(context, options).await?;
    output::render(format, &report, text).map(Output::report)
}

/// The report for people.
fn text(report: &BackupReport) -> String {
    let mut fields = Fields::default();
    let untested = if report.server.untested { ", a version that no recorded test run covers" } else { "" };
    fields
        .row("Backup", &report.id)
        .row("Store", &report.destination)
        .row("Type", report.backup_type.to_string())
        .row_if("Parent", report.parent.as_deref())
        .row("Server", format!("MySQL {} ({}){untested}", report.server.version, report.server.uuid))
        .row("Taken", format!("{} to {}", output::time(report.start_time), output::time(report.completion_time)))
        .row("Duration", took(report.duration_seconds, report.bytes.read))
        .row("Size", size_line(report))
        .row("Pages", pages_line(report))
        .row("Redo", redo_line(report.lsn.checkpoint.get(), report.lsn.end.get()))
        .row("Binary log", binlog_line(report.binlog.as_ref().map(|at| (at.file.as_str(), at.position))))
        .row("GTID set", output::gtid_set(&report.gtid_executed))
        .rows("Locks", &lock_lines(report))
        .rows("Warning", &report.warnings);
    fields.to_string()
}

/// `4m05s, 812.0 MiB/s`
fn took(seconds: u64, bytes: u64) -> String {
    match units::rate(bytes, Duration::from_secs(seconds)) {
        0 => output::seconds(seconds),
        rate => format!("{}, {}/s", output::seconds(seconds), format_bytes(rate)),
    }
}

fn size_line(report: &BackupReport) -> String {
    let (read, stored) = (report.bytes.read, report.bytes.stored);
    let share = share(stored, read).map(|share| format!(" ({share})")).unwrap_or_default();
    format!("{} read, {} stored{share}", format_bytes(read), format_bytes(stored))
}

fn pages_line(report: &BackupReport) -> String {
    let pages = report.pages;
    format!(
        "{} copied, {} empty, {} read again because the server was writing them",
        pages.copied, pages.zero, pages.reread
    )
}

/// `LSN 178959386 to 178969999, 10.3 KiB`
pub(super) fn redo_line(checkpoint: u64, end: u64) -> String {
    format!("LSN {checkpoint} to {end}, {}", format_bytes(end.saturating_sub(checkpoint)))
}

/// `binlog.000008, position 158`
pub(super) fn binlog_line(at: Option<(&str, u64)>) -> String {
    at.map_or_else(|| "the server writes none".to_owned(), |(file, position)| format!("{file}, position {position}"))
}

fn lock_lines(report: &BackupReport) -> Vec<String> {
    let time = |milliseconds| format_duration(Duration::from_millis(milliseconds));
    let mut lines = vec![format!(
        "backup lock held for {} (DDL waits meanwhile, DML does not)",
        time(report.lock_held_milliseconds)
    )];
    if report.global_read_lock_milliseconds > 0 {
        lines.push(format!(
            "global read lock held for {} (all writes wait)",
            time(report.global_read_lock_milliseconds)
        ));
    }
    lines.push(match report.ddl_wait_milliseconds {
        0 => "no DDL was seen waiting".to_owned(),
        waited => format!("DDL was seen waiting for {}", time(waited)),
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Verb;
    use crate::cli::tests::{parse, usage_error};
    use crate::ops::options::{Endpoint, SslMode};
    use crate::ops::report::samples;

    fn options(line: &str) -> BackupOptions {
        match parse(&format!("backup {line}")) {
            Verb::Backup(args) => args.options().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    const LEAST: &str = "--store file:///b --socket /s --user u";

    #[test]
    fn defaults_are_the_engines() {
        let options = options(LEAST);
        let wanted = BackupOptions::new("file:///b".parse().unwrap(), options.server.clone());
        assert_eq!(format!("{options:?}"), format!("{wanted:?}"));
        assert!(matches!(&options.server.endpoint, Endpoint::Socket(path) if path.as_os_str() == "/s"));
    }

    #[test]
    fn every_option_goes_to_its_field() {
        let options = options(
            "--store s3://bucket/prefix --name nightly --host db --port 3307 --user u --password-file pw \
             --ssl-mode verify-identity --ssl-ca ca --ssl-cert cert --ssl-key key --ssl-server-name name --datadir /d \
             --keyring-file kr --encrypted-pages copy-unverified --incremental-from auto --compression zstd:3 \
             --encryption-key-file k1 --encryption-key-file k2 --parallel 3 --throttle 50M --polite --lock-policy short \
             --lock-timeout 7 --ddl-wait-budget unlimited --non-transactional skip --read-lock-budget 9 --redo-consumer off --spool-dir /sp \
             --spool-bytes 1G --allow-untested-server -o json",
        );
        assert_eq!(options.store.to_string(), "s3://bucket/prefix");
        assert_eq!(options.name, "nightly");
        let server = &options.server;
        assert!(matches!(&server.endpoint, Endpoint::Tcp { host, port: 3307 } if host == "db"));
        assert_eq!((server.user.as_str(), server.password_file.clone()), ("u", Some("pw".into())));
        assert_eq!(server.ssl.mode, SslMode::VerifyIdentity);
        assert_eq!(server.ssl.ca, Some("ca".into()));
        assert_eq!(server.ssl.cert, Some("cert".into()));
        assert_eq!(server.ssl.key, Some("key".into()));
        assert_eq!(server.ssl.server_name.as_deref(), Some("name"));
        assert_eq!(options.datadir, Some("/d".into()));
        assert_eq!(options.keyring_file, Some("kr".into()));
        assert_eq!(options.encrypted_pages, EncryptedPages::CopyUnverified);
        assert_eq!(options.incremental_from, Some(IncrementalFrom::Auto));
        assert_eq!(options.compression.to_string(), "zstd:3");
        assert_eq!(options.encryption_key_files, [PathBuf::from("k1"), PathBuf::from("k2")]);
        assert_eq!((options.parallel.get(), options.throttle, options.polite), (3, Some(50 << 20), true));
        assert_eq!(options.lock_policy, LockPolicy::Short);
        assert_eq!((options.lock_timeout, options.ddl_wait_budget), (Duration::from_secs(7), None));
        assert_eq!(options.non_transactional, NonTransactional::Skip);
        assert_eq!(options.read_lock_budget, Some(Duration::from_secs(9)));
        assert_eq!(options.redo_consumer, RedoConsumer::Off);
        assert_eq!((options.spool_dir, options.spool_bytes), ("/sp".into(), 1 << 30));
        assert!(options.allow_untested_server);
    }

    #[test]
    fn contradictions_are_usage_errors() {
        for bad in [
            "--store file:///b --user u",
            "--store file:///b --socket /s --host h --user u",
            "--store file:///b --socket /s --port 1 --user u",
            "--store file:///b --socket /s",
            "--store file:///b --socket /s --user u --lock-policy never",
            "--store file:///b --socket /s --user u --compression gzip",
            "--store file:///b --socket /s --user u --parallel 0",
            "--store file:///b --socket /s --user u --throttle 0",
            "--store file:///b --socket /s --user u --ssl-cert c",
            "--store file:///b --socket /s --user u surplus",
        ] {
            usage_error(&format!("backup {bad}"));
        }
    }

    #[test]
    fn the_report_tells_what_a_person_wants_to_know() {
        let text = text(&samples::backup());
        for wanted in [
            "Backup      nightly-20260314T150926Z-1a2b3c4d\n",
            "Size        3.0 GiB read, 1.0 GiB stored (33.3%)\n",
            "Duration    21.0s, 146.2 MiB/s\n",
            "Binary log  binlog.000008, position 158\n",
            "GTID set    3e11fa47-71ca-11e1-9e33-c80aa9429562:1-23\n",
            "global read lock held for 212ms",
            "no DDL was seen waiting",
            "Warning     3 tables of MyISAM",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
        let mut plain = samples::backup();
        plain.binlog = None;
        plain.global_read_lock_milliseconds = 0;
        plain.ddl_wait_milliseconds = 1500;
        let text = super::text(&plain);
        assert!(
            text.contains("Binary log  the server writes none") && !text.contains("global read lock held"),
            "{text}"
        );
        assert!(text.contains("DDL was seen waiting for 1.5s"), "{text}");
    }
}
