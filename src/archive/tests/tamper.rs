//! Whatever is done to stored bytes is noticed, and the object is named.

use super::sample::*;
use crate::archive::codec::{BodyCodec, Decompressor};
use crate::archive::container::{HEAD_BYTES, Head, Kind};
use crate::archive::keys::ArchiveKeys;
use crate::archive::memory::MemoryStore;
use crate::archive::object_reader::Opener;
use crate::archive::object_writer::{Body, ObjectBuilder};
use crate::archive::table::Owner;
use crate::archive::*;

fn archives() -> Vec<(Stored, Vec<RecipientKey>)> {
    let sample = Sample::new();
    vec![
        (write(&sample, &options(Codec::Zstd { level: 1 }, 40_000, Vec::new())), Vec::new()),
        (write(&sample, &options(Codec::Zstd { level: 1 }, 40_000, vec![key(1)])), vec![key(1)]),
    ]
}

/// Changes one object, checks that everything that is reported names it, and puts it back.
fn expect_named(stored: &Stored, keys: &[RecipientKey], name: &str, what: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let before = stored.store.objects().get(name).cloned().unwrap();
    change(stored.store.objects().get_mut(name).unwrap());
    let problems = stored.problems(keys);
    assert!(problems.iter().any(|problem| problem.contains(name)), "{what} of {name}: {problems:?}");
    stored.store.objects().insert(name.to_owned(), before);
}

fn names(stored: &Stored) -> Vec<String> {
    stored.store.objects().keys().cloned().collect()
}

#[test]
fn any_flipped_bit_is_noticed_where_it_is() {
    for (stored, keys) in archives() {
        for name in names(&stored) {
            let len = stored.store.objects()[&name].len();
            // All of header and footer, and a good sample of what lies between.
            let step = (len / 60).max(1);
            let places = (0..len).filter(|at| *at < 120 || *at + 140 > len || at % step == 0);
            for at in places {
                expect_named(&stored, &keys, &name, &format!("a flipped bit at {at} of {len}"), |bytes| {
                    bytes[at] ^= 1 << (at % 8);
                });
            }
        }
        assert_eq!(stored.problems(&keys), Vec::<String>::new());
    }
}

#[test]
fn an_object_that_is_cut_or_grown_is_noticed() {
    for (stored, keys) in archives() {
        for name in names(&stored) {
            let len = stored.store.objects()[&name].len();
            for keep in [0, 1, 95, len / 2, len - 97, len - 1] {
                expect_named(&stored, &keys, &name, "a cut", |bytes| bytes.truncate(keep));
            }
            expect_named(&stored, &keys, &name, "a growth", |bytes| bytes.push(0));
            expect_named(&stored, &keys, &name, "a growth", |bytes| bytes.extend_from_within(..));
        }
    }
}

#[test]
fn a_missing_object_is_noticed() {
    for (stored, keys) in archives() {
        for name in names(&stored) {
            let bytes = stored.store.objects().remove(&name).unwrap();
            let problems = stored.problems(&keys);
            assert!(problems.iter().any(|problem| problem.contains(&name)), "{name}: {problems:?}");
            stored.store.objects().insert(name, bytes);
        }
    }
}

#[test]
fn swapped_objects_are_noticed() {
    for (stored, keys) in archives() {
        let names = names(&stored);
        for (at, first) in names.iter().enumerate() {
            for second in &names[at + 1..] {
                let swap = || {
                    let mut objects = stored.store.objects();
                    let (a, b) = (objects[first].clone(), objects[second].clone());
                    objects.insert(first.clone(), b);
                    objects.insert(second.clone(), a);
                };
                swap();
                let problems = stored.problems(&keys);
                let blamed = |name: &str| problems.iter().any(|problem| problem.contains(name));
                assert!(blamed(first) || blamed(second), "{first} for {second}: {problems:?}");
                swap();
            }
        }
    }
}

