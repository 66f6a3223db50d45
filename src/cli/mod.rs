//! The command line: what was asked for, who is told how far it is, and how the process ends.
//!
//! ```text
//!   arguments ─► clap ─► Verb ─► ops ─► report ─► standard output (text, JSON)
//!                         │       │ progress, messages, log ─► console thread ─► standard error
//!                         │       └ Error { kind } ─► standard error, exit code
//!   signals thread ───────┴► cancel
//! ```
//! A file for each verb: its options, spelled as on the command line, and its report as text. Decides nothing: the
//! verbs and their defaults are those of [`crate::ops`].

mod args;
mod backup;
mod console;
mod delete;
mod exit;
mod grants;
mod inspect;
mod list;
mod meter;
#[cfg(feature = "operator")]
mod operator;
mod output;
mod pin;
mod progress;
mod prune;
mod restore;
mod show;
mod signals;
mod verify;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use self::console::{Console, Style};
use self::output::Output;
use self::signals::Watch;
use crate::obs::{self, LogFormat};
use crate::ops::{Context, Error, ErrorKind};
use crate::util::clock;

/// The network needs little: pages, checksums and compression are the work of plain threads.
const NETWORK_THREADS: usize = 2;
/// How long tasks that are still on their way out may take when the verb is done.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Physical hot backups of MySQL, and their return
#[derive(Debug, Parser)]
#[command(
    name = "stillframe",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 110
)]
struct Cli {
    /// No progress on standard error; warnings and failures are still shown
    #[arg(short, long, global = true, help_heading = "Of all verbs")]
    quiet: bool,
    /// How log lines are written (which ones: STILLFRAME_LOG)
    #[arg(long, global = true, help_heading = "Of all verbs", value_name = "FORMAT", default_value = "text", value_parser = args::words::<LogFormat>(LogFormat::NAMES))]
    log_format: LogFormat,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Take a backup of a running server
    Backup(Box<backup::Args>),
    /// List what a store has
    List(list::Args),
    /// Show all that is known of one backup
    Show(show::Args),
    /// Bring a backup back as a data directory
    Restore(Box<restore::Args>),
    /// Read a backup back and check every byte, page and redo block
    Verify(verify::Args),
    /// Delete one backup
    Delete(delete::Args),
    /// Keep one backup from being deleted, by whoever it is
    Pin(pin::Args),
    /// Let a pinned backup be deleted again
    Unpin(pin::Args),
    /// Remove what no rule keeps, and the remains of runs that died
    Prune(prune::Args),
    /// Look into redo files, pages, tablespaces and stored backups
    Inspect(inspect::Args),
    /// Print the SQL of the account that backups need
    Grants(grants::Args),
    /// Look after the backups of a Kubernetes cluster
    #[cfg(feature = "operator")]
    Operator(operator::Args),
    /// Do one piece of work for the operator, in a pod of its own
    #[cfg(feature = "operator")]
    #[command(hide = true)]
    Runner,
    /// Print the definitions of the Kubernetes objects
    #[cfg(feature = "operator")]
    Crds,
}

impl Verb {
    /// Whether it takes long enough to be watched.
    fn is_long(&self) -> bool {
        match self {
            Self::Backup(_) | Self::Restore(_) | Self::Verify(_) | Self::Prune(_) => true,
            Self::Inspect(args) => args.is_long(),
            Self::List(_) | Self::Show(_) | Self::Delete(_) | Self::Pin(_) | Self::Unpin(_) | Self::Grants(_) => false,
            #[cfg(feature = "operator")]
            Self::Runner => true,
            #[cfg(feature = "operator")]
            Self::Operator(_) | Self::Crds => false,
        }
    }

    /// What every line of its log says: whom it works for, if that is one object alone.
    fn marks(&self) -> obs::Marks {
        match self {
            #[cfg(feature = "operator")]
            Self::Runner => crate::runner::marks(),
            _ => obs::Marks::new(),
        }
    }

    async fn run(self, context: &Context) -> Result<Output, Error> {
        match self {
            Self::Backup(args) => backup::run(*args, context).await,
            Self::List(args) => list::run(args, context).await,
            Self::Show(args) => show::run(args, context).await,
            Self::Restore(args) => restore::run(*args, context).await,
            Self::Verify(args) => verify::run(args, context).await,
            Self::Delete(args) => delete::run(args, context).await,
            Self::Pin(args) => pin::run(args, true, context).await,
            Self::Unpin(args) => pin::run(args, false, context).await,
            Self::Prune(args) => prune::run(args, context).await,
            Self::Inspect(args) => inspect::run(args, context).await,
            Self::Grants(args) => Ok(grants::run(&args)),
            #[cfg(feature = "operator")]
            Self::Operator(args) => operator::run(args, context).await,
            #[cfg(feature = "operator")]
            Self::Runner => operator::run_runner(context).await,
            #[cfg(feature = "operator")]
            Self::Crds => operator::crds(),
        }
    }
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Err(error) = args::refuse_password(&arguments) {
        return fail(&error);
    }
    match command_line(arguments) {
        Ok(cli) => execute(cli),
        Err(message) => {
            // Nothing can be done about a terminal that is gone.
            let _ = message.print();
            ExitCode::from(u8::try_from(message.exit_code()).unwrap_or(ErrorKind::Usage.exit_code()))
        }
    }
}

