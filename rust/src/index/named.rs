//! Which packs the segments that count name, and which segments name a pack: what listings, collections and repairs ask an index.

use std::collections::HashMap;

use super::bundle::Part;
use super::ids::{IdSet, Numbered};
use super::segment::View;
use super::{DAMAGED, Index};
use crate::bytes::Id;
use crate::error::{Error, Result, damaged};

impl Index {
    /// The segments that name one of these packs.
    pub fn segments_naming(&self, packs: &IdSet) -> Vec<Id> {
        let inner = self.read();
        let mut naming = Vec::new();
        for laid in inner.laid() {
            let parts = laid.live_parts();
            let of =
                |part: &&Part| laid.bundle.pack_rows(part.packs.clone()).any(|(id, _)| packs.contains(&id));
            naming.extend(parts.filter(of).map(|part| part.id));
        }
        let loose = inner.recent.loose().filter(|it| it.packs().any(|(id, _)| packs.contains(&id)));
        naming.extend(loose.map(|it| it.id));
        naming
    }

    /// Tells every pack that those segments name, with its size; None: all segments. A pack may be told twice.
    pub fn each_pack(&self, segments: Option<&IdSet>, mut tell: impl FnMut(Id, u64)) {
        let inner = self.read();
        let wanted = |id: &Id| segments.is_none_or(|segments| segments.contains(id));
        for laid in inner.laid() {
            for part in laid.live_parts().filter(|part| wanted(&part.id)) {
                laid.bundle.pack_rows(part.packs.clone()).for_each(|(id, size)| tell(id, size));
            }
        }
        for loose in inner.recent.loose().filter(|it| wanted(&it.id)) {
            loose.packs().for_each(|(id, size)| tell(id, size));
        }
    }

    /// Hands all segments that count to `look`, the packs in them usable or not; none is added meanwhile. They were checked whole:
    /// where the cache is damaged this fails, so that nobody takes a part for all.
    pub fn look<T>(&self, look: impl FnOnce(&[View<'_>]) -> T) -> Result<T> {
        let inner = self.read();
        if inner.is_bad() || inner.lost {
            return damaged(DAMAGED);
        }
        let mut views = Vec::new();
        for laid in inner.laid() {
            for part in laid.live_parts() {
                views.push(laid.bundle.view(part).ok_or_else(|| Error::Damaged(DAMAGED.into()))?);
            }
        }
        views.extend(inner.recent.loose().map(|loose| loose.segment.view(loose.bytes())));
        Ok(look(&views))
    }

    /// Every pack that is named, with its size.
    pub fn packs(&self) -> HashMap<Id, u64> {
        let mut all = HashMap::new();
        self.each_pack(None, |id, size| {
            all.insert(id, size);
        });
        all
    }

    /// Those of these packs that are named, in order.
    pub fn named(&self, packs: Vec<Id>) -> Vec<Id> {
        let asked = Numbered::new(packs);
        let mut named = vec![false; asked.ids().len()];
        self.each_pack(None, |id, _| {
            if let Some(at) = asked.position(&id) {
                named[at] = true;
            }
        });
        asked.ids().iter().zip(named).filter(|(_, it)| *it).map(|(id, _)| *id).collect()
    }

    /// Of the packs listed with these sizes, those that are named with another one, and that one.
    pub fn misfits(&self, mut listed: Vec<(Id, u64)>) -> Result<Vec<(Id, u64)>> {
        listed.sort_unstable();
        let asked = Numbered::new(listed.iter().map(|(id, _)| *id).collect());
        if asked.ids().len() != listed.len() {
            return Err(Error::Usage("a pack is listed twice".into()));
        }
        let mut misfits = HashMap::new();
        self.each_pack(None, |id, size| {
            if let Some(at) = asked.position(&id) {
                match listed[at].1 == size {
                    true => misfits.remove(&id),
                    false => misfits.insert(id, size),
                };
            }
        });
        Ok(misfits.into_iter().collect())
    }
}
