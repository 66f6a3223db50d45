//! zlib as built in gives the bytes that other builds of it give, and damaged streams are errors.

use proptest::prelude::*;

use super::*;

const BITS: u8 = 14;

fn text() -> Vec<u8> {
    let mut text: Vec<u8> = Vec::new();
    for number in 0..400 {
        text.extend_from_slice(format!("row {number} of a page, {};", "abc".repeat(number % 7)).as_bytes());
    }
    text.truncate(12000);
    text
}

fn compress(level: u8, parts: &[(&[u8], Flush)]) -> Vec<u8> {
    let mut deflater = Deflater::new(level, BITS).unwrap();
    let (mut out, mut at) = (vec![0; 16384], 0);
    for (part, flush) in parts {
        at += deflater.push(part, &mut out[at..], *flush).unwrap();
    }
    out.truncate(at);
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0xEDB8_8320 })
    })
}

#[test]
fn the_bytes_are_those_of_other_builds() {
    // Length and crc32 as zlib 1.2.13 made them, through another language's bindings.
    let known = [(1, 1388, 0x9131_8BAB), (6, 1359, 0xA7C8_4E47), (9, 1187, 0x946C_ED40)];
    let text = text();
    for (level, len, sum) in known {
        let fields: &[u8] = &[1, 0x0D, 0x7E, 3];
        let parts = [(fields, Flush::Full), (&text[..5000], Flush::Gather), (&text[5000..], Flush::Finish)];
        let out = compress(level, &parts);
        assert_eq!((out.len(), crc32(&out)), (len, sum), "level {level}");
    }
    assert!(makes_same_bytes(version()), "{}", version());
}

#[test]
fn streams_stop_at_blocks_and_ends() {
    let text = text();
    let out = compress(6, &[(b"fields", Flush::Full), (&text, Flush::Finish)]);
    let mut inflater = Inflater::new(BITS).unwrap();
    let mut plain = vec![0; 20000];
    let head = inflater.pull_block(&out, &mut plain).unwrap();
    assert_eq!((head.consumed, head.produced), (2, 0));
    let first = inflater.pull_block(&out[2..], &mut plain).unwrap();
    assert_eq!(&plain[..first.produced], b"fields");
    let at = 2 + first.consumed;
    let some = inflater.pull(&out[at..], &mut plain[..100]).unwrap();
    assert_eq!((some.produced, some.ended), (100, false));
    let rest = inflater.pull(&out[at + some.consumed..], &mut plain[100..]).unwrap();
    assert!(rest.ended && plain[..100 + rest.produced] == text);
    assert_eq!(inflater.pull(&[], &mut plain).unwrap(), Progress { ended: true, ..Progress::default() });
}

#[test]
fn what_does_not_fit_or_is_damaged_is_an_error() {
    let text = text();
    let mut deflater = Deflater::new(1, BITS).unwrap();
    assert_eq!(deflater.push(&text, &mut [0; 50], Flush::Finish), Err(ZlibError::Full { room: 50 }));
    assert!(matches!(Deflater::new(10, BITS), Err(ZlibError::Begin { .. })));
    assert!(matches!(Inflater::new(60), Err(ZlibError::Begin { .. })));
    let mut inflater = Inflater::new(BITS).unwrap();
    assert!(matches!(inflater.pull(&[1, 2, 3, 4], &mut [0; 50]), Err(ZlibError::Damaged { .. })));
}

#[test]
fn builds_of_others_are_told_apart() {
    for same in ["1.2.11", "1.2.13", "1.2.13.1", "1.3", "1.3.1", "1.3.2"] {
        assert!(makes_same_bytes(same), "{same}");
    }
    for other in ["", "1.2.5", "1.3.1.zlib-ng", "2.2.4", "1.3.1.1-motley", "1.2", "1.4.0"] {
        assert!(!makes_same_bytes(other), "{other}");
    }
}

proptest! {
    #[test]
    fn any_stream_comes_back(text in proptest::collection::vec(any::<u8>(), 0..3000), level in 0_u8..=9, cut in 0_usize..3000) {
        let cut = cut.min(text.len());
        let mut parts = vec![(&text[..cut], Flush::Gather), (&text[cut..], Flush::Finish)];
        parts.retain(|(part, flush)| !part.is_empty() || *flush == Flush::Finish);
        let out = compress(level, &parts);
        let mut plain = vec![0; text.len()];
        let progress = Inflater::new(BITS).unwrap().pull(&out, &mut plain).unwrap();
        prop_assert!(progress.ended && plain == text);
    }

    #[test]
    fn any_bytes_are_decompressed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), block: bool) {
        let bytes = [&[0x78, 0x9C], &bytes[..]].concat();
        let mut plain = [0; 5000];
        let mut inflater = Inflater::new(15).unwrap();
        let _ = if block { inflater.pull_block(&bytes, &mut plain) } else { inflater.pull(&bytes, &mut plain) };
    }
}
