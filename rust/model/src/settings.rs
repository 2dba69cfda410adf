//! The settings that are explored: small ones in the tests, large ones in the long form; and for each broken rule one that finds it.

use crate::setting::{Listing, Setting};

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
    forgets: 0,
    finisher: false,
    listing: Listing::Atomic,
    stores_known: false,
    plain_collectors: false,
    broken: None,
    symmetric: true,
};

/// Explored to the end by the tests.
pub const SHORT: [Setting; 10] = [
    Setting { name: "writer-collector", collections: 3, forgets: 3, orphan: true, finisher: true, ..PLAIN },
    Setting { name: "writer-stores", collections: 2, forgets: 3, orphan: true, stores_known: true, ..PLAIN },
    Setting { name: "two-writers", writers: 2, collections: 1, forgets: 7, ..PLAIN },
    Setting { name: "two-collectors", collectors: 2, collections: 1, forgets: 3, ..PLAIN },
    Setting { name: "repack", collectors: 2, repacks: true, collections: 1, forgets: 1, ..PLAIN },
    Setting { name: "collector-others", collections: 4, others: 3, forgets: 1, ..PLAIN },
    Setting { name: "clone", writers: 2, cloned: true, orphan: true, collections: 1, forgets: 1, ..PLAIN },
    Setting {
        name: "clone-others",
        writers: 2,
        cloned: true,
        collections: 4,
        collectors: 0,
        others: 4,
        forgets: 1,
        ..PLAIN
    },
    Setting { name: "copier", copiers: true, collectors: 2, collections: 2, forgets: 1, ..PLAIN },
    Setting {
        name: "two-copiers",
        writers: 2,
        copiers: true,
        collections: 2,
        others: 1,
        forgets: 1,
        ..PLAIN
    },
];

pub const LONG: [Setting; 5] = [
    Setting {
        name: "long",
        writers: 2,
        collectors: 2,
        collections: 2,
        forgets: 7,
        plain_collectors: true,
        ..PLAIN
    },
    Setting {
        name: "long1",
        writers: 2,
        collectors: 2,
        collections: 1,
        forgets: 7,
        plain_collectors: true,
        ..PLAIN
    },
    Setting {
        name: "long1o",
        writers: 2,
        collectors: 2,
        collections: 2,
        others: 1,
        forgets: 1,
        plain_collectors: true,
        ..PLAIN
    },
    Setting {
        name: "long2c",
        writers: 1,
        collectors: 2,
        collections: 2,
        forgets: 3,
        plain_collectors: true,
        ..PLAIN
    },
    Setting {
        name: "long2w",
        writers: 2,
        collectors: 1,
        collections: 2,
        forgets: 7,
        plain_collectors: true,
        ..PLAIN
    },
];
