//! A state in one line, for traces.

use crate::state::{At, DATA, End, ORPHAN, PAGES, Packs, REPACKED, State, WRITTEN, bits};

/// What lies on the destination, and what each writer relies on.
pub fn changes(state: &State) -> String {
    let store = &state.store;
    let mut parts = vec![format!("packs {}", packs(store.packs))];
    for (number, session) in (1..).zip(&store.sessions) {
        if session.begun || session.end != End::Open {
            let begun =
                if session.begun { format!("0, names {}", session.named) } else { "no beat 0".into() };
            let end = match session.end {
                End::Open => "",
                End::Committed => ", committed",
                End::Fenced => ", fenced",
            };
            parts.push(format!("session {number} ({begun}{end})"));
        }
    }
    if store.copies | store.notes != 0 {
        parts.push(format!("snapshots {} notes {}", ids(store.copies), ids(store.notes)));
    }
    for (number, collection) in (1..).zip(&store.collections) {
        if collection.published || collection.decided {
            let decided = if collection.decided {
                format!(" delete {}", packs(collection.delete))
            } else {
                String::new()
            };
            let done = if collection.done { " done" } else { "" };
            parts.push(format!("collect {number}: condemned {}{decided}{done}", packs(collection.condemned)));
        }
    }
    for (number, writer) in (1..).zip(&state.writers) {
        if writer.relies != 0 && writer.at != At::Ended {
            parts.push(format!("writer {number} relies on {}", packs(writer.relies)));
        }
    }
    parts.join(" · ")
}

fn packs(set: Packs) -> String {
    let name = |pack: usize| match pack {
        PAGES => "pages".to_owned(),
        DATA => "data".to_owned(),
        ORPHAN => "orphan".to_owned(),
        WRITTEN..REPACKED => format!("new{}", pack - WRITTEN + 1),
        _ => format!("repacked{}", pack - REPACKED + 1),
    };
    format!("[{}]", bits(set.into()).map(name).collect::<Vec<_>>().join(" "))
}

fn ids(set: u8) -> String {
    format!("{:?}", bits(set.into()).collect::<Vec<_>>())
}
