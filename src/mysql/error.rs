//! What can go wrong with the live server. Each variant is one sort of remedy, so that the caller can map it.

use std::fmt;
use std::time::Duration;

/// Any error below this one.
pub type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Server error codes that mean something to this module (MySQL 8.0 to 9.7).
pub(super) mod code {
    /// Access denied for a schema.
    pub const DB_ACCESS_DENIED: u16 = 1044;
    /// The server is shutting down.
    pub const SERVER_SHUTDOWN: u16 = 1053;
    /// No such connection to kill.
    pub const NO_SUCH_THREAD: u16 = 1094;
    /// Access denied for a table.
    pub const TABLE_ACCESS_DENIED: u16 = 1142;
    /// Unknown system variable.
    pub const UNKNOWN_SYSTEM_VARIABLE: u16 = 1193;
    /// A lock was not granted within `lock_wait_timeout`.
    pub const LOCK_WAIT_TIMEOUT: u16 = 1205;
    /// A named privilege is missing.
    pub const SPECIFIC_ACCESS_DENIED: u16 = 1227;
    /// No such function.
    pub const FUNCTION_DOES_NOT_EXIST: u16 = 1305;
    /// The statement was killed.
    pub const QUERY_INTERRUPTED: u16 = 1317;
    /// The session was killed.
    pub const SESSION_WAS_KILLED: u16 = 3169;
    /// The session was idle for longer than `wait_timeout`.
    pub const CLIENT_INTERACTION_TIMEOUT: u16 = 4031;
}

/// A privilege that the user lacks, and the statement that gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingPrivilege {
    /// Its name, with the object where it is not for all: `SELECT ON performance_schema.log_status`.
    pub privilege: String,
    /// The SQL that grants it.
    pub grant: String,
}

impl fmt::Display for MissingPrivilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.privilege, self.grant)
    }
}

/// Which lock was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// `LOCK INSTANCE FOR BACKUP`.
    Backup,
    /// `FLUSH TABLES WITH READ LOCK`.
    GlobalRead,
}

impl fmt::Display for LockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backup => "backup lock",
            Self::GlobalRead => "global read lock",
        })
    }
}

/// A failure of something asked of the server.
#[derive(Debug, thiserror::Error)]
pub enum MysqlError {
    /// The server cannot be reached, refused the login, or the connection broke.
    #[error("cannot {act}")]
    Connection {
        /// What was being done.
        act: String,
        /// What the driver or the server said.
        source: Source,
    },
    /// The user may not do what a backup has to.
    #[error("user {user} lacks {}", list(missing))]
    Privileges {
        /// The account, quoted as SQL.
        user: String,
        /// Every privilege that is missing.
        missing: Vec<MissingPrivilege>,
    },
    /// The server is in a state in which no backup can be taken.
    #[error("{what}")]
    Preflight {
        /// What is in the way.
        what: String,
        /// What to do about it.
        advice: String,
    },
    /// A server of a kind that is not supported.
    #[error("{what}")]
    UnsupportedServer {
        /// Vendor, engine, keyring or setting, by name.
        what: String,
    },
    /// A lock was not granted in time.
    #[error("the {lock} was not granted within {} s{}", waited.as_secs(), behind(blocker.as_deref()))]
    LockTimeout {
        /// The lock.
        lock: LockKind,
        /// How long it was tried for.
        waited: Duration,
        /// Who stands in the way, where that could be seen.
        blocker: Option<String>,
    },
    /// DDL waited longer for the backup lock than allowed.
    #[error("DDL waited {} s for the backup lock; {} s are allowed", waited.as_secs(), budget.as_secs())]
    DdlWaitBudget {
        /// How long somebody was seen waiting.
        waited: Duration,
        /// How long was allowed.
        budget: Duration,
    },
    /// The server is not the one it was at the start.
    #[error("{what}")]
    SourceChanged {
        /// What changed.
        what: String,
    },
    /// Told to stop.
    #[error("cancelled while trying to {act}")]
    Cancelled {
        /// What was being done.
        act: String,
    },
    /// The server refused a statement, or its answer cannot be understood.
    #[error("cannot {act}")]
    Failed {
        /// What was being done.
        act: String,
        /// Why.
        source: Source,
    },
}

impl MysqlError {
    pub(super) fn connection(act: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Connection { act: act.into(), source: source.into() }
    }

    pub(super) fn failed(act: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Failed { act: act.into(), source: source.into() }
    }

    pub(super) fn cancelled(act: impl Into<String>) -> Self {
        Self::Cancelled { act: act.into() }
    }

    /// The server's own code, where it answered at all. Its connection is then as good as before.
    pub(super) fn server_code(&self) -> Option<u16> {
        let (Self::Connection { source, .. } | Self::Failed { source, .. }) = self else { return None };
        match source.downcast_ref::<mysql_async::Error>()? {
            mysql_async::Error::Server(server) => Some(server.code),
            _ => None,
        }
    }

    /// Sorts what the driver said of a statement.
    pub(super) fn of_statement(act: &str, error: mysql_async::Error) -> Self {
        match &error {
            mysql_async::Error::Server(server) => match server.code {
                code::SERVER_SHUTDOWN | code::SESSION_WAS_KILLED | code::CLIENT_INTERACTION_TIMEOUT => {
                    Self::connection(act, error)
                }
                code::DB_ACCESS_DENIED | code::TABLE_ACCESS_DENIED | code::SPECIFIC_ACCESS_DENIED => Self::Privileges {
                    user: "that is connected".to_owned(),
                    missing: vec![MissingPrivilege {
                        privilege: format!("what it takes to {act}"),
                        grant: server.message.clone(),
                    }],
                },
                _ => Self::failed(act, error),
            },
            _ => Self::connection(act, error),
        }
    }
}

fn list(missing: &[MissingPrivilege]) -> String {
    missing.iter().map(MissingPrivilege::to_string).collect::<Vec<_>>().join(", ")
}

fn behind(blocker: Option<&str>) -> String {
    blocker.map(|who| format!(": {who} is in the way")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_say_what_and_who() {
        let missing = |name: &str| MissingPrivilege {
            privilege: name.to_owned(),
            grant: format!("GRANT {name} ON *.* TO 'b'@'%'"),
        };
        let error =
            MysqlError::Privileges { user: "'b'@'%'".to_owned(), missing: vec![missing("RELOAD"), missing("PROCESS")] };
        assert_eq!(
            error.to_string(),
            "user 'b'@'%' lacks RELOAD (GRANT RELOAD ON *.* TO 'b'@'%'), PROCESS (GRANT PROCESS ON *.* TO 'b'@'%')"
        );
        let error = MysqlError::LockTimeout {
            lock: LockKind::GlobalRead,
            waited: Duration::from_mins(1),
            blocker: Some("connection 7".to_owned()),
        };
        assert_eq!(error.to_string(), "the global read lock was not granted within 60 s: connection 7 is in the way");
    }
}
