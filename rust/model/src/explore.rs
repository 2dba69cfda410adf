//! Exploration of all interleavings, breadth first, so that the first violation found is one of the shortest.
//!
//! A party that crashes is one that takes no further step, and every interleaving in which it takes none is among those explored; what the
//! others can still reach then is checked from each state (`invariants`). So crashes need no steps of their own.
//!
//! States are remembered by 64-bit fingerprints: among 10⁹ states the chance that two share one, so that one of them is not explored, is
//! 3 %. Where parties of a kind are interchangeable, one state stands for those that differ only in who is who.

use std::fmt;
use std::sync::Mutex;

use crate::seen::Seen;
use crate::setting::Setting;
use crate::state::{COLLECTORS, State, WRITERS};
use crate::{collector, invariants, others, symmetry, writer};

/// Who takes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    Writer(usize),
    Collector(usize),
    Forget(usize),
    Finisher,
    Other,
    Store,
}

/// One operation of the store, by whom.
#[derive(Clone, Copy, Debug)]
pub struct Step(pub Party, pub &'static str);

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Party::Writer(index) => write!(out, "writer {}: ", index + 1)?,
            Party::Collector(index) => write!(out, "collector {}: ", index + 1)?,
            Party::Forget(id) => write!(out, "forget {id}: ")?,
            Party::Finisher => write!(out, "finisher: ")?,
            Party::Other => write!(out, "somebody else: ")?,
            Party::Store => write!(out, "store: ")?,
        }
        out.write_str(self.1)
    }
}

/// What was explored.
#[derive(Debug, Default)]
pub struct Explored {
    pub states: u64,
    pub transitions: u64,
    /// Steps from the first state to the farthest.
    pub depth: u32,
    pub violation: Option<Violation>,
}

#[derive(Debug)]
pub struct Violation {
    pub invariant: &'static str,
    /// The steps that lead there, and the state after each; empty if `explore` was not asked for it.
    pub trace: Vec<(Step, State)>,
    pub state: State,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (step, state)) in self.trace.iter().enumerate() {
            writeln!(out, "{:>3}  {step}\n       {}", number + 1, crate::show::changes(state))?;
        }
        writeln!(out, "     {}", self.invariant)
    }
}

/// Every state that can follow.
pub fn successors(setting: &Setting, state: &State, emit: &mut dyn FnMut(Step, State)) {
    for index in 0..WRITERS {
        writer::steps(setting, state, index, emit);
    }
    for index in 0..COLLECTORS {
        collector::steps(setting, state, index, emit);
    }
    others::steps(setting, state, emit);
}

/// One level of the exploration: what was found on it.
#[derive(Default)]
struct Level {
    found: Vec<State>,
    transitions: u64,
    violation: Option<(&'static str, State)>,
}

/// Explores `setting` to the end, or to the first violation.
///
/// Arguments: `threads` that share the work; `traced` remembers where each state came from, for the trace of a violation;
/// `progress` is called after each level with what was explored so far and the size of the next level.
pub fn explore(
    setting: &Setting,
    threads: usize,
    traced: bool,
    progress: &mut dyn FnMut(&Explored, usize),
) -> Explored {
    let seen = Seen::new(traced);
    let recovered = Seen::new(false);
    let first = setting.first_state();
    seen.add(fingerprint(&first), 0);
    let mut explored = Explored { states: 1, ..Explored::default() };
    let mut level = vec![first];
    while !level.is_empty() {
        let results = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for part in level.chunks(level.len().div_ceil(threads)) {
                let (seen, recovered, results) = (&seen, &recovered, &results);
                scope.spawn(move || {
                    let result = expand(setting, part, seen, recovered);
                    results.lock().expect("no thread panics while it holds it").push(result);
                });
            }
        });
        let mut next = Vec::new();
        for result in results.into_inner().expect("no thread panics while it holds it") {
            explored.transitions += result.transitions;
            explored.states += result.found.len() as u64;
            if next.is_empty() {
                next = result.found;
            } else {
                next.extend(result.found);
            }
            if let Some((invariant, state)) = result.violation {
                explored.depth += 1;
                let trace = if traced { trace(setting, &seen, fingerprint(&state)) } else { Vec::new() };
                explored.violation = Some(Violation { invariant, trace, state });
                return explored;
            }
        }
        level = next;
        explored.depth += u32::from(!level.is_empty());
        progress(&explored, level.len());
    }
    explored
}

fn expand(setting: &Setting, part: &[State], seen: &Seen, recovered: &Seen) -> Level {
    let mut level = Level::default();
    for state in part {
        let from = fingerprint(state);
        successors(setting, state, &mut |_, next| {
            level.transitions += 1;
            let next = symmetry::canonical(setting, &next);
            let print = fingerprint(&next);
            if level.violation.is_some() || !seen.add(print, from) {
                return;
            }
            level.violation =
                invariants::broken(setting, &next, recovered).map(|invariant| (invariant, next));
            level.found.push(next);
        });
        if level.violation.is_some() {
            break;
        }
    }
    level
}

/// The steps to the state of a fingerprint, found again from the first state on.
fn trace(setting: &Setting, seen: &Seen, last: u64) -> Vec<(Step, State)> {
    let mut prints = vec![last];
    let first = fingerprint(&setting.first_state());
    while prints[prints.len() - 1] != first {
        prints.push(seen.origin(prints[prints.len() - 1]));
    }
    let mut state = setting.first_state();
    let mut trace = Vec::new();
    for &print in prints.iter().rev().skip(1) {
        let mut found = None;
        successors(setting, &state, &mut |step, next| {
            let next = symmetry::canonical(setting, &next);
            if fingerprint(&next) == print {
                found = Some((step, next));
            }
        });
        let found = found.expect("each state follows from its origin");
        state = found.1;
        trace.push(found);
    }
    trace
}

/// 64 bits that two different states hardly ever share.
pub fn fingerprint(state: &State) -> u64 {
    let words = symmetry::words(state);
    let mut mixed: u64 = 0x9e37_79b9_7f4a_7c15;
    for pair in words.chunks(2) {
        let product = u128::from(pair[0] ^ mixed ^ 0xa076_1d64_78bd_642f)
            * u128::from(pair[1] ^ 0xe703_7ed1_a0b4_28db ^ mixed.rotate_left(23));
        mixed = (product as u64 ^ (product >> 64) as u64).wrapping_add(mixed.rotate_left(41));
    }
    let product = u128::from(mixed ^ 0x8ebc_6af0_9c88_c6e3) * 0x5895_51d5_59e6_9d3f_u128;
    (product as u64 ^ (product >> 64) as u64).max(1)
}
