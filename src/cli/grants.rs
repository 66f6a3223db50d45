//! `stillframe grants`.

use clap::Args as ClapArgs;

use super::output::Output;
use crate::ops;

/// The options.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The account's name
    #[arg(long, value_name = "USER", default_value = "stillframe")]
    user: String,
    /// The host that it may connect from
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    host: String,
}

/// Prints the SQL of the account.
pub(super) fn run(args: &Args) -> Output {
    let sql = ops::grants::sql(&args.user, &args.host);
    Output::report(format!("{}\n", sql.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Verb;
    use crate::cli::tests::parse;

    #[test]
    fn the_sql_is_for_the_account_that_was_named() {
        let Verb::Grants(args) = parse("grants") else { panic!("not grants") };
        assert!(run(&args).report.contains("stillframe"));
        let Verb::Grants(args) = parse("grants --user bob --host 10.%") else { panic!("not grants") };
        let sql = run(&args).report;
        assert!(sql.contains("bob") && sql.contains("10.%") && sql.contains("BACKUP_ADMIN"), "{sql}");
        assert!(sql.ends_with(";\n"), "{sql}");
    }
}