#[test]
fn an_object_of_the_same_shape_from_another_backup_is_noticed() {
    // Same pages, same codec, so the same sizes; only the backup's id differs.
    let sample = Sample::new();
    let stored = write(&sample, &options(Codec::None, 40_000, Vec::new()));
    let other = WriterOptions {
        backup: "golden-20260314T150926Z-1a2b3c4e".parse().unwrap(),
        ..options(Codec::None, 40_000, Vec::new())
    };
    let other = write(&sample, &other);
    let attempt =
        WriterOptions { attempt: "0123456789abcdee".parse().unwrap(), ..options(Codec::None, 40_000, Vec::new()) };
    let attempt = write(&sample, &attempt);
    for foreign in [other, attempt] {
        for name in names(&stored) {
            let bytes = foreign.store.objects()[&name].clone();
            assert_eq!(bytes.len(), stored.store.objects()[&name].len());
            expect_named(&stored, &[], &name, "another backup's object", |own| *own = bytes);
        }
        // All of them together are the other backup; the manifest is not theirs.
        for (name, bytes) in foreign.store.objects().iter() {
            stored.store.objects().insert(name.clone(), bytes.clone());
        }
        assert!(!stored.problems(&[]).is_empty());
        for (name, bytes) in write(&sample, &options(Codec::None, 40_000, Vec::new())).store.objects().iter() {
            stored.store.objects().insert(name.clone(), bytes.clone());
        }
        assert_eq!(stored.problems(&[]), Vec::<String>::new());
    }
}

#[test]
fn swapped_frames_of_the_same_size_are_noticed() {
    let mut sample = Sample::new();
    sample.streams.truncate(0);
    for number in 1..=3 {
        sample.streams.push(Stream { id: StreamId::File(number), unit: 4096, bytes: noise(number.into(), 4096) });
    }
    sample.table.spaces.clear();
    sample.table.files.iter_mut().for_each(|file| file.bytes = 4096);
    for keys in [vec![], vec![key(1)]] {
        let stored = write(&sample, &options(Codec::None, 1 << 20, keys.clone()));
        stored.check(&sample, &keys);
        let frame = HEAD_BYTES + 2 + 16 + 2 + 4096 + if keys.is_empty() { 0 } else { 16 };
        expect_named(&stored, &keys, "pack-000001", "swapped frames", |bytes| {
            let (first, second) = bytes[80..80 + 2 * frame].split_at_mut(frame);
            first.swap_with_slice(second);
        });
    }
}

#[test]
fn a_seal_holds_only_at_its_place_even_when_all_digests_are_made_again() {
    let options = options(Codec::None, 1 << 20, vec![key(1)]);
    let owner = |attempt: &str| Owner { backup: options.backup.clone(), attempt: attempt.parse().unwrap(), keys: None };
    let data_key = ArchiveKeys::generate().unwrap();
    let own = owner("0123456789abcdef");
    let place = own.place("pack-000001", Kind::Pack);
    let store = MemoryStore::default();
    let mut object = ObjectBuilder::create(&store, &place, Some(&data_key)).unwrap();
    let body = Body { codec: BodyCodec::Raw, stored: b"some pages", raw_bytes: 10 };
    let entry = object.block([0; 16], b"meta", &body).unwrap();
    let salt = object.finish().unwrap().salt;
    let block = store.objects()["pack-000001"][80..80 + usize::try_from(entry.length).unwrap()].to_vec();

    // A forger who knows the format makes the digest right for wherever he puts the block.
    let open = |place: &container::Place<'_>, salt, number: u32, last: bool, forge: &dyn Fn(&mut Vec<u8>)| {
        let mut forged = block.clone();
        forged[..4].copy_from_slice(&number.to_be_bytes());
        forged[4] = last.into();
        forge(&mut forged);
        let digest = Head::digest(&forged[..16], &forged[HEAD_BYTES..], &place.identity());
        forged[16..32].copy_from_slice(&digest.to_bytes());
        let opener = Opener::new(place, salt, Some(&data_key)).unwrap();
        opener.open(number, last, digest, &forged.into(), &mut Decompressor::new().unwrap())
    };
    let nothing = |_: &mut Vec<u8>| {};
    let good = open(&place, salt, 0, false, &nothing).unwrap();
    assert_eq!((good.meta.as_slice(), &good.body[..]), (&b"meta"[..], &b"some pages"[..]));
    let other = owner("0123456789abcdee");
    let mut other_salt = salt;
    other_salt[0] ^= 1;
    for (what, opened) in [
        ("another number", open(&place, salt, 1, false, &nothing)),
        ("as the directory", open(&place, salt, 0, true, &nothing)),
        ("another object", open(&own.place("pack-000002", Kind::Pack), salt, 0, false, &nothing)),
        ("another kind", open(&own.place("pack-000001", Kind::RedoPack), salt, 0, false, &nothing)),
        ("another run", open(&other.place("pack-000001", Kind::Pack), salt, 0, false, &nothing)),
        ("another salt", open(&place, other_salt, 0, false, &nothing)),
        ("another codec", open(&place, salt, 0, false, &|bytes| bytes[5] = 2)),
        ("another raw size", open(&place, salt, 0, false, &|bytes| bytes[15] ^= 1)),
        ("a changed byte", open(&place, salt, 0, false, &|bytes| bytes[40] ^= 1)),
    ] {
        let error = opened.unwrap_err().to_string();
        assert!(error.contains("seal is broken"), "{what}: {error}");
    }
}

