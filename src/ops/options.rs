//! What the verbs are asked to do: plain values with their defaults, whoever asks (a shell, a pod).
//!
//! Nothing here reads the environment, the disk or a command line. A choice has one spelling everywhere:
//! [`std::str::FromStr`] and [`std::fmt::Display`] agree, and `NAMES` lists them for help texts.

use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::util::names;

// What options are made of, for those who may know the verbs but not the engine.
pub use crate::archive::codec::Codec;
pub use crate::archive::id::BackupId;
pub use crate::archive::manifest::Origin;
pub use crate::innodb::ids::{PageNo, PageSize, SpaceId};
pub use crate::innodb::lsn::Lsn;
pub use crate::mysql::{ConnectOptions, Endpoint, SslMode, SslOptions};
pub use crate::store::StoreUrl;

use super::error::{Error, ErrorKind};

/// Returned for a word that is none of a choice's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{given}\" is none of {known}")]
pub struct UnknownChoice {
    /// What was given.
    pub given: String,
    /// What there is.
    pub known: String,
}

/// Declares an enum of named choices with one spelling for reading and printing.
macro_rules! choice {
    ($(#[$about:meta])* $name:ident { $($(#[$item:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub enum $name { $($(#[$item])* $variant,)+ }

        impl $name {
            /// How the choices are written.
            pub const NAMES: &'static [&'static str] = &[$($text),+];
        }

        impl std::str::FromStr for $name {
            type Err = UnknownChoice;

            fn from_str(text: &str) -> Result<Self, UnknownChoice> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(UnknownChoice { given: text.to_owned(), known: Self::NAMES.join(", ") }),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $(Self::$variant => $text),+ })
            }
        }
    };
}

choice! {
    /// When the backup lock is taken.
    LockPolicy {
        /// Before the copy: DDL waits for all of it.
        #[default]
        Full = "full",
        /// After the copy: DDL waits for a moment.
        Short = "short",
    }
}

choice! {
    /// What to do about tables whose engine has no redo (MyISAM, CSV, ARCHIVE, MERGE).
    NonTransactional {
        /// Copy them under a short global read lock.
        #[default]
        Include = "include",
        /// Refuse the backup if there are any.
        Refuse = "refuse",
        /// Leave them out, and say so.
        Skip = "skip",
    }
}

choice! {
    /// Whether to register with the server as a consumer of its redo log.
    RedoConsumer {
        /// Where server and privileges allow it.
        #[default]
        Auto = "auto",
        /// Or fail.
        On = "on",
        /// Never.
        Off = "off",
    }
}

choice! {
    /// What to do with pages that the server encrypts when their key is not at hand.
    EncryptedPages {
        /// Refuse: a page that cannot be checked may be damaged.
        #[default]
        Verify = "verify",
        /// Copy them as they are; the manifest says that nobody looked inside.
        CopyUnverified = "copy-unverified",
    }
}

choice! {
    /// Who applies the captured redo.
    Recovery {
        /// The server: at its first start, or here with `mysqld`.
        Server = "server",
        /// Stillframe itself, while it restores.
        #[default]
        Native = "native",
    }
}

/// What an incremental builds on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IncrementalFrom {
    /// The newest backup of this server that can be built on.
    Auto,
    /// The one of this name or id.
    Backup(String),
}

/// Where tablespaces go that were outside of the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ExternalFiles {
    /// To the path that they had.
    #[default]
    Keep,
    /// Below the new data directory.
    Inside,
    /// To another directory: the first pair whose left side is a prefix decides.
    Map(Vec<(PathBuf, PathBuf)>),
}

/// A new password for accounts that a restored server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountPassword {
    /// The user's name.
    pub user: String,
    /// The host of the account; all accounts of that name that no other entry names with their host.
    pub host: Option<String>,
    /// The file that holds the password; a line end at its end is not part of it.
    pub password_file: PathBuf,
}

impl fmt::Display for AccountPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "'{}'@'{host}'", self.user),
            None => write!(f, "'{}' of any host", self.user),
        }
    }
}

