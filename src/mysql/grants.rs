//! The privileges that a backup takes, in one table: what `stillframe grants` prints and what preflight looks for.
//!
//! `SHOW GRANTS` is read as the server prints it, with all roles on:
//!
//! ```text
//!   GRANT RELOAD, PROCESS ON *.* TO `b`@`%`                        a level: all, a schema (a pattern), a table
//!   GRANT SELECT, SELECT (`a`) ON `performance\\_schema`.* TO …     columns are not enough and are passed over
//!   REVOKE SELECT ON `performance_schema`.* FROM …                 a partial revoke takes back from "all"
//!   GRANT `role`@`%` TO …                                          its privileges are listed as one's own
//! ```

use std::collections::BTreeSet;

use super::error::MissingPrivilege;
use super::error::MysqlError;
use super::session::Session;

/// Privileges on everything, and what for.
const GLOBAL: &[(&str, &str)] = &[
    ("BACKUP_ADMIN", "LOCK INSTANCE FOR BACKUP, log_status, the redo consumer"),
    ("RELOAD", "flush and rotate logs, FLUSH TABLES WITH READ LOCK"),
    ("PROCESS", "list tablespace files, see who waits for a lock"),
];

const SCHEMA: &str = "performance_schema";

/// Tables of `performance_schema` to read, and what for.
const TABLES: &[(&str, &str)] = &[
    ("log_status", "the point in time that the backup is"),
    ("metadata_locks", "prove that the lock is still held"),
    ("threads", "see who would be in the way of the global read lock"),
    ("table_handles", "the same"),
    ("events_statements_current", "the same"),
    ("setup_instruments", "whether the server shows that"),
    ("keyring_component_status", "which keyring holds the keys of encrypted data"),
    ("replication_group_members", "whether a member of a group is ONLINE"),
];

