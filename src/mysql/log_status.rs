//! One atomic look at the server's logs: `performance_schema.log_status`.
//!
//! ```text
//!   local            {"gtid_executed": "…", "binary_log_file": "binlog.000008", "binary_log_position": 4503}
//!   replication      {"channels": [{"channel_name": "c1", "relay_log_file": "…", "relay_log_position": 158}]}
//!   storage_engines  {"InnoDB": {"LSN": 195108043, "LSN_checkpoint": 178959386}}
//! ```
//! The server locks all its logs to make the row, so it is never asked for in a loop. The LSN is the current one: it
//! may not be in the files before `FLUSH ENGINE LOGS`. Whoever wants only to watch the redo asks [`RedoStatus`].

use serde::Deserialize;

use super::error::MysqlError;
use super::session::{Record, Session};
use crate::innodb::lsn::Lsn;

const QUERY: &str = "SELECT server_uuid, local, replication, storage_engines FROM performance_schema.log_status";
const ACT: &str = "read performance_schema.log_status";

/// A place in the binary log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinlogPosition {
    /// The file's name, without directory.
    pub file: String,
    /// The byte in it, where the next event will begin.
    pub position: u64,
}

impl BinlogPosition {
    /// The number at the end of the file's name; 0 where there is none.
    pub fn number(&self) -> u64 {
        self.file.rsplit('.').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }
}

/// Where a replica's channel stands.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Channel {
    /// Its name; empty for the default one.
    #[serde(rename = "channel_name")]
    pub name: String,
    /// The relay log that is written.
    #[serde(default)]
    pub relay_log_file: String,
    /// The byte in it.
    #[serde(default)]
    pub relay_log_position: u64,
}

/// The logs at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStatus {
    /// The server.
    pub server_uuid: String,
    /// The end of the redo log, in memory.
    pub lsn: Lsn,
    /// The newest checkpoint.
    pub checkpoint: Lsn,
    /// The end of the binary log, where the server writes one.
    pub binlog: Option<BinlogPosition>,
    /// All transactions that are committed, as the server writes the set, without line ends.
    pub gtid_executed: String,
    /// A replica's channels.
    pub channels: Vec<Channel>,
    /// Engines besides InnoDB that have a log of their own.
    pub other_engines: Vec<String>,
}

#[derive(Deserialize)]
struct Local {
    #[serde(default)]
    gtid_executed: String,
    binary_log_file: Option<String>,
    binary_log_position: Option<u64>,
}

#[derive(Deserialize)]
struct Replication {
    #[serde(default)]
    channels: Vec<Channel>,
}

#[derive(Deserialize)]
struct Engines {
    #[serde(rename = "InnoDB")]
    innodb: InnoDb,
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct InnoDb {
    #[serde(rename = "LSN")]
    lsn: u64,
    #[serde(rename = "LSN_checkpoint")]
    checkpoint: u64,
}

impl LogStatus {
    /// Asks the server. All its logs stand still for that moment.
    pub async fn read(session: &mut Session) -> Result<Self, MysqlError> {
        Self::decode(&session.row(ACT, QUERY).await?)
    }

    fn decode(row: &Record) -> Result<Self, MysqlError> {
        let [uuid, local, replication, engines] = [0, 1, 2, 3].map(|column| row.text_or_empty(column));
        Self::parse(uuid, local, replication, engines).map_err(|error| MysqlError::failed(ACT, error))
    }

