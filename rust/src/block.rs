//! The kernels on one block: is it zeros, and what is its id.

use crate::bytes::Id;
use crate::keys::Key;

/// The id of a hole or a block of zeros: a state, never a hash and never stored.
pub const ZERO: Id = [0; 32];

/// The id of a block that could not be read: equal to nothing, never inherited.
pub const UNREADABLE: Id = {
    let mut id = [0; 32];
    id[0] = 1;
    id
};

/// The smallest block, 64 KiB.
pub const MIN_SIZE: usize = 64 << 10;
/// The largest block, 4 MiB.
pub const MAX_SIZE: usize = 4 << 20;

/// Whether all bytes are zero.
pub fn is_zero(data: &[u8]) -> bool {
    // Most blocks that are not zeros show it early; whole pages are then or-ed together without a branch a byte.
    data.chunks(4096).all(|page| page.iter().fold(0u8, |all, byte| all | byte) == 0)
}

/// Keyed BLAKE3 of the block, taken as padded with zeros to `block_size`.
pub fn id(key: &Key, data: &[u8], block_size: usize) -> Id {
    if data.len() == block_size {
        return *blake3::keyed_hash(key, data).as_bytes();
    }
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(data);
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut left = block_size.saturating_sub(data.len());
    while left > 0 {
        let count = left.min(ZEROS.len());
        hasher.update(&ZEROS[..count]);
        left -= count;
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    fn naive_is_zero(data: &[u8]) -> bool {
        for byte in data {
            if *byte != 0 {
                return false;
            }
        }
        true
    }

    fn naive_id(key: &[u8; 32], data: &[u8], block_size: usize) -> Id {
        let mut padded = data.to_vec();
        padded.resize(block_size, 0);
        *blake3::keyed_hash(key, &padded).as_bytes()
    }

    proptest! {
        #[test]
        fn zero_test_agrees_with_naive(length in 0usize..20_000, at in 0usize..20_000, value in 0u8..3) {
            let mut data = vec![0; length];
            if let Some(byte) = data.get_mut(at) { *byte = value; }
            prop_assert_eq!(is_zero(&data), naive_is_zero(&data));
        }

        #[test]
        fn id_agrees_with_naive(seed: u8, length in 0usize..=65_536) {
            let data: Vec<u8> = (0..length).map(|i| (i as u8).wrapping_mul(seed)).collect();
            let key = Zeroizing::new([seed; 32]);
            prop_assert_eq!(id(&key, &data, 65_536), naive_id(&key, &data, 65_536));
        }
    }
}