#[test]
fn a_wrong_key_is_told_from_damage() {
    let (stored, _) = archives().pop().unwrap();
    let error = stored.open(&[key(3)]).err().unwrap();
    let ArchiveError::WrongKey { wanted, given } = &error else { panic!("{error}") };
    assert_eq!((wanted[0].as_str(), given[0].as_str()), (key(1).id(), key(3).id()));
    assert!(matches!(stored.open(&[]), Err(ArchiveError::WrongKey { .. })));
    let stored = Stored { wrapped: Vec::new(), ..stored };
    let error = stored.open(&[key(1)]).err().unwrap();
    assert!(matches!(&error, ArchiveError::WrongKey { wanted, .. } if wanted[0] == key(1).id()), "{error}");
}

#[test]
fn saying_not_encrypted_does_not_help_a_forger() {
    let sample = Sample::new();
    let forged = write(&sample, &options(Codec::None, 1 << 20, Vec::new()));
    let error = forged.open(&[key(1)]).err().unwrap();
    assert!(matches!(error, ArchiveError::NotEncrypted { .. }), "{error}");
}

#[test]
fn another_recipient_can_be_added_later() {
    let sample = Sample::new();
    let mut stored = write(&sample, &options(Codec::Lz4, 1 << 20, vec![key(1)]));
    let id = options(Codec::Lz4, 0, Vec::new()).backup;
    let keys = ArchiveKeys::unwrap(&id, &stored.wrapped, &[key(1)]).unwrap();
    stored.wrapped.push(keys.wrap(&id, &key(9)).unwrap());
    stored.check(&sample, &[key(9)]);
}

