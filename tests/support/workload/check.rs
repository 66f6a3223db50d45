//! What must be true of a database that the workload wrote to, wherever it was restored.

use std::collections::BTreeMap;
use std::time::Instant;

use super::schema::{MAIN, PLAIN};
use super::{BALANCE, Options, Stats};
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
            "rows that a full-text index lost",
            format!(
                "SELECT (SELECT COUNT(*) FROM {MAIN}.full_text WHERE MATCH (body) AGAINST ('+stillframe' IN BOOLEAN MODE)) - (SELECT COUNT(*) FROM {MAIN}.full_text WHERE body LIKE '% stillframe %')"
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
    if options.plain {
        check_plain(server).await;
    }
}

async fn check_plain(server: &Server) {
    for (table, _) in PLAIN {
        // What comes through the merge table is in its second child.
        let table = if table == "merged" { "merge_two" } else { table };
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
}
