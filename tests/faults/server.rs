//! Faults of the source: redo that is lost, servers that die, restart or are reset, pages that are damaged.

use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use rustix::process::Signal;
use stillframe::ops::error::ErrorKind;

use crate::help::{assert_no_backup, listed, small, status, write_redo};
use crate::support::cli::{Background, Outcome};
use crate::support::round;
use crate::support::server::{Builder, Server};
use crate::support::wait::until;

const MIB: u64 = 1 << 20;

/// A small redo log, and pages that are written at once, so that its old files are used again at once.
fn hasty() -> Builder {
    Server::builder()
        .fresh()
        .option("innodb_redo_log_capacity", "32M")
        .option("innodb_max_dirty_pages_pct", 0)
        .option("innodb_max_dirty_pages_pct_lwm", 0)
        .option("innodb_flush_log_at_trx_commit", 2)
        .option("sync_binlog", 0)
}

/// Stops the process as a disk that hangs would, while the server writes so much redo and needs it no more.
async fn pause_while_written(backup: &mut Background, server: &Server, bytes: u64) {
    backup.wait_until_said("  copy").await;
    // A consumer has told the server where it is by then.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    backup.signal(Signal::STOP);
    let from = status(server, "Innodb_redo_log_current_lsn").await;
    write_redo(server, bytes).await;
    until("pages are written", async || status(server, "Innodb_redo_log_checkpoint_lsn").await > from + bytes / 2)
        .await;
    backup.signal(Signal::CONT);
}

