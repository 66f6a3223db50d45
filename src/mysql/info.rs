//! What the server says of itself: vendor, version, where its files are, what a restore has to match.
//!
//! Knows MySQL and what is called MySQL but is not. Whether the version is supported is asked of
//! [`ServerVersion::support`]; the state of the server is looked at in `preflight`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::MysqlError;
use super::session::{Record, Session};
use crate::innodb::ids::PageSize;
use crate::innodb::version::ServerVersion;

/// Settings that are kept with a backup: those that a restore must match or that tell how the files came to be.
const RECORDED: &[&str] = &[
    "binlog_checksum",
    "binlog_encryption",
    "binlog_format",
    "character_set_server",
    "collation_server",
    "default_table_encryption",
    "enforce_gtid_consistency",
    "explicit_defaults_for_timestamp",
    "gtid_mode",
    "innodb_buffer_pool_filename",
    "innodb_checksum_algorithm",
    "innodb_data_file_path",
    "innodb_data_home_dir",
    "innodb_default_row_format",
    "innodb_directories",
    "innodb_doublewrite",
    "innodb_doublewrite_dir",
    "innodb_file_per_table",
    "innodb_log_group_home_dir",
    "innodb_page_size",
    "innodb_redo_log_capacity",
    "innodb_redo_log_encrypt",
    "innodb_temp_tablespaces_dir",
    "innodb_undo_directory",
    "innodb_undo_log_encrypt",
    "innodb_undo_tablespaces",
    "log_bin",
    "log_bin_basename",
    "log_bin_index",
    "log_replica_updates",
    "lower_case_table_names",
    "performance_schema",
    "plugin_dir",
    "read_only",
    "relay_log_basename",
    "server_id",
    "sql_mode",
    "super_read_only",
    "sync_binlog",
    "innodb_flush_log_at_trx_commit",
    "time_zone",
    "version_comment",
    "version_compile_machine",
    "version_compile_os",
    "version_compile_zlib",
];

/// A server's own account of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// The version as the server writes it: `9.7.4-2`.
    pub version_text: String,
    /// The version.
    pub version: ServerVersion,
    /// Who built it.
    pub version_comment: String,
    /// `server_uuid`.
    pub uuid: String,
    /// `server_id`.
    pub server_id: u32,
    /// The data directory, as the server sees it.
    pub datadir: PathBuf,
    /// `innodb_page_size`.
    pub page_size: PageSize,
    /// Where the system tablespace is; unset is not the same as empty.
    pub innodb_data_home_dir: Option<String>,
    /// The files of the system tablespace.
    pub innodb_data_file_path: String,
    /// Where undo tablespaces are, if set.
    pub innodb_undo_directory: Option<String>,
    /// Where else tablespaces may be, if set.
    pub innodb_directories: Option<String>,
    /// Where the redo log is, if set.
    pub innodb_log_group_home_dir: Option<String>,
    /// How names of tables become names of files.
    pub lower_case_table_names: u32,
    /// True where a binary log is written.
    pub log_bin: bool,
    /// Path of the binary log files without number.
    pub log_bin_basename: Option<String>,
    /// Path of the list of binary log files.
    pub log_bin_index: Option<String>,
    /// `gtid_mode`.
    pub gtid_mode: String,
    /// Transactions whose binary logs are gone.
    pub gtid_purged: String,
    /// How much redo the server keeps at most.
    pub redo_capacity_bytes: u64,
    /// The identity of the redo log, as in its files.
    pub redo_log_uuid: u32,
    /// The list of cached pages, relative to the data directory.
    pub buffer_pool_filename: String,
    /// Settings to keep with the backup.
    pub settings: BTreeMap<String, String>,
}

impl ServerInfo {
    /// Asks the server. Refuses what is no MySQL.
    pub async fn gather(session: &mut Session) -> Result<Self, MysqlError> {
        let act = "read the server's settings";
        let variables = Named::read(session, act, "SHOW GLOBAL VARIABLES").await?;
        refuse_other_kinds(&variables)?;
        let status = Named::read(session, act, "SHOW GLOBAL STATUS LIKE 'Innodb\\_redo\\_log\\_%'").await?;
        // SHOW VARIABLES shows NULL as the empty text; here they mean different directories.
        let nullable = "SELECT @@GLOBAL.innodb_data_home_dir, @@GLOBAL.innodb_undo_directory, \
                        @@GLOBAL.innodb_directories, @@GLOBAL.innodb_log_group_home_dir, \
                        @@GLOBAL.log_bin_basename, @@GLOBAL.log_bin_index";
        let places = session.row(act, nullable).await?;
        Self::from_answers(&variables, &status, &places)
    }

