//! Small objects: destination, config, sessions, commits, notes and index segments, each in one sealed envelope.
//!
//! ```text
//! offset length
//!  0      8      magic
//!  8      2      format version
//! 10      2      cipher suite
//! 12      1      kind
//! 13      3      zeros
//! 16      4      key epoch
//! 20      4      payload length n
//! 24     16      repository id
//! 40     32      keyed hash of bytes 0 to 39, the object's name and the payload
//! 72      n      payload, encrypted but for destination and config
//!        16      tag, where encrypted
//!        64      Ed25519 signature of all before, for kinds that are signed: by every writer's key, or by the authority
//!        32      BLAKE3 of all before
//! ```
//!
//! The keyed hash commits to the key, authenticates name and payload, and makes the encryption key: two payloads never
//! share one, so a random generator that repeats itself does no harm.

use crate::bytes::{Reader, magic};
use crate::cipher::{Suite, TAG};
use crate::error::{Error, Result, damaged};
use crate::keys::{Keyring, subkey};

const MAGIC: &str = "snapferry small object, format 1";
const HEAD: usize = 40;
const CLEAR: usize = 72;
const SIGNATURE: usize = 64;
const HASH: usize = 32;

/// What a small object is; its number stands in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Names a destination.
    Destination = 1,
    /// Names the repository, its version and suites.
    Config = 2,
    /// A writer's beat.
    Session = 3,
    /// How a session ended.
    End = 4,
    /// A snapshot.
    Commit = 5,
    /// A note that a snapshot was let go.
    Forgotten = 6,
    /// A note that a copy of a pack is bad.
    Damaged = 7,
    /// An index segment.
    Segment = 8,
    /// What a collection may delete.
    Condemned = 9,
    /// What it deletes.
    Delete = 10,
    /// That it has.
    Done = 11,
}

impl Kind {
    /// All kinds with their names.
    pub const NAMES: [(&'static str, Kind); 11] = [
        ("destination", Kind::Destination),
        ("config", Kind::Config),
        ("session", Kind::Session),
        ("end", Kind::End),
        ("commit", Kind::Commit),
        ("forgotten", Kind::Forgotten),
        ("damaged", Kind::Damaged),
        ("segment", Kind::Segment),
        ("condemned", Kind::Condemned),
        ("delete", Kind::Delete),
        ("done", Kind::Done),
    ];

    /// The kind of that name.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, kind)| *kind)
            .ok_or_else(|| Error::Usage(format!("no kind of object is called {name:?}")))
    }

    fn encrypted(self) -> bool {
        !matches!(self, Kind::Destination | Kind::Config)
    }

    fn signed(self) -> bool {
        matches!(self, Kind::Session | Kind::End | Kind::Commit) || self.takes_away()
    }

    /// What takes something away is signed by the repository's authority, so that a host which may write and not read cannot
    /// undo with a new object what its store does not let it delete.
    fn takes_away(self) -> bool {
        matches!(self, Kind::Forgotten | Kind::Condemned | Kind::Delete | Kind::Done)
    }

    fn overhead(self) -> usize {
        CLEAR + HASH + if self.encrypted() { TAG } else { 0 } + if self.signed() { SIGNATURE } else { 0 }
    }
}

/// Seals `payload` as the object of that kind and name.
pub fn seal(keys: &Keyring, kind: Kind, name: &str, payload: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(payload.len())
        .map_err(|_| Error::Usage("a small object holds less than 4 GiB".into()))?;
    let suite = Suite::preferred();
    let mut out = Vec::with_capacity(payload.len() + kind.overhead());
    out.extend_from_slice(&magic(MAGIC));
    out.extend_from_slice(&0u16.to_le_bytes());
    out.extend_from_slice(&(suite as u16).to_le_bytes());
    out.extend_from_slice(&[kind as u8, 0, 0, 0]);
    out.extend_from_slice(&0u32.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&keys.repository);
    let bound = bind(keys, &out, name, payload);
    out.extend_from_slice(bound.as_bytes());
    out.extend_from_slice(payload);
    if kind.encrypted() {
        let (clear, body) = out.split_at_mut(CLEAR);
        let key = subkey(&keys.object, &[b"encryption", clear]);
        let tag = suite.seal(&key, clear, body)?;
        out.extend_from_slice(&tag);
    }
    if kind.signed() {
        let signature = if kind.takes_away() { keys.sign_as_authority(&out)? } else { keys.sign(&out) };
        out.extend_from_slice(&signature);
    }
    let hash = blake3::hash(&out);
    out.extend_from_slice(hash.as_bytes());
    Ok(out)
}

