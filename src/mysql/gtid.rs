//! Sets of transactions by their global ids.
//!
//! ```text
//!   3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7:blue:1-3,  …
//!   └─────────── server ───────────────┘ └untagged┘ └tag and its intervals┘ (tags: MySQL 8.3 and later)
//! ```
//! Text is read in any order and shape the server accepts, and shown in one: servers and tags sorted, intervals
//! joined. Pure; the numbers run from 1 to 2^63 - 2.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The largest number of a transaction.
const MAX_NUMBER: u64 = (1 << 63) - 2;
const MAX_TAG_LENGTH: usize = 32;
/// A set with more intervals than this is no set that a server could have made, but an attempt to fill memory.
const MAX_INTERVALS: usize = 1 << 22;

/// Who numbered a transaction: a server, and a tag that is mostly empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Origin {
    server: [u8; 16],
    tag: String,
}

/// Transactions, by origin: first and last number of each run, ascending, never touching.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GtidSet(BTreeMap<Origin, Vec<(u64, u64)>>);

/// Returned for text that is no set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{part}\" in a GTID set {why}")]
pub struct BadGtidSet {
    part: String,
    why: &'static str,
}

impl GtidSet {
    /// The set without transactions.
    pub fn new() -> Self {
        Self::default()
    }

    /// True when it holds no transaction.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many transactions it holds.
    pub fn len(&self) -> u64 {
        self.0
            .values()
            .flatten()
            .fold(0, |sum: u64, (first, last)| sum.saturating_add((last - first).saturating_add(1)))
    }

    /// True when every transaction of `other` is in this set.
    pub fn contains(&self, other: &Self) -> bool {
        other.0.iter().all(|(origin, theirs)| {
            let ours = self.0.get(origin).map(Vec::as_slice).unwrap_or_default();
            theirs.iter().all(|&(first, last)| {
                let at = ours.partition_point(|&(_, end)| end < first);
                ours.get(at).is_some_and(|&(start, end)| start <= first && last <= end)
            })
        })
    }

    /// The transactions of both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.0.clone();
        for (origin, runs) in &other.0 {
            all.entry(origin.clone()).or_default().extend_from_slice(runs);
        }
        for runs in all.values_mut() {
            *runs = joined(std::mem::take(runs));
        }
        Self(all)
    }

    /// The transactions of this set that `other` has not.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let rest = self.0.iter().map(|(origin, runs)| {
            let holes = other.0.get(origin).map(Vec::as_slice).unwrap_or_default();
            (origin.clone(), without(runs, holes))
        });
        Self(rest.filter(|(_, runs)| !runs.is_empty()).collect())
    }
}

/// Sorts runs and joins those that overlap or touch.
fn joined(mut runs: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    runs.sort_unstable();
    let mut result: Vec<(u64, u64)> = Vec::with_capacity(runs.len());
    for (first, last) in runs {
        match result.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => result.push((first, last)),
        }
    }
    result
}

fn without(runs: &[(u64, u64)], holes: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut rest = Vec::new();
    for &(first, last) in runs {
        let mut from = first;
        let at = holes.partition_point(|&(_, end)| end < first);
        for &(start, end) in holes.iter().skip(at).take_while(|&&(start, _)| start <= last) {
            if from < start {
                rest.push((from, start - 1));
            }
            from = end.saturating_add(1);
        }
        if from <= last {
            rest.push((from, last));
        }
    }
    rest
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut server = None;
        for (origin, runs) in &self.0 {
            if server != Some(origin.server) {
                if server.is_some() {
                    f.write_str(",")?;
                }
                write_server(f, &origin.server)?;
                server = Some(origin.server);
            }
            if !origin.tag.is_empty() {
                write!(f, ":{}", origin.tag)?;
            }
            for (first, last) in runs {
                if first == last { write!(f, ":{first}")? } else { write!(f, ":{first}-{last}")? }
            }
        }
        Ok(())
    }
}

fn write_server(f: &mut fmt::Formatter<'_>, server: &[u8; 16]) -> fmt::Result {
    for (index, byte) in server.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            f.write_str("-")?;
        }
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

impl FromStr for GtidSet {
    type Err = BadGtidSet;

    fn from_str(text: &str) -> Result<Self, BadGtidSet> {
        let mut set: BTreeMap<Origin, Vec<(u64, u64)>> = BTreeMap::new();
        let mut intervals = 0_usize;
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let mut parts = item.split(':').map(str::trim);
            let mut origin = Origin { server: parse_server(parts.next().unwrap_or_default())?, tag: String::new() };
            let before = intervals;
            for part in parts {
                if part.starts_with(|first: char| first.is_ascii_digit()) {
                    set.entry(origin.clone()).or_default().push(parse_run(part)?);
                    intervals += 1;
                } else {
                    origin.tag = parse_tag(part)?;
                }
            }
            if intervals == before {
                return Err(bad(item, "names no transaction"));
            }
            if intervals > MAX_INTERVALS {
                return Err(bad(item, "is one of too many"));
            }
        }
        for runs in set.values_mut() {
            *runs = joined(std::mem::take(runs));
        }
        Ok(Self(set))
    }
}

