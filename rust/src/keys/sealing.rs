//! Sealing to a public key: an ephemeral X25519 agreement, and a key derived from it for one message (RFC 7748; aws-lc).

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use zeroize::Zeroizing;

use super::{Key, random, subkey};
use crate::cipher::{Suite, TAG};
use crate::error::{Error, Result, damaged};

/// An X25519 public key.
pub type Public = [u8; 32];

/// What a sealed key takes: the ephemeral public key, the key, the tag.
pub const SEALED_KEY: usize = 32 + 32 + TAG;

/// The public half of a private key; any 32 bytes are one.
pub fn public_of(private: &Key) -> Result<Public> {
    let public = private_key(private)?
        .compute_public_key()
        .map_err(|_| Error::Usage("the public key cannot be made".into()))?;
    let mut out = [0; 32];
    out.copy_from_slice(public.as_ref());
    Ok(out)
}

/// A new ephemeral public key, and the key that it and `receiver` agree on for one message under `context`.
pub fn agree_anew(context: &str, receiver: &Public) -> Result<(Public, Key)> {
    let private = Zeroizing::new(random()?);
    let ephemeral = public_of(&private)?;
    let key = agreed(context, &private, receiver, &ephemeral, receiver)?;
    Ok((ephemeral, key))
}

/// The key that `agree_anew` gave for that ephemeral key and the owner of `private`, whose public half is `receiver`.
pub fn agree_again(context: &str, private: &Key, receiver: &Public, ephemeral: &Public) -> Result<Key> {
    agreed(context, private, ephemeral, ephemeral, receiver)
}

/// Seals a key to `receiver` for a header, which names the one use of it.
pub fn seal_key(
    suite: Suite,
    context: &str,
    receiver: &Public,
    header: &[u8],
    key: &Key,
) -> Result<[u8; SEALED_KEY]> {
    let (ephemeral, agreed) = agree_anew(context, receiver)?;
    let wrapping = subkey(&agreed, &[b"wrapping", header]);
    let mut wrapped = key.clone();
    let tag = suite.seal(&wrapping, header, wrapped.as_mut_slice())?;
    let mut out = [0; SEALED_KEY];
    out[..32].copy_from_slice(&ephemeral);
    out[32..64].copy_from_slice(wrapped.as_slice());
    out[64..].copy_from_slice(&tag);
    Ok(out)
}

/// The key that `seal_key` sealed; None if it was not sealed to this one and for this header.
pub fn open_key(
    suite: Suite,
    context: &str,
    (private, receiver): (&Key, &Public),
    header: &[u8],
    sealed: &[u8; SEALED_KEY],
) -> Result<Option<Key>> {
    let mut ephemeral = [0; 32];
    ephemeral.copy_from_slice(&sealed[..32]);
    let Ok(agreed) = agree_again(context, private, receiver, &ephemeral) else { return Ok(None) };
    let wrapping = subkey(&agreed, &[b"wrapping", header]);
    let mut key = Zeroizing::new([0; 32]);
    let opened = suite.open(&wrapping, header, &sealed[32..64], &sealed[64..], key.as_mut_slice())?;
    Ok(opened.then_some(key))
}

fn agreed(context: &str, private: &Key, peer: &Public, ephemeral: &Public, receiver: &Public) -> Result<Key> {
    let derive = |shared: &[u8]| Ok(Zeroizing::new(blake3::derive_key(context, shared)));
    // The library refuses a peer that would make the secret zeros, whatever the private key is.
    let key = agree(&private_key(private)?, UnparsedPublicKey::new(&X25519, peer), (), derive);
    match key {
        Ok(key) => Ok(subkey(&key, &[ephemeral, receiver])),
        Err(()) => damaged("a public key that nothing can be agreed with"),
    }
}

fn private_key(private: &Key) -> Result<PrivateKey> {
    PrivateKey::from_private_key(&X25519, private.as_slice())
        .map_err(|_| Error::Usage("the private key cannot be used".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> [u8; 32] {
        std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
    }

    /// RFC 7748, section 6.1.
    #[test]
    fn public_keys_are_those_of_the_standard() {
        let alice = Zeroizing::new(bytes("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
        let public = bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        assert_eq!(public_of(&alice).unwrap(), public);
    }

    #[test]
    fn a_sealed_key_opens_for_its_receiver_and_header_alone() {
        let (private, other) = (Zeroizing::new([5; 32]), Zeroizing::new([6; 32]));
        let (public, key) = (public_of(&private).unwrap(), Zeroizing::new([7; 32]));
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let sealed = seal_key(suite, "c", &public, b"header", &key).unwrap();
            let open = |context, private: &Key, header: &[u8], sealed: &[u8; SEALED_KEY]| {
                open_key(suite, context, (private, &public_of(private).unwrap()), header, sealed).unwrap()
            };
            assert_eq!(open("c", &private, b"header", &sealed).as_deref(), Some(&[7; 32]));
            assert!(open("d", &private, b"header", &sealed).is_none());
            assert!(open("c", &other, b"header", &sealed).is_none());
            assert!(open("c", &private, b"another", &sealed).is_none());
            for at in 0..SEALED_KEY {
                let mut bad = sealed;
                bad[at] ^= 1;
                assert!(open("c", &private, b"header", &bad).is_none(), "byte {at}");
            }
        }
    }

    /// Points of small order would make every key agreed with them the same.
    #[test]
    fn public_keys_that_agree_with_everybody_are_refused() {
        let one = bytes("0100000000000000000000000000000000000000000000000000000000000000");
        for peer in [[0; 32], one] {
            assert!(agree_anew("c", &peer).is_err());
            let private = Zeroizing::new([5; 32]);
            assert!(agree_again("c", &private, &public_of(&private).unwrap(), &peer).is_err());
        }
    }
}