/// The payload of an object that was sealed with that kind and name.
pub fn open(keys: &Keyring, kind: Kind, name: &str, data: &[u8]) -> Result<Vec<u8>> {
    let parts = Parts::parse(data)?;
    if parts.kind != kind as u8 {
        return damaged(format!("an object of kind {} instead of {kind:?}", parts.kind));
    }
    if parts.repository != keys.repository {
        return Err(Error::KeyMismatch("it belongs to another repository".into()));
    }
    if data.len() != parts.length + kind.overhead() {
        return damaged("its length is not what its header says");
    }
    let mut payload = data[CLEAR..CLEAR + parts.length].to_vec();
    let mut rest = CLEAR + parts.length;
    if kind.encrypted() {
        let key = subkey(&keys.object, &[b"encryption", &data[..CLEAR]]);
        let (ciphertext, tag) = (&data[CLEAR..rest], &data[rest..rest + TAG]);
        if !parts.suite.open(&key, &data[..CLEAR], ciphertext, tag, &mut payload)? {
            return Err(Error::KeyMismatch("it was sealed with another key, or altered".into()));
        }
        rest += TAG;
    }
    // Constant-time: blake3::Hash compares so.
    let claimed: [u8; 32] = Reader::new(&data[HEAD..]).array()?;
    if bind(keys, &data[..HEAD], name, &payload) != claimed {
        return Err(Error::KeyMismatch(format!(
            "it is not {name:?} of this repository: another key, another name, or altered"
        )));
    }
    let (signed, signature) = (&data[..rest], &data[rest..]);
    let honest = match kind.takes_away() {
        true => keys.signed_by_authority(signed, &signature[..SIGNATURE]),
        false => !kind.signed() || keys.signed(signed, &signature[..SIGNATURE]),
    };
    if !honest {
        return Err(Error::KeyMismatch("its signature is not this repository's".into()));
    }
    Ok(payload)
}

/// Checks without any key that an object ends in its own hash.
pub fn check(data: &[u8]) -> Result<()> {
    if data.len() < HASH {
        return damaged(format!("only {} bytes long", data.len()));
    }
    let (body, hash) = data.split_at(data.len() - HASH);
    if blake3::hash(body).as_bytes() != hash {
        return damaged("it does not end in its own hash: torn or altered");
    }
    Ok(())
}

/// The payload of a destination or config object, by its hash alone.
pub fn peek(kind: Kind, data: &[u8]) -> Result<Vec<u8>> {
    if kind.encrypted() {
        return Err(Error::Usage(format!("{kind:?} objects cannot be read without a key")));
    }
    let parts = Parts::parse(data)?;
    if parts.kind != kind as u8 || data.len() != parts.length + kind.overhead() {
        return damaged(format!("not a {kind:?} object"));
    }
    Ok(data[CLEAR..CLEAR + parts.length].to_vec())
}

struct Parts {
    suite: Suite,
    kind: u8,
    length: usize,
    repository: [u8; 16],
}

impl Parts {
    /// Reads the header after the hash has been checked, so what it says is what was written.
    fn parse(data: &[u8]) -> Result<Self> {
        check(data)?;
        let mut reader = Reader::new(data);
        if reader.array::<8>()? != magic(MAGIC) {
            return damaged("not an object of a format that this program knows (it knows 0)");
        }
        let version = reader.u16()?;
        if version != 0 {
            return Err(Error::Unsupported(format!(
                "format version {version} is not known to this program (it knows 0)"
            )));
        }
        let suite = Suite::from_number(reader.u16()?)?;
        let kind = reader.u8()?;
        if reader.array::<3>()? != [0; 3] {
            return damaged("reserved bytes are not zero");
        }
        let epoch = reader.u32()?;
        if epoch != 0 {
            return Err(Error::Unsupported(format!("key epoch {epoch} (this program knows 0)")));
        }
        let length = reader.u32()? as usize;
        let repository = reader.array()?;
        if length > data.len() {
            return damaged("its payload would be longer than itself");
        }
        Ok(Self { suite, kind, length, repository })
    }
}

fn bind(keys: &Keyring, head: &[u8], name: &str, payload: &[u8]) -> blake3::Hash {
    let key = subkey(&keys.object, &[b"binding"]);
    let mut hasher = blake3::Hasher::new_keyed(&key);
    hasher.update(head);
    hasher.update(&(name.len() as u64).to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.update(payload);
    hasher.finalize()
}