/// What clap makes of the arguments: the command line, or a message (help is one, too).
fn command_line(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let matches = Cli::command().after_help(exit::help()).try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches)
}

fn execute(cli: Cli) -> ExitCode {
    let quiet = cli.quiet || !cli.verb.is_long();
    let last_words = LastWords { format: cli.log_format, marks: cli.verb.marks() };
    let console = match Console::start(Style::detect(quiet)) {
        Ok(console) => console,
        Err(error) => return last_words.say(&Error::new(ErrorKind::Failed, "cannot start a thread").caused_by(error)),
    };
    let outcome = watched(cli, &last_words.marks, &console);
    console.close();
    outcome.and_then(show).map_or_else(|error| last_words.say(&error), |()| ExitCode::SUCCESS)
}

/// How a failure is told at the end: for people, or as a line of the log for whoever reads that.
struct LastWords {
    format: LogFormat,
    marks: obs::Marks,
}

impl LastWords {
    fn say(&self, error: &Error) -> ExitCode {
        match self.format {
            LogFormat::Text => fail(error),
            LogFormat::Json => {
                complain(&exit::describe_json(error, &self.marks, clock::now()));
                ExitCode::from(error.kind.exit_code())
            }
        }
    }
}

/// Runs the verb with its log, its signals and its network threads.
fn watched(cli: Cli, marks: &obs::Marks, console: &Console) -> Result<Output, Error> {
    let filter = std::env::var_os(obs::FILTER_VARIABLE).map(|filter| filter.to_string_lossy().into_owned());
    obs::init(cli.log_format, filter.as_deref(), marks, console.clone())
        .map_err(|error| Error::new(ErrorKind::Usage, error.to_string()))?;
    let failed = |error| Error::new(ErrorKind::Failed, "cannot set up signals and threads").caused_by(error);
    let context = Context::new(CancellationToken::new(), Arc::new(console.clone()));
    let watch = Watch::start(context.cancel.clone(), console.clone()).map_err(failed)?;
    let network = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(NETWORK_THREADS)
        .thread_name("network")
        .enable_all()
        .build()
        .map_err(failed)?;
    let outcome = network.block_on(cli.verb.run(&context));
    watch.finish();
    network.shutdown_timeout(SHUTDOWN);
    outcome
}

fn show(output: Output) -> Result<(), Error> {
    output::write_report(&output.report)?;
    if let Some(note) = &output.note {
        complain(&format!("{}\n", output::clean(note)));
    }
    output.failure.map_or(Ok(()), Err)
}

fn fail(error: &Error) -> ExitCode {
    complain(&exit::describe(error));
    ExitCode::from(error.kind.exit_code())
}

fn complain(text: &str) {
    // The exit code still tells.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        let words = std::iter::once("stillframe").chain(line.split_whitespace());
        command_line(words.map(OsString::from))
    }

    /// The verb of a command line without quotes.
    pub(super) fn parse(line: &str) -> Verb {
        read(line).unwrap_or_else(|error| panic!("{line}: {error}")).verb
    }

    /// Asserts that clap refuses the line with the code of a usage error.
    pub(super) fn usage_error(line: &str) {
        let error = read(line).err().unwrap_or_else(|| panic!("{line} was accepted"));
        assert_eq!(error.exit_code(), i32::from(ErrorKind::Usage.exit_code()), "{line}: {error}");
    }

    #[test]
    fn the_declarations_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_go_anywhere() {
        let cli = read("list --store file:///b -q --log-format json").unwrap();
        assert!(cli.quiet && cli.log_format == LogFormat::Json);
        assert!(read("--quiet list --store file:///b").unwrap().quiet);
        usage_error("");
        usage_error("frobnicate");
        usage_error("list --log-format xml --store file:///b");
    }

    #[test]
    fn what_is_not_there_yet_says_so_in_the_help() {
        let mut command = Cli::command();
        let mut help = |verb: &str, option: &str| {
            let text = command.find_subcommand_mut(verb).unwrap().render_long_help().to_string();
            let from = text.find(option).unwrap_or_else(|| panic!("{option} is not in {text}"));
            let about = text[from..].split("\n\n").next().unwrap();
            about.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
        };
        for (verb, option) in [("backup", "--incremental-from"), ("backup", "--lock-policy")] {
            assert!(help(verb, option).contains("not there yet"), "{option}");
        }
    }
}
