//! What a collection needs to know: which packs are reached from snapshots, which blocks of a pack anybody needs, and copies
//! of those out of packs that are mostly dead.
//!
//! Memory is bounded: what is needed is kept sorted, in files beyond some size, and joined with the sorted index in passes.

pub mod marker;
pub mod needed;
pub mod repacker;
pub mod sweep;

pub use marker::Marker;
pub use repacker::Repacker;
pub use sweep::{Sweep, rescued, sweep};