/// `stillframe backup`.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// Where the backup goes.
    pub store: StoreUrl,
    /// Its name. The id is made of it.
    pub name: String,
    /// The id, where whoever asks has chosen it: of all who try with the same one, one at most can commit.
    pub id: Option<BackupId>,
    /// What had it made.
    pub origin: Origin,
    /// The server.
    pub server: ConnectOptions,
    /// Where the server's data directory is mounted here, if not where the server says.
    pub datadir: Option<PathBuf>,
    /// The server's `component_keyring_file` data file.
    pub keyring_file: Option<PathBuf>,
    /// What to do without the key to an encrypted page.
    pub encrypted_pages: EncryptedPages,
    /// Store only what changed since another backup.
    pub incremental_from: Option<IncrementalFrom>,
    /// How stored bytes are compressed.
    pub compression: Codec,
    /// Files with the keys that may open the backup. Empty: not encrypted.
    pub encryption_key_files: Vec<PathBuf>,
    /// Copying threads.
    pub parallel: NonZeroUsize,
    /// Bytes a second that are read from the server's files at most.
    pub throttle: Option<u64>,
    /// Copy only as fast as a busy server does not notice.
    pub polite: bool,
    /// When the backup lock is taken.
    pub lock_policy: LockPolicy,
    /// How long to try for a lock.
    pub lock_timeout: Duration,
    /// How long DDL may wait for the backup lock before the backup gives up. `None`: as long as it takes.
    pub ddl_wait_budget: Option<Duration>,
    /// What to do about tables without redo.
    pub non_transactional: NonTransactional,
    /// How long the files of such tables may take to copy, while nobody can write. `None`: as long as it takes.
    pub read_lock_budget: Option<Duration>,
    /// Whether the server is asked to keep redo until it is captured.
    pub redo_consumer: RedoConsumer,
    /// Where redo waits for the store.
    pub spool_dir: PathBuf,
    /// How much may wait there.
    pub spool_bytes: u64,
    /// Go on with a version that no recorded test run covers.
    pub allow_untested_server: bool,
}

impl BackupOptions {
    /// The name of a backup that was given none.
    pub const DEFAULT_NAME: &'static str = "backup";
    /// How long to try for a lock, unless told.
    pub const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_mins(1);
    /// How long DDL may wait, unless told.
    pub const DEFAULT_DDL_WAIT_BUDGET: Duration = Duration::from_mins(5);
    /// How long nobody may write, unless told.
    pub const DEFAULT_READ_LOCK_BUDGET: Duration = Duration::from_mins(1);
    /// How much may wait in the spool, unless told.
    pub const DEFAULT_SPOOL_BYTES: u64 = 4 << 30;
    /// Fast enough to keep up with a disk on few cores.
    pub const DEFAULT_COMPRESSION: Codec = Codec::Zstd { level: 1 };

    /// A full backup of `server` into `store`, everything else by default.
    pub fn new(store: StoreUrl, server: ConnectOptions) -> Self {
        Self {
            store,
            name: Self::DEFAULT_NAME.to_owned(),
            id: None,
            origin: Origin::default(),
            server,
            datadir: None,
            keyring_file: None,
            encrypted_pages: EncryptedPages::default(),
            incremental_from: None,
            compression: Self::DEFAULT_COMPRESSION,
            encryption_key_files: Vec::new(),
            parallel: default_parallel(),
            throttle: None,
            polite: false,
            lock_policy: LockPolicy::default(),
            lock_timeout: Self::DEFAULT_LOCK_TIMEOUT,
            ddl_wait_budget: Some(Self::DEFAULT_DDL_WAIT_BUDGET),
            non_transactional: NonTransactional::default(),
            read_lock_budget: Some(Self::DEFAULT_READ_LOCK_BUDGET),
            redo_consumer: RedoConsumer::default(),
            spool_dir: std::env::temp_dir(),
            spool_bytes: Self::DEFAULT_SPOOL_BYTES,
            allow_untested_server: false,
        }
    }

    /// Refuses what cannot be done, before anything is touched.
    pub fn check(&self) -> Result<(), Error> {
        if let Err(wrong) = names::check_label(&self.name) {
            return Err(Error::new(ErrorKind::Usage, format!("the name \"{}\" {wrong}", self.name)));
        }
        if self.incremental_from.is_some() {
            return Err(not_there_yet("incremental backups", "leave out --incremental-from to take a full backup"));
        }
        match self.lock_policy {
            LockPolicy::Full => Ok(()),
            LockPolicy::Short => Err(not_there_yet("the lock policy \"short\"", "use --lock-policy full")),
        }
    }
}