    fn parse(uuid: &str, local: &str, replication: &str, engines: &str) -> Result<Self, serde_json::Error> {
        let local: Local = serde_json::from_str(local)?;
        let replication: Replication = serde_json::from_str(replication)?;
        let engines: Engines = serde_json::from_str(engines)?;
        let binlog = match (local.binary_log_file, local.binary_log_position) {
            (Some(file), Some(position)) if !file.is_empty() => Some(BinlogPosition { file, position }),
            _ => None,
        };
        Ok(Self {
            server_uuid: uuid.to_owned(),
            lsn: Lsn::new(engines.innodb.lsn),
            checkpoint: Lsn::new(engines.innodb.checkpoint),
            binlog,
            gtid_executed: local.gtid_executed.replace(['\n', '\r'], ""),
            channels: replication.channels,
            other_engines: engines.others.into_iter().map(|(name, _)| name).collect(),
        })
    }
}

const STATUS: &str = "SHOW GLOBAL STATUS WHERE Variable_name LIKE 'Innodb\\_redo\\_log\\_%' \
                      OR Variable_name = 'Innodb_data_reads'";

/// How far the redo log is, without stopping anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedoStatus {
    /// The newest checkpoint.
    pub checkpoint_lsn: Lsn,
    /// The end of the log in the files.
    pub flushed_lsn: Lsn,
    /// The end of the log in memory.
    pub current_lsn: Lsn,
    /// Reads of data files so far; `None` where the server does not say.
    pub data_reads: Option<u64>,
    /// How much redo the server keeps at most, now; `None` where it does not say.
    pub capacity_bytes: Option<u64>,
    /// False after `ALTER INSTANCE DISABLE INNODB REDO_LOG`.
    pub enabled: bool,
}

impl RedoStatus {
    /// Asks the server.
    pub async fn read(session: &mut Session) -> Result<Self, MysqlError> {
        let act = "read the state of the redo log";
        let rows = session.rows(act, STATUS).await?;
        let find = |name: &str| {
            let found = rows.iter().find(|row| row.text_or_empty(0).eq_ignore_ascii_case(name));
            found.ok_or_else(|| MysqlError::failed(act, format!("the server has no status {name}")))
        };
        Ok(Self {
            checkpoint_lsn: find("Innodb_redo_log_checkpoint_lsn")?.parse(act, 1)?,
            flushed_lsn: find("Innodb_redo_log_flushed_to_disk_lsn")?.parse(act, 1)?,
            current_lsn: find("Innodb_redo_log_current_lsn")?.parse(act, 1)?,
            data_reads: find("Innodb_data_reads").ok().and_then(|row| row.parse(act, 1).ok()),
            capacity_bytes: find("Innodb_redo_log_capacity_resized").ok().and_then(|row| row.parse(act, 1).ok()),
            enabled: find("Innodb_redo_log_enabled")?.text_or_empty(1).eq_ignore_ascii_case("ON"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGINES: &str = r#"{"InnoDB": {"LSN": 195108043, "LSN_checkpoint": 178959386}}"#;

    #[test]
    fn a_server_with_everything() {
        let local =
            r#"{"gtid_executed": "aa:1-5,\nbb:1", "binary_log_file": "binlog.000008", "binary_log_position": 4503}"#;
        let replication = r#"{"channels": [{"channel_name": "c1", "relay_log_file": "r.000001", "relay_log_position": 158, "x": 1}]}"#;
        let status = LogStatus::parse("u", local, replication, ENGINES).unwrap();
        assert_eq!(status.gtid_executed, "aa:1-5,bb:1");
        assert_eq!(status.lsn, Lsn::new(195_108_043));
        assert_eq!(status.checkpoint, Lsn::new(178_959_386));
        assert_eq!(status.binlog.as_ref().unwrap().number(), 8);
        assert_eq!(status.channels[0].name, "c1");
        assert!(status.other_engines.is_empty());
    }

    #[test]
    fn a_server_without_binlog_and_one_with_another_engine() {
        let engines = r#"{"InnoDB": {"LSN": 9000, "LSN_checkpoint": 8999}, "RocksDB": {"wal_files": []}}"#;
        let status = LogStatus::parse("u", r#"{"gtid_executed": ""}"#, r#"{"channels": []}"#, engines).unwrap();
        assert_eq!(status.binlog, None);
        assert_eq!(status.other_engines, ["RocksDB"]);
        assert!(LogStatus::parse("u", "{}", "{}", "{}").is_err(), "without InnoDB there is nothing to cut");
        assert!(LogStatus::parse("u", "", "{}", ENGINES).is_err());
    }

    #[test]
    fn numbers_of_binlog_files() {
        let number = |file: &str| BinlogPosition { file: file.to_owned(), position: 4 }.number();
        assert_eq!(number("binlog.000001"), 1);
        assert_eq!(number("my.host-bin.1000000"), 1_000_000);
        assert_eq!(number("odd"), 0);
    }
}
