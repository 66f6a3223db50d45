//! The server's page cache is left as it was found: what was in it stays, and nothing of the copy comes into it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{Advice, fadvise};

use crate::support::round;
use crate::support::server::Server;
use crate::support::workload::{Options, Workload};

/// Bytes of a file that are in the page cache.
fn resident(path: &Path) -> u64 {
    let output = std::process::Command::new("fincore")
        .args(["--bytes", "--noheadings", "--output", "RES"])
        .arg(path)
        .output()
        .expect("fincore is a part of util-linux");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}

fn forget(path: &Path) {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_cache_is_left_as_it_was_found() {
    let mut source = Server::builder().option("innodb_flush_method", "O_DIRECT").start().await;
    let options = Options { plain: false, external: false, ..Options::default() };
    let load = Workload::create(&source, &options).await;
    load.fill(48 << 20).await;
    round::minimal_user(&source).await;
    // Nothing is written any more, so whatever the cache holds afterwards came by the backup.
    source.restart().await;
    let table = |name: &str| source.datadir().join("sf").join(name);
    let (cold, warm) = (table("bulk.ibd"), source.datadir().join("mysql.ibd"));
    forget(&cold);
    let mut content = Vec::new();
    File::open(&warm).unwrap().read_to_end(&mut content).unwrap();
    let warmed = resident(&warm);
    assert!(warmed > 20 << 20, "only {warmed} bytes could be brought into the cache");
    assert_eq!(resident(&cold), 0);

    let (_folder, store) = round::folder_store();
    round::backup(&source, &store).json().await;

    let (came, stayed) = (resident(&cold), resident(&warm));
    assert!(came <= 1 << 20, "the copy brought {came} bytes into the cache");
    assert!(stayed >= warmed / 10 * 9, "the copy evicted what others had in the cache: {stayed} of {warmed} are left");
}
