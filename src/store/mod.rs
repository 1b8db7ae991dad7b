//! Objects and generations over any backend: the library that the mount and the commands are made of.
//!
//! A [`Store`] reads, saves, renames and removes objects, every change under a [`Precondition`](crate::Precondition); it
//! keeps what lost a conflict ([`conflicts`]), puts the store in order after a crash ([`recovery`]), and writes down what
//! has happened ([`events`]). Longer writes go through a [`Session`]. Knows no inodes and no FUSE.
//!
//! ```
//! use sepia::{Key, Precondition, Store};
//! let store = Store::open("memory:")?;
//! let key = Key::object("Note", "note-1")?;
//! let first = store.put(&key, &mut &b"hello"[..], Precondition::Absent)?;
//! let stale = Precondition::Generation(first.generation.unwrap());
//! store.put(&key, &mut &b"hello, world"[..], stale)?;
//! // Somebody else's save is in between: nothing is overwritten.
//! assert!(store.put(&key, &mut &b"bye"[..], stale).is_err());
//! assert_eq!(store.history(&key)?.len(), 2);
//! # Ok::<(), sepia::Error>(())
//! ```

mod access;
mod acting;
mod bases;
pub mod checksums;
pub mod collect;
pub mod config;
pub mod conflicts;
mod error;
pub mod events;
mod locks;
mod object;
pub mod orphans;
mod past;
pub mod pins;
pub mod policy;
pub mod recovery;
mod renames;
pub mod retention;
pub mod rules;
mod session;
pub mod snapshots;
pub mod trash;
mod url;
pub mod verify;
mod walk;

use std::sync::Arc;

use parking_lot::Mutex;

pub use access::Access;
pub use acting::By;
pub use collect::{Collect, Collected};
pub use config::Config;
pub use conflicts::{Conflict, ConflictId, Reason, Resolution};
pub use error::{Error, Result};
pub use events::{Actor, Event, EventKind, Who};
pub use object::Sparse;
pub use past::Past;
pub use recovery::{Outcome, Recovered};
pub use renames::Renames;
pub use rules::{Breach, Limit};
pub use session::{Session, SessionOptions};
pub use snapshots::{Snapshot, SnapshotEntry, SnapshotInfo};
pub use url::Location;

use crate::backend::{Abandoned, Backend, Owner, file::FileBackend, memory::MemoryBackend};
use crate::types::Key;

/// An open store. Cheap to clone; every method may be called from any thread.
#[derive(Clone)]
pub struct Store {
    backend: Arc<dyn Backend>,
    location: Location,
    /// What opening it has put in order, until somebody asks.
    mended: Arc<Mutex<Vec<Recovered>>>,
    /// What recovery could not finish.
    waiting: Arc<Mutex<Vec<Abandoned>>>,
    config: Arc<config::Cached>,
    vain: Arc<collect::Vain>,
    events: Arc<events::Log>,
    rules: Arc<rules::State>,
    /// What is known of the generations that snapshots refer to.
    held: Arc<Mutex<snapshots::locate::Held>>,
    checksums: Arc<checksums::Pending>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.location)
    }
}

impl Store {
    /// Makes a new, empty store at a URL (`./dir`, `file:/dir`, `memory:`). A directory may hold files already:
    /// they are the store's first objects.
    ///
    /// # Errors
    /// [`crate::backend::Error::Unusable`] when there is a store already, or the filesystem can't hold one.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let store = sepia::Store::init(dir.path().to_str().unwrap())?;
    /// assert!(sepia::Store::init(dir.path().to_str().unwrap()).is_err());
    /// # Ok::<(), sepia::Error>(())
    /// ```
    pub fn init(url: &str) -> Result<Self> {
        let location = Location::parse(url)?;
        let backend: Arc<dyn Backend> = match &location {
            Location::File(path) => Arc::new(FileBackend::init(path)?),
            Location::Memory => Arc::new(MemoryBackend::new()),
        };
        let store = Self::with_backend(backend, location);
        let path = Key::parse(config::FILE)?;
        // A directory may have had one from before it was a store.
        if store.backend.open_record(&path).is_err_and(|error| error.is_not_found()) {
            store.backend.put_record(&path, config::TEMPLATE.as_bytes())?;
        }
        store.make_locks()?;
        Ok(store)
    }

    /// Opens the store at a URL. `memory:` is a new store each time.
    ///
    /// # Errors
    /// [`Error::Url`], and [`crate::backend::Error::Unusable`] when there is no store or not one that this version
    /// can use.
    pub fn open(url: &str) -> Result<Self> {
        Self::open_at(Location::parse(url)?)
    }

    /// Opens the store at a place, which unlike a URL may be a directory with any bytes in its name.
    ///
    /// # Errors
    /// [`crate::backend::Error::Unusable`], as [`Store::open`].
    pub fn open_at(location: Location) -> Result<Self> {
        let backend: Arc<dyn Backend> = match &location {
            Location::File(path) => Arc::new(FileBackend::open(path)?),
            Location::Memory => Arc::new(MemoryBackend::new()),
        };
        let store = Self::with_backend(backend, location);
        match store.mend_torn() {
            Ok(mended) => {
                mended.iter().for_each(|one| log::warn!("{one}"));
                *store.mended.lock() = mended;
            }
            Err(error) => log::warn!("what a power loss may have torn could not be put in order: {error}"),
        }
        Ok(store)
    }

    /// A store over a backend of one's own, such as one that injects faults.
    pub fn with_backend(backend: Arc<dyn Backend>, location: Location) -> Self {
        let (mended, waiting, config, vain, events, rules, held, checksums) = Default::default();
        Store { backend, location, mended, waiting, config, vain, events, rules, held, checksums }
    }

    /// Where the store is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The medium below: for metadata, which needs no decision of this layer.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// The other processes that use this store now.
    ///
    /// # Errors
    /// When the staging area can't be read.
    pub fn users(&self) -> Result<Vec<Owner>> {
        self.backend.staging().others().map_err(|source| Error::Records { what: "the store's users", source })
    }
}
