//! One object: its current generation, and its history.

use std::collections::HashSet;

use super::report::{Damage, Damaged, Harm, Intact};
use super::state::replaced_name;
use super::{Counts, Level, Result, Verifier};
use crate::backend::{self, Flaw, GenerationInfo};
use crate::store::checksums::generations::{Body, Generations, generations_of};
use crate::store::checksums::hash::{Ended, Source, Sum};
use crate::store::checksums::record::{Found, Identity};
use crate::store::{Error, checksums};
use crate::types::{Key, ObjectId, Timestamp};

/// How often an object is looked at that changes meanwhile.
const ATTEMPTS: u32 = 4;
/// So many checksums are written down at once.
const MOST_NEW: usize = 256;

/// The checksum of a generation that had none.
pub type New = (Identity, Sum);

/// What one look at an object has found.
#[derive(Debug, Default)]
pub struct Object {
    /// It is a file, or has a history.
    is_one: bool,
    generations: u64,
    bytes: u64,
    harms: Vec<Damage>,
    /// Of those without harm: of the level `content`, the ones with a checksum.
    intact: Option<Intact>,
    new: Vec<New>,
    /// Of those that are known by another commit's checksum.
    found_again: Vec<New>,
    /// It was changed outside, and not recorded yet.
    pub unrecorded: bool,
    /// Something has changed meanwhile.
    unstable: bool,
    /// The system let nobody read it.
    denied: bool,
}

impl Object {
    /// Counts it; `None` if it is none, or keeps on changing.
    pub fn counted(self, counts: &mut Counts) -> Option<Self> {
        counts.bytes += self.bytes;
        if !self.is_one {
            return None;
        }
        counts.objects += 1;
        counts.generations += self.generations;
        counts.busy += u64::from(self.unstable);
        counts.denied += u64::from(self.denied);
        (!self.unstable).then_some(self)
    }

    fn harm(&mut self, info: &GenerationInfo, id: Option<ObjectId>, harm: Harm) {
        self.harms.push(Damage {
            generation: Some(info.generation),
            committed: Some(info.committed.nanos()),
            id,
            current: info.superseded.is_none(),
            harm,
        });
    }

    fn is_intact(&mut self, info: &GenerationInfo) {
        if self.intact.is_none_or(|intact| intact.generation < info.generation) {
            self.intact = Some(Intact { generation: info.generation, committed: info.committed.nanos() });
        }
    }
}

