//! Other passwords for accounts of the restored server, in its files: before any server runs on them.
//!
//! ```text
//!   before anything is written   mysql.ibd as it will be ─► its dictionary information ─► rows of mysql.user ─► the accounts
//!                                └─ one is missing, or has no password that can be replaced: refused
//!   once all pages are written   the page ─► decrypt ─► other bytes for authentication_string ─► stamp ─► encrypt
//! ```
//! Owns which accounts are meant. What a server stores for a password is `mysql::password`'s; it has the length of what it
//! takes the place of, so that no row moves. All members that are filled from one backup get the same bytes, as replicas would.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::innodb::FormatError;
use crate::innodb::check::read_dictionary;
use crate::innodb::checksum::stamp_page;
use crate::innodb::ids::{PageNo, SpaceId};
use crate::innodb::page::crypt::encrypt_page;
use crate::innodb::page::{PageContext, PageScratch, UnverifiedPage};
use crate::innodb::rows::{Row, RowsError, each_row};
use crate::innodb::space::{TablespaceFlags, TablespaceKey};
use crate::mysql::password;
use crate::ops::error::{Error, ErrorKind};
use crate::ops::options::AccountPassword;
use crate::prepare::Recovery;

use super::Source;
use super::placement::Layout;
use super::recovered::{RecoveredSpace, bad_page};
use super::target::io_error;

/// Where accounts are.
const SPACE: SpaceId = SpaceId::DICTIONARY;
/// What the attributes of an account that has two passwords name the older one.
const SECOND_PASSWORD: &[u8] = b"additional_password";

/// What is to be written over what is there.
struct Change {
    page: PageNo,
    at: usize,
    old: Vec<u8>,
    new: Vec<u8>,
}

/// Accounts that were found, and what becomes of them.
#[derive(Default)]
pub struct NewPasswords {
    changes: Vec<Change>,
    flags: Option<TablespaceFlags>,
    key: Option<TablespaceKey>,
    /// The accounts, as SQL names them.
    pub accounts: Vec<String>,
    /// What a person should know of them.
    pub warnings: Vec<String>,
}

/// An account of the backup.
struct Account {
    user: String,
    host: String,
    plugin: String,
    page: PageNo,
    at: usize,
    stored: Vec<u8>,
    has_second: bool,
}

impl NewPasswords {
    /// Finds the accounts. Refuses what cannot be done to them.
    pub fn find(wanted: &[AccountPassword], source: &Source<'_>, recovery: &Recovery) -> Result<Self, Error> {
        let passwords = wanted.iter().map(|entry| read(&entry.password_file)).collect::<Result<Vec<_>, _>>()?;
        let none = || Error::new(ErrorKind::DamagedBackup, "the backup has no mysql.ibd, where accounts are");
        let entry = source.table.spaces.iter().find(|entry| entry.space == SPACE).ok_or_else(none)?;
        let mut space = RecoveredSpace::open(entry, source.reader, recovery, source.keyring)?;
        let users: Vec<&str> = wanted.iter().map(|entry| entry.user.as_str()).collect();
        let accounts = accounts_of(&mut space, &users)?;
        let mut found = Self { flags: Some(space.subject().flags), key: space.key().cloned(), ..Self::default() };
        for (entry, password) in wanted.iter().zip(&passwords) {
            let mut any = false;
            for account in accounts.iter().filter(|account| is_meant(wanted, entry, account)) {
                any = true;
                found.add(account, password, &source.manifest.id.to_string())?;
            }
            if !any {
                return Err(no_account(entry, &accounts));
            }
        }
        Ok(found)
    }

    fn add(&mut self, account: &Account, password: &[u8], backup: &str) -> Result<(), Error> {
        let Account { user, host, plugin, page, at, stored, has_second } = account;
        let name = format!("'{user}'@'{host}'");
        // The same for all members of a cluster, another one for each account. No part of it is the password's.
        let seed = [backup, user, host].join("\0");
        let new = password::replacement(plugin, stored, password, seed.as_bytes()).map_err(|error| {
            Error::new(ErrorKind::AccountMismatch, format!("the password of {name} cannot be replaced: {error}"))
                .advise("set it with ALTER USER once a server runs, or name the accounts of that user with their hosts")
        })?;
        if *has_second {
            self.warnings.push(format!(
                "{name} has a second password (RETAIN CURRENT PASSWORD), which still opens it: ALTER USER {name} DISCARD \
                 OLD PASSWORD"
            ));
        }
        self.changes.push(Change { page: *page, at: *at, old: stored.clone(), new });
        self.accounts.push(name);
        Ok(())
    }

