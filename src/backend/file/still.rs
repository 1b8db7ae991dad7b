//! Holding everything still for a snapshot, and what follows for amendments.
//!
//! Everyone who commits, removes or renames shares the tree lock, so who owns it has a store in which nothing of that
//! kind is under way. An amendment would take the bytes of a snapshot away under their number. So up to when
//! generations are to stay what they are is in `.sepia/snapshots/latest`, which is written while everything is held
//! still, and read by amendments only, under the shared lock.

use super::lock::TreeExclusive;
use super::*;
use crate::types::Timestamp;

const LATEST: &str = "snapshots/latest";

/// The tree lock, owned.
struct TreeStill<'a> {
    backend: &'a FileBackend,
    _tree: TreeExclusive<'a>,
}

impl Still for TreeStill<'_> {
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
        Ok(Box::new(TreeStill { backend: self, _tree: self.locks.own_tree(&Key::root())? }))
    }

    /// Whether what was committed at `time` must not be amended. To be asked under the tree lock.
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
