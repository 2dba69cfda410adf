//! What is reached from the roots of snapshots and pins: the packs that hold their pages, and the blocks they name.
//!
//! Pages that snapshots share are walked once: a subtree counts as visited by the places of its two pages, since equal
//! pages in two packs make both packs needed.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use super::needed::Needed;
use crate::block::{UNREADABLE, ZERO};
use crate::bytes::Id;
use crate::error::{Error, Result};
use crate::index::prefix;
use crate::pack::Place;
use crate::workers::lock;

struct State {
    visited: HashSet<[u8; 16]>,
    pages: HashSet<Id>,
    needed: Needed,
    in_parts: bool,
    failed: Option<String>,
}

/// Collects what is reached; manifests that carry it tell it what they are fed (`Manifest::marking`).
pub struct Marker(Mutex<State>);

impl Marker {
    /// Nothing reached yet. `directory` takes what does not fit into memory. `in_parts`: some of the snapshots have blocks at other
    /// destinations only, so that one which is not here is no damage.
    pub fn new(directory: PathBuf, in_parts: bool) -> Self {
        Self(Mutex::new(State {
            visited: HashSet::new(),
            pages: HashSet::new(),
            needed: Needed::new(directory),
            in_parts,
            failed: None,
        }))
    }

    /// Whether the subtree whose two pages lie there is met for the first time; its pages' packs are reached then.
    pub fn visit(&self, ids: &Place, places: &Place) -> bool {
        let mut state = lock(&self.0);
        let mut hasher = blake3::Hasher::new();
        for place in [ids, places] {
            hasher.update(&place.pack).update(&place.offset.to_le_bytes());
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        if !state.visited.insert(key) {
            return false;
        }
        state.pages.insert(ids.pack);
        state.pages.insert(places.pack);
        true
    }

    /// The blocks of a leaf are reached.
    pub fn need(&self, ids: &[Id]) {
        let mut state = lock(&self.0);
        for id in ids.iter().filter(|id| **id != ZERO && **id != UNREADABLE) {
            if let Err(error) = state.needed.add(prefix(id)) {
                state.failed.get_or_insert(error.to_string());
            }
        }
    }

    /// Something that is reached could not be noted: nothing may be concluded from this marking any more.
    pub fn fail(&self, why: &str) {
        lock(&self.0).failed.get_or_insert(why.into());
    }

    /// The packs that hold pages that were reached.
    pub fn page_packs(&self) -> Vec<Id> {
        lock(&self.0).pages.iter().copied().collect()
    }

    /// What is needed, if all of it could be noted.
    pub(super) fn needed(&self) -> Result<Guard<'_>> {
        let state = lock(&self.0);
        match &state.failed {
            Some(why) => Err(Error::Usage(format!("the marking is not complete: {why}"))),
            None => Ok(Guard(state)),
        }
    }
}

/// The needed blocks of a marking that did not fail.
pub(super) struct Guard<'a>(MutexGuard<'a, State>);

impl Guard<'_> {
    pub(super) fn needed(&mut self) -> &mut Needed {
        &mut self.0.needed
    }

    pub(super) fn in_parts(&self) -> bool {
        self.0.in_parts
    }

    pub(super) fn holds_pages(&self, pack: &Id) -> bool {
        self.0.pages.contains(pack)
    }
}