impl Verifier<'_> {
    /// Looks at an object until what is wrong with it was seen twice. `None`: it was asked to stop meanwhile.
    pub(super) fn look_at(&mut self, key: &Key) -> Result<Option<Object>> {
        let (mut before, mut bytes): (Option<Vec<Damage>>, u64) = (None, 0);
        for attempt in 1.. {
            let Some(mut object) = self.look_once(key)? else { return Ok(None) };
            bytes += object.bytes;
            object.bytes = bytes;
            let confirmed = object.harms.is_empty() || before.as_ref() == Some(&object.harms);
            if (confirmed && !object.unstable) || attempt == ATTEMPTS {
                // What was seen only once may be somebody's change that is under way.
                object.unstable |= !confirmed;
                let new = object.new.len() as u64;
                if self.read_only {
                    self.run.counts.missing += new;
                    return Ok(Some(object));
                }
                self.run.counts.new += new;
                self.new.append(&mut object.new);
                self.new.append(&mut object.found_again);
                if self.new.len() >= MOST_NEW {
                    self.write_new()?;
                }
                return Ok(Some(object));
            }
            before = Some(std::mem::take(&mut object.harms));
        }
        Ok(None)
    }

    /// Writes down the checksums that were missing.
    pub(super) fn write_new(&mut self) -> Result<()> {
        self.sums.add(&self.new)?;
        self.new.clear();
        Ok(())
    }

    fn look_once(&mut self, key: &Key) -> Result<Option<Object>> {
        let mut object = Object::default();
        if let Err(error @ backend::Error::Io { .. }) = self.store.backend.stat(key) {
            object.is_one = true;
            let (harm, current) = (Harm::Unreadable(cause(&error)), true);
            object.harms.push(Damage { generation: None, committed: None, id: None, current, harm });
            return Ok(Some(object));
        }
        let found = match generations_of(self.store, key) {
            Err(error) if error.is_gone() => return Ok(Some(object)),
            other => other?,
        };
        object.is_one = found.current.is_some() || !found.bodies.is_empty() || !found.baseless.is_empty();
        self.look_at_record(key, &found, &mut object)?;
        for info in &found.baseless {
            object.generations += 1;
            object.harm(info, None, Harm::Gone);
        }
        for body in found.bodies.iter().rev() {
            object.generations += body.generations().count() as u64;
            let looked = match self.how.level {
                Level::References => {
                    self.look_at_sizes(body, &mut object);
                    Ok(true)
                }
                _ => self.look_at_body(key, &found, body, &mut object),
            };
            match looked {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(Error::Backend(backend::Error::NoGeneration(..))) => object.unstable = true,
                Err(Error::Backend(backend::Error::Io { source, .. }))
                    if source.kind() == std::io::ErrorKind::PermissionDenied =>
                {
                    object.denied = true;
                }
                Err(Error::Backend(error @ (backend::Error::Io { .. } | backend::Error::Invalid(..)))) => {
                    body.generations().for_each(|info| object.harm(info, None, Harm::Unreadable(cause(&error))));
                }
                Err(error) => return Err(error),
            }
        }
        object.harms.sort_by_key(|damage| (damage.generation, damage.committed));
        Ok(Some(object))
    }

    /// What the medium has recorded of the current file.
    fn look_at_record(&self, key: &Key, found: &Generations, object: &mut Object) -> Result<()> {
        let Some(stat) = found.current.as_ref().filter(|stat| !stat.recorded) else { return Ok(()) };
        let flaw = match self.store.backend.check_record(key) {
            Err(error) if error.is_gone() => None,
            other => other?,
        };
        let harm = match flaw {
            Some(Flaw::Unreadable) => Harm::Record,
            Some(Flaw::Size { recorded, found }) => Harm::Size { expected: recorded, found },
            None => {
                object.unrecorded = stat.generation.is_some();
                return Ok(());
            }
        };
        let committed = stat.committed.map(Timestamp::nanos);
        let generation = stat.generation.filter(|_| committed.is_some());
        object.harms.push(Damage { generation, committed, id: Some(stat.id), current: true, harm });
        Ok(())
    }

    fn look_at_sizes(&self, body: &Body, object: &mut Object) {
        let there = body.whole.size;
        for info in body.generations() {
            if info.size > there {
                object.harm(info, None, Harm::Size { expected: info.size, found: there });
            } else {
                object.is_intact(info);
            }
        }
    }

    /// Returns whether to go on.
    fn look_at_body(&mut self, key: &Key, found: &Generations, body: &Body, object: &mut Object) -> Result<bool> {
        let opened = body.open(self.store, key)?;
        let infos: Vec<&GenerationInfo> = body.generations().collect();
        let identities = body.identities(key, &opened);
        let mut known = self.known(&identities, &found.commits)?;
        if body.is_current() && found.current.as_ref().is_some_and(|stat| stat.nlink > 1) {
            // The other commit may be kept under another of its names, with other bytes.
            for one in &mut known {
                if let Found::Other(entry) = *one {
                    *one = Found::Perhaps(entry);
                }
            }
        }
        let id = Some(opened.stat.id);
        // The medium may have told another length before than the file has.
        let there = opened.stat.size;
        let mut sizes = Vec::new();
        for (info, known) in infos.iter().zip(&known) {
            let expected = match known {
                Found::Own(entry) if entry.size != info.size => entry.size,
                _ => info.size,
            };
            let found = info.size.min(there);
            sizes.push((expected != found).then_some(Harm::Size { expected, found }));
        }
        if self.how.level < Level::Content {
            for (info, size) in infos.iter().zip(sizes) {
                match size {
                    Some(harm) => object.harm(info, id, harm),
                    None => object.is_intact(info),
                }
            }
            return Ok(true);
        }
        let readable = infos.iter().take_while(|info| info.size <= there).count();
        let (how, stop) = (self.how, self.how.stop);
        let (mut counts, mut bytes) = (self.run.counts, 0);
        let read = body.sum(&opened, readable, Source::Medium, &mut |read| {
            bytes += read;
            counts.bytes += read;
            (how.progress)(key, &counts);
            !stop()
        });
        object.bytes += bytes;
        let unreadable = match read.ended {
            Ended::Stopped => {
                self.stopped = true;
                return Ok(false);
            }
            Ended::Failed(error) => Some(error.to_string()),
            Ended::Done => None,
        };
        let changed = !body.is_unchanged(self.store, key)?;
        let settled = !body.is_current() || checksums::is_settled(self.store, found.current.as_ref());
        for (at, (info, size)) in infos.iter().zip(sizes).enumerate() {
            let harm = match (size, read.sums.get(at), known[at]) {
                (Some(harm), ..) => harm,
                (None, None, _) => {
                    Harm::Unreadable(unreadable.clone().unwrap_or_else(|| "it ends too early".to_owned()))
                }
                (None, Some(sum), Found::Own(entry)) if entry.sum == *sum => {
                    object.is_intact(info);
                    continue;
                }
                (None, Some(sum), Found::Other(entry) | Found::Perhaps(entry)) if entry.sum == *sum => {
                    object.is_intact(info);
                    object.found_again.push((identities[at].clone(), *sum));
                    continue;
                }
                (None, Some(sum), Found::Own(entry) | Found::Other(entry)) => {
                    Harm::Content { expected: entry.sum.to_string(), found: sum.to_string() }
                }
                (None, Some(_), _) if changed => {
                    object.unstable = true;
                    continue;
                }
                (None, Some(sum), Found::Nothing | Found::Perhaps(_)) => {
                    if settled {
                        object.new.push((identities[at].clone(), *sum));
                    }
                    continue;
                }
            };
            // Whoever changes it has perhaps changed what was read.
            if changed { object.unstable = true } else { object.harm(info, id, harm) }
        }
        Ok(true)
    }

    fn known(&mut self, identities: &[Identity], commits: &HashSet<Timestamp>) -> Result<Vec<Found>> {
        identities.iter().map(|identity| self.sums.find(identity, commits)).collect()
    }

    /// What remains of a damaged object's harms when those are left out in whose place an intact generation was brought
    /// back, and what was done about them. `None`: nothing.
    pub(super) fn damaged(&mut self, key: &Key, object: Object) -> Result<Option<Damaged>> {
        let replaced = |damage: &Damage| {
            !damage.current && replaced_name(damage).is_some_and(|name| self.state.replaced.contains(&name))
        };
        let (known, generations): (Vec<Damage>, _) = object.harms.into_iter().partition(replaced);
        self.run.counts.replaced += known.len() as u64;
        if generations.is_empty() {
            return Ok(None);
        }
        let mut damaged = Damaged { key: key.clone(), generations, intact: object.intact, mended: None };
        self.mend(&mut damaged)?;
        Ok(Some(damaged))
    }
}

/// What the system said, without what was tried on which object.
fn cause(error: &backend::Error) -> String {
    match error {
        backend::Error::Io { source, .. } => source.to_string(),
        backend::Error::Invalid(_, why) => (*why).to_owned(),
        other => other.to_string(),
    }
}
