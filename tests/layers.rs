//! The shape of the source, read from its text: who may use whom, how long a file may be, what no file may say.
//!
//! ```text
//!   cli ─► ops ─► capture prepare archive store mysql ─► innodb util        (the table is `ALLOWED`)
//! ```
//!
//! The checkers are functions over text, so that the last tests can plant a violation and see it found.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails, fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Which folder of `src/` may use which; a path behind `::` narrows it to that module.
const ALLOWED: [(&str, &[&str]); 14] = [
    ("cli", &["ops", "api", "operator", "runner", "obs", "util"]),
    ("runner", &["api", "ops", "obs", "util"]),
    ("operator", &["api", "store", "archive::manifest", "archive::id", "obs", "util"]),
    ("ops", &["capture", "prepare", "archive", "store", "mysql", "innodb", "util"]),
    ("capture", &["innodb", "util"]),
    ("prepare", &["innodb", "util"]),
    ("archive", &["innodb::ids", "innodb::lsn", "util"]),
    ("store", &["archive::id", "archive::manifest", "archive::object", "util"]),
    ("mysql", &["innodb::lsn", "innodb::ids", "innodb::version", "util"]),
    ("api", &["util"]),
    ("obs", &["util"]),
    // Formats that are compressed by zlib's own algorithm.
    ("innodb", &["util::zlib"]),
    ("util", &[]),
    // The library's front page only links to the rest.
    ("lib.rs", &[]),
];

/// Crates that only one folder may name.
const OWNED: [(&str, &[&str]); 5] = [
    ("object_store", &["store"]),
    ("mysql_async", &["mysql"]),
    ("clap", &["cli"]),
    ("indicatif", &["cli"]),
    ("kube", &["operator", "runner", "api"]),
];

/// What the formats never touch: they are bytes to types and back.
const NOT_IN_FORMATS: [&str; 6] = ["tokio", "tracing", "std::fs", "std::net", "std::time", "SystemTime"];

const MOST_LINES: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below some folders of the repository, as paths relative to it.
fn files(folders: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let name = path.file_name().unwrap_or_default();
            if path != root() && (name == "target" || name == ".git") {
                continue;
            }
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.exists() {
            found.push(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
    found.sort();
    found
}

fn rust_files() -> Vec<(PathBuf, String)> {
    let found = files(&["src", "tests", "benches", "fuzz", "e2e"]);
    let rust = found.into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "rs"));
    rust.map(|path| (path.clone(), fs::read_to_string(root().join(path)).unwrap())).collect()
}

/// The folder of `src/` that a file is in, or its own name.
fn folder(path: &Path) -> Option<String> {
    let mut parts = path.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    (parts.next()? == "src").then(|| parts.next())?
}

