//! The live server, over SQL: the only place that names the MySQL driver.
//!
//! ```text
//!   ConnectOptions ──► Session ──┬─► ServerInfo, preflight     what it is, whether it can be backed up
//!                                ├─► registered_files          which tablespaces it has, and where
//!                                └─► LogStatus, RedoStatus     where its logs are
//!                  ──► BackupLock      own connection, kept alive; the global read lock and the cut go over it
//!                  ──► DdlWatch        own connection; who waits for that lock
//!                  ──► RedoConsumer    own connection, kept alive; the server keeps redo for it
//! ```
//! Owns SQL, privileges and locks, and how the server stores passwords (`password`). Touches no file of the server and knows nothing of what a backup is made of.
//! Whatever hangs on a connection ends with it: dropping a lock or a consumer closes its socket.

mod ddl_watch;
mod error;
mod files;
mod grants;
mod gtid;
mod info;
mod kept;
mod lock;
mod log_status;
mod options;
pub mod password;
mod preflight;
mod read_lock;
mod redo_consumer;
mod role;
mod session;

pub use ddl_watch::DdlWatch;
pub use error::{LockKind, MissingPrivilege, MysqlError};
pub use files::registered_files;
pub use grants::grants_sql;
pub use gtid::{BadGtidSet, GtidSet};
pub use info::ServerInfo;
pub use lock::{BackupLock, LockTimes};
pub use log_status::{BinlogPosition, Channel, LogStatus, RedoStatus};
pub use options::{ConnectOptions, Endpoint, SslMode, SslOptions, UnknownSslMode};
pub use preflight::{Checked, preflight};
pub use redo_consumer::{RedoConsumer, Registration};
pub use role::{Role, ServerRole};
pub use session::Session;
