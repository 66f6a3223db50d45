//! Keeping a restored server to itself: no replication, no scheduled events, until its owner says so.
//!
//! ```text
//!   <datadir>/mysqld-auto.cnf   what SET PERSIST writes; the server reads it after its option files
//!     skip_replica_start = ON   channels copied from the source's tables do not start
//!     event_scheduler    = OFF  events of the source do not run twice
//!     group_replication_start_on_boot = OFF   a member of a group does not join it again, whatever its option file says
//! ```
//! The layout is that of MySQL 9.7 (file version 2), as written by the server itself. All lines are lifted with
//! `RESET PERSIST`, which the restore report says. What the source had persisted itself is in no backup.

use std::path::Path;

use serde_json::json;

use crate::archive::manifest::Server;

/// The file's name in the data directory.
pub const FILE_NAME: &str = "mysqld-auto.cnf";

/// How the owner lifts the isolation; shown in reports. The first one takes the variable's old name along.
pub const HOW_TO_LIFT: &str = "RESET PERSIST skip_replica_start; RESET PERSIST event_scheduler; \
     RESET PERSIST group_replication_start_on_boot; then restart the server";

/// What must come before `CHANGE REPLICATION SOURCE` where the server that was backed up followed another one: else it may
/// end with error 1872, for want of the relay logs that the tables name. Nothing for one that followed nobody.
pub fn before_replication(source: &Server) -> Option<String> {
    let reason = match (source.channels.is_empty(), source.role) {
        (false, _) => "the server that was backed up followed another one, whose relay logs are in no backup",
        // A backup from before manifests told.
        (true, None) => "if the server that was backed up followed another one: relay logs are in no backup",
        (true, Some(_)) => return None,
    };
    Some(format!("to follow another server: RESET REPLICA ALL, then CHANGE REPLICATION SOURCE; {reason}"))
}

/// The file's content, with `micros` (microseconds since 1970) as the time of the settings.
pub fn content(micros: u64) -> Vec<u8> {
    let on = setting("ON", micros);
    let document = json!({
        "Version": 2,
        "mysql_static_variables": {
            "skip_slave_start": on, "skip_replica_start": on,
            // Where the server's own files have it, too. A server without that plugin warns of a name that it does not know.
            "group_replication_start_on_boot": setting("OFF", micros),
        },
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
    use crate::archive::manifest::Role;

    #[test]
    fn who_followed_another_one_is_told_what_to_forget() {
        let server = |role: Option<Role>, channels: &[&str]| Server {
            version: "9.7.4".to_owned(),
            version_comment: String::new(),
            uuid: String::new(),
            page_size: crate::innodb::ids::PageSize::DEFAULT,
            lower_case_table_names: 0,
            settings: std::collections::BTreeMap::new(),
            untested: false,
            master_keys: Vec::new(),
            role,
            channels: channels.iter().map(|name| (*name).to_owned()).collect(),
        };
        let said = |role, channels| before_replication(&server(role, channels)).unwrap_or_default();
        assert!(said(Some(Role::Replica), &[""]).contains("RESET REPLICA ALL, then CHANGE REPLICATION SOURCE; the"));
        assert!(said(Some(Role::Primary), &["group_replication_applier"]).contains("RESET REPLICA ALL"));
        assert_eq!(said(Some(Role::Primary), &[]), "");
        assert_eq!(said(Some(Role::Replica), &[]), "", "it only takes no writes");
        assert!(said(None, &[]).contains("; if the server"), "nobody asked it");
    }

    #[test]
    fn content_is_what_the_server_writes() {
        let value: serde_json::Value = serde_json::from_slice(&content(7)).unwrap();
        assert_eq!(value["Version"], 2);
        assert_eq!(value["mysql_static_variables"]["skip_replica_start"]["Value"], "ON");
        assert_eq!(value["mysql_static_variables"]["group_replication_start_on_boot"]["Value"], "OFF");
        assert_eq!(value["mysql_dynamic_variables"]["event_scheduler"]["Value"], "OFF");
        assert_eq!(value["mysql_dynamic_variables"]["event_scheduler"]["Metadata"]["Timestamp"], 7);
    }
}