#[tokio::test(flavor = "multi_thread")]
async fn redo_that_was_overwritten_fails_the_backup_and_a_pause_below_half_of_the_log_does_not() {
    let server = small(hasty()).await;
    let (_folder, store) = round::folder_store();
    let mut backup = round::backup(&server, &store).args(["--redo-consumer", "off", "--throttle", "200K"]).spawn();
    pause_while_written(&mut backup, &server, 40 * MIB).await;
    let outcome = backup.wait().await;
    outcome.assert_failed(ErrorKind::RedoOverwritten, "redo from LSN ");
    assert!(outcome.stderr.contains("innodb_redo_log_capacity"), "no advice: {outcome}");
    assert_no_backup(&store).await;
    round::assert_nothing_left(&server).await;

    // Below half of the capacity: it is kept, and what is left to copy is copied without throttle. With it, 70 MiB would
    // take six minutes, and nobody waits for that.
    let mut backup = round::backup(&server, &store).args(["--redo-consumer", "on", "--throttle", "200K"]).spawn();
    pause_while_written(&mut backup, &server, 11 * MIB).await;
    let outcome = backup.wait().await;
    outcome.assert_success();
    assert!(outcome.stderr.contains("the throttle is lifted"), "{outcome}");
    assert_eq!(listed(&store).await.len(), 1, "only the good one is there");
    round::assert_nothing_left(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_restarts_or_is_reset_ends_the_backup() {
    let mut server = small(Server::builder()).await;
    server.sql("FLUSH BINARY LOGS;\nFLUSH BINARY LOGS").await;
    let (_folder, store) = round::folder_store();
    // A copy that takes longer than anybody waits for: these end while they copy.
    let slow = |server: &Server| round::backup(server, &store).args(["--throttle", "200K"]);
    let ended_early = |outcome: &Outcome| {
        outcome.assert_failed(ErrorKind::Connection, "backup lock");
        assert!(!outcome.stderr.contains("  cut"), "it went on without the lock: {outcome}");
    };

    let mut backup = slow(&server).spawn();
    backup.wait_until_said("  copy").await;
    server.kill9();
    ended_early(&backup.wait().await);
    assert_no_backup(&store).await;
    server.start().await;

    // A server that is back within a moment is another one nevertheless: it has no lock.
    let mut backup = slow(&server).spawn();
    backup.wait_until_said("  copy").await;
    server.restart().await;
    ended_early(&backup.wait().await);
    assert_no_backup(&store).await;
    round::assert_nothing_left(&server).await;

    let mut backup = round::backup(&server, &store).args(["--throttle", "3M"]).spawn();
    backup.wait_until_said("  copy").await;
    server.sql("RESET BINARY LOGS AND GTIDS").await;
    backup.wait().await.assert_failed(ErrorKind::SourceChanged, "reset");
    assert_no_backup(&store).await;
    round::assert_nothing_left(&server).await;

    server.sql("ALTER INSTANCE DISABLE INNODB REDO_LOG").await;
    let outcome = round::backup(&server, &store).run().await;
    outcome.assert_failed(ErrorKind::Preflight, "redo log is disabled");
    assert!(outcome.stderr.contains("ALTER INSTANCE ENABLE INNODB REDO_LOG"), "{outcome}");
    assert!(!outcome.stderr.contains("  lock"), "refused before a lock is taken: {outcome}");
    server.sql("ALTER INSTANCE ENABLE INNODB REDO_LOG").await;
    round::backup(&server, &store).run().await.assert_success();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_on_the_servers_disk_is_named() {
    let mut server = small(Server::builder().option("innodb_buffer_pool_load_at_startup", "OFF")).await;
    write_redo(&server, MIB).await;
    let space: (u32,) =
        server.row("SELECT SPACE FROM information_schema.INNODB_TABLESPACES WHERE NAME = 'd/redo'").await;
    server.stop().await;
    let path = server.datadir().join("d/redo.ibd");
    let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    let at = 6 * 16384 + 7000;
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    server.start().await;

    let (_folder, store) = round::folder_store();
    let outcome = round::backup(&server, &store).run().await;
    outcome.assert_failed(ErrorKind::CorruptPage, "d/redo.ibd");
    assert!(outcome.stderr.contains(&format!("(space {}), page 6", space.0)), "{outcome}");
    assert!(outcome.stderr.contains("of table `d`.`redo`"), "{outcome}");
    assert!(outcome.stderr.contains("CHECK TABLE"), "no advice: {outcome}");
    assert_no_backup(&store).await;
    round::assert_nothing_left(&server).await;
}

/// The first page from `from` on of one of these types, and a byte of it that is in use: where page compression leaves
/// out the end, near the beginning of what is left.
fn used_byte(file: &[u8], page_size: usize, types: &[u16]) -> (usize, u64) {
    let is_such = |page: &[u8]| types.contains(&u16::from_be_bytes([page[24], page[25]]));
    let page = file.chunks(page_size).enumerate().skip(5).find(|(_, page)| is_such(page)).expect("no such page").0;
    (page, u64::try_from(page * page_size + 300).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_below_compression_and_encryption() {
    const INDEX: u16 = 17855;
    const TABLES: [(&str, &str, usize, u16); 5] = [
        ("zip", "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4", 4096, INDEX),
        ("holes", "COMPRESSION='zlib'", 16384, 14),
        ("secret", "ENCRYPTION='Y'", 16384, 15),
        ("secret_holes", "ENCRYPTION='Y' COMPRESSION='zlib'", 16384, 16),
        ("secret_zip", "ENCRYPTION='Y' ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4", 4096, 15),
    ];
    let mut server = small(Server::builder().keyring().option("innodb_buffer_pool_load_at_startup", "OFF")).await;
    for (name, options, ..) in TABLES {
        server
            .sql(&format!(
                "CREATE TABLE d.{name} (id INT PRIMARY KEY, pad VARCHAR(2000)) {options};\n\
                 INSERT INTO d.{name} WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) \
                 SELECT i, REPEAT(SHA2(i, 512), 10) FROM n"
            ))
            .await;
    }
    // All pages are in their files then, and nobody writes any more.
    server.restart().await;
    let (_folder, store) = round::folder_store();
    let backup =
        || round::backup(&server, &store).arg("--keyring-file").arg(server.keyring_file().unwrap()).spawn().wait();
    for (name, _, page_size, kind) in TABLES {
        let path = server.datadir().join(format!("d/{name}.ibd"));
        let (page, at) = used_byte(&std::fs::read(&path).unwrap(), page_size, &[kind]);
        let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        let flip = || {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            file.sync_all().unwrap();
        };
        flip();
        let outcome = backup().await;
        outcome.assert_failed(ErrorKind::CorruptPage, &format!("d/{name}.ibd"));
        let told = format!("page {page} of table `d`.`{name}`");
        assert!(outcome.stderr.contains(&told), "{told}: {outcome}");
        flip();
    }
    backup().await.assert_success();
}