    /// Writes them, where the pages are by now. Blocks.
    pub fn write(&self, layout: &Layout) -> Result<(), Error> {
        let Some(flags) = self.flags else { return Ok(()) };
        self.changes.iter().try_for_each(|change| self.write_one(layout, flags, change))
    }

    fn write_one(&self, layout: &Layout, flags: TablespaceFlags, change: &Change) -> Result<(), Error> {
        let behind = || Error::new(ErrorKind::Failed, format!("page {} is behind the end of mysql.ibd", change.page));
        let piece = layout.piece_of(SPACE, change.page).ok_or_else(behind)?;
        let within = u64::from(change.page.0.saturating_sub(piece.first_page.0));
        let offset = within.saturating_mul(u64::from(piece.page_bytes));
        let path = &piece.path;
        let open = File::options().read(true).write(true).open(path);
        let file = open.map_err(|error| io_error("open", path, error))?;
        let mut stored = vec![0; flags.physical_size().len()];
        file.read_exact_at(&mut stored, offset).map_err(|error| io_error("read", path, error))?;
        let changed = self.changed(&stored, flags, change)?;
        file.write_all_at(&changed, offset).map_err(|error| io_error("write", path, error))
    }

    /// The page with its change.
    fn changed(&self, stored: &[u8], flags: TablespaceFlags, change: &Change) -> Result<Vec<u8>, Error> {
        let bad = |fault| bad_page(SPACE, change.page, &fault);
        let (context, mut scratch) =
            (PageContext { space: SPACE, flags, key: self.key.as_ref() }, PageScratch::default());
        let opened = UnverifiedPage::new(stored, change.page).open(&context, &mut scratch).map_err(bad)?;
        let other = || {
            let message = format!("page {} of mysql.ibd is not what it was before it was written", change.page);
            Error::new(ErrorKind::Failed, message)
        };
        let plain = opened.ok_or_else(other)?;
        let (was_encrypted, mut page) = (plain.was_encrypted, plain.bytes.to_vec());
        let place = page.get_mut(change.at..change.at.saturating_add(change.new.len()));
        place.filter(|place| **place == *change.old).ok_or_else(other)?.copy_from_slice(&change.new);
        stamp_page(&mut page).map_err(|error| bad(error.into()))?;
        if let (true, Some(key)) = (was_encrypted, &self.key) {
            encrypt_page(&mut page, key).map_err(|error| bad(error.into()))?;
        }
        Ok(page)
    }
}

/// An entry with a host means that account alone; one without, all of that name that no other entry means.
fn is_meant(wanted: &[AccountPassword], entry: &AccountPassword, account: &Account) -> bool {
    let names = |entry: &AccountPassword| {
        entry.user == account.user && entry.host.as_ref().is_some_and(|host| host.eq_ignore_ascii_case(&account.host))
    };
    match entry.host {
        Some(_) => names(entry),
        None => entry.user == account.user && !wanted.iter().any(names),
    }
}

fn no_account(entry: &AccountPassword, accounts: &[Account]) -> Error {
    let hosts = accounts.iter().filter(|account| account.user == entry.user);
    let others: Vec<String> = hosts.map(|account| format!("'{}'@'{}'", account.user, account.host)).collect();
    let has = if others.is_empty() { String::new() } else { format!("; it has {}", others.join(", ")) };
    let message = match entry.host {
        Some(_) => format!("the backup has no account {entry}{has}"),
        // Where they are all named with their hosts, none is left for it.
        None => format!("the backup has no other account named '{}'{has}", entry.user),
    };
    Error::new(ErrorKind::AccountMismatch, message)
}

/// All accounts of these users.
fn accounts_of(space: &mut RecoveredSpace<'_>, users: &[&str]) -> Result<Vec<Account>, Error> {
    let subject = space.subject();
    let (dictionary, findings) = read_dictionary(&subject, space)?;
    let mut indexes = dictionary.iter().filter(|(_, index)| index.table == "user" && index.name == "PRIMARY");
    let (id, index) = indexes.next().ok_or_else(|| {
        let why = findings.first().map(|finding| format!(": {finding}")).unwrap_or_default();
        Error::new(ErrorKind::UnsupportedFormat, format!("mysql.ibd does not tell where the table mysql.user is{why}"))
    })?;
    let mut accounts = Vec::new();
    let walked = each_row(&subject, space, (*id, index), &mut |row| {
        let user = text(row, "User")?;
        if users.contains(&user.as_str()) {
            accounts.push(account(row, user)?);
        }
        Ok(())
    });
    walked.map_err(|error| match error {
        RowsError::Read(error) => error,
        RowsError::Page { page, source } => bad_page(page.space, page.page, &source.into()),
    })?;
    Ok(accounts)
}

