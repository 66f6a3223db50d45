//! What must be true of a database that the workload wrote to, wherever it was restored.

use std::collections::BTreeMap;
use std::time::Instant;

use mysql_async::prelude::Queryable as _;

use super::schema::{MAIN, PLAIN, holder};
use super::{BALANCE, Options, PlainRow, Stats};
use crate::support::server::Server;

/// Panics unless both invariants hold, and what else the workload promises.
pub async fn check_invariants(server: &Server, options: &Options) {
    let (sum, accounts): (i64, u64) =
        server.row(&format!("SELECT CAST(SUM(balance) AS SIGNED), COUNT(*) FROM {MAIN}.accounts")).await;
    assert_eq!(accounts, options.accounts, "accounts are missing");
    assert_eq!(sum, i64::try_from(BALANCE * accounts).unwrap(), "money was made or lost");
    let (audited,): (i64,) =
        server.row(&format!("SELECT CAST(COALESCE(SUM(change_by), 0) AS SIGNED) FROM {MAIN}.audit")).await;
    assert_eq!(audited, 0, "the trigger's table tells of other transfers than were made");

    for (writer, (first, last, count)) in sequences(server).await {
        assert_eq!((first, count), (1, last), "the sequence of writer {writer} has gaps (first, count against last)");
    }

    for (what, query) in [
        (
            "children without parent",
            format!(
                "SELECT COUNT(*) FROM {MAIN}.child c LEFT JOIN {MAIN}.parent p ON p.id = c.parent_id WHERE p.id IS NULL AND c.parent_id IS NOT NULL"
            ),
        ),
        (
            "stored columns that differ from their expression",
            format!("SELECT COUNT(*) FROM {MAIN}.generated WHERE head <> LEFT(pad, 15) OR twice <> 2 * k"),
        ),
        (
            "rows that a multi-valued index lost",
            format!(
                "SELECT (SELECT COUNT(*) FROM {MAIN}.multi_valued WHERE 7 MEMBER OF (doc->'$.tags')) - (SELECT COUNT(*) FROM {MAIN}.multi_valued IGNORE INDEX (tags) WHERE 7 MEMBER OF (doc->'$.tags'))"
            ),
        ),
        (
            "points that a spatial index lost",
            format!(
                "SELECT (SELECT COUNT(*) FROM {MAIN}.spatial_places FORCE INDEX (g) WHERE MBRContains(ST_GeomFromText('POLYGON((0 0, 0 5000, 5000 5000, 5000 0, 0 0))'), g)) - (SELECT COUNT(*) FROM {MAIN}.spatial_places IGNORE INDEX (g) WHERE MBRContains(ST_GeomFromText('POLYGON((0 0, 0 5000, 5000 5000, 5000 0, 0 0))'), g))"
            ),
        ),
    ] {
        let (count,): (i64,) = server.row(&query).await;
        assert_eq!(count, 0, "{what}");
    }
    check_full_text(server).await;
    if options.plain {
        check_plain(server).await;
    }
}

/// The full-text index finds exactly the rows that have the word.
///
/// After a crash a server itself does not promise that (MySQL 9.7.4, seen after kill -9 without any backup): when the
/// cache of new words is written to the index's tables, every document number below the highest written one counts as
/// written. A row whose transaction was still open at that moment gets into the cache at its commit, and into the
/// tables by the next writing; a crash before that loses it for the index, while the row itself stays. So the servers
/// of the tests have a cache that does not fill up, and the workload writes it once while no transaction is open. Then
/// recovery reads all later rows again, and the promise is exact.
async fn check_full_text(server: &Server) {
    let on_disk = "SELECT COUNT(*) FROM information_schema.INNODB_FT_INDEX_TABLE";
    server.sql(&format!("SET GLOBAL innodb_ft_aux_table = '{MAIN}/full_text'")).await;
    assert!(server.row::<(u64,)>(on_disk).await.0 > 0, "nothing of the full-text index is on disk");
    let mut conn = server.connect().await;
    // Nobody may write in between. This waits for open transactions.
    conn.query_drop(format!("LOCK TABLES {MAIN}.full_text READ")).await.expect("cannot lock");
    let mut ids = Vec::new();
    for condition in ["MATCH (body) AGAINST ('+stillframe' IN BOOLEAN MODE)", "body REGEXP '\\\\bstillframe\\\\b'"] {
        let query = format!("SELECT id FROM {MAIN}.full_text WHERE {condition} ORDER BY id");
        ids.push(conn.query::<u64, _>(&query).await.unwrap_or_else(|error| panic!("{error}\nin: {query}")));
    }
    conn.disconnect().await.ok();
    let (there, found) = (ids.pop(), ids.pop());
    assert_eq!(found, there, "the full-text index and its table do not tell of the same rows");
}

