//! The tables: one of each kind that a backup may meet.
//!
//! All transactional ones have the columns `id, k, pad, body`, so that one writer can write to any of them; a kind
//! adds columns of its own and says what goes into them.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Options;
use super::text::Random;
use crate::support::server::Server;

/// The schema of most tables.
pub const MAIN: &str = "sf";
/// A schema and tables with names that need encoding in file names.
pub const ODD: &str = "odd #%&ü 数据/a.b";
/// A schema without tables.
pub const EMPTY: &str = "sf_empty";

/// What a kind puts into its own columns: text after the common values, or assignments. No text is longer than told.
type Values = fn(&mut Random, u64) -> String;

/// One table.
#[derive(Debug)]
pub struct Kind {
    /// Qualified and quoted.
    pub name: String,
    /// How to make it, statement by statement.
    pub create: Vec<String>,
    /// Own columns that an insert fills: ", g".
    pub columns: &'static str,
    /// Their values: ", POINT(1, 2)".
    pub values: Values,
    /// An assignment for an update.
    pub assign: Values,
    /// Bytes that `body` and the like may have.
    pub longest_body: u64,
    /// The highest id that any writer has seen.
    pub highest: AtomicU64,
}

impl Kind {
    /// The same table for another run of writers.
    pub fn copy(&self) -> Self {
        let highest = AtomicU64::new(self.highest.load(Ordering::Relaxed));
        Self { name: self.name.clone(), create: self.create.clone(), highest, ..*self }
    }
}

fn none(_: &mut Random, _: u64) -> String {
    String::new()
}

fn new_pad(random: &mut Random, _: u64) -> String {
    let (k, len) = (random.below(1000), random.below(250));
    format!("k = {k}, pad = '{}'", random.text(len))
}

/// Quotes a name.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// The columns that all have, with more columns or keys before the end, and table options after it.
fn table(name: &str, more: &str, tail: &str) -> String {
    format!(
        "CREATE TABLE {name} (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT, k INT NOT NULL, pad VARCHAR(300) NOT NULL, \
         body MEDIUMTEXT, {more} PRIMARY KEY (id), KEY k (k), KEY pad (pad(20))) {tail}"
    )
}

/// The same for a partitioned table: `k` is part of the key, so that changing it moves a row to another partition.
fn partitioned(name: &str, tail: &str) -> String {
    table(name, "", tail).replace("PRIMARY KEY (id)", "PRIMARY KEY (id, k)")
}

fn kind(name: &str, tail: &str) -> Kind {
    let name = format!("{MAIN}.{}", quoted(name));
    let create = vec![table(&name, "", tail)];
    let (longest_body, highest) = (u64::MAX, AtomicU64::new(1));
    Kind { name, create, columns: "", values: none, assign: new_pad, longest_body, highest }
}

fn with(name: &str, more: &str, columns: &'static str, values: Values, assign: Values) -> Kind {
    let plain = kind(name, "");
    let create = vec![table(&plain.name, more, "")];
    Kind { create, columns, values, assign, ..plain }
}

fn parts(name: &str, tail: &str) -> Kind {
    let plain = kind(name, "");
    let create = vec![partitioned(&plain.name, tail)];
    Kind { create, ..plain }
}

