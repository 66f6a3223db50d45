//! Random numbers and texts, the same ones for the same seed.

/// A small generator (SplitMix64): tests need variety and repeatability, not secrecy.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = self.below(from.len() as u64);
        &from[usize::try_from(at).unwrap()]
    }

    /// About `len` bytes of words and numbers that need no quoting; compressible by a half to two thirds.
    pub fn text(&mut self, len: u64) -> String {
        const WORDS: [&str; 16] = [
            "still",
            "frame",
            "redo",
            "page",
            "undo",
            "the quick ",
            "brown",
            " fox",
            "jumps",
            "over",
            "lazy",
            "dog",
            "lorem ",
            "ipsum",
            "dolor ",
            "sit amet",
        ];
        let len = usize::try_from(len).unwrap();
        let mut text = String::with_capacity(len + 20);
        while text.len() < len {
            let number = self.next();
            if number.is_multiple_of(4) {
                text.push_str(WORDS[(number >> 8) as usize % WORDS.len()]);
            } else {
                // 10 random characters
                for shift in 0..10 {
                    let digit = (number >> (2 + 6 * shift)) & 31;
                    text.push(char::from(b"abcdefghijklmnopqrstuvwxyz 012345"[digit as usize]));
                }
            }
        }
        text.truncate(len);
        text
    }

    /// A text of a length as found in tables: mostly short, now and then many pages long, never more than `longest`.
    pub fn body(&mut self, longest: u64) -> String {
        let len = match self.below(100) {
            0..40 => self.below(200),
            40..85 => self.below(3_000),
            85..98 => self.below(20_000),
            _ => self.below(150_000),
        };
        self.text(len.min(longest))
    }
}
