//! Random choices that a seed replays (SplitMix64, Steele, Lea and Flood 2014).

/// A seeded generator.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.bits() % (high - low + 1)
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.bits().is_multiple_of(times)
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let at = usize::try_from(self.between(0, of.len() as u64 - 1)).unwrap();
        &of[at]
    }

    /// `count` different numbers from `low` to `high`, in order.
    pub fn spread(&mut self, count: usize, low: u64, high: u64) -> Vec<u64> {
        let mut found = std::collections::BTreeSet::new();
        while found.len() < count {
            found.insert(self.between(low, high));
        }
        found.into_iter().collect()
    }

    /// Letters and digits that no compressor makes much shorter.
    pub fn noise(&mut self, len: usize, out: &mut Vec<u8>) {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let end = out.len() + len;
        while out.len() < end {
            let mut bits = self.bits();
            for _ in 0..10.min(end - out.len()) {
                out.push(LETTERS[usize::try_from(bits & 63).unwrap()]);
                bits >>= 6;
            }
        }
    }
}
