//! What refers to generations: snapshots, pins, and conflicts to their bytes.

use std::collections::{HashMap, HashSet};

use super::report::Fault;
use super::state::What;
use super::{Counts, Result, Verify};
use crate::backend::FileKind;
use crate::store::checksums::generations::{Generations, generations_of};
use crate::store::walk::Walk;
use crate::store::{Error, Reason, Store};
use crate::types::{Generation, Key, Timestamp};

/// So many objects that a record refers to wrongly are named each.
const NAMED: usize = 1000;
/// So many objects are remembered, for the next snapshot.
const MOST_OBJECTS: usize = 1 << 16;

pub struct References<'a> {
    store: &'a Store,
    how: &'a Verify<'a>,
    what: &'a What,
    /// The commits of all generations that are kept anywhere, by their sizes; made when something is not in its place.
    anywhere: Option<HashSet<(Timestamp, u64)>>,
    /// How often all was looked through for that.
    looks: u32,
    /// The same for the objects that were looked at last.
    looked_at: HashMap<Key, HashSet<(Timestamp, u64)>>,
}

impl<'a> References<'a> {
    pub fn new(store: &'a Store, how: &'a Verify<'a>, what: &'a What) -> Self {
        References { store, how, what, anywhere: None, looks: 0, looked_at: HashMap::new() }
    }

    /// Looks at all of them that are about what is to be verified.
    pub fn verify(&mut self, counts: &mut Counts, faults: &mut Vec<Fault>) -> Result<()> {
        self.pins(faults)?;
        self.conflicts(faults)?;
        for info in self.store.snapshots()? {
            if (self.how.stop)() {
                return Ok(());
            }
            self.snapshot(&info.name, counts, faults)?;
        }
        Ok(())
    }

    fn pins(&mut self, faults: &mut Vec<Fault>) -> Result<()> {
        let pins = match self.store.pins() {
            Ok(pins) => pins,
            Err(error) => {
                faults.push(fault("pins".to_owned(), format!("{error}; nothing is deleted as long as that is so")));
                return Ok(());
            }
        };
        for pin in pins {
            if self.is_meant(&pin.key) && !self.is_kept(&pin.key, pin.committed, None)? {
                let name = format!("pin {}@{}", pin.key, pin.generation);
                faults.push(fault(name, "the generation that it keeps is gone".to_owned()));
            }
        }
        Ok(())
    }

    fn conflicts(&mut self, faults: &mut Vec<Fault>) -> Result<()> {
        for conflict in self.store.conflicts()? {
            // Of a damaged one it isn't known what it is about.
            let damaged = conflict.reason == Reason::Damaged;
            if !damaged && !self.is_meant(&conflict.key) {
                continue;
            }
            let why = match self.store.open_conflict(&conflict.id) {
                _ if damaged => "its record can't be understood; its bytes are kept".to_owned(),
                Ok(_) | Err(Error::NoConflict(_)) => continue,
                Err(error) => error.to_string(),
            };
            faults.push(fault(format!("conflict {}", conflict.id), why));
        }
        Ok(())
    }

    fn snapshot(&mut self, name: &str, counts: &mut Counts, faults: &mut Vec<Fault>) -> Result<()> {
        let record = format!("snapshot {name}");
        let snapshot = match self.store.snapshot(name) {
            Ok(snapshot) => snapshot,
            // Deleted meanwhile.
            Err(Error::NoSnapshot(_)) => return Ok(()),
            Err(error) => {
                faults.push(fault(record, error.to_string()));
                return Ok(());
            }
        };
        let mut lost: Vec<(&Key, Generation)> = Vec::new();
        let mut more = 0;
        for entry in snapshot.entries().filter(|entry| entry.stat.kind == FileKind::File) {
            if (self.how.stop)() {
                return Ok(());
            }
            let Some(generation) = entry.stat.generation else { continue };
            if !self.is_meant(&entry.key) {
                continue;
            }
            (self.how.progress)(&entry.key, counts);
            let committed = entry.stat.committed.unwrap_or(entry.stat.mtime);
            if self.is_kept(&entry.key, committed, Some(entry.stat.size))? {
                continue;
            }
            // Deleted meanwhile, and then the collector may have been there.
            if matches!(self.store.snapshot_info(name), Err(Error::NoSnapshot(_))) {
                return Ok(());
            }
            if lost.len() < NAMED { lost.push((&entry.key, generation)) } else { more += 1 }
        }
        for (key, generation) in lost {
            let why = format!("{key}: the bytes of generation {generation} are not kept any more");
            faults.push(fault(record.clone(), why));
        }
        if more > 0 {
            faults.push(fault(record, format!("the bytes of {more} more generations are not kept any more")));
        }
        Ok(())
    }

    fn is_meant(&self, key: &Key) -> bool {
        key.is_within(&self.how.dir) && self.what.includes(key)
    }

    /// Whether the bytes of this commit are kept, under this name or another one.
    fn is_kept(&mut self, key: &Key, committed: Timestamp, size: Option<u64>) -> Result<bool> {
        if !self.looked_at.contains_key(key) {
            let found = commits_of(self.store, key)?;
            if self.looked_at.len() >= MOST_OBJECTS {
                self.looked_at.clear();
            }
            self.looked_at.insert(key.clone(), found);
        }
        if self.looked_at.get(key).is_some_and(|commits| holds(commits, committed, size)) {
            return Ok(true);
        }
        loop {
            if self.anywhere.as_ref().is_some_and(|commits| holds(commits, committed, size)) {
                return Ok(true);
            }
            // Twice, for what is renamed during one look may be missed by it.
            if self.looks == 2 {
                return Ok(false);
            }
            self.looks += 1;
            let found = self.look_everywhere()?;
            self.anywhere.get_or_insert_default().extend(found);
        }
    }

    fn look_everywhere(&self) -> Result<HashSet<(Timestamp, u64)>> {
        let mut all = HashSet::new();
        let mut walk = Walk::new(self.store, &Key::root(), None);
        while let Some(key) = walk.next()? {
            all.extend(commits_of(self.store, &key)?);
        }
        Ok(all)
    }
}

fn holds(commits: &HashSet<(Timestamp, u64)>, committed: Timestamp, size: Option<u64>) -> bool {
    match size {
        Some(size) => commits.contains(&(committed, size)),
        None => commits.iter().any(|(other, _)| *other == committed),
    }
}

/// The commits of a key whose bytes are kept, and their sizes. One that is damaged is told of elsewhere.
fn commits_of(store: &Store, key: &Key) -> Result<HashSet<(Timestamp, u64)>> {
    let Generations { bodies, current, .. } = match generations_of(store, key) {
        Err(error) if error.is_gone() => return Ok(HashSet::new()),
        other => other?,
    };
    let listed = bodies.iter().flat_map(|body| body.generations());
    let mut commits: HashSet<_> = listed.map(|info| (info.committed, info.size)).collect();
    // What was copied with its attributes is the commit that it was, and recorded as such by whoever opens it.
    let current = match current {
        Some(stat) if !stat.recorded => store.get(key).map_or(Some(stat), |opened| Some(opened.stat)),
        other => other,
    };
    commits.extend(current.and_then(|stat| Some((stat.committed.filter(|_| stat.recorded)?, stat.size))));
    Ok(commits)
}

fn fault(record: String, why: String) -> Fault {
    Fault { record, why, repaired: false }
}