/// `stillframe restore`.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Where the backup is.
    pub store: StoreUrl,
    /// Its name (the newest of it) or id.
    pub backup: String,
    /// The directory that becomes the database.
    pub datadir: PathBuf,
    /// Who applies the redo.
    pub recovery: Recovery,
    /// A server to run once, here and isolated, until recovery is done.
    pub mysqld: Option<PathBuf>,
    /// Files with keys to the backup.
    pub encryption_key_files: Vec<PathBuf>,
    /// The keyring file that the restored server will use.
    pub keyring_file: Option<PathBuf>,
    /// Where tablespaces outside of the data directory go.
    pub external_files: ExternalFiles,
    /// Let the new server replicate and run events at once, as the old one did.
    pub keep_replication: bool,
    /// Clear the remains of an interrupted restore. Never anything else.
    pub overwrite_incomplete: bool,
    /// Accounts that get other passwords than they had.
    pub account_passwords: Vec<AccountPassword>,
    /// Check the structure of every tablespace once it is recovered.
    pub check_structure: bool,
    /// Replace a database that is there and that no server runs on. Never anything else.
    pub overwrite: bool,
    /// Whose restore it is, where it may come twice: the directory keeps it as a receipt. Who finds his own there, in a
    /// database that no server has started on since, starts over: he had ended, and nobody was told.
    pub receipt: Option<String>,
    /// Writing threads.
    pub parallel: NonZeroUsize,
    /// Memory for redo and pages in flight.
    pub memory: u64,
}

impl RestoreOptions {
    /// Memory for redo and pages in flight, unless told.
    pub const DEFAULT_MEMORY: u64 = 128 << 20;

    /// Restores `backup` from `store` into `datadir`, everything else by default.
    pub fn new(store: StoreUrl, backup: impl Into<String>, datadir: impl Into<PathBuf>) -> Self {
        Self {
            store,
            backup: backup.into(),
            datadir: datadir.into(),
            recovery: Recovery::default(),
            mysqld: None,
            encryption_key_files: Vec::new(),
            keyring_file: None,
            external_files: ExternalFiles::default(),
            keep_replication: false,
            overwrite_incomplete: false,
            account_passwords: Vec::new(),
            check_structure: false,
            overwrite: false,
            receipt: None,
            parallel: default_parallel(),
            memory: Self::DEFAULT_MEMORY,
        }
    }

    /// Refuses what cannot be done, before anything is touched.
    pub fn check(&self) -> Result<(), Error> {
        if self.check_structure && self.recovery == Recovery::Server && self.mysqld.is_none() {
            let message = "there is nothing to check before the files are recovered, which a server would do later";
            return Err(Error::new(ErrorKind::Usage, message).advise("add --mysqld, or choose --recovery native"));
        }
        if !self.account_passwords.is_empty() && self.recovery == Recovery::Server {
            let message = "passwords can be set in files that are recovered, which a server would do later";
            return Err(Error::new(ErrorKind::Usage, message).advise("choose --recovery native"));
        }
        let mut named = HashSet::new();
        // A host is the same in capitals.
        let host = |account: &AccountPassword| account.host.as_deref().map(str::to_ascii_lowercase);
        match self.account_passwords.iter().find(|account| !named.insert((&account.user, host(account)))) {
            Some(twice) => Err(Error::new(ErrorKind::Usage, format!("{twice} is to get two passwords"))),
            None => Ok(()),
        }
    }
}

/// `stillframe verify`.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// Where the backup is.
    pub store: StoreUrl,
    /// Its name (the newest of it) or id.
    pub backup: String,
    /// Files with keys to the backup.
    pub encryption_key_files: Vec<PathBuf>,
    /// Reading threads.
    pub parallel: NonZeroUsize,
    /// Recover the backup and check the structure of its tablespaces as well.
    pub deep: Option<DeepVerify>,
}

/// What a deep verification needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeepVerify {
    /// Where the backup is restored to, in a directory of its own that is removed at the end.
    pub scratch_dir: PathBuf,
    /// The keyring file that opens its encrypted tablespaces.
    pub keyring_file: Option<PathBuf>,
}

impl VerifyOptions {
    /// Verifies `backup` in `store`, everything else by default.
    pub fn new(store: StoreUrl, backup: impl Into<String>) -> Self {
        let backup = backup.into();
        Self { store, backup, encryption_key_files: Vec::new(), parallel: default_parallel(), deep: None }
    }
}

/// `stillframe list`.
#[derive(Debug, Clone)]
pub struct ListOptions {
    /// Where the backups are.
    pub store: StoreUrl,
}

/// `stillframe show`.
#[derive(Debug, Clone)]
pub struct ShowOptions {
    /// Where the backup is.
    pub store: StoreUrl,
    /// Its name (the newest of it) or id.
    pub backup: String,
}

/// `stillframe delete`.
#[derive(Debug, Clone)]
pub struct DeleteOptions {
    /// Where the backup is.
    pub store: StoreUrl,
    /// Its name (the newest of it) or id.
    pub backup: String,
}

/// `stillframe pin` and `unpin`.
#[derive(Debug, Clone)]
pub struct PinOptions {
    /// Where the backup is.
    pub store: StoreUrl,
    /// Its name (the newest of it) or id.
    pub backup: String,
    /// Whether it is to be pinned.
    pub pinned: bool,
}

