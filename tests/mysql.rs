//! The `mysql` module against a real server: logins, TLS, privileges, what the server says of itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails, fails the test")]

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use stillframe::innodb::ids::SpaceId;
use stillframe::mysql::{
    BackupLock, ConnectOptions, DdlWatch, Endpoint, GtidSet, LogStatus, MysqlError, RedoConsumer, RedoStatus,
    Registration, ServerInfo, Session, SslMode, grants_sql, preflight, registered_files,
};
use support::certificate::self_signed;
use support::server::Server;
use support::wait::{FREED, SOON, within};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

const PASSWORD: &str = "a long and quiet secret";

fn as_root(server: &Server) -> ConnectOptions {
    ConnectOptions::new(Endpoint::Socket(server.socket()), "root")
}

fn over_tcp(server: &Server, mode: SslMode) -> ConnectOptions {
    let mut options =
        ConnectOptions::new(Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: server.port() }, "backup");
    options.ssl.mode = mode;
    options.password_file = Some(password_file(server, PASSWORD));
    options
}

fn password_file(server: &Server, password: &str) -> PathBuf {
    let path = server.root().join(format!("password-{}", password.len()));
    std::fs::write(&path, format!("{password}\n")).unwrap();
    path
}

/// Makes the user that `stillframe grants` describes, with a known password.
async fn make_backup_user(server: &Server) {
    server.sql(&grants_sql("backup", "%")).await;
    server.sql(&format!("ALTER USER backup IDENTIFIED BY '{PASSWORD}'")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_minimal_user_can_do_all_of_it() {
    let server = Server::builder().start().await;
    make_backup_user(&server).await;
    let options = over_tcp(&server, SslMode::Preferred);
    let cancel = CancellationToken::new();

    let mut session = Session::connect(&options).await.unwrap();
    session.ping().await.unwrap();
    let info = ServerInfo::gather(&mut session).await.unwrap();
    let checked = preflight(&mut session, &info).await.unwrap();
    assert_eq!(checked.warnings, [""; 0]);
    let files = registered_files(&mut session).await.unwrap();
    assert!(files.contains(&(SpaceId::DICTIONARY, "./mysql.ibd".to_owned())), "{files:?}");
    let before = LogStatus::read(&mut session).await.unwrap();
    assert!(RedoStatus::read(&mut session).await.unwrap().enabled);

    let Registration::Registered(mut consumer) = RedoConsumer::register(&options).await.unwrap() else {
        panic!("nobody else is registered");
    };
    let lock = BackupLock::acquire(&options, SOON, &cancel).await.unwrap();
    let watch = DdlWatch::start(&options, Some(SOON)).await.unwrap();
    consumer.advance(before.checkpoint).await.unwrap();
    lock.global_read_lock(SOON, &cancel).await.unwrap();
    lock.rotate_binlog().await.unwrap();
    let cut = lock.log_status().await.unwrap();
    lock.unlock_tables().await.unwrap();
    lock.flush_engine_logs().await.unwrap();
    // The server's status lags the flush by some milliseconds.
    let flushed = Instant::now();
    while RedoStatus::read(&mut session).await.unwrap().flushed_lsn < cut.lsn {
        assert!(flushed.elapsed() < SOON, "the redo up to {} was not flushed", cut.lsn);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    lock.check_held().await.unwrap();
    assert_eq!(watch.stop().await, Duration::ZERO);
    let times = lock.release().await.unwrap();
    assert!(times.backup_lock > times.global_read_lock && times.global_read_lock > Duration::ZERO, "{times:?}");
    consumer.unregister().await;
    assert_eq!(cut.binlog.unwrap().number(), before.binlog.unwrap().number() + 1);
    assert_eq!(cut.server_uuid, info.uuid);
    session.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_missing_privilege_is_named_with_its_grant() {
    let server = Server::builder().start().await;
    make_backup_user(&server).await;
    let options = over_tcp(&server, SslMode::Preferred);
    let refusal = async || {
        let mut session = Session::connect(&options).await.unwrap();
        let info = ServerInfo::gather(&mut session).await.unwrap();
        preflight(&mut session, &info).await
    };
    refusal().await.unwrap();
    let tables = server
        .rows::<(String,)>("SELECT table_name FROM mysql.tables_priv WHERE user = 'backup'")
        .await
        .into_iter()
        .map(|(table,)| format!("SELECT ON performance_schema.{table}"));
    let globals = ["BACKUP_ADMIN", "RELOAD", "PROCESS"].map(str::to_owned);
    let all: Vec<String> = globals.into_iter().chain(tables).collect();
    assert!(all.len() >= 8);
    for privilege in all {
        let on = if privilege.contains(" ON ") { "" } else { " ON *.*" };
        server.sql(&format!("REVOKE {privilege}{on} FROM backup")).await;
        let error = refusal().await.unwrap_err();
        let MysqlError::Privileges { user, missing } = error else { panic!("{privilege}: {error:?}") };
        assert_eq!(user, "'backup'@'%'");
        assert_eq!(missing.iter().map(|missing| missing.privilege.as_str()).collect::<Vec<_>>(), [&privilege]);
        server.sql(&missing[0].grant).await;
        refusal().await.unwrap();
    }
    // The same by a role that is not on by default.
    server.sql("CREATE ROLE r; CREATE USER other IDENTIFIED BY 'o'; GRANT r TO other").await;
    for line in grants_sql("r", "%").lines().skip(1) {
        server.sql(line.trim_end_matches(';')).await;
    }
    let mut other = options.clone();
    other.user = "other".to_owned();
    let mut fresh = ConnectOptions::new(other.endpoint, "other");
    fresh.password_file = Some(password_file(&server, "o"));
    let mut session = Session::connect(&fresh).await.unwrap();
    let info = ServerInfo::gather(&mut session).await.unwrap();
    preflight(&mut session, &info).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_as_asked() {
    let server = Server::builder().start().await;
    make_backup_user(&server).await;
    let own_ca = server.datadir().join("ca.pem");
    // Another server's authority has the same name, but another key.
    let stranger = Server::builder().fresh().create();
    let wrong_ca = stranger.datadir().join("ca.pem");
    assert!(wrong_ca.exists());

    for mode in [SslMode::Disabled, SslMode::Preferred, SslMode::Required] {
        Session::connect(&over_tcp(&server, mode)).await.unwrap_or_else(|error| panic!("{mode}: {error:?}"));
    }
    let with_ca = |mode, ca: &PathBuf| {
        let mut options = over_tcp(&server, mode);
        options.ssl.ca = Some(ca.clone());
        options
    };
    Session::connect(&with_ca(SslMode::VerifyCa, &own_ca)).await.unwrap();
    for mode in [SslMode::VerifyCa, SslMode::VerifyIdentity] {
        let error = Session::connect(&with_ca(mode, &wrong_ca)).await.unwrap_err();
        assert!(matches!(error, MysqlError::Connection { .. }), "{error:?}");
    }
    let error = Session::connect(&with_ca(SslMode::VerifyIdentity, &own_ca)).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("not valid for"), "the certificate names no host: {cause}");

    // A user who must use TLS cannot be one who does not.
    server.sql("ALTER USER backup REQUIRE SSL").await;
    Session::connect(&over_tcp(&server, SslMode::Preferred)).await.unwrap();
    Session::connect(&over_tcp(&server, SslMode::Disabled)).await.unwrap_err();
    server.sql("ALTER USER backup REQUIRE X509").await;
    Session::connect(&over_tcp(&server, SslMode::Required)).await.unwrap_err();
    let mut with_cert = over_tcp(&server, SslMode::Required);
    with_cert.ssl.cert = Some(server.datadir().join("client-cert.pem"));
    with_cert.ssl.key = Some(server.datadir().join("client-key.pem"));
    Session::connect(&with_cert).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_a_server_that_is_reached_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, key) = self_signed(folder.path(), "ours", "DNS:db.example.org");
    let builder = Server::builder().option("ssl-cert", ours.display()).option("ssl-key", key.display());
    let server = builder.start().await;
    make_backup_user(&server).await;
    let named = |name: Option<&str>| {
        // By its address, as through a tunnel or in a pod.
        let mut options = over_tcp(&server, SslMode::VerifyIdentity);
        options.ssl.ca = Some(ours.clone());
        options.ssl.server_name = name.map(str::to_owned);
        options
    };
    Session::connect(&named(Some("db.example.org"))).await.unwrap();
    for other in [None, Some("other.example.org"), Some("example.org")] {
        let error = Session::connect(&named(other)).await.unwrap_err();
        assert!(matches!(error, MysqlError::Connection { .. }), "{other:?}: {error:?}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("not valid for"), "{other:?}: {cause}");
    }
    // The name alone is not enough: whose certificate it is counts, too.
    let (strangers, _) = self_signed(folder.path(), "strangers", "DNS:db.example.com");
    let mut options = named(Some("db.example.org"));
    options.ssl.ca = Some(strangers);
    Session::connect(&options).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls() {
    let server = Server::builder().option("tls-version", "").start().await;
    make_backup_user(&server).await;
    let session = Session::connect(&over_tcp(&server, SslMode::Preferred)).await.unwrap();
    assert!(session.connection_id() > 0);
    let error = Session::connect(&over_tcp(&server, SslMode::Required)).await.unwrap_err();
    assert!(matches!(error, MysqlError::Connection { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_that_fail_say_so() {
    let server = Server::builder().start().await;
    make_backup_user(&server).await;
    let mut wrong = over_tcp(&server, SslMode::Preferred);
    wrong.password_file = Some(password_file(&server, "not it"));
    let error = Session::connect(&wrong).await.unwrap_err();
    assert!(matches!(error, MysqlError::Connection { .. }), "{error:?}");
    let said = format!("{error:?} {error} {}", std::error::Error::source(&error).unwrap());
    assert!(said.contains("Access denied") && !said.contains("not it"), "{said}");

    let nowhere = ConnectOptions::new(Endpoint::Socket(server.root().join("none")), "backup");
    let error = Session::connect(&nowhere).await.unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
}

/// Whoever answers at the address: nothing may make this process panic or hang.
#[tokio::test(flavor = "multi_thread")]
async fn peers_that_are_no_servers() {
    let greetings: [&[u8]; 4] =
        [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x01\x00\x00\x00\x0a", b"\x06\x00\x00\x00\xff\x10\x04Too"];
    for greeting in greetings {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let peer = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(greeting).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let options = ConnectOptions::new(Endpoint::Tcp { host: "127.0.0.1".to_owned(), port }, "u");
        let error = Session::connect(&options).await.unwrap_err();
        assert!(matches!(error, MysqlError::Connection { .. }), "{error:?}");
        peer.await.unwrap();
    }
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let options = ConnectOptions::new(Endpoint::Tcp { host: "127.0.0.1".to_owned(), port }, "u");
    let patience = tokio::time::timeout(SOON * 2, Session::connect(&options)).await;
    patience.expect("it gives up by itself").unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_says_of_itself() {
    let server = Server::builder().separate_dirs().page_size(8192).start().await;
    let mut session = Session::connect(&as_root(&server)).await.unwrap();
    let info = ServerInfo::gather(&mut session).await.unwrap();
    assert_eq!(info.uuid, server.variable("server_uuid").await);
    assert_eq!(info.datadir.components().collect::<PathBuf>(), server.datadir());
    assert_eq!(info.page_size.bytes(), 8192);
    assert!(info.log_bin && info.log_bin_basename.is_some() && info.log_bin_index.is_some());
    assert_eq!(info.redo_capacity_bytes.to_string(), server.variable("innodb_redo_log_capacity").await);
    assert_eq!(info.settings["innodb_page_size"], "8192");
    let redo = std::fs::read_dir(server.redo_home().join("#innodb_redo")).unwrap();
    let in_use =
        redo.map(|entry| entry.unwrap().path()).find(|path| !path.to_string_lossy().ends_with("_tmp")).unwrap();
    let header = std::fs::read(in_use).unwrap();
    assert_eq!(header[4..8], info.redo_log_uuid.to_be_bytes());

    let plain = Server::builder().log_bin(false).start().await;
    let mut session = Session::connect(&as_root(&plain)).await.unwrap();
    let info = ServerInfo::gather(&mut session).await.unwrap();
    assert!(!info.log_bin);
    assert_eq!(info.innodb_data_home_dir, None);
    assert_eq!(LogStatus::read(&mut session).await.unwrap().binlog, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_cannot_be_backed_up_are_refused() {
    let server = Server::builder().start().await;
    let mut session = Session::connect(&as_root(&server)).await.unwrap();
    let info = ServerInfo::gather(&mut session).await.unwrap();
    server.sql("ALTER INSTANCE DISABLE INNODB REDO_LOG").await;
    let error = preflight(&mut session, &info).await.unwrap_err();
    assert!(matches!(&error, MysqlError::Preflight { what, .. } if what.contains("redo log")), "{error:?}");
    server.sql("ALTER INSTANCE ENABLE INNODB REDO_LOG").await;
    preflight(&mut session, &info).await.unwrap();

    let blind = Server::builder().option("performance-schema", "OFF").start().await;
    let mut session = Session::connect(&as_root(&blind)).await.unwrap();
    let info = ServerInfo::gather(&mut session).await.unwrap();
    let error = preflight(&mut session, &info).await.unwrap_err();
    assert!(matches!(&error, MysqlError::Preflight { what, .. } if what.contains("performance_schema")), "{error:?}");

    let encrypted = Server::builder().keyring().start().await;
    encrypted.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY) ENCRYPTION = 'Y'").await;
    let mut session = Session::connect(&as_root(&encrypted)).await.unwrap();
    let info = ServerInfo::gather(&mut session).await.unwrap();
    preflight(&mut session, &info).await.expect("its keyring is the one that can be read");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_consumer_at_a_time() {
    let server = Server::builder().start().await;
    let options = as_root(&server);
    let register = async || RedoConsumer::register(&options).await.unwrap();
    let Registration::Registered(first) = register().await else { panic!("nobody is registered") };
    assert!(matches!(register().await, Registration::TakenByAnother));
    first.unregister().await;
    let Registration::Registered(second) = register().await else { panic!("the first was unregistered") };
    // As when the process dies: the socket is closed, and that is all.
    drop(second);
    within(FREED, "the server notices", async || match register().await {
        Registration::Registered(third) => {
            third.unregister().await;
            true
        }
        _ => false,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gtid_sets_of_a_server_with_tags() {
    let server = Server::builder().start().await;
    let mut session = Session::connect(&as_root(&server)).await.unwrap();
    let before: GtidSet = LogStatus::read(&mut session).await.unwrap().gtid_executed.parse().unwrap();
    server
        .sql(
            "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); \
             SET gtid_next = 'AUTOMATIC:zebra'; INSERT INTO d.t VALUES (1); \
             SET gtid_next = 'AUTOMATIC:blue'; INSERT INTO d.t VALUES (2); \
             SET gtid_next = '11111111-1111-1111-1111-111111111111:5'; INSERT INTO d.t VALUES (3); \
             SET gtid_next = '11111111-1111-1111-1111-111111111111:7'; INSERT INTO d.t VALUES (4)",
        )
        .await;
    let text = LogStatus::read(&mut session).await.unwrap().gtid_executed;
    let after: GtidSet = text.parse().unwrap();
    assert_eq!(after.to_string(), text, "shown as the server shows it");
    assert!(after.contains(&before) && !before.contains(&after));
    assert_eq!(after.minus(&before).len(), 6);
    assert_eq!(after.to_string(), server.gtid_executed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tablespace_file_is_registered() {
    let server = Server::builder().start().await;
    server.sql("CREATE DATABASE d; CREATE TABLESPACE shared ADD DATAFILE 'shared.ibd'").await;
    server.sql("CREATE TABLE d.parts (a INT PRIMARY KEY) PARTITION BY HASH (a) PARTITIONS 3").await;
    let external = server.external_dir();
    server.sql(&format!("CREATE TABLE d.away (a INT PRIMARY KEY) DATA DIRECTORY = '{}'", external.display())).await;
    let tables: Vec<String> = (0..300).map(|n| format!("CREATE TABLE d.t{n} (a INT PRIMARY KEY)")).collect();
    server.sql(&tables.join(";")).await;
    let mut temporary = server.connect().await;
    mysql_async::prelude::Queryable::query_drop(&mut temporary, "CREATE TEMPORARY TABLE d.gone (a INT)").await.unwrap();

    let mut session = Session::connect(&as_root(&server)).await.unwrap();
    let files = registered_files(&mut session).await.unwrap();
    let spaces: BTreeSet<SpaceId> = files.iter().map(|(space, _)| *space).collect();
    assert_eq!(spaces.len(), files.len(), "a space has one file here");
    let paths: BTreeSet<&str> = files.iter().map(|(_, path)| path.as_str()).collect();
    for path in ["./ibdata1", "./mysql.ibd", "./undo_001", "./undo_002", "./shared.ibd", "./d/t299.ibd"] {
        assert!(paths.contains(path), "{path} is missing");
    }
    assert!(paths.iter().any(|path| path.starts_with(external.to_str().unwrap())), "the one that is elsewhere");
    assert_eq!(paths.iter().filter(|path| path.contains("/d/parts#p#")).count(), 3);
    assert!(!paths.iter().any(|path| path.contains("ibtmp") || path.contains("temp")), "temporary ones are left out");
    session.ping().await.unwrap();
}
