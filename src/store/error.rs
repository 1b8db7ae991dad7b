//! What can go wrong with a store.

use std::io;

use crate::backend;
use crate::types::{Generation, Key, KeyError, Timestamp};

use super::{Breach, ConflictId};

/// The result of an operation on a store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on a store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The medium's answer; among them [`backend::Error::Stale`] when a precondition didn't hold and no bytes were
    /// at stake.
    #[error(transparent)]
    Backend(#[from] backend::Error),
    /// A save came too late: somebody else's generation is current. The bytes that lost are kept whole as a
    /// conflict; look at it with `sepia conflicts`.
    #[error("{key}: changed meanwhile{}; your bytes are kept as conflict {kept}", match current {
        Some(g) => format!(", its current generation is {g}"),
        None => String::new(),
    })]
    Conflict {
        /// The object.
        key: Key,
        /// What is current instead; `None` when the object is gone.
        current: Option<Generation>,
        /// Where the bytes are.
        kept: ConflictId,
    },
    /// A rule of the class has something against it. Nothing was changed; of a save that was not the caller's to keep, the
    /// bytes are kept whole as a conflict, which `sepia conflicts` lists. Change what is wrong, or the rule.
    #[error("{key}: refused by a rule: {breach}{}", match kept {
        Some(kept) => format!("; the bytes are kept as conflict {kept}"),
        None => String::new(),
    })]
    Rejected {
        /// The object.
        key: Key,
        /// What is wrong.
        breach: Breach,
        /// Where the bytes are, if they are set aside already. Those of a [`Session`](super::Session) are when it is
        /// closed.
        kept: Option<ConflictId>,
    },
    /// There is no such conflict (any more).
    #[error("there is no conflict {0}")]
    NoConflict(String),
    /// More than one conflict's name begins like that. Give more of it.
    #[error("several conflicts begin with {0}")]
    AmbiguousConflict(String),
    /// No URL of a store.
    #[error("{url:?} is no store: {why}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Sepia's own records couldn't be read or written.
    #[error("can't access {what}: {source}")]
    Records {
        /// Which records.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A snapshot can't have this name.
    #[error("{name:?} is no name for a snapshot: {why}")]
    SnapshotName {
        /// What was given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is a snapshot of this name. Give another one, or delete that.
    #[error("there is a snapshot {0} already")]
    SnapshotExists(String),
    /// There is no such snapshot (any more).
    #[error("there is no snapshot {0}")]
    NoSnapshot(String),
    /// The record of a snapshot can't be understood. Its generations are still in the histories.
    #[error("the record of the snapshot {name} is damaged: {why}")]
    SnapshotDamaged {
        /// The snapshot.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The snapshot has nothing at this path.
    #[error("{key}: not in the snapshot {name}")]
    NotInSnapshot {
        /// The snapshot.
        name: String,
        /// The path.
        key: Key,
    },
    /// The bytes that a snapshot refers to are no longer kept anywhere: changed outside Sepia, torn by a power loss,
    /// or dropped.
    #[error("{key}: the bytes of generation {generation} of the snapshot {name} are not kept any more")]
    SnapshotBytesLost {
        /// The snapshot.
        name: String,
        /// The object.
        key: Key,
        /// Its generation then.
        generation: Generation,
    },
    /// The store's policy can't be understood. Mend `.sepia/config.toml`; nothing is deleted before.
    #[error(".sepia/config.toml can't be understood: {0}")]
    Config(String),
    /// Another process or thread is collecting the history of this store. Try again later.
    #[error("another process is collecting the history of this store")]
    Collecting,
    /// Another process or thread is verifying this store. Try again later.
    #[error("another process is verifying this store")]
    Verifying,
    /// A verification couldn't go on: it isn't known whether what it had not come to is damaged. Nothing of what it had
    /// found is forgotten, and the next one goes on from there.
    #[error("{source}; what comes after it was not verified")]
    VerificationEnded {
        /// Why not.
        source: Box<Error>,
        /// What it had found until then.
        found: Box<super::verify::Verified>,
    },
    /// All deletion of history is switched off; nothing was deleted. Switch it on with `sepia gc --enable`.
    #[error("the deletion of history is switched off{0}")]
    DeletionDisabled(String),
    /// Collection is paused until then; nothing was deleted. Go on with `sepia gc --resume`.
    #[error("collection is paused until {}", .0.human())]
    Paused(Timestamp),
    /// There is nothing to bring back at this key: the object exists, or nothing was removed there.
    #[error("{0}: nothing was removed there that could be brought back")]
    NotInTrash(Key),
    /// The store's policy wants no events, so an activity can't be recorded.
    #[error("events are switched off in .sepia/config.toml")]
    NoEvents,
    /// An activity with more to say of it than fits into an event.
    #[error("an event of more than {most} bytes")]
    LongEvent {
        /// How many bytes it may have.
        most: usize,
    },
    /// The bytes to be saved couldn't be read.
    #[error("can't read the bytes to save: {0}")]
    Source(#[source] io::Error),
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        Error::Backend(error.into())
    }
}
