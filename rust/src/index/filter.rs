//! Which prefixes no segment holds, without asking each of them: a block that is new would be sought in thousands.
//!
//! A Bloom filter of lines of 512 bits, six of which stand for a prefix: one line of cache a question. The prefixes are
//! keyed hashes, so they are spread evenly, and nobody without the key can choose them.

use super::Prefix;

/// At so many bits a prefix one question in a hundred is answered wrongly with yes.
const BITS: usize = 10;
const LINE: usize = 512;

/// What the segments hold, roughly; never says no to what they do.
#[derive(Default)]
pub struct Filter {
    lines: Vec<[u64; 8]>,
    held: usize,
}

impl Filter {
    /// With room for so many prefixes and half as many again.
    pub fn with_room(prefixes: usize) -> Self {
        let lines = (prefixes + prefixes / 2) * BITS / LINE + 1;
        Self { lines: vec![[0; 8]; lines], held: 0 }
    }

    /// Whether so many more can be added before it answers yes too often.
    pub fn has_room(&self, more: usize) -> bool {
        (self.held + more) * BITS <= self.lines.len() * LINE
    }

    /// Adds one.
    pub fn add(&mut self, prefix: &Prefix) {
        let (line, bits) = self.place(prefix);
        let Some(line) = self.lines.get_mut(line) else { return };
        for bit in bits {
            line[bit / 64] |= 1 << (bit % 64);
        }
        self.held += 1;
    }

    /// False only for what was never added.
    pub fn may_hold(&self, prefix: &Prefix) -> bool {
        let (line, bits) = self.place(prefix);
        self.lines
            .get(line)
            .is_some_and(|line| bits.into_iter().all(|bit| line[bit / 64] & (1 << (bit % 64)) != 0))
    }

    fn place(&self, prefix: &Prefix) -> (usize, [usize; 6]) {
        let whole = u128::from_le_bytes(*prefix);
        let (low, high) = (whole as u64, (whole >> 64) as u64);
        let line = (u128::from(low) * self.lines.len() as u128) >> 64;
        (line as usize, std::array::from_fn(|number| (high >> (9 * number)) as usize % LINE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_no_to_nearly_all_that_is_new_and_to_nothing_that_is_not() {
        let prefix = |number: u64| {
            let mut out = [0; 16];
            out.copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..16]);
            out
        };
        let mut filter = Filter::with_room(10_000);
        let mut held = 0;
        while filter.has_room(1) {
            filter.add(&prefix(held));
            held += 1;
        }
        assert!(held >= 15_000);
        assert!((0..held).all(|number| filter.may_hold(&prefix(number))));
        let wrong = (held..held + 10_000).filter(|number| filter.may_hold(&prefix(*number))).count();
        assert!(wrong < 300, "{wrong} of 10000");
        assert!(!Filter::default().may_hold(&prefix(1)));
    }
}
