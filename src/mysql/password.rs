//! Passwords as the server stores them, in `mysql.user.authentication_string` (MySQL 8.0.30 to 9.7; checked against what
//! 9.7.4 stores).
//!
//! ```text
//!   caching_sha2_password   $A$ rounds / 1000, 3 hex digits $ salt 20 │ digest 43      70 bytes
//!                           SHA-256 crypt (U. Drepper, "Unix crypt using SHA-256 and SHA-512") with all 20 bytes of salt
//!   mysql_native_password   * SHA-1(SHA-1(password)), 40 hex digits                    41 bytes
//! ```
//! What is stored has always the same length, so that one password can take another's place.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use zeroize::Zeroizing;

/// The server takes no longer one.
pub const MOST_BYTES: usize = 256;

const SALT: usize = 20;
/// `$A$`, the rounds, `$`.
const HEAD: usize = 7;
const DIGEST: usize = 43;
const HASH: usize = 32;
/// A count of rounds is in thousands.
const ROUNDS: u32 = 1000;
/// The server refuses more: 4 095 000.
const MOST_ROUNDS: u32 = 0xFFF;
/// The digits of what crypt writes.
const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Why a stored password cannot be replaced by another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Irreplaceable {
    /// It logs in by other means.
    #[error("its plugin is {0}, which Stillframe sets no password for")]
    Plugin(String),
    /// It has none: there is no room for one.
    #[error("it has no password that another could take the place of")]
    Empty,
    /// It is none that the plugin stores.
    #[error("what is stored for it is no password of {0}")]
    Malformed(String),
}

/// Gives what the server would store for `password` in place of `stored`: of the same length, with as many rounds. The salt
/// comes from `seed`, which need not be secret: equal seeds give equal bytes.
pub fn replacement(plugin: &str, stored: &[u8], password: &[u8], seed: &[u8]) -> Result<Vec<u8>, Irreplaceable> {
    let malformed = || Irreplaceable::Malformed(plugin.to_owned());
    if stored.is_empty() {
        return Err(Irreplaceable::Empty);
    }
    match plugin {
        "caching_sha2_password" => {
            let head = stored.get(..HEAD).filter(|_| stored.len() == HEAD + SALT + DIGEST).ok_or_else(malformed)?;
            let thousands = rounds(head).ok_or_else(malformed)?;
            let salt = salt(seed);
            let rounds = thousands.saturating_mul(ROUNDS);
            Ok([head, salt.as_slice(), &sha256_crypt(password, &salt, rounds)].concat())
        }
        "mysql_native_password" => {
            if stored.len() != 41 || stored.first() != Some(&b'*') {
                return Err(malformed());
            }
            let once = digest(&SHA1_FOR_LEGACY_USE_ONLY, password);
            let twice = digest(&SHA1_FOR_LEGACY_USE_ONLY, once.as_ref());
            Ok(format!("*{}", hex::encode_upper(twice)).into_bytes())
        }
        other => Err(Irreplaceable::Plugin(other.to_owned())),
    }
}

/// The thousands of rounds that a stored password names.
fn rounds(head: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(head).ok()?;
    let digits = text.strip_prefix("$A$")?.strip_suffix('$')?;
    u32::from_str_radix(digits, 16).ok().filter(|rounds| (1..=MOST_ROUNDS).contains(rounds))
}

/// Bytes of seven bits, none of which is zero or the dollar sign that ends a salt.
fn salt(seed: &[u8]) -> [u8; SALT] {
    let mut salt = [0; SALT];
    for (byte, random) in salt.iter_mut().zip(digest(&SHA256, seed).as_ref()) {
        *byte = match random & 0x7F {
            0 | b'$' => b'.',
            other => other,
        };
    }
    salt
}

/// A hash that is fed piece by piece.
struct Hash(Context);

