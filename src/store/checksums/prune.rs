//! Dropping lines: those of generations that are gone, and those that can't be read.

use std::collections::HashMap;

use super::names::Names;
use super::record::{Entry, Line, all, path_of, read_lines};
use crate::store::{Result, Store};
use crate::types::{ObjectId, Timestamp};

impl Store {
    /// Drops the lines of all but what is `alive`, and of those that were committed since: where more than half of a
    /// record is dead, or where `faulty` and it holds lines that can't be read or contradict older ones. Dying in between
    /// loses nothing, since a record is replaced as a whole. Returns how many lines are gone.
    ///
    /// # Errors
    /// What the medium says.
    pub(in crate::store) fn drop_checksums(&self, alive: Option<(&Names, Timestamp)>, faulty: bool) -> Result<u64> {
        let mut gone = 0;
        for number in all(self)? {
            let _alone = self.hold_checksums()?;
            let lines = read_lines(self, number)?;
            let (mut text, mut dead, mut faults) = (Vec::new(), 0, 0);
            let mut known: HashMap<(ObjectId, Timestamp), Entry> = HashMap::new();
            for line in &lines {
                let read = Line::read(line);
                let contradicts = read.as_ref().is_some_and(|(identity, sum)| {
                    let entry = Entry { sum: *sum, size: identity.size };
                    *known.entry((identity.id, identity.committed)).or_insert(entry) != entry
                });
                if read.is_none() || contradicts {
                    faults += 1;
                    if faulty {
                        continue;
                    }
                }
                if let (Some((identity, _)), Some((alive, since))) = (&read, alive)
                    && identity.committed < since
                    && !alive.know(identity)
                {
                    dead += 1;
                    continue;
                }
                text.extend_from_slice(line);
                text.push(b'\n');
            }
            if dead * 2 > lines.len() || (faulty && faults > 0) {
                let path = path_of(number)?;
                match text.is_empty() {
                    true => self.backend.remove_record(&path)?,
                    false => self.backend.put_record(&path, &text)?,
                }
                gone += (dead + if faulty { faults } else { 0 }) as u64;
            }
        }
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::checksums::record::Sums;
    use crate::store::checksums::record::tests::{identity, sum, text};

    #[test]
    fn the_lines_of_the_dead_go_when_they_are_more_than_the_others() {
        let store = Store::open("memory:").unwrap();
        let now = Timestamp::from_nanos(100);
        let lines: Vec<_> = (1..=5).map(|n| (identity(n * 10), sum(n as u8))).collect();
        Sums::new(&store, 10).add(&lines).unwrap();
        let alive = |commits: &[i64]| {
            let mut names = Names::default();
            commits.iter().for_each(|n| names.add(&identity(*n)));
            names
        };
        assert_eq!(store.drop_checksums(Some((&alive(&[10, 20, 30]), now)), false).unwrap(), 0);
        // What is newer than what was looked at isn't dead.
        assert_eq!(store.drop_checksums(Some((&alive(&[10, 20]), Timestamp::from_nanos(30))), false).unwrap(), 0);
        assert_eq!(store.drop_checksums(Some((&alive(&[10, 20]), now)), false).unwrap(), 3);
        assert_eq!(text(&store).lines().count(), 2);
        assert_eq!(store.drop_checksums(Some((&alive(&[]), now)), false).unwrap(), 2);
        assert!(all(&store).unwrap().is_empty());
    }
}
