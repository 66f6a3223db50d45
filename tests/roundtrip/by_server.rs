//! Round trips whose redo a server recovers: what native recovery is measured against, and what is left where it refuses.

use super::support::round;
use super::support::server::Server;
use super::{Builder, Trip};

fn by_server(source: Builder) -> Trip {
    let mut trip = Trip::new(source);
    trip.recovery = round::Recovery::Server;
    trip
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_16k() {
    by_server(Server::builder()).into_a_folder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_at_rest_encryption() {
    let source = Server::builder()
        .keyring()
        .option("innodb_redo_log_encrypt", "ON")
        .option("innodb_undo_log_encrypt", "ON")
        .option("binlog_encryption", "ON");
    let mut trip = by_server(source);
    trip.workload.encrypted = true;
    trip.into_a_folder().await;
}
