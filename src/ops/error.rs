//! What a verb can fail with, sorted by what a person can do about it.
//!
//! ```text
//!   module errors ──► Error { kind, message, source … }
//!                       │
//!        exit code ◄────┼────► reason (CamelCase, for conditions and metrics)
//!                       ▼
//!              advice, runbook page
//! ```
//!
//! The kind is the contract: scripts read its exit code, operators its reason. The message says what failed and
//! where. Codes are never reused or renumbered.

use std::fmt;

/// Any error below this one.
pub type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A verb's failure.
#[derive(Debug)]
pub struct Error {
    /// What sort of failure, for machines.
    pub kind: ErrorKind,
    /// What failed, and where: lower-case, no full stop.
    pub message: String,
    /// What to do about it, when that is more than the kind's own advice.
    pub advice: Option<String>,
    /// Why it failed.
    pub source: Option<Source>,
}

impl Error {
    /// A failure of a kind, with what failed and where.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), advice: None, source: None }
    }

    /// The verb was told to stop.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled before it was done")
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what to do, in place of the kind's own advice.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Puts "cannot ACT: " before the message: what the failure ended.
    #[must_use]
    pub fn during(mut self, act: &str) -> Self {
        self.message = format!("cannot {act}: {}", self.message);
        self
    }

    /// What a person can do about it.
    pub fn advice(&self) -> &str {
        self.advice.as_deref().unwrap_or_else(|| self.kind.advice())
    }

    /// The texts of all causes, outermost first, without those that only repeat the one above.
    pub fn causes(&self) -> Vec<String> {
        let mut causes: Vec<String> = Vec::new();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            let text = error.to_string();
            let above = causes.last().unwrap_or(&self.message);
            if !above.contains(&text) {
                causes.push(text);
            }
            next = error.source();
        }
        causes
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Declares the kinds in one table, so that none can be without code, meaning, runbook and advice.
macro_rules! kinds {
    ($($kind:ident = $code:literal, $page:literal, $meaning:literal, $advice:literal;)+) => {
        /// What sort of failure it was. One exit code each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorKind {
            $(#[doc = $meaning] $kind,)+
        }

        impl ErrorKind {
            /// Every kind, in the order of the exit codes.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// The process's exit code.
            pub const fn exit_code(self) -> u8 {
                match self { $(Self::$kind => $code),+ }
            }

            /// The name in CamelCase, for conditions, metrics and reports.
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind)),+ }
            }

            /// What the kind says, in a few words.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$kind => $meaning),+ }
            }

            /// What to do about it, when the error itself does not know better.
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$kind => $advice),+ }
            }

            /// The page of `docs/runbooks/` that tells more.
            pub const fn runbook(self) -> &'static str {
                match self { $(Self::$kind => $page),+ }
            }
        }
    };
}

