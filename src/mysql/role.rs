//! What a server is among its kind: the one that takes writes, or one that follows another.
//!
//! ```text
//!   member of a group, ONLINE      as the group says: PRIMARY, SECONDARY
//!   otherwise                      follows a channel, or takes no writes ─► replica;   else ─► primary
//! ```
//! Needs no privilege beyond those that a backup takes.

use super::error::MysqlError;
use super::log_status::LogStatus;
use super::session::Session;

const GROUP: &str = "SELECT MEMBER_ID, MEMBER_STATE, MEMBER_ROLE FROM performance_schema.replication_group_members";

/// What a server is among its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows another one.
    Replica,
}

/// A server and its role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRole {
    /// `server_uuid`.
    pub uuid: String,
    /// What it is.
    pub role: Role,
    /// Why it is no good source although it answers: a member of a group that is not ONLINE.
    pub unfit: Option<String>,
}

impl ServerRole {
    /// Asks the server.
    pub async fn read(session: &mut Session) -> Result<Self, MysqlError> {
        let status = LogStatus::read(session).await?;
        Self::beside(session, &status).await
    }

    /// Asks a server whose logs were looked at a moment ago.
    pub async fn beside(session: &mut Session, status: &LogStatus) -> Result<Self, MysqlError> {
        let group = session.rows("read the members of the replication group", GROUP).await?;
        let read_only = session.row("read the variable read_only", "SELECT @@GLOBAL.read_only").await?;
        let own = group.iter().find(|row| row.text_or_empty(0) == status.server_uuid);
        let (role, unfit) = judge(
            own.map(|row| (row.text_or_empty(1), row.text_or_empty(2))),
            !status.channels.is_empty(),
            read_only.text_or_empty(0) == "1",
        );
        Ok(Self { uuid: status.server_uuid.clone(), role, unfit })
    }
}

/// `member` is what the group says of this server: state and role.
fn judge(member: Option<(&str, &str)>, follows: bool, read_only: bool) -> (Role, Option<String>) {
    let alone = if follows || read_only { Role::Replica } else { Role::Primary };
    match member {
        Some(("ONLINE", "PRIMARY")) => (Role::Primary, None),
        Some(("ONLINE", _)) => (Role::Replica, None),
        None | Some(("OFFLINE" | "", _)) => (alone, None),
        Some((state, _)) => (alone, Some(format!("this member of the replication group is {state}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_knows_best() {
        assert_eq!(judge(Some(("ONLINE", "PRIMARY")), true, true), (Role::Primary, None));
        assert_eq!(judge(Some(("ONLINE", "SECONDARY")), false, false), (Role::Replica, None));
        let (_, unfit) = judge(Some(("RECOVERING", "")), true, true);
        assert_eq!(unfit.as_deref(), Some("this member of the replication group is RECOVERING"));
    }

    #[test]
    fn outside_of_a_group_channels_and_read_only_tell() {
        assert_eq!(judge(None, false, false).0, Role::Primary);
        assert_eq!(judge(None, true, false).0, Role::Replica);
        assert_eq!(judge(None, false, true).0, Role::Replica);
        assert_eq!(judge(Some(("OFFLINE", "")), false, false), (Role::Primary, None));
    }
}