impl Hash {
    fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    fn add(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    fn end(self) -> [u8; HASH] {
        let mut bytes = [0; HASH];
        for (byte, digest) in bytes.iter_mut().zip(self.0.finish().as_ref()) {
            *byte = *digest;
        }
        bytes
    }
}

/// `hash` over and over, up to a length.
fn repeated(hash: [u8; HASH], len: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(hash.iter().copied().cycle().take(len).collect())
}

fn hash_of(parts: &[&[u8]]) -> [u8; HASH] {
    let mut hash = Hash::new();
    for part in parts {
        hash.add(part);
    }
    hash.end()
}

/// The digest of SHA-256 crypt, as its 43 digits.
fn sha256_crypt(password: &[u8], salt: &[u8], rounds: u32) -> Vec<u8> {
    let mut first = Hash::new();
    let alternate = hash_of(&[password, salt, password]);
    first.add(password).add(salt).add(&repeated(alternate, password.len()));
    let mut bits = password.len();
    while bits > 0 {
        first.add(if bits & 1 == 1 { &alternate } else { password });
        bits >>= 1;
    }
    let mut current = first.end();

    let mut passwords = Hash::new();
    for _ in password {
        passwords.add(password);
    }
    let by_password = repeated(passwords.end(), password.len());
    let mut salts = Hash::new();
    for _ in 0..16_u32.saturating_add(u32::from(current[0])) {
        salts.add(salt);
    }
    let by_salt = repeated(salts.end(), salt.len());

    for round in 0..rounds {
        let odd = round % 2 == 1;
        let mut hash = Hash::new();
        hash.add(if odd { &by_password } else { &current });
        if round % 3 != 0 {
            hash.add(&by_salt);
        }
        if round % 7 != 0 {
            hash.add(&by_password);
        }
        hash.add(if odd { &current } else { &by_password });
        current = hash.end();
    }
    digits(&current)
}

/// Three bytes make four digits, in an order of their own.
fn digits(hash: &[u8; HASH]) -> Vec<u8> {
    const ORDER: [[usize; 3]; 10] = [
        [0, 10, 20],
        [21, 1, 11],
        [12, 22, 2],
        [3, 13, 23],
        [24, 4, 14],
        [15, 25, 5],
        [6, 16, 26],
        [27, 7, 17],
        [18, 28, 8],
        [9, 19, 29],
    ];
    let byte = |at: usize| hash.get(at).copied().map_or(0, u32::from);
    let mut text = Vec::with_capacity(DIGEST);
    let mut put = |mut value: u32, count: u32| {
        for _ in 0..count {
            let digit = usize::try_from(value & 63).ok().and_then(|at| DIGITS.get(at));
            text.extend(digit);
            value >>= 6;
        }
    };
    for [high, middle, low] in ORDER {
        put(byte(high) << 16 | byte(middle) << 8 | byte(low), 4);
    }
    put(byte(31) << 8 | byte(30), 3);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What MySQL 9.7.4 stored for these passwords.
    #[test]
    fn digests_are_the_servers() {
        for (password, stored) in [
            (
                "hunter2".to_owned(),
                &b"$A$00A$r7-\x1c\rI\x03-dWm!\x01\x1eS`\x04GlBIcuRko5zaUP2QUshgWkHya0E3DJr2oO5A0AEvpx2LQA"[..],
            ),
            ("x".repeat(150), &b"$A$00A$\x13&/\x1af-.7:h*tSvu\x03VM6Dpf.KewByH/9QWjlvRXPdlb3fVpsnFUGq80V3J3r8mJ5"[..]),
            (
                "p\u{221a}\u{df}".to_owned(),
                &b"$A$00A$Cx\re\x0bxI2qO82YD?}1Sq\x081nA9MU.LsvcUvC3AZc1/4Pj3moL5kkjxbPxgkou033C"[..],
            ),
        ] {
            assert_eq!(sha256_crypt(password.as_bytes(), &stored[7..27], 10_000), stored[27..], "{password}");
        }
    }

    #[test]
    fn a_password_takes_the_place_of_another() {
        let stored = [b"$A$005$", &[b'a'; 63][..]].concat();
        let new = replacement("caching_sha2_password", &stored, b"secret", b"seed").unwrap();
        assert_eq!((new.len(), &new[..7]), (stored.len(), &b"$A$005$"[..]));
        assert_eq!(sha256_crypt(b"secret", &new[7..27], 5000), new[27..]);
        assert_eq!(new, replacement("caching_sha2_password", &stored, b"secret", b"seed").unwrap());
        assert_ne!(new, replacement("caching_sha2_password", &stored, b"secret", b"other").unwrap());
        // SELECT PASSWORD('password'), as it once was.
        let native = replacement("mysql_native_password", &[b"*", &[b'0'; 40][..]].concat(), b"password", b"").unwrap();
        assert_eq!(native, b"*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19");
    }

    #[test]
    fn salts_have_no_byte_that_ends_them() {
        for seed in 0..2000_u32 {
            let salt = salt(&seed.to_be_bytes());
            assert!(salt.iter().all(|byte| (1..0x80).contains(byte) && *byte != b'$'), "{salt:?}");
        }
    }

    #[test]
    fn what_cannot_be_replaced_is_named() {
        let sha2 = |stored: &[u8]| replacement("caching_sha2_password", stored, b"p", b"");
        assert_eq!(sha2(b""), Err(Irreplaceable::Empty));
        for bad in ["$A$005$short", "$5$", "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"] {
            assert!(matches!(sha2(bad.as_bytes()), Err(Irreplaceable::Malformed(_))), "{bad}");
        }
        for head in ["$A$000$", "$A$0x5$", "$B$005$", "$A$-05$"] {
            let stored = [head.as_bytes(), &[b'a'; 63]].concat();
            assert!(matches!(sha2(&stored), Err(Irreplaceable::Malformed(_))), "{head}");
        }
        let other = replacement("auth_socket", b"mysql", b"p", b"");
        assert_eq!(other, Err(Irreplaceable::Plugin("auth_socket".to_owned())));
        assert!(replacement("mysql_native_password", b"*short", b"p", b"").is_err());
    }
}
