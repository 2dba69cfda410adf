//! The one error of the core. Every decoder returns it for hostile bytes; none panics.

use std::io;

/// What can go wrong; the Python boundary maps each case to a class of its own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes that are torn, altered, or not what their name promises.
    #[error("{0}")]
    Damaged(String),
    /// The key does not fit what it is meant to open.
    #[error("{0}")]
    KeyMismatch(String),
    /// The key may write, and not do this.
    #[error("{0}")]
    WriteOnly(String),
    /// A version, suite or codec that this program does not know.
    #[error("{0}")]
    Unsupported(String),
    /// What was just built does not decode to what went in.
    #[error("{0}")]
    BuiltWrong(String),
    /// The caller broke a rule of the interface.
    #[error("{0}")]
    Usage(String),
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Shorthand for results of the core.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A `Damaged` error from any text.
pub fn damaged<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Damaged(what.into()))
}
