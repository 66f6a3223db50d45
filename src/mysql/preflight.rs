//! Whether this server can be backed up now, asked before anything is touched.
//!
//! ```text
//!   performance_schema on? ─ privileges ─ redo log on? ─ engines ─ group member ONLINE? ─ whose keyring? ──► warnings, or the first refusal
//! ```
//! What can be decided only from files (tables of other engines, a datadir that is another server's) is not here.

use super::error::MysqlError;
use super::grants::check_privileges;
use super::info::ServerInfo;
use super::log_status::RedoStatus;
use super::session::Session;

/// Engines whose tables are in files that are copied, or nowhere.
const KNOWN_ENGINES: &[&str] = &[
    "InnoDB",
    "MyISAM",
    "MRG_MYISAM",
    "CSV",
    "ARCHIVE",
    "MEMORY",
    "BLACKHOLE",
    "FEDERATED",
    "EXAMPLE",
    "PERFORMANCE_SCHEMA",
];
/// The keyring whose file can be read here.
const KNOWN_KEYRING: &str = "component_keyring_file";

/// The outcome of a preflight that did not refuse.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// Pages of tablespaces are encrypted.
    pub encrypted: bool,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Checks all there is, and refuses with the first thing that is in the way.
pub async fn preflight(session: &mut Session, info: &ServerInfo) -> Result<Checked, MysqlError> {
    let mut warnings = Vec::new();
    check_performance_schema(info)?;
    check_privileges(session).await?;
    check_redo(session).await?;
    check_engines(session).await?;
    warnings.extend(check_group(session, info).await?);
    let encrypted = check_keyring(session, info).await?;
    Ok(Checked { encrypted, warnings })
}

/// The point in time of a backup is a row of `performance_schema`.
fn check_performance_schema(info: &ServerInfo) -> Result<(), MysqlError> {
    if info.settings.get("performance_schema").is_none_or(|value| value.eq_ignore_ascii_case("ON")) {
        return Ok(());
    }
    Err(MysqlError::Preflight {
        what: "performance_schema is off, so the state of the server's logs cannot be read".to_owned(),
        advice: "start the server with performance_schema=ON".to_owned(),
    })
}

async fn check_redo(session: &mut Session) -> Result<(), MysqlError> {
    if RedoStatus::read(session).await?.enabled {
        return Ok(());
    }
    Err(MysqlError::Preflight {
        what: "the server's redo log is disabled, so no consistent copy can be taken".to_owned(),
        advice: "run ALTER INSTANCE ENABLE INNODB REDO_LOG".to_owned(),
    })
}

async fn check_engines(session: &mut Session) -> Result<(), MysqlError> {
    let sql = "SELECT ENGINE FROM information_schema.ENGINES WHERE SUPPORT IN ('YES', 'DEFAULT')";
    let rows = session.rows("list the storage engines", sql).await?;
    let engines: Vec<&str> = rows.iter().map(|row| row.text_or_empty(0)).collect();
    match unknown_engines(&engines).as_slice() {
        [] => Ok(()),
        unknown => {
            let what = format!("the server has storage engines that cannot be backed up: {}", unknown.join(", "));
            Err(MysqlError::UnsupportedServer { what })
        }
    }
}

/// The engines whose tables this program would not copy.
fn unknown_engines<'a>(engines: &[&'a str]) -> Vec<&'a str> {
    let known = |engine: &str| KNOWN_ENGINES.iter().any(|known| known.eq_ignore_ascii_case(engine));
    engines.iter().copied().filter(|engine| !known(engine)).collect()
}

/// A member that is still catching up, or was thrown out, is no good source.
async fn check_group(session: &mut Session, info: &ServerInfo) -> Result<Option<String>, MysqlError> {
    let sql = "SELECT MEMBER_ID, MEMBER_STATE FROM performance_schema.replication_group_members";
    let rows = session.rows("read the state of the replication group", sql).await?;
    let own = rows.iter().find(|row| row.text_or_empty(0) == info.uuid || row.text_or_empty(0).is_empty());
    judge_member(own.map(|row| row.text_or_empty(1)))
}

fn judge_member(state: Option<&str>) -> Result<Option<String>, MysqlError> {
    match state {
        None | Some("ONLINE") => Ok(None),
        Some("OFFLINE" | "") => Ok(Some("group replication is loaded, but this server is in no group now".to_owned())),
        Some(state) => Err(MysqlError::Preflight {
            what: format!("this member of the replication group is {state}"),
            advice: "wait until it is ONLINE, or back up another member".to_owned(),
        }),
    }
}

/// Refuses keyrings that cannot be read here, where anything is encrypted. Says whether pages are.
async fn check_keyring(session: &mut Session, info: &ServerInfo) -> Result<bool, MysqlError> {
    let act = "look for encrypted tablespaces";
    let sql = "SELECT SPACE FROM information_schema.INNODB_TABLESPACES WHERE ENCRYPTION = 'Y' LIMIT 1";
    let encrypted = !session.rows(act, sql).await?.is_empty();
    if !encrypted && !info.encrypts_logs() {
        return Ok(false);
    }
    let sql = "SELECT STATUS_VALUE FROM performance_schema.keyring_component_status \
               WHERE STATUS_KEY = 'Component_name'";
    let components = session.rows("read the keyring's state", sql).await?;
    let sql = "SELECT PLUGIN_NAME FROM information_schema.PLUGINS \
               WHERE PLUGIN_NAME LIKE 'keyring%' AND PLUGIN_STATUS = 'ACTIVE'";
    let plugins = session.rows("list the keyring plugins", sql).await?;
    let named = components.iter().chain(&plugins).map(|row| row.text_or_empty(0));
    judge_keyring(&named.collect::<Vec<_>>())?;
    Ok(encrypted)
}

fn judge_keyring(keyrings: &[&str]) -> Result<(), MysqlError> {
    match keyrings {
        [] => Err(MysqlError::Preflight {
            what: "data is encrypted, but the server has no keyring loaded".to_owned(),
            advice: "load the keyring component, and check that all tables can be read".to_owned(),
        }),
        [only] if only.eq_ignore_ascii_case(KNOWN_KEYRING) => Ok(()),
        _ => {
            let what =
                format!("data is encrypted with keys in {}; only {KNOWN_KEYRING} is supported", keyrings.join(" and "));
            Err(MysqlError::UnsupportedServer { what })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_that_would_be_lost_are_named() {
        assert_eq!(unknown_engines(&["InnoDB", "CSV", "ROCKSDB", "TokuDB"]), ["ROCKSDB", "TokuDB"]);
        assert!(unknown_engines(&["MEMORY", "innodb"]).is_empty());
    }

    #[test]
    fn members_by_their_state() {
        assert_eq!(judge_member(None).unwrap(), None);
        assert_eq!(judge_member(Some("ONLINE")).unwrap(), None);
        assert!(judge_member(Some("OFFLINE")).unwrap().is_some());
        for state in ["RECOVERING", "ERROR", "UNREACHABLE"] {
            assert!(judge_member(Some(state)).unwrap_err().to_string().contains(state));
        }
    }

    #[test]
    fn keyrings_by_their_name() {
        judge_keyring(&["component_keyring_file"]).unwrap();
        for other in ["component_keyring_kmip", "component_keyring_vault", "keyring_file", "component_keyring_aws"] {
            let error = judge_keyring(&[other]).unwrap_err();
            assert!(matches!(&error, MysqlError::UnsupportedServer { what } if what.contains(other)), "{error}");
        }
        assert!(matches!(judge_keyring(&[]), Err(MysqlError::Preflight { .. })));
    }
}