/// Every transactional table that a server of these options can have.
pub fn transactional(server: &Server, options: &Options) -> Vec<Kind> {
    let mut kinds = vec![
        kind("row_redundant", "ROW_FORMAT=REDUNDANT"),
        kind("row_compact", "ROW_FORMAT=COMPACT"),
        kind("row_dynamic", "ROW_FORMAT=DYNAMIC"),
        kind("in_system_space", "TABLESPACE innodb_system"),
        kind("in_general_space", "TABLESPACE `sf general`"),
        parts("part_hash", "PARTITION BY HASH (k) PARTITIONS 4"),
        parts(
            "part_range",
            "PARTITION BY RANGE (k) (PARTITION `p low` VALUES LESS THAN (300), PARTITION P_Mid VALUES LESS THAN (600), \
             PARTITION p_high VALUES LESS THAN MAXVALUE)",
        ),
        parts(
            "part_sub",
            "PARTITION BY RANGE (k) SUBPARTITION BY HASH (id) SUBPARTITIONS 2 \
             (PARTITION a VALUES LESS THAN (500), PARTITION b VALUES LESS THAN MAXVALUE)",
        ),
        instant("instant_dynamic", "ROW_FORMAT=DYNAMIC"),
        instant("instant_redundant", "ROW_FORMAT=REDUNDANT"),
        parent(),
        child(),
    ];
    // A page that is no larger than the file system's block leaves nothing to punch a hole into.
    let holes = server.page_size() > 4 << 10;
    if holes {
        kinds.extend(["zlib", "lz4"].map(|how| kind(&format!("page_{how}"), &format!("COMPRESSION='{how}'"))));
    }
    kinds.extend(with_columns());
    kinds.extend(compressed(server.page_size()));
    if options.external {
        kinds.extend(external(server));
    }
    if options.encrypted {
        kinds.push(kind("encrypted", "ENCRYPTION='Y'"));
        if holes {
            kinds.push(kind("encrypted_page_zlib", "ENCRYPTION='Y' COMPRESSION='zlib'"));
        }
        kinds.push(kind("in_encrypted_space", "TABLESPACE sf_encrypted ENCRYPTION='Y'"));
        if server.page_size() <= 16 << 10 {
            kinds.push(kind("encrypted_zip", "ENCRYPTION='Y' ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4"));
        }
    }
    kinds.extend(odd_names());
    if server.page_size() < 8 << 10 {
        // An undo record must fit into one page, and has the old value of a changed column several times where that
        // column is in a full-text index or under a multi-valued one: with 1000 bytes it does not fit.
        let twice = |kind: &&mut Kind| ["`full_text`", "`multi_valued`"].iter().any(|name| kind.name.ends_with(name));
        kinds.iter_mut().filter(twice).for_each(|kind| kind.longest_body = 300);
    }
    kinds
}

fn with_columns() -> Vec<Kind> {
    fn lob(random: &mut Random, _: u64) -> String {
        let len = if random.chance(10) { 200_000 } else { 30_000 };
        format!(", '{}'", random.text(len))
    }
    fn patch(random: &mut Random, _: u64) -> String {
        let at = 1 + random.below(25_000);
        if random.chance(20) {
            return format!("big = CONCAT(big, '{}')", random.text(5_000));
        }
        format!("big = INSERT(big, {at}, 12, '{}')", random.text(12))
    }
    fn document(random: &mut Random, longest: u64) -> String {
        let (a, b, c) = (random.below(50), random.below(50), random.body(longest));
        format!(", JSON_OBJECT('tags', JSON_ARRAY({a}, {b}), 'n', {a}, 'text', '{c}')")
    }
    fn partial(random: &mut Random, _: u64) -> String {
        let (a, b) = (random.below(50), random.below(1_000_000));
        format!("doc = JSON_SET(doc, '$.n', {b}, '$.tags[1]', {a}, '$.new', {b})")
    }
    fn place(random: &mut Random, _: u64) -> String {
        format!(", ST_SRID(POINT({}, {}), 0)", random.below(10_000), random.below(10_000))
    }
    fn moved(random: &mut Random, _: u64) -> String {
        format!("g = ST_SRID(POINT({}, {}), 0)", random.below(10_000), random.below(10_000))
    }
    fn words(random: &mut Random, _: u64) -> String {
        let marker = if random.chance(50) { "stillframe" } else { "otherword" };
        format!("body = 'some {marker} and {}'", random.text(400))
    }
    let many: Vec<String> = (0..20).map(|n| format!("KEY many_{n} (k, pad({}) DESC),", n + 1)).collect();
    let many = many.join(" ");
    vec![
        with("lob", "big LONGTEXT,", ", big", lob, patch),
        with("json_doc", "doc JSON NOT NULL,", ", doc", document, partial),
        with(
            "multi_valued",
            "doc JSON, KEY tags ((CAST(doc->'$.tags' AS UNSIGNED ARRAY))),",
            ", doc",
            document,
            partial,
        ),
        with("spatial_places", "g GEOMETRY NOT NULL SRID 0, SPATIAL KEY (g),", ", g", place, moved),
        with("full_text", "FULLTEXT KEY words (body), FULLTEXT KEY pads (pad) WITH PARSER ngram,", "", none, words),
        with(
            "generated",
            "twice INT AS (k * 2) VIRTUAL, head VARCHAR(20) AS (LEFT(pad, 15)) STORED, KEY (twice), KEY (head), \
             KEY lowered ((LOWER(LEFT(pad, 40)))),",
            "",
            none,
            new_pad,
        ),
        with("many_indexes", &many, "", none, new_pad),
    ]
}