fn bad(part: &str, why: &'static str) -> BadGtidSet {
    BadGtidSet { part: part.chars().take(80).collect(), why }
}

fn parse_server(text: &str) -> Result<[u8; 16], BadGtidSet> {
    let wrong = || bad(text, "is no server uuid");
    let digits: String = text.chars().filter(|&letter| letter != '-').collect();
    let mut server = [0; 16];
    hex::decode_to_slice(digits, &mut server).map_err(|_| wrong())?;
    Ok(server)
}

fn parse_run(text: &str) -> Result<(u64, u64), BadGtidSet> {
    let number = |digits: &str| match digits.trim().parse::<u64>() {
        Ok(number @ 1..=MAX_NUMBER) => Ok(number),
        _ => Err(bad(text, "is no range of transaction numbers")),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first > last { Err(bad(text, "runs backwards")) } else { Ok((first, last)) }
}

fn parse_tag(text: &str) -> Result<String, BadGtidSet> {
    let tag = text.to_ascii_lowercase();
    let first = tag.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_');
    let rest = tag.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if first && rest && tag.len() <= MAX_TAG_LENGTH { Ok(tag) } else { Err(bad(text, "is no tag")) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const A: &str = "11111111-1111-1111-1111-111111111111";
    const B: &str = "86ca933c-eab7-11f1-8e64-02fc00000001";

    fn set(text: &str) -> GtidSet {
        text.parse().unwrap()
    }

    #[test]
    fn as_the_server_writes_it() {
        // MySQL 9.7.4 with tags, as it printed them.
        let text = format!("{A}:5:7:xyz:5,\n{B}:1-84:a1:1:tag_b:1");
        assert_eq!(set(&text).to_string(), text.replace('\n', ""));
        assert_eq!(set(&text).len(), 3 + 86);
        assert_eq!(set("").to_string(), "");
        assert!(set(" ,\n, ").is_empty());
    }

    #[test]
    fn other_spellings_come_out_the_same() {
        let upper = B.to_ascii_uppercase().replace('-', "");
        assert_eq!(set(&format!("{upper}:7:1-3:4-5:TAG:2:1 , {A}:1")).to_string(), format!("{A}:1,{B}:1-5:7:tag:1-2"));
        assert_eq!(set(&format!("{A}:1,{A}:2,{A}:t:9")).to_string(), format!("{A}:1-2:t:9"));
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for wrong in ["x", "1234:1", A, &format!("{A}:"), &format!("{A}:0"), &format!("{A}:5-3"), &format!("{A}:1-")] {
            assert!(wrong.parse::<GtidSet>().is_err(), "{wrong}");
        }
        for wrong in [":9223372036854775807", ":tag", ":a-b:1", ":tag:1-2-3", &format!(":{}:1", "t".repeat(33))] {
            assert!(format!("{A}{wrong}").parse::<GtidSet>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_tag_is_another_origin() {
        assert!(!set(&format!("{A}:1-9")).contains(&set(&format!("{A}:blue:1"))));
        assert!(set(&format!("{A}:1-9:blue:1-2")).contains(&set(&format!("{A}:blue:2"))));
        assert!(set(&format!("{A}:1")).contains(&GtidSet::new()));
    }

    type Plain = BTreeSet<(u8, u8, u64)>;

    fn plain() -> impl Strategy<Value = Plain> {
        prop::collection::btree_set((0..2_u8, 0..2_u8, 1..12_u64), 0..30)
    }

    fn of_plain(plain: &Plain) -> GtidSet {
        let one = |(server, tag, number): &(u8, u8, u64)| {
            let server = if *server == 0 { A } else { B };
            if *tag == 0 { format!("{server}:{number}") } else { format!("{server}:t{tag}:{number}") }
        };
        // Backwards, so that nothing comes sorted.
        set(&plain.iter().rev().map(one).collect::<Vec<_>>().join(","))
    }

    proptest! {
        #[test]
        fn sets_behave_as_sets(left in plain(), right in plain()) {
            let (l, r) = (of_plain(&left), of_plain(&right));
            prop_assert_eq!(l.len(), u64::try_from(left.len()).unwrap());
            prop_assert_eq!(l.contains(&r), right.is_subset(&left));
            prop_assert_eq!(l.union(&r), of_plain(&left.union(&right).copied().collect()));
            prop_assert_eq!(l.minus(&r), of_plain(&left.difference(&right).copied().collect()));
            prop_assert_eq!(set(&l.to_string()), l);
        }

        #[test]
        fn no_text_panics(text in "[0-9a-f:,\\-_ \\n]{0,80}") {
            if let Ok(set) = text.parse::<GtidSet>() {
                prop_assert_eq!(set.to_string().parse::<GtidSet>(), Ok(set));
            }
        }
    }
}
