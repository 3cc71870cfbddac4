//! Numbers from a seed. Equal seeds give equal labs.

/// A splitmix64 sequence.
#[derive(Debug, Clone)]
pub struct Draw(u64);

impl Draw {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Draw {
        Draw(seed)
    }

    /// A seed that nobody chose.
    pub fn fresh_seed() -> u64 {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos() as u64);
        Draw(now ^ u64::from(std::process::id())).number() % 1_000_000
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u32, high: u32) -> u32 {
        low + (self.number() % u64::from(high - low + 1)) as u32
    }

    /// True in `percent` of draws.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.between(1, 100) <= percent
    }

    /// One of `items`.
    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[(self.number() % items.len() as u64) as usize].clone()
    }

    /// One of `items`, which is then gone from it.
    pub fn take<T>(&mut self, items: &mut Vec<T>) -> T {
        let i = (self.number() % items.len() as u64) as usize;
        items.swap_remove(i)
    }

    /// `len` characters as Kubernetes puts them at the end of generated names.
    pub fn suffix(&mut self, len: usize) -> String {
        (0..len)
            .map(|_| char::from(self.pick(b"bcdfghjklmnpqrstvwxz2456789")))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_sequences() {
        let numbers = |seed| {
            let mut draw = Draw::new(seed);
            (0..8).map(|_| draw.number()).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }

    #[test]
    fn a_range_holds_both_ends() {
        let mut draw = Draw::new(1);
        let seen: std::collections::BTreeSet<u32> = (0..200).map(|_| draw.between(3, 5)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [3, 4, 5]);
    }
}
