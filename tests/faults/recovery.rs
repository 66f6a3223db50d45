//! Restores that a given server is to finish, and does not.

use std::path::{Path, PathBuf};

use stillframe::ops::error::ErrorKind;

use crate::help::{program, small};
use crate::support::cli::Cli;
use crate::support::round;
use crate::support::server::{Server, scratch};

const MARKER: &str = "stillframe-restore-incomplete";

/// A program that answers `--version` as a server does, and otherwise notes what it was started with, logs many lines
/// and gives up.
fn failing_mysqld(folder: &Path) -> PathBuf {
    let path = folder.join("mysqld");
    let text = r#"#!/bin/sh
case "$*" in
    *--version*) echo 'mysqld  Ver 9.7.4 for Linux on x86_64 (fake)'; exit 0 ;;
    *--help*) exit 0 ;;
esac
printf '%s\n' "$@" > "$(dirname "$0")/arguments"
for argument in "$@"; do
    case "$argument" in
        --log-error=*) log="${argument#--log-error=}" ;;
        --datadir=*) ls "${argument#--datadir=}" > "$(dirname "$0")/seen" ;;
    esac
done
line=1
while [ "$line" -le 60 ]; do
    echo "line $line of the log" >> "$log"
    line=$((line + 1))
done
echo '[ERROR] [MY-012345] [InnoDB] the disk is made of cheese' >> "$log"
exit 1
"#;
    program(&path, text);
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_recover_is_quoted_and_its_directory_is_no_database() {
    let server = small(Server::builder()).await;
    let (_folder, store) = round::folder_store();
    round::backup(&server, &store).json().await;
    let (place, tools) = (scratch(), scratch());
    let datadir = place.path().join("data");
    let restore = || Cli::restore(&store, "backup", &datadir).args(["--recovery", "server", "--mysqld"]);

    let outcome = restore().arg(failing_mysqld(tools.path())).run().await;
    outcome.assert_failed(ErrorKind::RecoveryFailed, "the disk is made of cheese");
    assert!(outcome.stderr.contains("line 60 of the log"), "{outcome}");
    assert!(!outcome.stderr.contains("line 1 of the log"), "only the end of it: {outcome}");
    assert!(outcome.stdout.is_empty(), "{outcome}");

    let arguments = std::fs::read_to_string(tools.path().join("arguments")).unwrap();
    let arguments: Vec<&str> = arguments.lines().collect();
    assert_eq!(arguments[0], "--no-defaults", "an option file may name directories of a server that lives");
    let data = format!("--datadir={}", datadir.display());
    for wanted in [
        data.as_str(),
        "--skip-networking",
        "--skip-replica-start",
        "--event-scheduler=OFF",
        "--mysqlx=OFF",
        "--innodb-page-size=16384",
        "--lower-case-table-names=0",
    ] {
        assert!(arguments.contains(&wanted), "{wanted} is not among {arguments:?}");
    }
    let socket = arguments.iter().find_map(|argument| argument.strip_prefix("--socket=")).unwrap();
    let private = Path::new(socket).parent().unwrap();
    assert!(!private.starts_with(&datadir) && !private.exists(), "{} is left", private.display());
    let seen = std::fs::read_to_string(tools.path().join("seen")).unwrap();
    assert!(!seen.contains(MARKER) && seen.contains("#innodb_redo\n"), "it had to do with all of it: {seen}");

    // Nobody takes it for a database, and it can be made one.
    assert!(datadir.join(MARKER).exists());
    restore().arg(server.mysqld()).run().await.assert_failed(ErrorKind::TargetNotEmpty, "--overwrite-incomplete");
    restore().arg(server.mysqld()).arg("--overwrite-incomplete").run().await.assert_success();
    assert!(!datadir.join(MARKER).exists());
    let copy = round::stock(&server).on_datadir(&datadir).start().await;
    assert_eq!(copy.row::<(u64,)>("SELECT COUNT(*) FROM d.a").await, (2,));
}
