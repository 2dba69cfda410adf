//! The native core of snapferry: hashing, packing, manifests, index, and writing verified blocks.
//!
//! Synchronous and pure: bytes in, bytes out, on threads of its own. It knows nothing of destinations, and of Python only
//! in `python`. Whatever it decodes may be hostile: lengths are checked before memory is reserved, and nothing panics.

#![deny(unsafe_code, missing_docs)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod block;
pub mod bytes;
pub mod cipher;
pub mod codec;
pub mod collect;
pub mod envelope;
pub mod error;
pub mod index;
pub mod keys;
pub mod manifest;
pub mod outside;
pub mod pack;
pub mod packer;
pub mod plan;
pub mod stretches;
pub mod target;
pub mod workers;

#[cfg(feature = "python")]
mod python;
