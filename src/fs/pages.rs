//! What the kernel has in its page cache: kept, dropped, or given.

use rustix::fs::OFlags;

use super::Fs;
use super::node::{Pages, Seen};
use super::open_node::read_at;
use super::types::Ino;
use crate::backend::Opened;

/// The kernel is given the bytes of a file up to this size, in bytes, with the first open, before it asks for them.
const FILLED: u64 = 16 << 10;

impl Fs {
    /// Whether the kernel's pages of what is opened are good, if it has any. Its attributes are put right if they are not.
    /// Where it can have none it is given those of a small file, which is cheaper than to be asked for them: `alone` says
    /// that nobody has the file open, and nobody can before this returns.
    pub(super) fn note_opened(&self, ino: Ino, opened: &Opened, access: OFlags, alone: bool) -> bool {
        let stat = &opened.stat;
        let (before, now, stale) = {
            let mut nodes = self.nodes.lock();
            let Some(node) = nodes.get_mut(ino) else { return false };
            let now = if node.is_split() { Pages::Mixed } else { Pages::Of(stat.version()) };
            let seen = Seen::from(stat);
            let stale = node.seen.is_some_and(|known| !known.same_bytes(&seen));
            node.seen = Some(seen);
            (std::mem::replace(&mut node.pages, now), now, stale)
        };
        if stale {
            self.watching.invalidate_attributes(ino);
        }
        let keep = now != Pages::Mixed && (before == now || before == Pages::None);
        let fills = before == Pages::None && access == OFlags::RDONLY && alone && !self.is_shared();
        let read = if fills { self.fill_cache(ino, opened) } else { before != Pages::None };
        // What the kernel has in its cache it reads there: an open that can read counts as an access then.
        if keep && read && access != OFlags::WRONLY && self.store.backend().mark_read(opened) {
            self.watching.invalidate_attributes(ino);
        }
        keep
    }

    /// The kernel has bytes that are not in the file, and nobody is to be served them.
    pub(super) fn drop_pages(&self, ino: Ino) {
        self.note_mixed(ino);
        self.watching.invalidate(ino, true);
    }

    pub(super) fn note_mixed(&self, ino: Ino) {
        if let Some(node) = self.nodes.lock().get_mut(ino) {
            node.pages = Pages::Mixed;
        }
    }

    fn fill_cache(&self, ino: Ino, opened: &Opened) -> bool {
        let size = opened.stat.size as usize;
        if size == 0 || opened.stat.size > FILLED {
            return false;
        }
        let mut bytes = vec![0; size];
        let whole = read_at(&opened.file, &mut bytes, 0).is_ok_and(|n| n == size);
        if whole {
            self.watching.fill(ino, &bytes);
        }
        whole
    }
}
