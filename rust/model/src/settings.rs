//! The settings that are explored: small ones in the tests, large ones in the long form; and for each broken rule one that finds it.

use crate::setting::{Broken, Listing, Setting};

const PLAIN: Setting = Setting {
    name: "",
    writers: 1,
    cloned: false,
    copiers: false,
    collectors: 1,
    collections: 2,
    others: 0,
    repacks: false,
    orphan: false,
    parent: true,
    forgets: 0b1,
    finisher: false,
    listing: Listing::Atomic,
    stores_known: false,
    plain_collectors: false,
    broken: None,
    symmetric: true,
};

/// One writer beside three collections by one collector: what a writer, fenced, finds when it wakes up.
const WRITER: Setting =
    Setting { name: "writer", collections: 3, forgets: 0b11, orphan: true, finisher: true, ..PLAIN };
/// The same, where writers also store again what they know, so that blocks lie in several packs.
const STORES: Setting = Setting { name: "stores", forgets: 0b11, orphan: true, stores_known: true, ..PLAIN };
const WRITERS: Setting = Setting { name: "writers", writers: 2, collections: 1, forgets: 0b111, ..PLAIN };
/// Two that finish one collection.
const COLLECTORS: Setting =
    Setting { name: "collectors", collectors: 2, collections: 1, forgets: 0b11, ..PLAIN };
const REPACK: Setting = Setting { name: "repack", repacks: true, ..COLLECTORS };
/// A collector that sleeps while others make collections.
const SLEEPER: Setting = Setting { name: "sleeper", collections: 3, others: 2, ..PLAIN };
const CLONE: Setting =
    Setting { name: "clone", writers: 2, cloned: true, collections: 1, orphan: true, ..PLAIN };
/// A clone that sleeps while others make collections.
const CLONE_SLEEPER: Setting = Setting {
    name: "clone-sleeper",
    writers: 2,
    cloned: true,
    collectors: 0,
    collections: 3,
    others: 3,
    ..PLAIN
};
const COPIER: Setting = Setting { name: "copier", copiers: true, collectors: 2, ..PLAIN };
const COPIERS: Setting = Setting { name: "copiers", writers: 2, copiers: true, others: 1, ..PLAIN };
/// Listings that are no moment in time.
const FORWARD: Setting = Setting { name: "forward", listing: Listing::Forward, forgets: 0b11, ..PLAIN };
const BACKWARD: Setting = Setting { name: "backward", listing: Listing::Backward, forgets: 0b11, ..PLAIN };

/// Explored to the end by the tests.
pub const SHORT: [Setting; 12] = [
    WRITER,
    STORES,
    WRITERS,
    COLLECTORS,
    REPACK,
    SLEEPER,
    CLONE,
    CLONE_SLEEPER,
    COPIER,
    COPIERS,
    FORWARD,
    BACKWARD,
];

/// Explored to the end by `make model-long`.
pub const LONG: [Setting; 5] = [
    Setting { name: "two-by-two", writers: 2, collectors: 2, collections: 1, forgets: 0b111, ..PLAIN },
    Setting { name: "repack-twice", collections: 2, forgets: 0b11, ..REPACK },
    Setting { name: "writers-twice", collections: 2, others: 1, ..WRITERS },
    Setting { name: "copiers-twice", collectors: 2, ..COPIERS },
    Setting {
        name: "two-by-two-twice",
        writers: 2,
        collectors: 2,
        collections: 2,
        plain_collectors: true,
        ..PLAIN
    },
];

/// The setting in which a broken rule is looked for.
pub fn finding(broken: Broken) -> Setting {
    let setting = match broken {
        Broken::RescueCountsCondemned => STORES,
        Broken::SessionsRemovedAtOnce | Broken::CopierTakesCondemned | Broken::CopierWithoutSession => COPIER,
        Broken::TakesDeleted | Broken::DeletesAtAnyTime => COPIER,
        Broken::PublishNotExclusive | Broken::NoDecision => COLLECTORS,
        Broken::NoLookAfterPublish | Broken::NoLookAfterDecision | Broken::NoLook => SLEEPER,
        Broken::NoLastBeat => CLONE,
        _ => WRITER,
    };
    setting.with(broken)
}
