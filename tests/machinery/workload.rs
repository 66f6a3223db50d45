//! The workload itself, on servers without a backup: its invariants hold, through a crash too.

use std::time::{Duration, Instant};

use crate::support::server::Server;
use crate::support::workload::{Options, Workload, check_cut, check_invariants};

#[tokio::test(flavor = "multi_thread")]
async fn invariants_hold_while_writers_work_and_after_a_crash() {
    let mut server = Server::builder().start().await;
    let options = Options::default();
    let began = Instant::now();
    let workload = Workload::create(&server, &options).await;
    println!("created in {:?}", began.elapsed());
    let running = workload.start(3).await;
    running.wait_for(200).await;
    check_invariants(&server, &options).await;
    let crash = Instant::now();
    server.kill9();
    let stats = running.stop().await;
    println!("{} commits in {:?}, slowest {:?}", stats.commits(), began.elapsed(), stats.slowest_transaction());
    assert!(stats.writers.iter().all(|writer| writer.lost));
    server.start().await;
    check_invariants(&server, &options).await;
    check_cut(&server, &stats, crash, Instant::now()).await;
    server.error_log().assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_all_kinds_exist_for_every_page_size() {
    for page_size in [4, 8, 32, 64].map(|k| k << 10) {
        let server = Server::builder().page_size(page_size).start().await;
        let options = Options { rows: 20, ..Options::default() };
        let workload = Workload::create(&server, &options).await;
        let running = workload.start(2).await;
        running.wait_for(50).await;
        let stats = running.stop().await;
        assert!(stats.commits() >= 50);
        check_invariants(&server, &options).await;
        server.error_log().assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_goes_on_where_the_first_ended() {
    let server = Server::builder().keyring().separate_dirs().start().await;
    let options = Options { encrypted: true, rows: 20, ..Options::default() };
    let workload = Workload::create(&server, &options).await;
    for _ in 0..2 {
        let running = workload.start(2).await;
        running.wait_for(30).await;
        running.stop().await;
    }
    workload.fill(3 << 20).await;
    check_invariants(&server, &options).await;
    let (rows,): (u64,) = server.row("SELECT COUNT(*) FROM sf.bulk").await;
    assert!(rows >= 700, "{rows}");
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "money was made or lost")]
async fn lost_money_is_found() {
    let server = Server::builder().start().await;
    let options = Options { rows: 5, plain: false, ..Options::default() };
    Workload::create(&server, &options).await;
    server.sql("UPDATE sf.accounts SET balance = balance - 1 WHERE id = 7").await;
    check_invariants(&server, &options).await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "is missing")]
async fn a_lost_commit_is_found() {
    let server = Server::builder().start().await;
    let options = Options { rows: 5, plain: false, slow_writers: 0, ..Options::default() };
    let running = Workload::create(&server, &options).await.start(1).await;
    running.wait_for(10).await;
    let stats = running.stop().await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    server.sql("DELETE FROM sf.sequence ORDER BY seq DESC LIMIT 1").await;
    let now = Instant::now();
    check_cut(&server, &stats, now, now).await;
}
