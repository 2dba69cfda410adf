//! The deletion protocol of `docs/format.md` as a model that can be explored: every interleaving of writers, collectors, forgets and
//! finishers on one destination, each operation of the store one step.
//!
//! `setting` says what is explored and names each rule that can be broken; `state` is the world; `writer`, `collector` (with `marking` and
//! `tidying`) and `others` are the parties; `invariants` says what must hold; `explore` visits every state. The tests explore small settings and prove that each broken rule
//! is found; the binary explores the large ones (`make model-long`) and prints traces.

pub mod collector;
pub mod explore;
pub mod invariants;
pub mod marking;
pub mod others;
pub mod seen;
pub mod setting;
pub mod settings;
pub mod show;
pub mod state;
pub mod symmetry;
pub mod tidying;
pub mod writer;