kinds! {
    Failed = 1, "general.md", "failed for a reason that has no code of its own",
        "read the cause above; run again with STILLFRAME_LOG=debug for every step";
    Usage = 2, "general.md", "the command line is wrong",
        "see stillframe help";
    Cancelled = 3, "general.md", "stopped by Ctrl-C, SIGTERM or a deadline",
        "run it again; what it left in the store is removed by stillframe prune --stale";
    Unsupported = 4, "general.md", "asked for something that is not there yet",
        "leave the option out, or use the one that the message names";
    LocalIo = 5, "general.md", "a local file or directory cannot be read or written",
        "check that the path exists, that this user may use it, and that the file system is neither full nor read-only";
    Connection = 6, "server-access.md", "the server cannot be reached, or the connection was lost",
        "check address, socket, user, password file and --ssl-mode, and that the server runs";
    Privileges = 7, "server-access.md", "the user lacks a privilege",
        "stillframe grants prints the SQL of the user that is needed";
    Preflight = 8, "server-refused.md", "refused before the copy began",
        "change what the message names, then run again; nothing was copied";
    UnsupportedServer = 9, "server-refused.md", "a server, version or setting that is not supported",
        "see the list of supported servers in the README; --allow-untested-server is for versions that it lists as untested";
    ServerMismatch = 10, "server-refused.md", "the data directory is not this server's, or not the one expected",
        "check --datadir, and that the volume mounted here is the one that the server uses";
    KeyMissing = 11, "encryption.md", "a key of the server's data-at-rest encryption is missing",
        "name the server's keyring file with --keyring-file";
    LockTimeout = 12, "locks.md", "a lock was not granted in time",
        "find the long-running query or DDL and let it end, or raise --lock-timeout";
    DdlWaitBudget = 13, "locks.md", "DDL waited longer for the backup lock than allowed",
        "take the backup at a time without DDL, or raise --ddl-wait-budget";
    RedoOverwritten = 14, "redo.md", "the server overwrote redo before it was captured",
        "raise innodb_redo_log_capacity, use --redo-consumer on, or give the spool a faster disk";
    SpoolFull = 15, "redo.md", "the local spool is too small",
        "raise --spool-bytes, or put --spool-dir on a larger disk";
    CorruptPage = 16, "pages.md", "a page is damaged on the server's disk",
        "run CHECK TABLE on the table named; the disk of this server cannot be trusted";
    UnsupportedFormat = 17, "pages.md", "a page, file or redo record of a kind that is not known",
        "do not work around it: report it with server version and message";
    SourceChanged = 18, "server-refused.md", "the server restarted or its logs were reset during the backup",
        "run the backup again";
    Store = 19, "store.md", "the store cannot be reached or answers with errors",
        "check URL, endpoint and network; failed requests were already retried";
    StoreDenied = 20, "store.md", "the store refused: credentials or permissions",
        "check the credentials in the environment, and that they may create and read below the prefix";
    NotFound = 21, "backups.md", "there is no such backup",
        "stillframe list shows what the store has";
    IncompleteBackup = 22, "backups.md", "that backup was never completed",
        "choose another one: a run without a manifest is no backup";
    DamagedBackup = 23, "backups.md", "a stored object is missing, cut short or altered",
        "choose another backup, and verify the others: stillframe verify";
    WrongKey = 24, "encryption.md", "no key given opens this backup",
        "give the key that the message names with --encryption-key-file";
    Protected = 25, "backups.md", "the backup is in use: running, pinned or needed by an increment",
        "the message says which; stillframe list shows pins, stillframe unpin takes one away";
    TargetNotEmpty = 26, "restore.md", "the target directory is not empty",
        "choose an empty directory; --overwrite-incomplete clears the remains of an interrupted restore, never a database";
    TargetInUse = 27, "restore.md", "a server, or another restore, is at work on the target directory",
        "stop that server, or choose another directory";
    TargetTooSmall = 28, "restore.md", "the target has too little space",
        "make room, or choose another file system";
    TargetMismatch = 29, "restore.md", "the target server cannot take this backup",
        "use a server of the same page size, lower_case_table_names and of this or a later version";
    RecoveryFailed = 30, "restore.md", "recovery of the restored files failed",
        "the server's own log is shown above; the directory is not usable";
    ReadLockBudget = 31, "locks.md", "the global read lock was needed for longer than allowed",
        "convert large tables of MyISAM, ARCHIVE or CSV to InnoDB, leave them out with --non-transactional skip, or raise --read-lock-budget";
    AccountMismatch = 32, "restore.md", "an account is not in the backup, or its password cannot be replaced",
        "name accounts that the backup has, or set the password once a server runs";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_has_its_own_code() {
        let codes: HashSet<u8> = ErrorKind::ALL.iter().map(|kind| kind.exit_code()).collect();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
        assert!(!codes.contains(&0), "0 means done");
        assert!(codes.iter().all(|&code| code < 64), "higher ones are the shell's and the kernel's");
    }

    #[test]
    fn codes_are_a_contract() {
        // A code once published keeps its meaning: add at the end, never renumber.
        let published: Vec<(u8, &str)> = ErrorKind::ALL.iter().map(|kind| (kind.exit_code(), kind.reason())).collect();
        for known in [(1, "Failed"), (2, "Usage"), (3, "Cancelled"), (14, "RedoOverwritten"), (30, "RecoveryFailed")] {
            assert!(published.contains(&known), "{known:?}");
        }
    }

    #[test]
    fn every_kind_has_a_runbook_that_names_it() {
        for kind in ErrorKind::ALL {
            let path = format!("{}/docs/runbooks/{}", env!("CARGO_MANIFEST_DIR"), kind.runbook());
            let page = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(page.contains(&format!("`{}`", kind.reason())), "{path} does not tell of {}", kind.reason());
        }
    }

    #[test]
    fn causes_are_listed_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("upload of pack-000001 failed: {0}")]
        struct Outer(#[source] std::io::Error);

        let inner = std::io::Error::other("connection reset");
        let error = Error::new(ErrorKind::Store, "cannot write to s3://b/p").caused_by(Outer(inner));
        assert_eq!(error.causes(), ["upload of pack-000001 failed: connection reset"]);
    }

    #[test]
    fn advice_of_the_error_goes_before_that_of_the_kind() {
        let error = Error::new(ErrorKind::Usage, "no");
        assert_eq!(error.advice(), ErrorKind::Usage.advice());
        assert_eq!(error.advise("do this").advice(), "do this");
    }
}
