//! The set of states seen, as fingerprints in open addressing, in shards that grow one by one.

use std::sync::Mutex;

const SHARDS: usize = 256;
const FIRST: usize = 1 << 8;

/// Fingerprints, 0 for a free place; beside each, where traces are wanted, that of the state it was first reached from.
struct Shard {
    prints: Vec<u64>,
    origins: Vec<u64>,
    used: usize,
}

pub struct Seen {
    shards: Vec<Mutex<Shard>>,
    traced: bool,
}

impl Seen {
    pub fn new(traced: bool) -> Self {
        let shard =
            || Shard { prints: vec![0; FIRST], origins: vec![0; if traced { FIRST } else { 0 }], used: 0 };
        Self { shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(), traced }
    }

    /// True if `print` is new.
    pub fn add(&self, print: u64, origin: u64) -> bool {
        let mut shard = self.shard(print);
        let at = place(&shard.prints, print);
        if shard.prints[at] == print {
            return false;
        }
        shard.prints[at] = print;
        if self.traced {
            shard.origins[at] = origin;
        }
        shard.used += 1;
        if shard.used * 4 > shard.prints.len() * 3 {
            grow(&mut shard);
        }
        true
    }

    /// Where the state of `print`, which must have been added, was first reached from.
    pub fn origin(&self, print: u64) -> u64 {
        let shard = self.shard(print);
        shard.origins[place(&shard.prints, print)]
    }

    fn shard(&self, print: u64) -> std::sync::MutexGuard<'_, Shard> {
        self.shards[print as usize % SHARDS].lock().expect("no thread panics while it holds it")
    }
}

/// Where `print` is, or would go.
fn place(prints: &[u64], print: u64) -> usize {
    let mut at = ((u128::from(print) * prints.len() as u128) >> 64) as usize;
    while prints[at] != 0 && prints[at] != print {
        at += 1;
        if at == prints.len() {
            at = 0;
        }
    }
    at
}

fn grow(shard: &mut Shard) {
    let wanted = shard.prints.len() / 2 * 3;
    let mut larger = Shard {
        prints: vec![0; wanted],
        origins: vec![0; if shard.origins.is_empty() { 0 } else { wanted }],
        used: shard.used,
    };
    for (index, &print) in shard.prints.iter().enumerate().filter(|(_, print)| **print != 0) {
        let at = place(&larger.prints, print);
        larger.prints[at] = print;
        if let Some(&origin) = shard.origins.get(index) {
            larger.origins[at] = origin;
        }
    }
    *shard = larger;
}
