//! Unpredictability as an argument: the same seed gives the same ids and the same jitter, an unknown seed gives none away.

use sha2::{Digest, Sha256};

/// A stream of unpredictable numbers from a secret seed: SHA-256 over seed and counter, so that a worker that sees one task
/// id cannot guess another.
#[derive(Debug)]
pub struct Entropy {
    seed: [u8; 32],
    counter: u64,
}

impl Entropy {
    /// The stream that belongs to this seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    /// The next 128 bits.
    pub fn next_u128(&mut self) -> u128 {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(self.counter.to_le_bytes());
        self.counter += 1;
        let digest = hash.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        u128::from_le_bytes(bytes)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.next_u128() as u64
    }

    /// A number in `0.0..1.0`.
    pub fn next_fraction(&mut self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_seed_others() {
        let numbers = |seed| {
            let mut entropy = Entropy::from_seed([seed; 32]);
            [entropy.next_u128(), entropy.next_u128()]
        };
        assert_eq!(numbers(1), numbers(1));
        assert_ne!(numbers(1), numbers(2));
        assert_ne!(numbers(1)[0], numbers(1)[1]);
    }
}
