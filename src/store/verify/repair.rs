//! What can be done about damage. Nothing is thrown away by it: every repair is a save like any other.

use super::report::{Damage, Damaged, Harm, Level, Mended};
use super::state::replaced_name;
use super::{Result, Verifier};
use crate::backend::{self, Stat};
use crate::store::{Error, Store};
use crate::types::Key;

impl Verifier<'_> {
    /// Records what was changed outside Sepia. Returns whether it did: that it is gone, or changes again, is nobody's fault.
    pub(super) fn record(&mut self, key: &Key) -> bool {
        match self.store.get(key) {
            Ok(_) => {
                self.run.counts.repaired += 1;
                true
            }
            Err(error) => {
                log::info!("{key}: was not recorded: {error}");
                false
            }
        }
    }

    /// Does what was asked for about a damaged object, and notes what came of it.
    pub(super) fn mend(&mut self, damaged: &mut Damaged) -> Result<()> {
        let Some(current) = damaged.generations.iter().find(|damage| damage.current).cloned() else { return Ok(()) };
        let only_record = current.harm == Harm::Record;
        let mended = match damaged.intact {
            Some(intact) if self.how.bring_back && self.how.level == Level::Content && !only_record => {
                let brought_back = still_damaged(self.store, &damaged.key, &current)
                    .and_then(|stat| self.store.restore(&damaged.key, intact.generation, stat.precondition()));
                match brought_back {
                    Ok(stat) => {
                        self.run.counts.brought_back += 1;
                        self.state.replaced.extend(replaced_name(&current));
                        stat.generation.map(Mended::BroughtBack)
                    }
                    Err(error) => Some(Mended::Failed(error.to_string())),
                }
            }
            _ if self.how.repair && only_record => match self.store.get(&damaged.key) {
                Ok(opened) => {
                    self.run.counts.repaired += 1;
                    opened.stat.generation.map(Mended::Recorded)
                }
                Err(error) => Some(Mended::Failed(error.to_string())),
            },
            _ => None,
        };
        damaged.mended = mended;
        if matches!(damaged.mended, Some(Mended::BroughtBack(_))) {
            // Which damaged generation was replaced must not be forgotten.
            self.note()?;
        }
        Ok(())
    }
}

/// The state of what is at a key, recorded, if it is the damaged generation.
fn still_damaged(store: &Store, key: &Key, damage: &Damage) -> Result<Stat> {
    let changed = |stat: &Stat| Error::Backend(backend::Error::Stale { key: key.clone(), current: stat.generation });
    let before = store.stat(key)?;
    let same = before.committed.map(|committed| committed.nanos()) == damage.committed;
    if !same || (!before.recorded && store.backend.check_record(key)?.is_none()) {
        return Err(changed(&before));
    }
    let stat = store.get(key)?.stat;
    // What was not recorded has another number now, but is the same file.
    if stat.same_bytes(&before) { Ok(stat) } else { Err(changed(&stat)) }
}
