//! Accounts of a restored server get other passwords, in its files: it lets in who knows the new ones, and nobody who
//! knows the old ones, and of everything else of an account nothing has changed.

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use stillframe::ops::error::ErrorKind;

use super::support::cli::Cli;
use super::support::round;
use super::support::server::{Builder, Server, scratch};

/// Why a login was refused: access denied.
const DENIED: u16 = 1045;

/// The tables that hold accounts, by what a server reads in them.
const ACCOUNTS: &str = "SELECT * FROM mysql.user ORDER BY Host, User";

/// A server with accounts of several kinds, the last of which were made just before a backup: in its redo more than on its
/// pages.
async fn source(builder: Builder) -> Server {
    let source = builder.start().await;
    source
        .sql(
            "CREATE DATABASE d;\n\
             CREATE TABLE d.t (id INT PRIMARY KEY);\n\
             INSERT INTO d.t VALUES (1);\n\
             CREATE USER app@'%' IDENTIFIED BY 'old app', app@localhost IDENTIFIED BY 'old app';\n\
             CREATE USER bare@localhost, other@localhost IDENTIFIED BY 'other';\n\
             CREATE USER two@localhost IDENTIFIED BY 'first';\n\
             ALTER USER two@localhost IDENTIFIED BY 'second' RETAIN CURRENT PASSWORD;\n\
             GRANT SELECT ON d.* TO app@localhost",
        )
        .await;
    round::minimal_user(&source).await;
    // Enough of them for a tree of several pages.
    let filler =
        |number: u32| format!("CREATE USER filler{number}@'10.0.0.{}' IDENTIFIED BY 'filler';\n", number % 250);
    source.sql(&(0..400).map(filler).collect::<String>()).await;
    source.sql("CREATE USER late@localhost IDENTIFIED BY 'old late'").await;
    source
}

/// Logs in as an account of this machine.
async fn login(server: &Server, user: &str, password: &str) -> Result<Conn, u16> {
    match server.connect_as(user, Some(password)).await {
        Ok(conn) => Ok(conn),
        Err(mysql_async::Error::Server(error)) => Err(error.code),
        Err(other) => panic!("{user}: {other}"),
    }
}

