//! Holding everything still for a snapshot, and what follows for amendments.
//!
//! Everyone who commits, removes or renames shares the tree lock, so who owns it has a store in which nothing of that
//! kind is under way; all else looks at a word in memory ([`super::lock::Locks::pass`]). An amendment would take the
//! bytes of a snapshot away under their number. So up to when generations are to stay what they are is in
//! `.sepia/snapshots/latest`, which is written while everything is held still, and read, under the shared lock, by
//! amendments and by who gives an object another number.

use rustix::io::Errno;

use super::lock::TreeExclusive;
use super::record::Record;
use super::*;
use crate::types::Timestamp;

const LATEST: &str = "snapshots/latest";

/// The tree lock, owned.
struct TreeStill<'a> {
    backend: &'a FileBackend,
    _tree: TreeExclusive<'a>,
}

impl Still for TreeStill<'_> {
    fn adopt(&self, key: &Key) -> Result<Stat> {
        let backend = self.backend;
        let _lock = backend.lock(key)?;
        let place = backend.place(key)?;
        Ok(backend.adopt_locked(key, &place, backend.find(key, &place)?)?.as_recorded())
    }

    fn keep_through(&self, time: Timestamp) -> Result<()> {
        // Never back: a clock may be.
        if self.backend.is_kept_through(time)? {
            return Ok(());
        }
        self.backend.write_record_file(&Key::parse(LATEST)?, format!("{}\n", time.nanos()).as_bytes())
    }
}

impl FileBackend {
    pub(super) fn hold_tree_still(&self) -> Result<Box<dyn Still + '_>> {
        Ok(Box::new(TreeStill { backend: self, _tree: self.locks.hold_still(&Key::root())? }))
    }

    pub(super) fn sync_filesystem(&self) -> Result<()> {
        let failed = |error: Errno| Error::from_io(&Key::root(), "sync the store", error);
        let root = self.objects.root().reopen().map_err(failed)?;
        rustix::fs::syncfs(&root).map_err(failed)
    }

    /// When what is recorded is to be said to be committed that gets another number at `now`.
    pub(super) fn committed_when_renumbered(&self, record: Option<&Record>, now: Timestamp) -> Result<Timestamp> {
        match record {
            // By this time a snapshot finds it.
            Some(record) if self.is_kept_through(record.committed)? => Ok(record.committed),
            _ => Ok(now),
        }
    }

    /// Whether what was committed at `time` must keep its bytes and that time. To be asked under the tree lock.
    pub(super) fn is_kept_through(&self, time: Timestamp) -> Result<bool> {
        match std::fs::read_to_string(self.meta.join(LATEST)) {
            Ok(text) => match text.trim_end().parse() {
                Ok(latest) => Ok(time.nanos() <= latest),
                // Damaged: a generation too many harms nobody.
                Err(_) => Ok(true),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Ok(true),
            Err(error) => Err(Error::from_io(&Key::root(), "read the time of the latest snapshot", error)),
        }
    }
}
