//! The core's own threads, and the pack buffers they fill, which are used again because fresh memory is dear.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::error::{Error, Result};

/// A thread pool and the buffers kept for it.
pub struct Workers {
    pool: rayon::ThreadPool,
    free: Mutex<Vec<Vec<u8>>>,
    scratch: Mutex<Vec<Vec<u8>>>,
    allocated: AtomicUsize,
}

/// How many free pack buffers are kept: the smallest ones that are in flight at once with the default budget.
const KEPT: usize = 64;

impl Workers {
    /// A pool of that many threads.
    pub fn new(threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|number| format!("snapferry-{number}"))
            .build()
            .map_err(|error| Error::Usage(format!("no threads for the core: {error}")))?;
        Ok(Self {
            pool,
            free: Mutex::new(Vec::new()),
            scratch: Mutex::new(Vec::new()),
            allocated: AtomicUsize::new(0),
        })
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `job` in the pool and waits for it. No lock that a job in the pool takes may be held here.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        self.pool.install(job)
    }

    /// A pack buffer of that length, its contents left over from whoever had it.
    pub fn buffer(&self, capacity: usize) -> Vec<u8> {
        let mut free = lock(&self.free);
        if let Some(at) = free.iter().position(|buffer| buffer.len() == capacity) {
            return free.swap_remove(at);
        }
        // Others of as many bytes make way, so that free buffers of odd sizes do not add to the budget.
        let mut freed = 0;
        while freed < capacity {
            let Some(odd) = free.pop() else { break };
            freed += odd.len();
        }
        self.allocated.fetch_sub(freed, Relaxed);
        self.allocated.fetch_add(capacity, Relaxed);
        vec![0; capacity]
    }

    /// Takes a pack buffer back.
    pub fn recycle(&self, buffer: Vec<u8>) {
        let mut free = lock(&self.free);
        if free.len() < KEPT {
            free.push(buffer);
        } else {
            self.allocated.fetch_sub(buffer.len(), Relaxed);
        }
    }

    /// Gives the free buffers back to the system: nobody is going to fill any for a while.
    pub fn trim(&self) {
        let freed = std::mem::take(&mut *lock(&self.free));
        self.allocated.fetch_sub(freed.iter().map(Vec::len).sum(), Relaxed);
    }

    /// Bytes of pack buffers now alive, free ones included.
    pub fn allocated(&self) -> usize {
        self.allocated.load(Relaxed)
    }

    /// A vector to compress one block into.
    pub fn scratch(&self) -> Vec<u8> {
        lock(&self.scratch).pop().unwrap_or_default()
    }

    /// Takes such a vector back.
    pub fn return_scratch(&self, scratch: Vec<u8>) {
        lock(&self.scratch).push(scratch);
    }
}

/// Locks, whether or not a thread panicked while holding it: what these locks guard stays whole at every step.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