/// `stillframe prune`.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// Where the backups are.
    pub store: StoreUrl,
    /// Only backups of this name; each name is counted by itself in any case.
    pub name: Option<String>,
    /// What stays. Without any rule no complete backup goes.
    pub keep: KeepRules,
    /// Remove the remains of runs that died.
    pub stale: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Which backups stay: those that any rule wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeepRules {
    /// The newest so many.
    pub last: u32,
    /// The newest of each of so many hours that have one.
    pub hourly: u32,
    /// The newest of each of so many days that have one.
    pub daily: u32,
    /// The newest of each of so many weeks that have one.
    pub weekly: u32,
    /// The newest of each of so many months that have one.
    pub monthly: u32,
    /// The newest of each of so many years that have one.
    pub yearly: u32,
    /// All that are not older than so many seconds.
    pub within_seconds: Option<u64>,
}

impl KeepRules {
    /// True when no rule was given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `stillframe inspect`.
#[derive(Debug, Clone)]
pub enum InspectOptions {
    /// A redo file, or a directory of them.
    Redo {
        /// The file or directory.
        path: PathBuf,
        /// Show blocks and records from here.
        from: Option<Lsn>,
        /// Show at most so many blocks.
        limit: u32,
        /// To open an encrypted log.
        keyring_file: Option<PathBuf>,
    },
    /// One page of a tablespace file.
    Page {
        /// The file.
        path: PathBuf,
        /// The page.
        page: PageNo,
        /// Where page 0 is damaged: the page size to assume.
        page_size: Option<PageSize>,
        /// To open an encrypted page.
        keyring_file: Option<PathBuf>,
    },
    /// A tablespace file: its header, and a count of its pages by type and state.
    Space {
        /// The file.
        path: PathBuf,
        /// To open encrypted pages.
        keyring_file: Option<PathBuf>,
    },
    /// A stored backup's inner tables.
    Backup {
        /// Where it is.
        store: StoreUrl,
        /// Its name (the newest of it) or id.
        backup: String,
        /// Files with keys to it.
        encryption_key_files: Vec<PathBuf>,
    },
}

fn not_there_yet(what: &str, instead: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("not there yet: {what}")).advise(instead)
}

/// As many threads as there are cores, but no more than disks and stores usually reward.
pub fn default_parallel() -> NonZeroUsize {
    const MOST: NonZeroUsize = NonZeroUsize::new(8).expect("8 is not 0");
    std::thread::available_parallelism().map_or(NonZeroUsize::MIN, |cores| cores.min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_as_they_are_printed() {
        for name in LockPolicy::NAMES {
            assert_eq!(name.parse::<LockPolicy>().unwrap().to_string(), *name);
        }
        for name in EncryptedPages::NAMES {
            assert_eq!(name.parse::<EncryptedPages>().unwrap().to_string(), *name);
        }
        let error = "none".parse::<Recovery>().unwrap_err();
        assert_eq!(error.to_string(), "\"none\" is none of server, native");
    }

    #[test]
    fn defaults_are_the_careful_ones() {
        assert_eq!(LockPolicy::default(), LockPolicy::Full);
        assert_eq!(NonTransactional::default(), NonTransactional::Include);
        assert_eq!(EncryptedPages::default(), EncryptedPages::Verify);
        assert_eq!(RedoConsumer::default(), RedoConsumer::Auto);
        assert_eq!(Recovery::default(), Recovery::Native);
        assert!(KeepRules::default().is_empty());
        assert!(default_parallel().get() >= 1);
    }

    #[test]
    fn no_account_gets_two_passwords() {
        let check = |accounts: &[(&str, Option<&str>)]| {
            let mut options = RestoreOptions::new("file:///b".parse().unwrap(), "b", "/d");
            options.account_passwords = accounts
                .iter()
                .map(|(user, host)| AccountPassword {
                    user: (*user).to_owned(),
                    host: host.map(str::to_owned),
                    password_file: "/p".into(),
                })
                .collect();
            options.check().map_err(|error| error.message)
        };
        check(&[("a", None), ("a", Some("%")), ("a", Some("h")), ("A", Some("h")), ("b", None)]).unwrap();
        let said = check(&[("a", Some("h")), ("a", Some("H"))]).unwrap_err();
        assert_eq!(said, "'a'@'H' is to get two passwords", "a host is the same in capitals");
        assert_eq!(check(&[("a", None), ("a", None)]).unwrap_err(), "'a' of any host is to get two passwords");
    }
}
