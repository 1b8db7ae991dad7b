//! What can go wrong on a medium.

use std::io;

use crate::types::{Generation, Key, KeyError};

/// The result of an operation of a backend.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation of a backend failed. It then had no visible effect.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is there. Look at the key; it may have been removed by somebody else meanwhile.
    #[error("{0}: no such object")]
    NotFound(Key),
    /// Something is there already.
    #[error("{0}: exists already")]
    Exists(Key),
    /// A directory is needed there.
    #[error("{0}: not a directory")]
    NotDirectory(Key),
    /// There is a directory where something else is needed.
    #[error("{0}: is a directory")]
    IsDirectory(Key),
    /// The directory has entries.
    #[error("{0}: directory not empty")]
    NotEmpty(Key),
    /// The precondition doesn't hold: somebody else changed the object. Read it again and decide anew.
    #[error("{key}: changed meanwhile, {}", match current {
        Some(g) => format!("its current generation is {g}"),
        None => "it has no such generation any more".to_owned(),
    })]
    Stale {
        /// The object.
        key: Key,
        /// The generation that is current instead; `None` when the object is gone or never had one.
        current: Option<Generation>,
    },
    /// The object has no such generation (any more).
    #[error("{0}: has no generation {1}")]
    NoGeneration(Key, Generation),
    /// The object has no such attribute.
    #[error("{0}: no such attribute")]
    NoAttribute(Key),
    /// A key or name that can't be.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// This medium can't do that. See [`super::Capabilities`].
    #[error("{0}: this store can't hold {1}")]
    Unsupported(Key, &'static str),
    /// The operation makes no sense for this object, as the text says.
    #[error("{0}: {1}")]
    Invalid(Key, &'static str),
    /// Another process has held the lock of this key for too long. It may be stopped; try again later.
    #[error("{0}: locked by another process")]
    Locked(Key),
    /// The store can't be used at all, as the text says.
    #[error("{0}")]
    Unusable(String),
    /// The system refused; `operation` is what was tried.
    #[error("{key}: can't {operation}: {source}")]
    Io {
        /// The object or directory.
        key: Key,
        /// What was tried, as in "can't …".
        operation: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// The system's answer to an operation on `key`, as the variant that says the same where there is one.
    pub fn from_io(key: &Key, operation: &'static str, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        use rustix::io::Errno;
        match Errno::from_io_error(&source) {
            Some(Errno::NOENT) => Error::NotFound(key.clone()),
            Some(Errno::EXIST) => Error::Exists(key.clone()),
            Some(Errno::NOTDIR) => Error::NotDirectory(key.clone()),
            Some(Errno::ISDIR) => Error::IsDirectory(key.clone()),
            Some(Errno::NOTEMPTY) => Error::NotEmpty(key.clone()),
            Some(Errno::NODATA) => Error::NoAttribute(key.clone()),
            _ => Error::Io { key: key.clone(), operation, source },
        }
    }

    /// Whether nothing was there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound(_))
    }

    /// Whether there is no such path: nothing is there, or something above it is no directory.
    pub fn is_gone(&self) -> bool {
        matches!(self, Error::NotFound(_) | Error::NotDirectory(_))
    }
}