/// The SQL that makes the user for backups `user`@`host`, with nothing that is not needed.
pub fn grants_sql(user: &str, host: &str) -> String {
    let account = format!("{}@{}", quoted(user), quoted(host));
    let global: Vec<&str> = GLOBAL.iter().map(|(name, _)| *name).collect();
    let mut lines = vec![
        format!("CREATE USER IF NOT EXISTS {account} IDENTIFIED BY RANDOM PASSWORD;\n"),
        format!("GRANT {} ON *.* TO {account};\n", global.join(", ")),
    ];
    lines.extend(TABLES.iter().map(|(table, _)| format!("GRANT SELECT ON {SCHEMA}.{table} TO {account};\n")));
    lines.concat()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Fails with every privilege that the session's user lacks.
pub(super) async fn check_privileges(session: &mut Session) -> Result<(), MysqlError> {
    let act = "read the user's privileges";
    let account = session.row(act, "SELECT CURRENT_USER()").await?.text_or_empty(0).to_owned();
    let lines = session.rows(act, "SHOW GRANTS").await?;
    let lines: Vec<&str> = lines.iter().map(|row| row.text_or_empty(0)).collect();
    let (user, host) = account.rsplit_once('@').unwrap_or((&account, "%"));
    let user = format!("{}@{}", quoted(user), quoted(host));
    let missing = missing_privileges(&lines, &user);
    if missing.is_empty() { Ok(()) } else { Err(MysqlError::Privileges { user, missing }) }
}

/// What a user with these lines of `SHOW GRANTS` lacks.
fn missing_privileges(lines: &[&str], account: &str) -> Vec<MissingPrivilege> {
    let granted = Granted::parse(lines);
    let global = GLOBAL.iter().filter(|(name, _)| !granted.global(name)).map(|(name, _)| MissingPrivilege {
        privilege: (*name).to_owned(),
        grant: format!("GRANT {name} ON *.* TO {account}"),
    });
    let tables = TABLES.iter().filter(|(table, _)| !granted.select(table)).map(|(table, _)| MissingPrivilege {
        privilege: format!("SELECT ON {SCHEMA}.{table}"),
        grant: format!("GRANT SELECT ON {SCHEMA}.{table} TO {account}"),
    });
    global.chain(tables).collect()
}

/// What `SHOW GRANTS` says, as far as it matters here.
#[derive(Debug, Default)]
struct Granted {
    global: BTreeSet<String>,
    schema_select: bool,
    schema_revoked: bool,
    table_select: BTreeSet<String>,
}

impl Granted {
    fn parse(lines: &[&str]) -> Self {
        let mut granted = Self::default();
        for line in lines {
            granted.take(line);
        }
        granted
    }

    fn take(&mut self, line: &str) {
        let (gives, rest) = match (line.strip_prefix("GRANT "), line.strip_prefix("REVOKE ")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return,
        };
        // A role, a proxy, a routine: none of them has this form and gives what is looked for.
        let Some((privileges, rest)) = split_once_outside(rest, " ON ") else { return };
        let Some((object, _)) = split_once_outside(rest, if gives { " TO " } else { " FROM " }) else { return };
        let names = privilege_names(privileges);
        let selects = names.iter().any(|name| name == "SELECT" || name.starts_with("ALL"));
        let object = object.strip_prefix("TABLE ").unwrap_or(object);
        let Some((schema, table)) = split_once_outside(object, ".") else { return };
        let (schema, table) = (unquoted(schema), unquoted(table));
        match (schema.as_str(), table.as_str()) {
            ("*", "*") if gives => self.global.extend(names),
            (pattern, "*") if selects && gives => self.schema_select |= matches_schema(pattern),
            (pattern, "*") if selects => self.schema_revoked |= matches_schema(pattern),
            (SCHEMA, table) if selects && gives => {
                self.table_select.insert(table.to_owned());
            }
            _ => {}
        }
    }

    fn global(&self, name: &str) -> bool {
        self.global.contains(name) || self.global.contains("ALL PRIVILEGES") || self.global.contains("ALL")
    }

    fn select(&self, table: &str) -> bool {
        self.table_select.contains(table) || self.schema_select || (self.global("SELECT") && !self.schema_revoked)
    }
}

/// Splits at the first `separator` that is outside of quotes and parentheses.
fn split_once_outside<'a>(text: &'a str, separator: &str) -> Option<(&'a str, &'a str)> {
    let (mut quote, mut depth) = (None, 0_u32);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (None, _) if depth == 0 && text.get(at..).is_some_and(|rest| rest.starts_with(separator)) => {
                return Some((text.get(..at)?, text.get(at.checked_add(separator.len())?..)?));
            }
            (None, '`' | '\'' | '"') => quote = Some(letter),
            (None, '(') => depth = depth.saturating_add(1),
            (None, ')') => depth = depth.saturating_sub(1),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
    }
    None
}

/// The names in a list of privileges, without those that are for columns only.
fn privilege_names(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = list;
    loop {
        let (name, more) = match split_once_outside(rest, ",") {
            Some((name, more)) => (name, Some(more)),
            None => (rest, None),
        };
        let name = name.trim();
        if !name.contains('(') {
            names.push(name.to_ascii_uppercase());
        }
        match more {
            Some(more) => rest = more,
            None => return names,
        }
    }
}

fn unquoted(text: &str) -> String {
    let text = text.trim();
    match text.strip_prefix('`').and_then(|inner| inner.strip_suffix('`')) {
        Some(inner) => inner.replace("``", "`"),
        None => text.to_owned(),
    }
}

/// True when the pattern of a schema grant (`%`, `_`, `\` before either) is met by `performance_schema`.
fn matches_schema(pattern: &str) -> bool {
    like(&pattern.to_ascii_lowercase().replace("\\\\", "\\").chars().collect::<Vec<_>>(), SCHEMA.as_bytes())
}

