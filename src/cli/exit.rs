//! How the process ends: a failure as a person reads it, and its exit code.
//!
//! ```text
//!   stillframe: <what failed, and where>
//!     because: <cause>
//!     hint: <what to do>
//!     see: docs/runbooks/<page> (<kind>, exit code <n>)
//! ```

use std::fmt::Write;

use jiff::Timestamp;
use serde_json::json;

use super::output::clean;
use crate::obs::Marks;
use crate::ops::{Error, ErrorKind};

/// A failure for standard error, with its last line feed.
pub(super) fn describe(error: &Error) -> String {
    let kind = error.kind;
    let mut text = format!("stillframe: {}\n", indented(&error.message));
    // Writing to a String cannot fail.
    for cause in error.causes() {
        let _ = writeln!(text, "  because: {}", indented(&cause));
    }
    let _ = writeln!(text, "  hint: {}", indented(error.advice()));
    let _ =
        writeln!(text, "  see: docs/runbooks/{} ({}, exit code {})", kind.runbook(), kind.reason(), kind.exit_code());
    text
}

/// A failure as a line of a log in JSON, with its line feed.
pub(super) fn describe_json(error: &Error, marks: &Marks, now: Timestamp) -> String {
    let kind = error.kind;
    let mut line = json!({
        "timestamp": now.to_string(),
        "level": "ERROR",
        "message": error.message,
        "causes": error.causes(),
        "hint": error.advice(),
        "runbook": kind.runbook(),
        "kind": kind.reason(),
        "exitCode": kind.exit_code(),
    });
    for (name, value) in marks {
        if let Some(line) = line.as_object_mut() {
            line.insert((*name).to_owned(), value.as_str().into());
        }
    }
    format!("{line}\n")
}

/// Further lines of a message (a server's log, say) stay below the first.
fn indented(text: &str) -> String {
    clean(text.trim_end()).replace('\n', "\n    ")
}

/// All exit codes and what else every verb has in common, for the end of `--help`.
pub(super) fn help() -> String {
    let mut text = String::from("Exit codes:\n    0  done\n");
    for kind in ErrorKind::ALL {
        let _ = writeln!(text, "  {:>3}  {:<18} {}", kind.exit_code(), kind.reason(), kind.meaning());
    }
    text.push_str("  129, 130, 143           ended at once by a second SIGHUP, Ctrl-C or SIGTERM\n\n");
    text.push_str(ENVIRONMENT);
    text
}

const ENVIRONMENT: &str = "\
Environment:
  STILLFRAME_STORE   the store, where --store is not given
  STILLFRAME_LOG     which events are logged to standard error: warn (as if not set), info, debug,
                     stillframe::capture=trace, ...
  AWS_..., GOOGLE_..., AZURE_...
                     credentials and endpoints of s3://, gs:// and az:// stores; the README names those that are read

Sizes are written 4096, 64MiB, 10M (powers of 1024) or 10MB (powers of 1000); times 30 (seconds), 500ms, 5m, 1h.
Passwords are never taken from the command line or the environment, only from --password-file.
The report goes to standard output, everything else to standard error. docs/runbooks/ has a page for each failure.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_what_to_do() {
        let inner = std::io::Error::other("connection reset\nby peer");
        let error = Error::new(ErrorKind::Store, "cannot take the backup").caused_by(inner);
        assert_eq!(
            describe(&error),
            "stillframe: cannot take the backup\n  because: connection reset\n    by peer\n  hint: check URL, endpoint and \
             network; failed requests were already retried\n  see: docs/runbooks/store.md (Store, exit code 19)\n"
        );
        let advised = Error::new(ErrorKind::Usage, "no \x1b[1m").advise("do this");
        assert!(describe(&advised).contains("hint: do this"));
        assert!(!describe(&advised).contains('\x1b'));
    }

    #[test]
    fn every_code_is_in_the_help() {
        let help = help();
        for kind in ErrorKind::ALL {
            let line = help.lines().find(|line| line.contains(kind.reason()) && line.contains(kind.meaning()));
            let line = line.unwrap_or_else(|| panic!("{} is missing", kind.reason()));
            assert!(line.trim_start().starts_with(&kind.exit_code().to_string()), "{line}");
        }
        assert!(help.contains("130"));
    }
}
