//! Servers of every kind start, stop, die and come back.

use std::time::Duration;

use crate::support::server::{Server, install};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_survives_stop_and_kill() {
    let mut server = Server::builder().start().await;
    server.sql("CREATE DATABASE d;\nCREATE TABLE d.t (a INT PRIMARY KEY);\nINSERT INTO d.t VALUES (1), (2)").await;
    server.restart().await;
    server.sql("INSERT INTO d.t VALUES (3)").await;
    server.kill9();
    assert!(!server.is_running());
    server.start().await;
    let (count,): (u64,) = server.row("SELECT COUNT(*) FROM d.t").await;
    assert_eq!(count, 3);
    assert!(server.variable("version").await.starts_with(&install().version));
    assert!(server.gtid_executed().await.contains(":1-"), "GTIDs are on");
    server.error_log().assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_size_starts() {
    for page_size in [4, 8, 16, 32, 64].map(|k| k << 10) {
        let server = Server::builder().page_size(page_size).start().await;
        assert_eq!(server.variable("innodb_page_size").await, page_size.to_string());
        server.error_log().assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_are_two() {
    let (one, two) = tokio::join!(Server::builder().start(), Server::builder().start());
    assert_ne!(one.variable("server_uuid").await, two.variable("server_uuid").await);
    assert_ne!(one.server_id(), two.server_id());
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_are_where_they_are_said_to_be() {
    let server = Server::builder()
        .separate_dirs()
        .system_files("one:12M;two:12M:autoextend")
        .lower_case_table_names(1)
        .start()
        .await;
    for file in [
        server.undo_dir().join("undo_001"),
        server.redo_home().join("#innodb_redo"),
        server.binlog_dir().join("binlog.index"),
        server.data_home().join("one"),
        server.data_home().join("two"),
    ] {
        assert!(file.exists(), "{} is missing", file.display());
        assert!(!file.starts_with(server.datadir()));
    }
    assert_eq!(server.variable("lower_case_table_names").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyring_encrypts_and_a_sibling_may_share_it() {
    let mut server = Server::builder().keyring().start().await;
    server.sql("CREATE DATABASE d;\nCREATE TABLE d.t (a INT) ENCRYPTION='Y';\nINSERT INTO d.t VALUES (7)").await;
    server.stop().await;
    let keys = server.keyring_file().unwrap();
    assert!(std::fs::read_to_string(keys).unwrap().contains("INNODBKey"));
    let second = server.sibling().on_datadir(server.datadir()).start().await;
    assert_eq!(second.row::<(i32,)>("SELECT a FROM d.t").await, (7,));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_tells_why() {
    let empty = crate::support::server::scratch();
    let mut server = Server::builder().on_datadir(empty.path()).create();
    let log = server.try_start().await.unwrap_err();
    assert!(log.contains("[ERROR]"), "{log}");
    assert!(!server.error_log().errors().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_server_is_gone() {
    let server = Server::builder().start().await;
    let (pid, root) = (server.pid().unwrap(), server.root().to_owned());
    drop(server);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!root.exists());
}
