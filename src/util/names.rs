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

/// The name of a schema, table or partition that a file is named after: there `@002d` stands for `-`.
///
/// Letters such as `é` have codes of the server's own, which are left as the file has them.
pub fn from_file_name(bytes: &[u8]) -> String {
    let mut name = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        let coded = (byte == b'@').then(|| after.split_at_checked(4)).flatten();
        if let Some((letter, behind)) = coded.and_then(|(code, behind)| Some((letter_of(code)?, behind))) {
            name.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            rest = behind;
        } else {
            name.push(byte);
            rest = after;
        }
    }
    printable(&name)
}

/// A name as SQL takes it.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// The letter of a code of four digits.
fn letter_of(code: &[u8]) -> Option<char> {
    let digits = std::str::from_utf8(code).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    char::from_u32(u32::from_str_radix(digits, 16).ok()?)
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
    fn names_of_files_are_those_of_tables() {
        for (file, name) in [
            ("orders", "orders"),
            ("we@0020ird@002d@0023@0024", "we ird-#$"),
            ("@4e2d@6587", "中文"),
            // A code of the server's own, one that is cut short, and half of a pair.
            ("@0p@002", "@0p@002"),
            ("@d800x", "@d800x"),
            ("@+123", "@+123"),
            ("a@000ab", "a\\x0ab"),
        ] {
            assert_eq!(from_file_name(file.as_bytes()), name, "{file}");
        }
        assert_eq!(from_file_name(b"t\xff"), "t\\xff");
        assert_eq!(quoted(&from_file_name(b"back@0060tick")), "`back``tick`");
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
