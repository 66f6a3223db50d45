//! `stillframe delete`.

use clap::Args as ClapArgs;

use super::args::BackupArgs;
use super::output::{self, Output, ReportFormat};
use crate::ops::options::DeleteOptions;
use crate::ops::report::{DeleteReport, Removal};
use crate::ops::{self, Context, Error};

/// The options.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    backup: BackupArgs,
    /// How the report is written
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: ReportFormat,
}

/// Deletes the backup.
pub(super) async fn run(args: Args, context: &Context) -> Result<Output, Error> {
    let format = args.output;
    let options = DeleteOptions { store: args.backup.store()?, backup: args.backup.backup };
    let report = ops::delete::run(context, options).await?;
    output::render(format, &report, text).map(Output::report)
}

fn text(report: &DeleteReport) -> String {
    format!("{}: {}\n", report.id, removal(report.result))
}

/// How a removal ended, in words.
pub(super) fn removal(result: Removal) -> &'static str {
    match result {
        Removal::Removed => "removed",
        Removal::Retained => "retained: it can no longer be restored, but the store keeps objects of it",
        Removal::WouldRemove => "would be removed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Verb;
    use crate::cli::tests::{parse, usage_error};

    #[test]
    fn the_report_does_not_call_retained_removed() {
        let report = |result| DeleteReport { id: "a-20260314T150926Z-1a2b3c4d".into(), result };
        assert_eq!(text(&report(Removal::Removed)), "a-20260314T150926Z-1a2b3c4d: removed\n");
        assert!(text(&report(Removal::Retained)).contains(": retained: "));
    }

    #[test]
    fn options() {
        let Verb::Delete(args) = parse("delete --store file:///b nightly -o json") else { panic!("not delete") };
        assert_eq!((args.backup.backup.as_str(), args.output), ("nightly", ReportFormat::Json));
        usage_error("delete --store file:///b");
    }
}