fn compressed(page_size: u32) -> Vec<Kind> {
    // There are no compressed pages of more than 16 KiB, and none for servers of larger pages.
    let sizes = [1, 2, 4, 8, 16].into_iter().filter(|kib| page_size <= 16 << 10 && kib * 1024 <= page_size);
    let mut kinds: Vec<Kind> =
        sizes.map(|kib| kind(&format!("zip_{kib}"), &format!("ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE={kib}"))).collect();
    if !kinds.is_empty() {
        kinds.push(kind("in_zip_space", "TABLESPACE sf_zip ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=2"));
    }
    kinds
}

fn external(server: &Server) -> Vec<Kind> {
    let dir = server.external_dir();
    let dir = dir.display();
    vec![
        kind("external_table", &format!("DATA DIRECTORY='{dir}'")),
        kind("in_external_space", "TABLESPACE sf_external"),
        parts(
            "external_part",
            &format!("PARTITION BY HASH (k) (PARTITION here, PARTITION there DATA DIRECTORY='{dir}')"),
        ),
    ]
}

/// A table whose rows come from four versions of its columns.
fn instant(name: &str, tail: &str) -> Kind {
    let mut made = kind(name, tail);
    let name = made.name.clone();
    let mut rows = 0;
    let mut fill = || {
        rows += 20;
        let values: Vec<String> =
            (rows - 19..=rows).map(|n| format!("({n}, 'before or after {n}', REPEAT('i', {n}))")).collect();
        format!("INSERT INTO {name} (k, pad, body) VALUES {}", values.join(", "))
    };
    let steps = [
        "ADD COLUMN late INT NOT NULL DEFAULT 7",
        "ADD COLUMN early VARCHAR(30) DEFAULT 'äöü' FIRST",
        "DROP COLUMN late",
        "ADD COLUMN again DECIMAL(10, 3) DEFAULT 1.5 AFTER k",
    ];
    for step in steps {
        made.create.push(fill());
        made.create.push(format!("ALTER TABLE {name} {step}, ALGORITHM=INSTANT"));
    }
    made.create.push(fill());
    made
}

fn parent() -> Kind {
    kind("parent", "")
}

fn child() -> Kind {
    fn of(random: &mut Random, _: u64) -> String {
        format!(", (SELECT id FROM {MAIN}.parent p WHERE p.id >= {} ORDER BY id LIMIT 1)", random.below(200))
    }
    let foreign = "parent_id BIGINT UNSIGNED, CONSTRAINT of_parent FOREIGN KEY (parent_id) \
                   REFERENCES parent (id) ON DELETE CASCADE ON UPDATE CASCADE,";
    let mut child = with("child", foreign, ", parent_id", of, new_pad);
    // A foreign key's table is looked for in the current schema.
    child.create.insert(0, format!("USE {MAIN}"));
    child
}

fn odd_names() -> Vec<Kind> {
    let long = "a_name_of_exactly_64_characters_".repeat(2);
    let wide = "长".repeat(40);
    let names = [
        "with space",
        "ünïcödé 表",
        "#hash%percent",
        "a.b/c\\d",
        "nul",
        "$dollar",
        "-dash",
        ".dot",
        "quote\"'",
        "back`tick",
        "#sql-ib1",
        "x#p#y",
        &long,
        &wide,
    ];
    let odd = |name: &&str| {
        let name = format!("{}.{}", quoted(ODD), quoted(name));
        let create = vec![table(&name, "", "")];
        Kind { name, create, ..kind("", "") }
    };
    names.iter().map(odd).collect()
}