async fn check_plain(server: &Server) {
    for (table, _) in PLAIN {
        let table = holder(table);
        let (last, count, different): (u64, u64, u64) =
            server.row(&format!("SELECT COALESCE(MAX(id), 0), COUNT(*), COUNT(DISTINCT id) FROM {MAIN}.{table}")).await;
        assert_eq!((count, different), (last, last), "{table} has gaps or double rows");
    }
    let (missing,): (i64,) = server
        .row(&format!(
            "SELECT (SELECT COUNT(*) FROM {MAIN}.merged) - (SELECT COUNT(*) FROM {MAIN}.merge_one) \
             - (SELECT COUNT(*) FROM {MAIN}.merge_two)"
        ))
        .await;
    assert_eq!(missing, 0, "the merge table does not see its children");
}

/// First, last and count of each writer's sequence.
async fn sequences(server: &Server) -> BTreeMap<u32, (u64, u64, u64)> {
    let query = format!("SELECT writer, MIN(seq), MAX(seq), COUNT(*) FROM {MAIN}.sequence GROUP BY writer");
    let rows: Vec<(u32, u64, u64, u64)> = server.rows(&query).await;
    rows.into_iter().map(|(writer, first, last, count)| (writer, (first, last, count))).collect()
}

/// Panics unless the database is the writers' work as of one moment between `earliest` and `latest`: every commit that
/// was acknowledged before is there, and nothing of a transaction that began after.
pub async fn check_cut(server: &Server, stats: &Stats, earliest: Instant, latest: Instant) {
    let found = sequences(server).await;
    for writer in stats.writers.iter().filter(|writer| writer.writer != 0) {
        let last = found.get(&writer.writer).map_or(0, |&(_, last, _)| last);
        let must = writer.commits.iter().filter(|commit| commit.done < earliest).map(|commit| commit.seq).max();
        let may_not = writer.commits.iter().filter(|commit| commit.started > latest).map(|commit| commit.seq).min();
        if let Some(must) = must {
            assert!(
                last >= must,
                "writer {}: acknowledged commit {must} is missing, {last} is the last",
                writer.writer
            );
        }
        if let Some(may_not) = may_not {
            assert!(last < may_not, "writer {}: {last} is there, but began after the cut ({may_not})", writer.writer);
        }
    }
    for writer in stats.writers.iter().filter(|writer| writer.writer == 0) {
        check_plain_cut(server, &writer.plain_rows, earliest, latest).await;
    }
}

/// The same for tables without transactions.
async fn check_plain_cut(server: &Server, rows: &[PlainRow], earliest: Instant, latest: Instant) {
    for (table, _) in PLAIN {
        let query = format!("SELECT COALESCE(MAX(id), 0) FROM {MAIN}.{}", holder(table));
        let (last,): (u64,) = server.row(&query).await;
        let rows = || rows.iter().filter(|row| row.table == table);
        let must = rows().filter(|row| row.done < earliest).map(|row| row.id).max().unwrap_or(0);
        assert!(last >= must, "{table}: acknowledged row {must} is missing, {last} is the last");
        if let Some(may_not) = rows().filter(|row| row.started > latest).map(|row| row.id).min() {
            assert!(last < may_not, "{table}: row {last} is there, but came after the cut ({may_not})");
        }
    }
}