fn account(row: &Row<'_>, user: String) -> Result<Account, FormatError> {
    let (at, stored) = match row.field("authentication_string")? {
        Some(field) if field.external => {
            return Err(FormatError::Invalid {
                what: "row of mysql.user",
                why: format!("the password of '{user}' is not on its page"),
            });
        }
        Some(field) => (field.at, field.bytes.to_vec()),
        None => (0, Vec::new()),
    };
    let attributes = row.field("User_attributes")?.map_or(&[][..], |field| field.bytes);
    let has_second = attributes.windows(SECOND_PASSWORD.len()).any(|bytes| bytes == SECOND_PASSWORD);
    let (host, plugin) = (text(row, "Host")?, text(row, "plugin")?);
    Ok(Account { user, host, plugin, page: row.page, at, stored, has_second })
}

/// A column of text, without the spaces that fill it up.
fn text(row: &Row<'_>, column: &str) -> Result<String, FormatError> {
    let bytes = row.field(column)?.map_or(&[][..], |field| field.bytes);
    Ok(String::from_utf8_lossy(bytes).trim_end_matches(' ').to_owned())
}

/// A password from its file.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let bytes = std::fs::read(path).map(Zeroizing::new).map_err(|error| io_error("read", path, error))?;
    let end = bytes.strip_suffix(b"\n").map_or(bytes.as_slice(), |line| line.strip_suffix(b"\r").unwrap_or(line));
    if end.is_empty() || end.len() > password::MOST_BYTES {
        let message = format!("{} holds no password of 1 to {} bytes", path.display(), password::MOST_BYTES);
        return Err(Error::new(ErrorKind::Usage, message));
    }
    Ok(Zeroizing::new(end.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(user: &str, host: Option<&str>) -> AccountPassword {
        AccountPassword { user: user.into(), host: host.map(str::to_owned), password_file: "/p".into() }
    }

    fn account(user: &str, host: &str) -> Account {
        let (user, host, plugin) = (user.to_owned(), host.to_owned(), "caching_sha2_password".to_owned());
        Account { user, host, plugin, page: PageNo(5), at: 0, stored: Vec::new(), has_second: false }
    }

    #[test]
    fn a_host_goes_before_all_hosts() {
        let all = [wanted("root", None), wanted("root", Some("LOCALHOST")), wanted("app", None)];
        let meant = |account: &Account| all.iter().map(|entry| is_meant(&all, entry, account)).collect::<Vec<_>>();
        assert_eq!(meant(&account("root", "localhost")), [false, true, false]);
        assert_eq!(meant(&account("root", "%")), [true, false, false]);
        assert_eq!(meant(&account("app", "localhost")), [false, false, true]);
        assert_eq!(meant(&account("Root", "%")), [false; 3], "names of users differ by case");
    }

    #[test]
    fn who_is_missing_is_named_with_those_who_are_there() {
        let there = [account("root", "localhost"), account("app", "%")];
        let error = no_account(&wanted("root", Some("%")), &there);
        assert_eq!(error.kind, ErrorKind::AccountMismatch);
        assert_eq!(error.message, "the backup has no account 'root'@'%'; it has 'root'@'localhost'");
        let error = no_account(&wanted("nobody", None), &there);
        assert_eq!(error.message, "the backup has no other account named 'nobody'");
    }

    #[test]
    fn a_password_ends_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        for (content, password) in
            [("a b\n", "a b"), ("a\r\n", "a"), ("a", "a"), ("a\n\n", "a\n"), ("\u{e4}", "\u{e4}")]
        {
            std::fs::write(&path, content).unwrap();
            assert_eq!(read(&path).unwrap().as_slice(), password.as_bytes(), "{content:?}");
        }
        let long = "x".repeat(257);
        for bad in ["", "\n", "\r\n", long.as_str()] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(read(&path).unwrap_err().kind, ErrorKind::Usage, "{bad:?}");
        }
        assert_eq!(read(&dir.path().join("none")).unwrap_err().kind, ErrorKind::LocalIo);
    }
}