fn like(pattern: &[char], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['%', rest @ ..] => (0..=text.len()).any(|skip| text.get(skip..).is_some_and(|tail| like(rest, tail))),
        ['\\', exact, rest @ ..] => {
            text.split_first().is_some_and(|(&b, tail)| char::from(b) == *exact && like(rest, tail))
        }
        ['_', rest @ ..] => text.split_first().is_some_and(|(_, tail)| like(rest, tail)),
        [exact, rest @ ..] => text.split_first().is_some_and(|(&b, tail)| char::from(b) == *exact && like(rest, tail)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_and_the_example_have_the_same_sql() {
        let sql = grants_sql("stillframe", "%");
        let page = include_str!("../../docs/grants.md");
        assert!(page.contains(&sql), "docs/grants.md does not show\n{sql}");
        let example = include_str!("../../manifests/examples/mysql.yaml");
        for line in sql.lines().filter(|line| line.starts_with("GRANT")) {
            assert!(example.contains(line), "manifests/examples/mysql.yaml lacks {line}");
        }
    }

    fn lacks(lines: &[&str]) -> Vec<String> {
        missing_privileges(lines, "'b'@'%'").into_iter().map(|missing| missing.privilege).collect()
    }

    const GLOBAL_LINE: &str = "GRANT RELOAD, PROCESS ON *.* TO `b`@`%`";
    const DYNAMIC_LINE: &str = "GRANT BACKUP_ADMIN ON *.* TO `b`@`%`";

    #[test]
    fn the_minimal_user_lacks_nothing_and_each_line_counts() {
        let tables: Vec<String> =
            TABLES.iter().map(|(t, _)| format!("GRANT SELECT ON `performance_schema`.`{t}` TO `b`@`%`")).collect();
        let mut lines = vec![GLOBAL_LINE, DYNAMIC_LINE];
        lines.extend(tables.iter().map(String::as_str));
        assert_eq!(lacks(&lines), [""; 0]);
        for index in 0..lines.len() {
            let mut fewer = lines.clone();
            fewer.remove(index);
            assert!(!lacks(&fewer).is_empty(), "without {}", lines[index]);
        }
    }

    #[test]
    fn a_user_without_anything_is_told_all_of_it() {
        let missing = missing_privileges(&["GRANT USAGE ON *.* TO `b`@`%`"], "'b'@'%'");
        assert_eq!(missing.len(), GLOBAL.len() + TABLES.len());
        assert_eq!(missing[0].grant, "GRANT BACKUP_ADMIN ON *.* TO 'b'@'%'");
        assert_eq!(missing[3].grant, "GRANT SELECT ON performance_schema.log_status TO 'b'@'%'");
    }

    #[test]
    fn wider_grants_count() {
        for select in [
            "GRANT SELECT ON *.* TO `b`@`%`",
            "GRANT SELECT, INSERT ON `performance_schema`.* TO `b`@`%`",
            "GRANT SELECT ON `performance\\\\_schema`.* TO `b`@`%`",
            "GRANT ALL PRIVILEGES ON `perf%`.* TO `b`@`%` WITH GRANT OPTION",
        ] {
            assert_eq!(lacks(&[GLOBAL_LINE, DYNAMIC_LINE, select]), [""; 0], "{select}");
        }
        assert_eq!(lacks(&["GRANT ALL PRIVILEGES ON *.* TO 'root'@'localhost' WITH GRANT OPTION"]), [""; 0]);
    }

    #[test]
    fn narrower_grants_do_not() {
        for select in [
            "GRANT SELECT (`server_uuid`) ON `performance_schema`.`log_status` TO `b`@`%`",
            "GRANT SELECT ON `mysql`.* TO `b`@`%`",
            "GRANT EXECUTE ON PROCEDURE `performance_schema`.`log_status` TO `b`@`%`",
            "GRANT SELECT ON `x ON performance_schema`.* TO `b`@`%`",
            "GRANT `BACKUP_ADMIN`@`%` TO `b`@`%`",
            "GRANT PROXY ON ``@`` TO `b`@`%`",
        ] {
            assert_eq!(lacks(&[GLOBAL_LINE, DYNAMIC_LINE, select]).len(), TABLES.len(), "{select}");
        }
        let revoked = ["GRANT SELECT ON *.* TO `b`@`%`", "REVOKE SELECT ON `performance_schema`.* FROM `b`@`%`"];
        assert_eq!(lacks(&[GLOBAL_LINE, DYNAMIC_LINE, revoked[0], revoked[1]]).len(), TABLES.len());
    }

    #[test]
    fn names_are_quoted_as_sql() {
        let sql = grants_sql("it's", "10.0.0.%");
        assert!(sql.contains("'it''s'@'10.0.0.%'"), "{sql}");
        assert_eq!(sql.lines().count(), 2 + TABLES.len());
        assert!(sql.lines().all(|line| line.ends_with(';')));
    }
}
