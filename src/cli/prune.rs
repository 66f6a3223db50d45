//! `stillframe prune`.

use clap::Args as ClapArgs;

use super::args::StoreArgs;
use super::delete::removal;
use super::output::{self, Output, ReportFormat, Side, Table};
use crate::ops::options::{KeepRules, PruneOptions};
use crate::ops::report::{PruneLine, PruneReport};
use crate::ops::{self, Context, Error, ErrorKind};

/// The options.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Only backups of this name; each name is counted by itself in any case
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Keep the newest N
    #[arg(long, value_name = "N")]
    keep_last: Option<u32>,
    /// Keep the newest of each of the last N hours that have one
    #[arg(long, value_name = "N")]
    keep_hourly: Option<u32>,
    /// Keep the newest of each of the last N days that have one
    #[arg(long, value_name = "N")]
    keep_daily: Option<u32>,
    /// Keep the newest of each of the last N weeks that have one
    #[arg(long, value_name = "N")]
    keep_weekly: Option<u32>,
    /// Keep the newest of each of the last N months that have one
    #[arg(long, value_name = "N")]
    keep_monthly: Option<u32>,
    /// Keep the newest of each of the last N years that have one
    #[arg(long, value_name = "N")]
    keep_yearly: Option<u32>,
    /// Keep all that are not older than so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    keep_within: Option<u64>,
    /// Remove the remains of runs that died; never those of a run that is alive
    #[arg(long)]
    stale: bool,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    /// How the report is written
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: ReportFormat,
}

impl Args {
    /// The same as the engine wants it.
    fn options(self) -> Result<PruneOptions, Error> {
        let keep = KeepRules {
            last: self.keep_last.unwrap_or(0),
            hourly: self.keep_hourly.unwrap_or(0),
            daily: self.keep_daily.unwrap_or(0),
            weekly: self.keep_weekly.unwrap_or(0),
            monthly: self.keep_monthly.unwrap_or(0),
            yearly: self.keep_yearly.unwrap_or(0),
            within_seconds: self.keep_within,
        };
        if keep.is_empty() && !self.stale {
            // Nobody means "keep nothing" by a 0 or by leaving all rules out.
            let error = Error::new(ErrorKind::Usage, "neither a rule of what to keep nor --stale is given");
            return Err(error.advise("say what stays, for example --keep-last 7 --keep-weekly 4, or give --stale"));
        }
        Ok(PruneOptions { store: self.store.url()?, name: self.name, keep, stale: self.stale, dry_run: self.dry_run })
    }
}

/// Removes what no rule keeps. What could not be removed makes it fail, after the rest was done.
pub(super) async fn run(args: Args, context: &Context) -> Result<Output, Error> {
    let format = args.output;
    let report = ops::prune::run(context, args.options()?).await?;
    let failure = verdict(&report);
    Ok(Output { report: output::render(format, &report, text)?, note: None, failure })
}

fn verdict(report: &PruneReport) -> Option<Error> {
    let failed = report.failed.len();
    (failed > 0).then(|| {
        Error::new(ErrorKind::Failed, format!("{failed} could not be removed; the report says why"))
            .advise("run it again: what is gone already is not touched twice")
    })
}

/// The report for people.
fn text(report: &PruneReport) -> String {
    let mut table = Table::new(&[("ID", Side::Left), ("RESULT", Side::Left), ("WHY", Side::Left)]);
    let mut rows = |lines: &[PruneLine], otherwise: &'static str| {
        for line in lines {
            let result = line.result.map_or(otherwise, removal);
            table.row(vec![line.id.clone(), result.to_owned(), line.reason.clone()]);
        }
    };
    rows(&report.kept, "kept");
    rows(&report.removed, "removed");
    rows(&report.stale, "removed");
    rows(&report.failed, "FAILED");
    if report.kept.is_empty() && report.removed.is_empty() && report.stale.is_empty() && report.failed.is_empty() {
        return "nothing to prune\n".to_owned();
    }
    let note = if report.dry_run { "dry run: nothing was removed\n" } else { "" };
    format!("{table}{note}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Verb;
    use crate::cli::tests::parse;
    use crate::ops::report::Removal;

    fn options(line: &str) -> Result<PruneOptions, Error> {
        match parse(&format!("prune --store file:///b {line}")) {
            Verb::Prune(args) => args.options(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_rule_goes_to_its_field() {
        let options = options(
            "--name nightly --keep-last 1 --keep-hourly 2 --keep-daily 3 --keep-weekly 4 --keep-monthly 5 \
             --keep-yearly 6 --keep-within 7 --stale --dry-run",
        )
        .unwrap();
        let wanted =
            KeepRules { last: 1, hourly: 2, daily: 3, weekly: 4, monthly: 5, yearly: 6, within_seconds: Some(7) };
        assert_eq!(options.keep, wanted);
        assert_eq!(options.name.as_deref(), Some("nightly"));
        assert!(options.stale && options.dry_run);
    }

    #[test]
    fn nothing_is_removed_by_accident() {
        for nothing in ["", "--dry-run", "--keep-last 0"] {
            assert_eq!(options(nothing).unwrap_err().kind, ErrorKind::Usage, "{nothing}");
        }
        assert!(options("--stale").is_ok_and(|options| options.keep.is_empty()));
    }

    #[test]
    fn the_report_has_a_line_for_each() {
        let line = |id: &str, result, reason: &str| PruneLine { id: id.into(), result, reason: reason.into() };
        let report = PruneReport {
            dry_run: true,
            kept: vec![line("a", None, "last 1")],
            removed: vec![line("b", Some(Removal::WouldRemove), "no rule keeps it")],
            stale: vec![],
            failed: vec![line("c", None, "the store refused")],
        };
        let text = text(&report);
        assert!(text.contains("a   kept              last 1\n"), "{text}");
        assert!(text.contains("b   would be removed  no rule keeps it\n"), "{text}");
        assert!(text.contains("c   FAILED            the store refused\ndry run: nothing was removed\n"), "{text}");
        assert_eq!(verdict(&report).unwrap().kind, ErrorKind::Failed);
        assert_eq!(super::text(&PruneReport::default()), "nothing to prune\n");
    }
}