async fn proven(source: Server) {
    let (_folder, store) = round::folder_store();
    let keyring =
        |cli: Cli| source.keyring_file().into_iter().fold(cli, |cli, file| cli.arg("--keyring-file").arg(file));
    keyring(round::backup(&source, &store)).json().await;

    let place = scratch();
    let secret = |name: &str, text: &str| {
        let path = place.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let app = secret("app", "new p\u{e4}ss=word\n");
    let local = secret("local", "of this machine");
    let (late, two) = (secret("late", &"x".repeat(200)), secret("two", "third"));
    let restore = |name: &str| {
        let cli = Cli::restore(&store, "backup", place.path().join(name));
        keyring(cli)
            .args(["--check", "--account-password", &format!("app={app}")])
            .args(["--account-password", &format!("app@LOCALHOST={local}")])
            .args(["--account-password", &format!("late@localhost={late}")])
            .args(["--account-password", &format!("two={two}")])
    };
    let report = restore("first").json().await;
    let mut changed: Vec<&str> =
        report["accounts"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    changed.sort_unstable();
    assert_eq!(changed, ["'app'@'%'", "'app'@'localhost'", "'late'@'localhost'", "'two'@'localhost'"]);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("'two'@'localhost' has a second password") && !warnings.contains("'late'"), "{report}");
    assert!(report["applied"]["records"].as_u64().unwrap() > 0, "{report}");

    let copy = round::stock(&source).on_datadir(place.path().join("first")).start().await;
    let mut conn = login(&copy, "app", "of this machine").await.unwrap();
    assert_eq!(conn.query_first::<u32, _>("SELECT id FROM d.t").await.unwrap(), Some(1), "its rights are its own");
    for (user, password, outcome) in [
        ("app", "old app", Err(DENIED)),
        ("app", "new p\u{e4}ss=word", Err(DENIED)),
        ("late", "old late", Err(DENIED)),
        ("late", &"x".repeat(200), Ok(())),
        ("two", "third", Ok(())),
        ("two", "second", Err(DENIED)),
        // The one that the report warns of.
        ("two", "first", Ok(())),
        ("other", "other", Ok(())),
    ] {
        assert_eq!(login(&copy, user, password).await.map(drop), outcome, "{user} with {password}");
    }
    // Of another machine: seen once the account of this one is gone.
    copy.sql("DROP USER app@localhost").await;
    login(&copy, "app", "new p\u{e4}ss=word").await.unwrap();

    // Everything but those four passwords is as it was.
    let rows = async |server: &Server| {
        let mut rows: Vec<Vec<(String, String)>> = Vec::new();
        for row in server.connect().await.query::<mysql_async::Row, _>(ACCOUNTS).await.unwrap() {
            let columns: Vec<String> = row.columns_ref().iter().map(|column| column.name_str().into_owned()).collect();
            let values = row.unwrap().into_iter().map(|value| value.as_sql(false));
            rows.push(columns.into_iter().zip(values).collect());
        }
        rows
    };
    source.sql("DROP USER app@localhost").await;
    let (before, after) = (rows(&source).await, rows(&copy).await);
    assert_eq!(before.len(), after.len());
    let mut differ = Vec::new();
    for (before, after) in before.iter().zip(&after) {
        for (one, other) in before.iter().zip(after).filter(|(one, other)| one != other) {
            assert_eq!((&one.0, one.1.len() > 60), (&other.0, true), "{one:?} {other:?}");
            differ.push((after[1].1.clone(), other.0.clone()));
        }
    }
    let password = |user: &str| (format!("'{user}'"), "authentication_string".to_owned());
    differ.sort_unstable();
    assert_eq!(differ, [password("app"), password("late"), password("two")]);
    copy.error_log().assert_clean();

    // Another member of the same cluster has the same bytes: what a replica would have.
    restore("second").json().await;
    let member = round::stock(&source).on_datadir(place.path().join("second")).start().await;
    member.sql("DROP USER app@localhost").await;
    assert_eq!(rows(&member).await, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_get_other_passwords() {
    proven(source(Server::builder()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_in_an_encrypted_tablespace_get_other_passwords() {
    let source = source(Server::builder().keyring()).await;
    source.sql("ALTER TABLESPACE mysql ENCRYPTION='Y'").await;
    proven(source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_that_cannot_get_other_passwords_are_named_before_anything_is_written() {
    let source = source(Server::builder()).await;
    let (_folder, store) = round::folder_store();
    round::backup(&source, &store).json().await;
    let place = scratch();
    let datadir = place.path().join("data");
    let file = scratch();
    let password = file.path().join("p");
    std::fs::write(&password, "new\n").unwrap();
    let restore = |accounts: &[&str]| {
        let cli = Cli::restore(&store, "backup", &datadir);
        let option = |account: &&str| ["--account-password".to_owned(), format!("{account}={}", password.display())];
        accounts.iter().flat_map(option).fold(cli, Cli::arg)
    };
    for (accounts, kind, said) in [
        (&["nobody"][..], ErrorKind::AccountMismatch, "no other account named 'nobody'"),
        (
            &["app@10.0.0.1"],
            ErrorKind::AccountMismatch,
            "no account 'app'@'10.0.0.1'; it has 'app'@'%', 'app'@'localhost'",
        ),
        (&["other", "bare"], ErrorKind::AccountMismatch, "'bare'@'localhost' cannot be replaced: it has no password"),
        (&["app", "app"], ErrorKind::Usage, "'app' of any host is to get two passwords"),
    ] {
        restore(accounts).run().await.assert_failed(kind, said);
        assert!(!datadir.exists(), "{accounts:?}");
    }
    let by_server = restore(&["app"]).args(["--recovery", "server"]);
    by_server.run().await.assert_failed(ErrorKind::Usage, "files that are recovered");
    std::fs::write(&password, "\n").unwrap();
    restore(&["app"]).run().await.assert_failed(ErrorKind::Usage, "holds no password");
    std::fs::remove_file(&password).unwrap();
    restore(&["app"]).run().await.assert_failed(ErrorKind::LocalIo, "cannot read");
    assert!(!datadir.exists());
}
