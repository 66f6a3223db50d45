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
    // Tables that the server itself reads through the page cache.
    for table in ["m_cold", "m_warm"] {
        source
            .sql(&format!(
                "CREATE TABLE sf.{table} (pad LONGBLOB) ENGINE=MyISAM;\nINSERT INTO sf.{table} VALUES (REPEAT('m', 20000000))"
            ))
            .await;
    }
    round::minimal_user(&source).await;
    // Nothing is written any more, so whatever the cache holds afterwards came by the backup.
    source.restart().await;
    let table = |name: &str| source.datadir().join("sf").join(name);
    let (cold, warm) = (table("bulk.ibd"), source.datadir().join("mysql.ibd"));
    forget(&cold);
    let (cold_plain, warm_plain) = (table("m_cold.MYD"), table("m_warm.MYD"));
    forget(&cold_plain);
    let warmed = [&warm, &warm_plain].map(|path| {
        let mut content = Vec::new();
        File::open(path).unwrap().read_to_end(&mut content).unwrap();
        resident(path)
    });
    assert!(warmed.iter().all(|bytes| *bytes > 19 << 20), "only {warmed:?} bytes could be brought into the cache");
    assert_eq!((resident(&cold), resident(&cold_plain)), (0, 0));

    let (_folder, store) = round::folder_store();
    round::backup(&source, &store).json().await;

    for path in [cold, cold_plain] {
        let came = resident(&path);
        assert!(came <= 1 << 20, "the copy brought {came} bytes of {} into the cache", path.display());
    }
    for (path, warmed) in [warm, warm_plain].into_iter().zip(warmed) {
        let stayed = resident(&path);
        assert!(stayed >= warmed / 10 * 9, "{stayed} of {warmed} bytes of {} are left in the cache", path.display());
    }
}
