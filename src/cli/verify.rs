//! `stillframe verify`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;

use super::args::{BackupArgs, KeyArgs, threads};
use super::backup::redo_line;
use super::output::{self, Fields, Output, ReportFormat, count};
use crate::ops::options::{DeepVerify, VerifyOptions, default_parallel};
use crate::ops::report::{StructureReport, VerifyReport};
use crate::ops::{self, Context, Error, ErrorKind};
use crate::util::units::{self, format_bytes};

/// The options.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    backup: BackupArgs,
    #[command(flatten)]
    keys: KeyArgs,
    /// Reading threads [default: one per core, 8 at most]
    #[arg(long, value_name = "N", value_parser = threads)]
    parallel: Option<NonZeroUsize>,
    /// Restore the backup into a scratch directory, recover it, and check the structure of every tablespace as well:
    /// trees and the order of their rows, extents, large objects, undo
    #[arg(long, requires = "scratch_dir")]
    deep: bool,
    /// Where --deep restores to, into a directory of its own that it removes; there must be room for the database
    #[arg(long, value_name = "DIR", requires = "deep")]
    scratch_dir: Option<PathBuf>,
    /// The keyring data file that opens encrypted tablespaces, for --deep
    #[arg(long, value_name = "FILE", requires = "deep")]
    keyring_file: Option<PathBuf>,
    /// How the report is written
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: ReportFormat,
}

impl Args {
    /// The same as the engine wants it.
    fn options(self) -> Result<VerifyOptions, Error> {
        Ok(VerifyOptions {
            store: self.backup.store()?,
            backup: self.backup.backup,
            encryption_key_files: self.keys.files,
            parallel: self.parallel.unwrap_or_else(default_parallel),
            deep: self.scratch_dir.map(|scratch_dir| DeepVerify { scratch_dir, keyring_file: self.keyring_file }),
        })
    }
}

/// Verifies the backup. One that is not good has a report *and* fails.
pub(super) async fn run(args: Args, context: &Context) -> Result<Output, Error> {
    let format = args.output;
    let report = ops::verify::run(context, args.options()?).await?;
    let failure = verdict(&report);
    Ok(Output { report: output::render(format, &report, text)?, note: None, failure })
}

fn verdict(report: &VerifyReport) -> Option<Error> {
    let problems = count(report.problem_count, "problem", "problems");
    (!report.good).then(|| Error::new(ErrorKind::DamagedBackup, format!("{} is damaged: {problems}", report.id)))
}

/// The report for people.
fn text(report: &VerifyReport) -> String {
    let mut fields = Fields::default();
    fields
        .row("Backup", &report.id)
        .row("Verdict", verdict_line(report))
        .row("Read", read_line(report))
        .row("Pages", pages_line(report))
        .row(
            "Redo",
            format!(
                "{}, {} followed block by block",
                redo_line(report.lsn.checkpoint.get(), report.lsn.end.get()),
                count(report.redo_segments, "segment", "segments")
            ),
        )
        .rows("Structure", &report.structure.as_ref().map(structure_line).into_iter().collect::<Vec<_>>())
        .rows("Problem", &problem_lines(report))
        .rows("Warning", &report.warnings);
    fields.to_string()
}

/// What was looked at; what is wrong is among the problems.
fn structure_line(structure: &StructureReport) -> String {
    super::restore::structure_lines(structure).into_iter().next().unwrap_or_default()
}

fn verdict_line(report: &VerifyReport) -> String {
    match (report.good, report.pages.unverified) {
        (true, 0) => "good: every byte was read and is right".to_owned(),
        (true, unseen) => {
            let pages = count(unseen, "encrypted page was", "encrypted pages were");
            format!("good as far as can be seen: {pages} copied without a look inside")
        }
        (false, _) => format!("DAMAGED: {}", count(report.problem_count, "problem", "problems")),
    }
}

fn read_line(report: &VerifyReport) -> String {
    let duration = Duration::from_secs(report.duration_seconds);
    let rate = match units::rate(report.bytes, duration) {
        0 => String::new(),
        rate => format!(", {}/s", format_bytes(rate)),
    };
    let objects = count(report.objects, "object", "objects");
    format!("{objects}, {} in {}{rate}", format_bytes(report.bytes), output::seconds(report.duration_seconds))
}

fn pages_line(report: &VerifyReport) -> String {
    let pages = report.pages;
    let line = format!("{} with a good checksum, {} empty", pages.checked, pages.zero);
    if pages.unverified > 0 { format!("{line}, {} not looked into", pages.unverified) } else { line }
}

fn problem_lines(report: &VerifyReport) -> Vec<String> {
    let mut lines: Vec<String> =
        report.problems.iter().map(|problem| format!("{}: {}", problem.object, problem.what)).collect();
    let shown = u64::try_from(lines.len()).unwrap_or(u64::MAX);
    let more = report.problem_count.saturating_sub(shown);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Verb;
    use crate::cli::tests::{parse, usage_error};
    use crate::ops::report::{Problem, VerifiedPages, samples};

    fn report() -> VerifyReport {
        let backup = samples::backup();
        VerifyReport {
            name: backup.name,
            id: backup.id,
            good: true,
            objects: 7,
            bytes: 1 << 30,
            pages: VerifiedPages { checked: 190_000, zero: 6608, unverified: 0 },
            redo_segments: 1,
            structure: None,
            lsn: backup.lsn,
            duration_seconds: 4,
            problems: vec![],
            problem_count: 0,
            warnings: vec![],
        }
    }

    #[test]
    fn a_good_backup_is_called_good() {
        let text = text(&report());
        assert!(text.contains("Verdict  good: every byte was read and is right\n"), "{text}");
        assert!(text.contains("Read     7 objects, 1.0 GiB in 4.0s, 256.0 MiB/s\n"), "{text}");
        assert!(text.contains("1 segment followed block by block"), "{text}");
        assert!(verdict(&report()).is_none());
        let mut unseen = report();
        unseen.pages.unverified = 3;
        assert!(super::text(&unseen).contains("3 encrypted pages were copied without a look inside"));
    }

    #[test]
    fn a_damaged_one_fails_with_its_report() {
        let mut bad = report();
        bad.good = false;
        bad.problem_count = 12;
        bad.problems = vec![Problem { object: "pack-000001".into(), what: "digest differs at 4096".into() }];
        let text = super::text(&bad);
        assert!(text.contains("Verdict  DAMAGED: 12 problems\n"), "{text}");
        assert!(text.contains("Problem  pack-000001: digest differs at 4096\n         and 11 more\n"), "{text}");
        assert_eq!(verdict(&bad).unwrap().kind, ErrorKind::DamagedBackup);
    }

    #[test]
    fn options() {
        let line = "verify --store file:///b nightly --encryption-key-file a --encryption-key-file b --parallel 2";
        let Verb::Verify(args) = parse(line) else { panic!("not verify") };
        let options = args.options().unwrap();
        assert_eq!((options.backup.as_str(), options.parallel.get()), ("nightly", 2));
        assert_eq!(options.encryption_key_files.len(), 2);
        let Verb::Verify(args) = parse("verify --store file:///b x --deep --scratch-dir /s") else {
            panic!("not verify")
        };
        let wanted = DeepVerify { scratch_dir: "/s".into(), keyring_file: None };
        assert_eq!(args.options().unwrap().deep, Some(wanted));
        usage_error("verify --store file:///b x --deep");
        usage_error("verify --store file:///b x --scratch-dir /s");
        usage_error("verify --store file:///b");
    }
}
