//! From what a person or a file holds to the private key of a slot.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::{Zeroize, Zeroizing};

use super::{Key, subkey};
use crate::error::{Error, Result, damaged};

/// How a passphrase is stretched: Argon2id (RFC 9106).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Memory in KiB.
    pub memory: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Stretch {
    /// RFC 9106, section 4: the second recommended option.
    pub const USUAL: Self = Self { memory: 64 << 10, passes: 3, lanes: 4 };

    const MEMORY: std::ops::RangeInclusive<u32> = 8 << 10..=1 << 20;
    const PASSES: std::ops::RangeInclusive<u32> = 1..=16;
    const LANES: std::ops::RangeInclusive<u32> = 1..=16;
    /// Memory times passes, in KiB: some ten seconds of one processor.
    const WORK: u64 = 4 << 20;

    /// Refuses, before any memory is reserved, what would take too much of it or of time, and what protects too little.
    pub fn checked(self) -> Result<Self> {
        let work = u64::from(self.memory) * u64::from(self.passes);
        if Self::MEMORY.contains(&self.memory)
            && Self::PASSES.contains(&self.passes)
            && Self::LANES.contains(&self.lanes)
            && work <= Self::WORK
        {
            return Ok(self);
        }
        damaged(format!(
            "Argon2id parameters out of bounds: {} KiB, {} passes, {} lanes (8192 to 1048576 KiB, 1 to 16 passes and lanes, and at most 4 GiB in all passes)",
            self.memory, self.passes, self.lanes
        ))
    }

    fn apply(self, passphrase: &[u8], salt: &[u8; 16]) -> Result<Key> {
        let Self { memory, passes, lanes } = self.checked()?;
        let failed = |error| Error::Usage(format!("the passphrase cannot be stretched: {error}"));
        let params = Params::new(memory, passes, lanes, Some(32)).map_err(failed)?;
        let count = params.block_count();
        let mut blocks: Vec<Block> = Vec::new();
        blocks.try_reserve_exact(count).map_err(|_| {
            Error::Usage(format!(
                "the passphrase's slot needs {memory} KiB of memory, which are not to be had"
            ))
        })?;
        blocks.resize(count, Block::default());
        let mut out = Zeroizing::new([0; 32]);
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let done =
            argon.hash_password_into_with_memory(passphrase, salt, out.as_mut_slice(), blocks.as_mut_slice());
        blocks.zeroize();
        done.map_err(failed)?;
        Ok(out)
    }
}

/// What is meant to open a slot.
#[derive(Clone, Copy)]
pub enum Secret<'a> {
    /// At least 32 random bytes, as a key file holds.
    KeyFile(&'a [u8]),
    /// What a person remembers.
    Passphrase(&'a [u8]),
}

impl Secret<'_> {
    /// The secret of the slot with that salt.
    pub(super) fn stretched(self, salt: &[u8; 16], stretch: Stretch) -> Result<Key> {
        match self {
            Self::KeyFile(secret) => {
                let key = Zeroizing::new(blake3::derive_key("snapferry format 1: key file", long(secret)?));
                Ok(subkey(&key, &[salt]))
            }
            Self::Passphrase([]) => Err(Error::Usage("an empty passphrase protects nothing".into())),
            Self::Passphrase(passphrase) => {
                let key = stretch.apply(passphrase, salt)?;
                Ok(Zeroizing::new(blake3::derive_key("snapferry format 1: passphrase", key.as_slice())))
            }
        }
    }
}

/// The private key of a host whose slots are made from its public half alone.
pub(super) fn host_private(secret: &[u8]) -> Result<Key> {
    Ok(Zeroizing::new(blake3::derive_key("snapferry format 1: private key of a host", long(secret)?)))
}

fn long(secret: &[u8]) -> Result<&[u8]> {
    if secret.len() < 32 {
        return Err(Error::Usage("a key file's secret has at least 32 bytes".into()));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9106, section 5.3, has a secret and associated data; this vector of the reference implementation has neither.
    #[test]
    fn argon2id_is_the_standard_one() {
        let params = Params::new(65536, 2, 1, Some(32)).unwrap();
        let mut out = [0; 32];
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon.hash_password_into(b"password", b"somesalt", &mut out).unwrap();
        assert_eq!(
            crate::bytes::hex(&out),
            "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"
        );
    }

    #[test]
    fn parameters_out_of_bounds_are_refused_before_memory_is_reserved() {
        let good = Stretch { memory: 8 << 10, passes: 1, lanes: 1 };
        assert!(Secret::Passphrase(b"x").stretched(&[1; 16], good).is_ok());
        for bad in [
            Stretch { memory: u32::MAX, ..good },
            Stretch { memory: (1 << 20) + 1, ..good },
            Stretch { memory: (8 << 10) - 1, ..good },
            Stretch { memory: 0, ..good },
            Stretch { passes: 0, ..good },
            Stretch { passes: 17, ..good },
            Stretch { passes: u32::MAX, ..good },
            Stretch { lanes: 0, ..good },
            Stretch { lanes: u32::MAX, ..good },
            Stretch { memory: 1 << 20, passes: 5, ..good },
        ] {
            assert!(matches!(bad.checked(), Err(Error::Damaged(_))), "{bad:?}");
            assert!(Secret::Passphrase(b"x").stretched(&[1; 16], bad).is_err());
        }
        assert!(Stretch::USUAL.checked().is_ok());
    }

    #[test]
    fn every_part_of_a_secret_counts() {
        let least = Stretch { memory: 8 << 10, passes: 1, lanes: 1 };
        let all = [
            Secret::Passphrase(b"x").stretched(&[1; 16], least).unwrap(),
            Secret::Passphrase(b"y").stretched(&[1; 16], least).unwrap(),
            Secret::Passphrase(b"x").stretched(&[2; 16], least).unwrap(),
            Secret::Passphrase(b"x").stretched(&[1; 16], Stretch { passes: 2, ..least }).unwrap(),
            Secret::KeyFile(&[7; 32]).stretched(&[1; 16], least).unwrap(),
            Secret::KeyFile(&[7; 32]).stretched(&[2; 16], least).unwrap(),
            host_private(&[7; 32]).unwrap(),
        ];
        for (at, key) in all.iter().enumerate() {
            assert!(all.iter().skip(at + 1).all(|other| **other != **key));
        }
        assert!(Secret::KeyFile(&[7; 31]).stretched(&[1; 16], least).is_err());
        assert!(Secret::Passphrase(b"").stretched(&[1; 16], least).is_err());
    }
}
