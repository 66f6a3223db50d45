//! `stillframe show`.

use clap::Args as ClapArgs;

use super::args::BackupArgs;
use super::output::{self, DocumentFormat, Output};
use crate::ops::options::ShowOptions;
use crate::ops::{self, Context, Error};

/// The options.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    backup: BackupArgs,
    /// How the manifest is written
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: DocumentFormat,
}

/// Shows the manifest.
pub(super) async fn run(args: Args, context: &Context) -> Result<Output, Error> {
    let options = ShowOptions { store: args.backup.store()?, backup: args.backup.backup };
    let manifest = ops::show::run(context, options).await?;
    Ok(Output::report(match args.output {
        DocumentFormat::Yaml => output::yaml(&manifest)?,
        DocumentFormat::Json => output::json(&manifest)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Verb;
    use crate::cli::tests::{parse, usage_error};

    #[test]
    fn options() {
        let Verb::Show(args) = parse("show --store file:///b nightly") else { panic!("not show") };
        assert_eq!((args.backup.backup.as_str(), args.output), ("nightly", DocumentFormat::Yaml));
        let Verb::Show(args) = parse("show nightly --store file:///b -o json") else { panic!("not show") };
        assert_eq!(args.output, DocumentFormat::Json);
        usage_error("show --store file:///b");
        usage_error("show --store file:///b a b");
    }
}
