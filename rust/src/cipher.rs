//! The two authenticated ciphers. Keys here are used for one message each, so the nonce is fixed.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::error::{Error, Result};

/// Bytes that an authentication tag adds.
pub const TAG: usize = 16;

/// A cipher suite, as headers name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Suite {
    /// AES-256-GCM, where the processor has AES instructions.
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305, elsewhere.
    ChaCha20Poly1305 = 2,
}

impl Suite {
    /// The faster of the two on this processor.
    pub fn preferred() -> Self {
        #[cfg(target_arch = "x86_64")]
        let hardware = std::arch::is_x86_feature_detected!("aes");
        #[cfg(target_arch = "aarch64")]
        let hardware = std::arch::is_aarch64_feature_detected!("aes");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let hardware = false;
        if hardware { Self::Aes256Gcm } else { Self::ChaCha20Poly1305 }
    }

    /// The suite of that number; an unknown one is refused by name.
    pub fn from_number(number: u16) -> Result<Self> {
        match number {
            1 => Ok(Self::Aes256Gcm),
            2 => Ok(Self::ChaCha20Poly1305),
            other => Err(Error::Unsupported(format!(
                "cipher suite {other} is not known to this program (it knows 1 and 2)"
            ))),
        }
    }

    fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }

    fn key(self, key: &[u8; 32]) -> Result<LessSafeKey> {
        // Both algorithms take 32 bytes, so this fails only if the library does.
        UnboundKey::new(self.algorithm(), key)
            .map(LessSafeKey::new)
            .map_err(|_| Error::Usage("the cipher refuses its key".into()))
    }

    /// Encrypts `buffer` in place and returns the tag. `key` must never seal anything else.
    pub fn seal(self, key: &[u8; 32], associated: &[u8], buffer: &mut [u8]) -> Result<[u8; TAG]> {
        let tag = self
            .key(key)?
            .seal_in_place_separate_tag(zero_nonce(), Aad::from(associated), buffer)
            .map_err(|_| Error::Usage("the cipher refuses this much data".into()))?;
        let mut out = [0; TAG];
        out.copy_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Decrypts `ciphertext` into `out`, which has its length; false if the tag does not fit.
    pub fn open(
        self,
        key: &[u8; 32],
        associated: &[u8],
        ciphertext: &[u8],
        tag: &[u8],
        out: &mut [u8],
    ) -> Result<bool> {
        Ok(self
            .key(key)?
            .open_separate_gather(zero_nonce(), Aad::from(associated), ciphertext, tag, out)
            .is_ok())
    }
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}
