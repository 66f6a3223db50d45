//! Keeping a restored server to itself: no replication, no scheduled events, until its owner says so.
//!
//! ```text
//!   <datadir>/mysqld-auto.cnf   what SET PERSIST writes; the server reads it after its option files
//!     skip_replica_start = ON   channels copied from the source's tables do not start
//!     event_scheduler    = OFF  events of the source do not run twice
//! ```
//! The layout is that of MySQL 9.7 (file version 2), as written by the server itself. Both lines are lifted with
//! `RESET PERSIST`, which the restore report says.

use std::path::Path;

use serde_json::json;

/// The file's name in the data directory.
pub const FILE_NAME: &str = "mysqld-auto.cnf";

/// How the owner lifts the isolation; shown in reports.
pub const HOW_TO_LIFT: &str = "RESET PERSIST skip_replica_start; RESET PERSIST skip_slave_start; \
                               RESET PERSIST event_scheduler; then restart the server";

/// The file's content, with `micros` (microseconds since 1970) as the time of the settings.
pub fn content(micros: u64) -> Vec<u8> {
    let on = setting("ON", micros);
    let document = json!({
        "Version": 2,
        "mysql_static_variables": { "skip_slave_start": on, "skip_replica_start": on },
        "mysql_dynamic_variables": { "event_scheduler": setting("OFF", micros) },
    });
    document.to_string().into_bytes()
}

/// Where the file lies for the data directory `datadir`.
pub fn path(datadir: &Path) -> std::path::PathBuf {
    datadir.join(FILE_NAME)
}

fn setting(value: &str, micros: u64) -> serde_json::Value {
    json!({ "Value": value, "Metadata": { "Host": "localhost", "User": "stillframe", "Timestamp": micros } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_what_the_server_writes() {
        let value: serde_json::Value = serde_json::from_slice(&content(7)).unwrap();
        assert_eq!(value["Version"], 2);
        assert_eq!(value["mysql_static_variables"]["skip_replica_start"]["Value"], "ON");
        assert_eq!(value["mysql_dynamic_variables"]["event_scheduler"]["Value"], "OFF");
        assert_eq!(value["mysql_dynamic_variables"]["event_scheduler"]["Metadata"]["Timestamp"], 7);
    }
}