/// The code without line comments, and without what only tests see when `tests_too` is off.
fn code(text: &str, tests_too: bool) -> String {
    let text = if tests_too { text } else { text.split("#[cfg(test)]").next().unwrap_or_default() };
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Every `crate::a::b` that a text names, as "a::b"; groups in braces are taken apart.
fn uses(text: &str) -> Vec<String> {
    let code = code(text, true);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` in a macro is the same crate; a longer name that ends in "crate" is not.
        if code[..at].chars().next_back().is_some_and(|before| before.is_alphanumeric() || before == '_') {
            continue;
        }
        expand("", &code[at + "crate::".len()..], &mut found);
    }
    found
}

/// Takes the path at the start of a text apart, to the depth of two names.
fn expand(prefix: &str, rest: &str, found: &mut Vec<String>) {
    let rest = rest.trim_start();
    if let Some(group) = rest.strip_prefix('{') {
        let mut depth = 0;
        let mut start = 0;
        for (at, sign) in group.char_indices() {
            match sign {
                '{' => depth += 1,
                '}' | ',' if depth == 0 => {
                    expand(prefix, &group[start..at], found);
                    start = at + 1;
                    if sign == '}' {
                        return;
                    }
                }
                '}' => depth -= 1,
                _ => (),
            }
        }
        return;
    }
    let name: String = rest.chars().take_while(|sign| sign.is_alphanumeric() || *sign == '_').collect();
    if name.is_empty() || name == "self" {
        if !prefix.is_empty() {
            found.push(prefix.to_owned());
        }
        return;
    }
    if !prefix.is_empty() {
        found.push(format!("{prefix}::{name}"));
        return;
    }
    match rest[name.len()..].trim_start().strip_prefix("::") {
        Some(more) => expand(&name, more, found),
        None => found.push(name),
    }
}

/// What a file may not use, but does.
fn forbidden(folder: &str, text: &str) -> Vec<String> {
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == folder) else {
        return vec![format!("the folder {folder} is not in the table")];
    };
    let may = |used: &String| {
        let first = used.split("::").next().unwrap_or_default();
        first == folder || allowed.iter().any(|rule| rule == used || *rule == first)
    };
    let mut wrong: Vec<String> = uses(text).into_iter().filter(|used| !may(used)).collect();
    let all = code(text, true);
    for (owned, owners) in OWNED {
        if !owners.contains(&folder) && all.contains(&format!("{owned}::")) {
            wrong.push(format!("the crate {owned}"));
        }
    }
    if folder == "innodb" {
        let shipped = code(text, false);
        wrong.extend(NOT_IN_FORMATS.iter().filter(|word| shipped.contains(**word)).map(|word| (*word).to_owned()));
    }
    wrong
}

/// Words that give away the machine that something was written on.
fn machine_words(text: &str) -> Vec<String> {
    // In pieces, for this file is read too.
    let words = [("/wo", "rk/"), ("/ro", "ot/"), ("/tmp", "/sf/")].map(|(a, b)| format!("{a}{b}"));
    // A path's beginning only: "network/" and "$dir/root/" are no machine's.
    let begins = |at: usize| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|sign| sign.is_alphanumeric() || "_-.})".contains(sign))
    };
    words.into_iter().filter(|word| text.match_indices(word.as_str()).any(|(at, _)| begins(at))).collect()
}

#[test]
fn every_folder_uses_only_what_it_may() {
    let mut seen = 0;
    for (path, text) in rust_files() {
        let Some(folder) = folder(&path).filter(|name| name != "main.rs") else { continue };
        seen += 1;
        let wrong = forbidden(&folder, &text);
        assert!(wrong.is_empty(), "{} may not use {wrong:?}", path.display());
    }
    assert!(seen > 20, "only {seen} files were read");
}

#[test]
fn the_architecture_has_the_same_table() {
    let page = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    for (folder, allowed) in ALLOWED.iter().filter(|(name, _)| *name != "lib.rs") {
        let names: Vec<String> = allowed.iter().map(|name| format!("`{name}`")).collect();
        let may = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let row = format!("| `{folder}` | {may} |\n");
        assert!(page.contains(&row), "docs/ARCHITECTURE.md lacks the row {row}");
    }
}

#[test]
fn no_file_is_too_long_and_each_begins_with_what_it_is() {
    for (path, text) in rust_files() {
        let lines = text.lines().count();
        assert!(lines <= MOST_LINES, "{} has {lines} lines, more than {MOST_LINES}", path.display());
        assert!(text.starts_with("//!"), "{} does not begin by saying what it is", path.display());
    }
}

#[test]
fn no_file_names_a_machine() {
    let mut seen = 0;
    for path in files(&["."]) {
        // Golden archives and seeds are not text.
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        seen += 1;
        let words = machine_words(&text);
        assert!(words.is_empty(), "{} says {words:?}", path.display());
    }
    assert!(seen > 20, "only {seen} files were read");
}

#[test]
fn planted_uses_are_found() {
    assert_eq!(uses("use crate::innodb::lsn::Lsn;"), ["innodb::lsn"]);
    assert_eq!(uses("use crate::{innodb::{lsn::Lsn, ids}, util};"), ["innodb::lsn", "innodb::ids", "util"]);
    assert_eq!(
        uses("use crate::util::{self, units};\n// use crate::mysql;\nuse pub_crate::x;"),
        ["util", "util::units"]
    );
    assert_eq!(uses("fn f() { crate::store::open() } // crate::cli"), ["store::open"]);

    assert_eq!(forbidden("capture", "use crate::mysql::Session;"), ["mysql::Session"]);
    assert_eq!(forbidden("archive", "use crate::innodb::{ids::SpaceId, page};"), ["innodb::page"]);
    assert_eq!(forbidden("ops", "use crate::cli;"), ["cli"]);
    assert_eq!(forbidden("ops", "use mysql_async::Conn;"), ["the crate mysql_async"]);
    assert_eq!(forbidden("innodb", "use std::fs::File;"), ["std::fs"]);
    assert_eq!(forbidden("newcomer", ""), ["the folder newcomer is not in the table"]);
    assert!(forbidden("store", "use crate::archive::object::ObjectSink;\nuse crate::store::url;").is_empty());
    assert!(forbidden("innodb", "#[cfg(test)]\nmod tests { use std::fs; }").is_empty());
}

#[test]
fn planted_machine_words_are_found() {
    assert_eq!(machine_words(&["see /wo", "rk/shared"].concat()).len(), 1);
    assert!(machine_words("a framework/and a net/work/path, \"$dir/root/usr\"").is_empty());
}
