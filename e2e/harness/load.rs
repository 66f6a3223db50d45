//! Writers in the cluster that never rest, and what must hold of what they write. The tables are in `fixtures/schema.sql`.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::mysql::Mysql;
use super::{MYSQL_IMAGE, fill, until};

/// The sum of all accounts: 400 of them, 1000 each.
const SUM: &str = "400000";

/// Writers at work on a server.
pub struct Load {
    mysql: Mysql,
    member: u32,
}

impl Load {
    /// Makes the tables in a member of `mysql`, starts writers, and waits until they have written something.
    pub async fn start(mysql: &Mysql, member: u32) -> Result<Self> {
        mysql.sql(member, include_str!("../fixtures/schema.sql")).await?;
        let host = mysql.host(member);
        let values = [("NAME", "load"), ("IMAGE", MYSQL_IMAGE), ("HOST", &host), ("WRITERS", "2"), ("PAUSE", "3")];
        mysql.space.apply(&fill(include_str!("../fixtures/load.yaml"), &values)).await?;
        let load = Self { mysql: mysql.clone(), member };
        load.more(100).await?;
        Ok(load)
    }

    /// Waits until so many more transactions are committed.
    pub async fn more(&self, transactions: u64) -> Result<()> {
        let wanted = self.committed().await? + transactions;
        until(&format!("{wanted} transactions"), Duration::from_mins(5), || async {
            let committed = self.committed().await?;
            Ok(if committed >= wanted { Ok(()) } else { Err(committed.to_string()) })
        })
        .await
    }

    /// How many transactions are committed.
    pub async fn committed(&self) -> Result<u64> {
        Ok(self.mysql.sql(self.member, "SELECT COALESCE(SUM(entries), 0) FROM shop.progress").await?.parse()?)
    }

    /// Ends the writers, and waits until no connection of theirs is left.
    pub async fn stop(&self) -> Result<()> {
        let space = &self.mysql.space;
        space.patch("Deployment", "load", &json!({ "spec": { "replicas": 0 } })).await?;
        until("the writers to end", Duration::from_mins(3), || async {
            let left = self
                .mysql
                .sql(self.member, "SELECT COUNT(*) FROM performance_schema.processlist WHERE USER = 'writer'")
                .await?;
            Ok(if left == "0" && space.list("Pod", "app=load").await?.is_empty() { Ok(()) } else { Err(left) })
        })
        .await
    }
}

/// Fails unless what must hold of the writers' tables holds in a member. Returns how many transactions it has.
pub async fn check_invariants(mysql: &Mysql, member: u32) -> Result<u64> {
    let sum = mysql.sql(member, "SELECT SUM(balance) FROM shop.account").await?;
    ensure!(sum == SUM, "{}: the accounts' sum is {sum}, not {SUM}", mysql.pod(member));
    let gaps = mysql
        .sql(
            member,
            "SELECT p.writer, p.entries, COUNT(e.number), COALESCE(MIN(e.number), 1), COALESCE(MAX(e.number), 0) \
             FROM shop.progress p LEFT JOIN shop.entry e USING (writer) GROUP BY p.writer, p.entries \
             HAVING p.entries <> COUNT(e.number) OR p.entries <> COALESCE(MAX(e.number), 0) OR COALESCE(MIN(e.number), 1) <> 1",
        )
        .await?;
    ensure!(
        gaps.is_empty(),
        "{}: entries are missing (writer, progress, entries, first, last): {gaps}",
        mysql.pod(member)
    );
    let moved = mysql
        .sql(
            member,
            "SELECT COUNT(*) FROM shop.account a LEFT JOIN (SELECT id, SUM(amount) moved FROM (\
             SELECT credit id, amount FROM shop.entry WHERE debit <> credit UNION ALL SELECT debit, -amount FROM shop.entry WHERE debit <> credit) m \
             GROUP BY id) m USING (id) WHERE a.balance <> 1000 + COALESCE(m.moved, 0)",
        )
        .await?;
    ensure!(moved == "0", "{}: {moved} accounts differ from the entries about them", mysql.pod(member));
    Ok(mysql.sql(member, "SELECT COALESCE(SUM(entries), 0) FROM shop.progress").await?.parse()?)
}

/// Runs CHECK TABLE over every table of the writers' in a member.
pub async fn check_tables(mysql: &Mysql, member: u32) -> Result<()> {
    let tables = mysql
        .sql(
            member,
            "SELECT CONCAT('`shop`.`', TABLE_NAME, '`') FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'shop'",
        )
        .await?;
    let tables: Vec<&str> = tables.lines().collect();
    let said = mysql.sql(member, &format!("CHECK TABLE {} EXTENDED", tables.join(", "))).await?;
    let bad: Vec<&str> = said.lines().filter(|line| !line.ends_with("\tOK")).collect();
    ensure!(bad.is_empty() && said.lines().count() == tables.len(), "{}: CHECK TABLE says {bad:?}", mysql.pod(member));
    Ok(())
}