/// Tablespaces and schemas that the tables need.
pub fn surroundings(server: &Server, options: &Options) -> Vec<String> {
    let mut made = vec![
        format!("CREATE DATABASE {MAIN}"),
        format!("CREATE DATABASE {}", quoted(ODD)),
        format!("CREATE DATABASE {EMPTY}"),
        "CREATE TABLESPACE `sf general` ADD DATAFILE 'sf general.ibd'".to_owned(),
    ];
    if server.page_size() <= 16 << 10 {
        made.push("CREATE TABLESPACE sf_zip ADD DATAFILE 'sf_zip.ibd' FILE_BLOCK_SIZE=2048".to_owned());
    }
    if options.external {
        let path = server.external_dir().join("sf_external.ibd");
        made.push(format!("CREATE TABLESPACE sf_external ADD DATAFILE '{}'", path.display()));
    }
    if options.encrypted {
        made.push("CREATE TABLESPACE sf_encrypted ADD DATAFILE 'sf_encrypted.ibd' ENCRYPTION='Y'".to_owned());
        made.push("ALTER TABLESPACE mysql ENCRYPTION='Y'".to_owned());
    }
    if options.undo_tablespace {
        made.push("CREATE UNDO TABLESPACE sf_undo ADD DATAFILE 'sf_undo.ibu'".to_owned());
    }
    made.push(format!(
        "CREATE TABLE {MAIN}.accounts (id INT PRIMARY KEY, balance BIGINT NOT NULL, moved TIMESTAMP(6) DEFAULT NOW(6))"
    ));
    made.push(format!(
        "CREATE TABLE {MAIN}.sequence (writer INT NOT NULL, seq BIGINT NOT NULL, at TIMESTAMP(6) DEFAULT NOW(6), \
         PRIMARY KEY (writer, seq))"
    ));
    made
}

/// Writes the full-text index of what is there into its tables, so that a part of the index is on disk; what comes
/// later stays in the server's cache, which [`Builder`](crate::support::server::Builder) makes large enough for it.
pub fn sync_full_text() -> Vec<String> {
    vec![
        "SET GLOBAL innodb_optimize_fulltext_only = ON".to_owned(),
        format!("OPTIMIZE NO_WRITE_TO_BINLOG TABLE {MAIN}.full_text"),
        "SET GLOBAL innodb_optimize_fulltext_only = OFF".to_owned(),
    ]
}

/// Views and routines: they live in the dictionary alone.
pub fn stored_code() -> Vec<String> {
    vec![
        format!("CREATE VIEW {MAIN}.rich AS SELECT * FROM {MAIN}.accounts WHERE balance > 1000"),
        format!("CREATE FUNCTION {MAIN}.twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 2"),
        format!("CREATE TABLE {MAIN}.audit (id BIGINT AUTO_INCREMENT PRIMARY KEY, account INT, change_by BIGINT)"),
        format!(
            "CREATE TRIGGER {MAIN}.audited AFTER UPDATE ON {MAIN}.accounts FOR EACH ROW \
             INSERT INTO {MAIN}.audit (account, change_by) VALUES (NEW.id, NEW.balance - OLD.balance)"
        ),
    ]
}

/// Tables of engines without redo.
pub fn plain() -> Vec<String> {
    let columns = "(id INT NOT NULL, k INT NOT NULL, pad VARCHAR(200) NOT NULL";
    let keyed = format!("{columns}, KEY (id), KEY (k))");
    vec![
        format!("CREATE TABLE {MAIN}.my_dynamic {keyed} ENGINE=MyISAM ROW_FORMAT=DYNAMIC"),
        format!("CREATE TABLE {MAIN}.my_fixed {keyed} ENGINE=MyISAM ROW_FORMAT=FIXED"),
        format!("CREATE TABLE {MAIN}.my_part {keyed} ENGINE=MyISAM").replace("my_part", &quoted("my odd €")),
        format!("CREATE TABLE {MAIN}.merge_one {keyed} ENGINE=MyISAM"),
        format!("CREATE TABLE {MAIN}.merge_two {keyed} ENGINE=MyISAM"),
        format!(
            "CREATE TABLE {MAIN}.merged {keyed} ENGINE=MERGE UNION=({MAIN}.merge_one, {MAIN}.merge_two) INSERT_METHOD=LAST"
        ),
        format!("CREATE TABLE {MAIN}.csv {columns}) ENGINE=CSV"),
        format!("CREATE TABLE {MAIN}.archived {columns}) ENGINE=ARCHIVE"),
    ]
}

/// The tables that the writer of non-transactional tables inserts into, and whether rows may be changed later.
pub const PLAIN: [(&str, bool); 7] = [
    ("my_dynamic", true),
    ("my_fixed", true),
    ("`my odd €`", true),
    ("merge_one", true),
    ("merged", true),
    ("csv", true),
    ("archived", false),
];

/// The table whose rows an insert into `table` makes. What comes through the merge table is in its second child alone:
/// the merge table itself shows the first child's rows too.
pub fn holder(table: &str) -> &str {
    if table == "merged" { "merge_two" } else { table }
}
