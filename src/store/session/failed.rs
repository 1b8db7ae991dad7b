//! Writes that failed: what of them was not made good since.
//!
//! A session in which one is left is not published, for half a file is not what its writer meant. It is set aside, for the
//! other half may be all that there is. Once an fsync has acknowledged bytes of the session, a write that fails only leaves
//! things as they were, as on any filesystem: what is there then has to become current.

use rustix::io::Errno;

use super::super::Error;
use super::Session;
use crate::backend;

/// A range of bytes that could not be written, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FailedWrite {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) errno: i32,
}

/// Ranges that don't overlap, in their order.
#[derive(Debug, Default)]
pub(super) struct FailedWrites(Vec<FailedWrite>);

impl FailedWrites {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn first(&self) -> Option<FailedWrite> {
        self.0.first().copied()
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn add(&mut self, mut new: FailedWrite) {
        self.0.retain(|old| {
            let overlaps = old.start < new.end && new.start < old.end;
            if overlaps {
                (new.start, new.end) = (new.start.min(old.start), new.end.max(old.end));
            }
            !overlaps
        });
        let at = self.0.partition_point(|old| old.start < new.start);
        self.0.insert(at, new);
    }

    /// This range was written, when the file had `size` bytes.
    fn written(&mut self, start: u64, end: u64, size: u64) {
        if self.0.is_empty() {
            return;
        }
        // Where an append has failed, another one was made: the file goes on from there.
        self.0.retain(|old| !(start <= size && old.start == size && end > size));
        let parts = |old: &FailedWrite| {
            let before = FailedWrite { end: old.end.min(start), ..*old };
            let behind = FailedWrite { start: old.start.max(end), ..*old };
            [before, behind].into_iter().filter(|part| part.start < part.end)
        };
        self.0 = self.0.iter().flat_map(parts).collect();
    }

    /// The file has this size: what would be behind its end is not missing.
    fn cut(&mut self, size: u64) {
        self.0.retain_mut(|old| {
            old.end = old.end.min(size);
            old.start < old.end
        });
    }
}

impl Session {
    /// A range could not be written, or copied to, when there were `size` bytes. What was written of it behind the end is
    /// taken away again.
    pub(super) fn note_failed(&mut self, (start, end): (u64, u64), size: u64, error: &Error) {
        self.sum.lose();
        self.cut_back(size);
        let acknowledged = self.synced || self.secured;
        if !acknowledged {
            let errno = match error {
                Error::Backend(backend::Error::Io { source, .. }) => source.raw_os_error(),
                _ => None,
            };
            self.failed.add(FailedWrite { start, end, errno: errno.unwrap_or(Errno::IO.raw_os_error()) });
        }
        self.settle_failed();
    }

    /// A range was written, when there were `size` bytes.
    pub(super) fn note_written(&mut self, (start, end): (u64, u64), size: u64) {
        self.failed.written(start, end, size);
        self.settle_failed();
    }

    pub(super) fn note_cut(&mut self, size: u64) {
        self.failed.cut(size);
        self.settle_failed();
    }

    /// Nothing is there but what was before: whoever's writes failed was told.
    pub(super) fn forget_failed(&mut self) {
        self.failed.clear();
        self.settle_failed();
    }

    /// Takes away what something that failed has left behind the end, blocks without bytes included.
    pub(super) fn cut_back(&self, size: u64) {
        let Some(staged) = &self.staged else { return };
        if let Err(error) = staged.file().set_len(size) {
            log::warn!("{}: what was staged of a write that failed can't be cut off: {error}", self.key);
        }
    }

    fn settle_failed(&mut self) {
        if self.failed.is_empty() {
            self.overrun = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(ranges: &[(u64, u64)]) -> FailedWrites {
        let mut all = FailedWrites::default();
        for (start, end) in ranges {
            all.add(FailedWrite { start: *start, end: *end, errno: 28 });
        }
        all
    }

    fn left(all: &FailedWrites) -> Vec<(u64, u64)> {
        all.0.iter().map(|failed| (failed.start, failed.end)).collect()
    }

    #[test]
    fn what_overlaps_is_one() {
        assert_eq!(left(&failed(&[(50, 60), (10, 20), (20, 30)])), [(10, 20), (20, 30), (50, 60)]);
        assert_eq!(left(&failed(&[(10, 20), (30, 40), (15, 35)])), [(10, 40)]);
    }

    #[test]
    fn what_was_written_since_is_made_good_in_any_order() {
        let mut all = failed(&[(0, 10), (40, 50)]);
        all.written(42, 44, 100);
        assert_eq!(left(&all), [(0, 10), (40, 42), (44, 50)]);
        all.written(30, 60, 100);
        assert_eq!(left(&all), [(0, 10)]);
        all.written(0, 10, 100);
        assert!(all.is_empty());
    }

    #[test]
    fn an_append_goes_on_where_another_failed() {
        let mut all = failed(&[(100, 900), (20, 30)]);
        all.written(100, 101, 100);
        assert_eq!(left(&all), [(20, 30)]);
        // Not one behind a gap, nor one before what was to be written far behind the end.
        let mut all = failed(&[(100, 200), (500, 600)]);
        all.written(300, 301, 100);
        assert_eq!(left(&all), [(100, 200), (500, 600)]);
        all.written(100, 300, 100);
        assert_eq!(left(&all), [(500, 600)]);
    }

    #[test]
    fn what_is_cut_off_is_not_missing() {
        let mut all = failed(&[(0, 10), (40, 50), (60, 70)]);
        all.cut(45);
        assert_eq!(left(&all), [(0, 10), (40, 45)]);
    }
}
