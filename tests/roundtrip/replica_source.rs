//! The backup of a server that follows another one.

use super::start_on;
use super::support::cli::Cli;
use super::support::server::{Server, scratch};
use super::support::{replica, round};

/// It knows of relay logs that did not come along, which the report says; then it follows as any other does.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_a_replica_follows_once_it_has_forgotten_whom() {
    let source = Server::builder().start().await;
    let follower = Server::builder().start().await;
    replica::follow(&follower, &source).await;
    source.sql("CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, v INT)").await;
    source.sql("INSERT INTO d.t (v) VALUES (1), (2), (3)").await;
    replica::catch_up(&follower, &source).await;
    round::minimal_user(&follower).await;
    let (_folder, store) = round::folder_store();
    round::backup(&follower, &store).json().await;
    let manifest = Cli::new("show").args(["--store", &store, "backup"]).json().await;
    assert_eq!(manifest["server"]["role"], "Replica", "{manifest}");

    let target = scratch();
    let datadir = target.path().join("data");
    let restored = Cli::restore(&store, "backup", &datadir).json().await;
    let said = restored["isolation"].to_string();
    assert!(said.contains("RESET REPLICA ALL, then CHANGE REPLICATION SOURCE"), "{said}");

    let copy = start_on(&follower, &datadir, &restored).await;
    copy.sql("RESET REPLICA ALL").await;
    source.sql("INSERT INTO d.t (v) VALUES (4)").await;
    replica::prove_replica(&copy, &source).await;
    assert_eq!(copy.row::<(u64,)>("SELECT COUNT(*) FROM d.t").await, (4,));
}
