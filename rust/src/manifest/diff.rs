//! Where two snapshots differ. Equal subtrees are neither read nor compared.

use super::lookup::Node;
use super::reader::Manifest;
use super::{FANOUT, Fetch, span};
use crate::block::UNREADABLE;
use crate::error::Result;

/// Nodes, as (level, index).
type Nodes = Vec<(u8, u64)>;

/// What a walk over the nodes that differ met.
#[derive(Default)]
struct Walk {
    /// Leaves that differ and are loaded on both sides.
    leaves: Vec<u64>,
    /// Nodes to be loaded, of each side.
    wanted: (Nodes, Nodes),
}

fn walk(a: &Manifest, b: &Manifest, first: u64, end: u64) -> Walk {
    let mut out = Walk::default();
    if let Some(top) = a.roots.height.max(b.roots.height).checked_sub(1) {
        visit(a, b, top, 0, (first, end), &mut out);
    }
    out
}

fn visit(a: &Manifest, b: &Manifest, level: u8, index: u64, range: (u64, u64), out: &mut Walk) {
    let start = index * span(level);
    if start >= range.1 || start + span(level) <= range.0 {
        return;
    }
    let nodes = (a.look(level, index), b.look(level, index));
    match nodes {
        (Node::Zeros, Node::Zeros) => return,
        (Node::Page { id: one, .. }, Node::Page { id: other, .. }) if one == other => return,
        _ => {}
    }
    let mut ready = true;
    for (node, wanted) in [(nodes.0, &mut out.wanted.0), (nodes.1, &mut out.wanted.1)] {
        if let Node::Page { loaded: false, .. } = node {
            wanted.push((level, index));
            ready = false;
        }
    }
    if !ready {
        return;
    }
    if level == 0 {
        out.leaves.push(index);
        return;
    }
    let width = span(level - 1);
    let from = range.0.saturating_sub(start) / width;
    let until = (range.1 - start).div_ceil(width).min(FANOUT as u64);
    for number in from..until {
        visit(a, b, level - 1, index * FANOUT as u64 + number, range, out);
    }
}

/// What each of the two must be fed to compare the range; both empty: ready.
pub fn missing_for_diff(a: &Manifest, b: &Manifest, first: u64, end: u64) -> (Vec<Fetch>, Vec<Fetch>) {
    let wanted = walk(a, b, first, end).wanted;
    (a.request(&wanted.0), b.request(&wanted.1))
}

/// (first, count) runs of blocks that differ, in order. Blocks past the end of one are zeros there; an unreadable block
/// differs from everything.
pub fn diff(a: &Manifest, b: &Manifest, first: u64, end: u64) -> Result<Vec<(u64, u64)>> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for leaf in walk(a, b, first, end).leaves {
        let from = (leaf * FANOUT as u64).max(first);
        let until = ((leaf + 1) * FANOUT as u64).min(end);
        let pairs = a.ids(from, until)?.into_iter().zip(b.ids(from, until)?);
        for (block, (one, other)) in (from..until).zip(pairs) {
            if one == other && one != UNREADABLE {
                continue;
            }
            match runs.last_mut() {
                Some((start, count)) if *start + *count == block => *count += 1,
                _ => runs.push((block, 1)),
            }
        }
    }
    Ok(runs)
}
