//! `stillframe grants`: the account that backups need, as SQL.

use crate::mysql::grants_sql;

/// The statements that make the account `user` at `host` and give it what backups need, and no more.
pub fn sql(user: &str, host: &str) -> String {
    grants_sql(user, host)
}
