//! `stillframe pin` and `stillframe unpin`.

use clap::Args as ClapArgs;

use super::args::BackupArgs;
use super::output::{self, Output, ReportFormat};
use crate::ops::options::PinOptions;
use crate::ops::report::PinReport;
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

/// Pins the backup, or takes the pin away.
pub(super) async fn run(args: Args, pinned: bool, context: &Context) -> Result<Output, Error> {
    let format = args.output;
    let options = PinOptions { store: args.backup.store()?, backup: args.backup.backup, pinned };
    let report = ops::pin::run(context, options).await?;
    output::render(format, &report, text).map(Output::report)
}

fn text(report: &PinReport) -> String {
    let state = match (report.pinned, report.changed) {
        (true, true) => "pinned",
        (true, false) => "was pinned already",
        (false, true) => "no longer pinned",
        (false, false) => "was not pinned",
    };
    format!("{}: {state}\n", report.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Verb;
    use crate::cli::tests::{parse, usage_error};

    #[test]
    fn the_report_tells_what_changed() {
        let report = |pinned, changed| PinReport { id: "a-20260314T150926Z-1a2b3c4d".into(), pinned, changed };
        assert_eq!(text(&report(true, true)), "a-20260314T150926Z-1a2b3c4d: pinned\n");
        assert!(text(&report(false, false)).ends_with(": was not pinned\n"));
    }

    #[test]
    fn options() {
        let Verb::Pin(args) = parse("pin --store file:///b nightly") else { panic!("not pin") };
        assert_eq!(args.backup.backup, "nightly");
        let Verb::Unpin(args) = parse("unpin --store file:///b nightly -o json") else { panic!("not unpin") };
        assert_eq!(args.output, ReportFormat::Json);
        usage_error("pin --store file:///b");
    }
}
