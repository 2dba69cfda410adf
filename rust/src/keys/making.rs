//! New key slots, and those that are there sealed anew: what only the repository's authority can make.

use aws_lc_rs::signature::Ed25519KeyPair;
use zeroize::Zeroizing;

use super::epochs::Epochs;
use super::sealing::{Public, agree_anew, public_of};
use super::slots::{
    CONTEXT, Contents, ENDORSED, FIXED, Holder, MAGIC, MAX_LABEL, Slot, SlotKind, SlotRole, endorsement,
    halves, payload_length, repository_id,
};
use super::stretch::{Secret, Stretch};
use super::subkey;
use crate::bytes::magic;
use crate::cipher::Suite;
use crate::error::{Error, Result};

impl Contents {
    fn payload(&self, role: SlotRole) -> Result<Zeroizing<Vec<u8>>> {
        let (Epochs::Full(epochs), Some(authority)) = (&self.epochs, &self.authority) else {
            return Err(Error::Usage("only a full key makes key slots".into()));
        };
        let mut out = Zeroizing::new(Vec::with_capacity(payload_length(role, epochs.len())));
        if role == SlotRole::Removed {
            return Ok(out);
        }
        out.extend_from_slice(self.metadata.as_slice());
        if role == SlotRole::Full {
            out.extend_from_slice(authority.as_slice());
            for epoch in epochs {
                out.extend_from_slice(&epoch.tag.number.to_le_bytes());
                out.extend_from_slice(epoch.secret.as_slice());
            }
        } else if let Some(newest) = epochs.last() {
            out.extend_from_slice(&newest.tag.number.to_le_bytes());
            out.extend_from_slice(&newest.public);
        }
        Ok(out)
    }

    /// A slot of that id for that holder.
    pub(super) fn new_slot(
        &self,
        signer: &Ed25519KeyPair,
        authority: &Public,
        holder: &Holder<'_>,
        role: SlotRole,
        (id, created, label): ([u8; 16], u64, &str),
    ) -> Result<Vec<u8>> {
        let (kind, public, stretch, endorsing) = match holder {
            Holder::Public(public) => (SlotKind::PublicKey, *public, None, None),
            Holder::Secret(secret, stretch) => {
                let (private, endorsing) = halves(*secret, &id, *stretch)?;
                let (kind, stretch) = match secret {
                    Secret::KeyFile(_) => (SlotKind::KeyFile, None),
                    Secret::Passphrase(_) => (SlotKind::Passphrase, Some(*stretch)),
                };
                (kind, public_of(&private)?, stretch, endorsing)
            }
        };
        let none = Stretch { memory: 0, passes: 0, lanes: 0 };
        let stretch = stretch.unwrap_or(none);
        let mut head = Vec::with_capacity(FIXED);
        head.extend_from_slice(&magic(MAGIC));
        head.extend_from_slice(&0u16.to_le_bytes());
        head.extend_from_slice(&(Suite::preferred() as u16).to_le_bytes());
        head.extend_from_slice(&[kind as u8, role as u8, 0, 0]);
        head.extend_from_slice(&repository_id(authority));
        head.extend_from_slice(authority);
        head.extend_from_slice(&id);
        head.extend_from_slice(&public);
        head.extend_from_slice(&created.to_le_bytes());
        for field in [stretch.memory, stretch.passes, stretch.lanes] {
            head.extend_from_slice(&field.to_le_bytes());
        }
        let made =
            endorsing.map_or(blake3::Hash::from_bytes([0; 32]), |key| endorsement(&key, &head[ENDORSED]));
        head.extend_from_slice(made.as_bytes());
        self.finish(signer, head, &public, role, label)
    }

    /// The same slot, of these contents or removed.
    pub(super) fn same_slot(&self, signer: &Ed25519KeyPair, slot: &Slot, role: SlotRole) -> Result<Vec<u8>> {
        let mut head = slot.bytes()[..FIXED - 12].to_vec();
        head[10..12].copy_from_slice(&(Suite::preferred() as u16).to_le_bytes());
        head[13] = role as u8;
        self.finish(signer, head, &slot.public, role, &slot.label)
    }

    /// From the header's fixed part without its three lengths to the whole object.
    fn finish(
        &self,
        signer: &Ed25519KeyPair,
        mut out: Vec<u8>,
        public: &Public,
        role: SlotRole,
        label: &str,
    ) -> Result<Vec<u8>> {
        if label.len() > MAX_LABEL || label.chars().any(char::is_control) {
            return Err(Error::Usage(format!(
                "a label has at most {MAX_LABEL} bytes, and no control characters"
            )));
        }
        let tags = self.epochs.tags();
        let mut payload = self.payload(role)?;
        for length in [label.len(), tags.len(), payload.len()] {
            out.extend_from_slice(&(length as u32).to_le_bytes());
        }
        out.extend_from_slice(label.as_bytes());
        tags.iter().for_each(|tag| out.extend_from_slice(&tag.to_bytes()));
        if role != SlotRole::Removed {
            let (ephemeral, agreed) = agree_anew(CONTEXT, public)?;
            out.extend_from_slice(&ephemeral);
            let wrapping = subkey(&agreed, &[b"wrapping", &out]);
            let commitment = subkey(&agreed, &[b"commitment", &out]);
            out.extend_from_slice(&*commitment);
            let tag = Suite::preferred().seal(&wrapping, &out, &mut payload)?;
            out.extend_from_slice(&payload);
            out.extend_from_slice(&tag);
        }
        out.extend_from_slice(signer.sign(&out).as_ref());
        let hash = blake3::hash(&out);
        out.extend_from_slice(hash.as_bytes());
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keyring;

    /// All that a store knows of a slot but the authority's private key is put into one of the store's own repository.
    #[test]
    fn only_the_holder_of_a_slot_makes_it_another_repositorys() {
        let (keys, stranger) = (Keyring::generate().unwrap(), Keyring::generate().unwrap());
        let holder = Holder::Secret(Secret::KeyFile(&[7; 32]), Stretch::USUAL);
        let honest = Slot::parse(&keys.new_slot(&holder, SlotRole::Full, 9, "label").unwrap()).unwrap();
        let (contents, owner) = stranger.as_owner().unwrap();
        let mut head = honest.bytes()[..FIXED - 12].to_vec();
        head[16..32].copy_from_slice(&stranger.repository);
        head[32..64].copy_from_slice(&stranger.authority);
        let made = contents.finish(&owner.signer, head, &honest.public, SlotRole::Full, "label").unwrap();
        let forged = Slot::parse(&made).unwrap();
        assert_eq!((forged.id, forged.public), (honest.id, honest.public));
        let refused = Keyring::unlock(&forged, Secret::KeyFile(&[7; 32]));
        assert!(
            matches!(refused, Err(Error::Damaged(text)) if text.contains("not made for this repository"))
        );
        assert!(Keyring::unlock(&honest, Secret::KeyFile(&[7; 32])).is_ok());
        // Under the honest repository's id its authority is the only one.
        let mut head = honest.bytes()[..FIXED - 12].to_vec();
        head[32..64].copy_from_slice(&stranger.authority);
        let made = contents.finish(&owner.signer, head, &honest.public, SlotRole::Full, "label").unwrap();
        let refused = Slot::parse(&made);
        assert!(matches!(refused, Err(Error::Damaged(text)) if text.contains("authority is not")));
    }
}