#[test]
fn names_do_not_leak() {
    let holds = |stored: &Stored, needle: &[u8]| {
        let objects = stored.store.objects();
        let mut all: Vec<&[u8]> = objects.values().map(Vec::as_slice).collect();
        all.push(&stored.manifest);
        all.iter().any(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
    };
    let sample = Sample::new();
    let row = &sample.streams[0].bytes[..64];
    let open = write(&sample, &options(Codec::None, 1 << 20, Vec::new()));
    assert!(holds(&open, b"secret_table_0") && holds(&open, row), "else this test sees nothing");
    let sealed = write(&sample, &options(Codec::None, 1 << 20, vec![key(1)]));
    assert!(!holds(&sealed, b"secret") && !holds(&sealed, b".ibd") && !holds(&sealed, row));
}

#[test]
fn any_change_of_a_sealed_manifest_is_noticed() {
    let (stored, keys) = archives().pop().unwrap();
    let good = stored.manifest.clone();
    let mut stored = stored;
    for at in 0..good.len() {
        stored.manifest.clone_from(&good);
        stored.manifest[at] ^= 1;
        assert!(
            stored.open(&keys).is_err(),
            "bit at {at}: {}",
            String::from_utf8_lossy(&good[at.saturating_sub(20)..=at])
        );
    }
    // A member that this version does not know is covered too, and ignored if it was there from the beginning.
    let text = String::from_utf8(good).unwrap();
    stored.manifest = text.replacen('{', "{ \"later\": 1,", 1).into_bytes();
    let error = stored.open(&keys).err().unwrap();
    assert!(error.to_string().contains("HMAC is wrong"), "{error}");
    let without = text.lines().filter(|line| !line.contains("\"hmac\"")).collect::<Vec<_>>().join("\n");
    stored.manifest = without.replace("\"warnings\": [],", "\"warnings\": []").into_bytes();
    let error = stored.open(&keys).err().unwrap();
    assert!(error.to_string().contains("no HMAC"), "{error}");
}

/// The document with the digest that it should have.
fn stamped(text: &str) -> String {
    let start = text.rfind("\"digest\": \"").unwrap() + 11;
    let zeros = format!("{}{}{}", &text[..start], "0".repeat(64), &text[start + 64..]);
    let digest = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, zeros.as_bytes()));
    format!("{}{digest}{}", &zeros[..start], &zeros[start + 64..])
}

#[test]
fn any_change_of_a_plain_manifest_is_noticed() {
    let stored = write(&Sample::new(), &options(Codec::None, 1 << 20, Vec::new()));
    let good = stored.manifest;
    Manifest::decode(&good).unwrap();
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 1;
        assert!(Manifest::decode(&changed).is_err(), "bit at {at}");
    }
}

#[test]
fn manifests_of_other_versions() {
    let sample = Sample::new();
    let stored = write(&sample, &options(Codec::None, 1 << 20, Vec::new()));
    let text = String::from_utf8(stored.manifest).unwrap();
    let newer = Manifest::decode(text.replacen("\"format\": 1", "\"format\": 2", 1).as_bytes()).unwrap_err();
    assert!(matches!(&newer, ArchiveError::Unsupported { what, .. } if what.contains("format number 2")), "{newer}");
    let grown = text.replacen('{', "{ \"later\": { \"a\": [1] },", 1);
    let decoded = Manifest::decode(stamped(&grown).as_bytes()).unwrap();
    let digest = decoded.digest.clone();
    assert_eq!(decoded, Manifest { digest, ..Manifest::decode(text.as_bytes()).unwrap() });
    assert!(text.contains("\"end\": \"13389\""), "LSNs are strings");
    for (from, to) in [
        ("\"name\": \"golden\"", "\"name\": \"other\""),
        ("\"end\": \"13389\"", "\"end\": \"13390\""),
        ("\"checkpoint\": \"8292\"", "\"checkpoint\": \"8191\""),
        ("\"type\": \"Full\"", "\"type\": \"Incremental\""),
        ("\"codec\": \"none\"", "\"codec\": \"gzip\""),
    ] {
        assert!(text.contains(from), "{from}");
        let changed = text.replacen(from, to, 1);
        for (changed, why) in [(stamped(&changed), false), (changed, true)] {
            let error = Manifest::decode(changed.as_bytes()).unwrap_err();
            assert!(matches!(error, ArchiveError::Damaged { .. }), "{to}: {error}");
            assert!(!error.to_string().contains("digest") || why, "refused for what it says: {error}");
        }
    }
    assert!(Manifest::decode(&vec![b' '; 1 << 20]).is_err());
    let mut large = Manifest::decode(text.as_bytes()).unwrap();
    large.gtid_executed = "x".repeat(1 << 20);
    assert!(matches!(large.encode(None), Err(ArchiveError::BadInput { .. })));
}
