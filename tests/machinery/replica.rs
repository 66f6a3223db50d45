//! Replica and comparison, proven on copies that the server's own clean shutdown makes possible.

use std::process::Command;

use crate::support::replica::{catch_up, check_tables, checksums, compare_checksums, follow, prove_replica};
use crate::support::server::Server;
use crate::support::workload::{Options, Workload, check_invariants};

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_copy_becomes_a_replica_with_equal_tables() {
    let mut source = Server::builder().start().await;
    // The copy would find the source's own external files.
    let options = Options { rows: 20, external: false, ..Options::default() };
    let workload = Workload::create(&source, &options).await;
    source.stop().await;
    let place = crate::support::server::scratch();
    let copy = place.path().join("copy");
    let copied = Command::new("cp").arg("-a").args([source.datadir(), &copy]).status().unwrap();
    assert!(copied.success());
    std::fs::remove_file(copy.join("auto.cnf")).unwrap();
    source.start().await;

    let running = workload.start(2).await;
    running.wait_for(60).await;
    let replica = source.sibling().on_datadir(&copy).start().await;
    follow(&replica, &source).await;
    running.wait_for(60).await;
    running.stop().await;
    catch_up(&replica, &source).await;
    assert!(compare_checksums(&source, &replica).await > 50);
    assert!(check_tables(&replica).await > 45);
    check_invariants(&replica, &options).await;
    replica.error_log().assert_clean();

    assert_eq!(checksums(&source).await, checksums(&source).await, "sums are the same ones each time");
    replica.sql("STOP REPLICA;\nUPDATE sf.row_compact SET k = k + 1 LIMIT 1").await;
    replica.sql("UPDATE sf.multi_valued SET k = k + 1 LIMIT 1").await;
    let (one, other) = (checksums(&source).await, checksums(&replica).await);
    let different: Vec<_> = one.iter().filter(|(table, sum)| other[*table] != **sum).map(|(table, _)| table).collect();
    assert_eq!(different, ["`sf`.`multi_valued`", "`sf`.`row_compact`"], "differences are seen");
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "replication stopped")]
async fn a_replica_that_misses_a_row_is_found_out() {
    let source = Server::builder().start().await;
    source.sql("CREATE DATABASE d;\nCREATE TABLE d.t (a INT PRIMARY KEY)").await;
    let replica = Server::builder().start().await;
    prove_replica(&replica, &source).await;
    replica.sql("SET sql_log_bin = 0;\nCREATE DATABASE e").await;
    source.sql("CREATE DATABASE e").await;
    prove_replica(&replica, &source).await;
}
