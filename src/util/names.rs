//! Names that come from outside: bytes of file systems and servers, and the names that people give.

/// The longest name that [`check_label`] allows, so that an id made of it still fits every store and cluster.
pub const MAX_LABEL: usize = 200;

/// Shows any bytes on one line: valid printable UTF-8 as it is, everything else as `\xNN`.
///
/// A file name may hold a line feed or a terminal's control sequence; neither may reach a log or a screen.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => text.push_str("\\\\"),
                letter if is_unsafe(letter) => {
                    let mut buffer = [0; 4];
                    letter.encode_utf8(&mut buffer).bytes().for_each(|byte| push_hex(&mut text, byte));
                }
                letter => text.push(letter),
            }
        }
        chunk.invalid().iter().for_each(|&byte| push_hex(&mut text, byte));
    }
    text
}

/// Checks a name that becomes part of object keys: lower-case letters, digits, `-` and `.`, ends alphanumeric.
///
/// Returns what is wrong with it, ready to be shown after the name.
pub fn check_label(name: &str) -> Result<(), &'static str> {
    let alphanumeric = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if name.is_empty() {
        return Err("is empty");
    }
    if name.len() > MAX_LABEL {
        return Err("is longer than 200 characters");
    }
    if !name.bytes().all(|b| alphanumeric(Some(b)) || b == b'-' || b == b'.') {
        return Err("may hold only lower-case letters, digits, \"-\" and \".\"");
    }
    if !alphanumeric(name.bytes().next()) || !alphanumeric(name.bytes().last()) {
        return Err("must begin and end with a letter or a digit");
    }
    if name.contains("..") {
        return Err("may not hold two dots in a row");
    }
    Ok(())
}

/// Control characters, and those that reorder or hide the text around them.
fn is_unsafe(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn push_hex(text: &mut String, byte: u8) {
    use std::fmt::Write;
    // Writing to a String cannot fail.
    let _ = write!(text, "\\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_fit_on_one_line() {
        assert_eq!(printable(b"shop/orders.ibd"), "shop/orders.ibd");
        assert_eq!(printable("büro/naïve".as_bytes()), "büro/naïve");
        assert_eq!(printable(b"a\nb\x1b[31m\xff\\"), r"a\x0ab\x1b[31m\xff\\");
        assert_eq!(printable("x\u{202e}y".as_bytes()), r"x\xe2\x80\xaey");
    }

    #[test]
    fn labels() {
        for good in ["a", "nightly", "db-1.prod", "0"] {
            assert_eq!(check_label(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a/b", "a..b", ".", "a b", "ü", &"a".repeat(201)] {
            assert!(check_label(bad).is_err(), "{bad}");
        }
    }
}