    fn from_answers(variables: &Named, status: &Named, places: &Record) -> Result<Self, MysqlError> {
        let version_text = variables.text("version")?;
        let version = version_text.parse().map_err(|error| MysqlError::UnsupportedServer {
            what: format!("the server's version cannot be understood: {error}"),
        })?;
        let place = |column| places.text(column).map(str::to_owned);
        let redo_capacity_bytes = match status.number("Innodb_redo_log_capacity_resized") {
            Ok(bytes) => bytes,
            Err(_) => variables.number("innodb_redo_log_capacity")?,
        };
        let page_bytes: u32 = variables.number("innodb_page_size")?;
        let settings = RECORDED.iter().filter_map(|&name| Some((name.to_owned(), variables.0.get(name)?.clone())));
        Ok(Self {
            version_text,
            version,
            version_comment: variables.text("version_comment")?,
            uuid: variables.text("server_uuid")?,
            server_id: variables.number("server_id")?,
            datadir: variables.text("datadir")?.into(),
            page_size: PageSize::new(page_bytes).map_err(|error| MysqlError::failed(Named::ACT, error))?,
            innodb_data_home_dir: place(0),
            innodb_data_file_path: variables.text("innodb_data_file_path")?,
            innodb_undo_directory: place(1),
            innodb_directories: place(2),
            innodb_log_group_home_dir: place(3),
            lower_case_table_names: variables.number("lower_case_table_names")?,
            log_bin: variables.is_on("log_bin"),
            log_bin_basename: place(4),
            log_bin_index: place(5),
            gtid_mode: variables.text("gtid_mode")?,
            gtid_purged: variables.text("gtid_purged")?.replace(['\n', '\r'], ""),
            redo_capacity_bytes,
            redo_log_uuid: status.number("Innodb_redo_log_uuid")?,
            buffer_pool_filename: variables.text("innodb_buffer_pool_filename")?,
            settings: settings.collect(),
        })
    }

    /// True where the redo or the undo log or the binary log is encrypted, so that a keyring is needed in any case.
    pub fn encrypts_logs(&self) -> bool {
        ["innodb_redo_log_encrypt", "innodb_undo_log_encrypt", "binlog_encryption"]
            .iter()
            .any(|name| self.settings.get(*name).is_some_and(|value| value.eq_ignore_ascii_case("ON")))
    }
}

/// MariaDB speaks the same protocol and Galera is the same server, but neither's files are what is known here.
fn refuse_other_kinds(variables: &Named) -> Result<(), MysqlError> {
    let text = |name: &str| variables.0.get(name).map(String::as_str).unwrap_or_default();
    let (version, comment) = (text("version"), text("version_comment"));
    let refuse = |what: String| Err(MysqlError::UnsupportedServer { what });
    if [version, comment].iter().any(|text| text.to_ascii_lowercase().contains("mariadb")) {
        return refuse(format!("the server is MariaDB {version}, whose files have other formats"));
    }
    if variables.0.contains_key("wsrep_on") || variables.0.contains_key("wsrep_provider") {
        return refuse(format!("the server is built with Galera ({comment} {version}), which is not supported"));
    }
    Ok(())
}

/// Names and values, as SHOW prints them.
struct Named(BTreeMap<String, String>);

impl Named {
    const ACT: &str = "read the server's settings";

    async fn read(session: &mut Session, act: &str, sql: &str) -> Result<Self, MysqlError> {
        let mut named = BTreeMap::new();
        session
            .each(act, sql, |row| {
                named.insert(row.text_or_empty(0).to_owned(), row.text_or_empty(1).to_owned());
                Ok(())
            })
            .await?;
        Ok(Self(named))
    }

    fn text(&self, name: &str) -> Result<String, MysqlError> {
        let found = self.0.get(name).cloned();
        found.ok_or_else(|| MysqlError::UnsupportedServer { what: format!("the server has no {name}") })
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, MysqlError> {
        let text = self.text(name)?;
        text.parse().map_err(|_| MysqlError::failed(Self::ACT, format!("cannot understand {name}={text:?}")))
    }

    fn is_on(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value.eq_ignore_ascii_case("ON") || value == "1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pairs: &[(&str, &str)]) -> Named {
        Named(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn what_is_no_mysql_is_refused_by_name() {
        let refused = |pairs: &[(&str, &str)]| refuse_other_kinds(&named(pairs)).unwrap_err().to_string();
        assert!(refused(&[("version", "10.11.2-MariaDB-1"), ("version_comment", "Debian")]).contains("MariaDB"));
        assert!(refused(&[("version", "8.0.36-28.1"), ("wsrep_on", "ON")]).contains("Galera"));
        for comment in ["(Debian)", "MySQL Community Server - GPL", "Percona Server (GPL), Release 28"] {
            refuse_other_kinds(&named(&[("version", "8.4.2"), ("version_comment", comment)])).unwrap();
        }
    }

    #[test]
    fn a_setting_that_is_not_there_is_named() {
        let error = named(&[]).text("datadir").unwrap_err();
        assert!(error.to_string().contains("datadir"));
    }
}
