//! Changes of names, on somebody's behalf: each is written down as theirs.

use super::events::{Actor, Event, EventKind};
use super::{Result, Store};
use crate::backend::{self, Backend, Creator, FileKind, Rename, Stat};
use crate::types::{Key, Precondition};

/// A store as somebody changes it. Its methods are those of the [`backend::Backend`], with their errors and
/// [`Error::Rejected`](super::Error::Rejected), where a rule has something against it; what they did is in the events.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    pub(super) store: &'a Store,
    pub(super) actor: Actor,
}

impl Store {
    /// Changes on somebody's behalf. What is changed by the store's own methods is this process's doing.
    pub fn by(&self, actor: Actor) -> By<'_> {
        By { store: self, actor }
    }
}

impl By<'_> {
    /// Makes a directory.
    ///
    /// # Errors
    /// As [`backend::Backend::create_dir`].
    pub fn create_dir(&self, key: &Key, mode: u32, creator: &Creator) -> Result<Stat> {
        self.made(key, |backend| backend.create_dir(key, mode, creator))
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As [`backend::Backend::create_symlink`].
    pub fn create_symlink(&self, key: &Key, target: &[u8], creator: &Creator) -> Result<Stat> {
        self.made(key, |backend| backend.create_symlink(key, target, creator))
    }

    /// Makes a FIFO, socket or device node.
    ///
    /// # Errors
    /// As [`backend::Backend::create_special`].
    pub fn create_special(&self, key: &Key, kind: FileKind, mode: u32, rdev: u64, creator: &Creator) -> Result<Stat> {
        self.made(key, |backend| backend.create_special(key, kind, mode, rdev, creator))
    }

    /// Makes an empty file that is not about to be written to. (One that is gets its event from its session.)
    ///
    /// # Errors
    /// As [`backend::Backend::reserve`].
    pub fn create_empty(&self, key: &Key, mode: u32, creator: &Creator) -> Result<Stat> {
        self.made(key, |backend| backend.reserve(key, mode, creator))
    }

    fn made(&self, key: &Key, make: impl FnOnce(&dyn Backend) -> backend::Result<Stat>) -> Result<Stat> {
        let stat = self.store.make_name(key, || make(&*self.store.backend))?;
        self.store.note(self.actor, EventKind::Created, key, |event| event.of(&stat));
        Ok(stat)
    }

    /// Gives an object a further name.
    ///
    /// # Errors
    /// As [`backend::Backend::link`].
    pub fn link(&self, from: &Key, to: &Key, expect: &Precondition) -> Result<Stat> {
        let stat = self.store.link_name(from, to, || self.store.backend.link(from, to, expect))?;
        let fill = |event: Event| Event { from: Some(from.clone()), ..event.of(&stat) };
        self.store.note(self.actor, EventKind::Created, to, fill);
        Ok(stat)
    }

    /// Removes a name that is no directory. `was` is what the caller has seen there.
    ///
    /// # Errors
    /// As [`backend::Backend::remove`].
    pub fn remove(&self, key: &Key, expect: &Precondition, was: Option<&Stat>) -> Result<()> {
        let backend = &self.store.backend;
        if self.store.is_ephemeral(key) {
            self.store.take_name(key, || backend.remove_unkept(key, expect))?;
        } else {
            self.store.take_name(key, || backend.remove(key, expect))?;
        }
        self.removed(key, was);
        Ok(())
    }

    /// Removes a name that is no directory, and keeps it whatever its name says.
    ///
    /// # Errors
    /// As [`backend::Backend::remove`].
    pub fn remove_to_trash(&self, key: &Key, expect: &Precondition, was: Option<&Stat>) -> Result<()> {
        self.store.take_name(key, || self.store.backend.remove(key, expect))?;
        self.removed(key, was);
        Ok(())
    }

    /// Removes an empty directory. `was` is what the caller has seen there.
    ///
    /// # Errors
    /// As [`backend::Backend::remove_dir`].
    pub fn remove_dir(&self, key: &Key, was: Option<&Stat>) -> Result<()> {
        self.store.take_name(key, || self.store.backend.remove_dir(key))?;
        self.removed(key, was);
        Ok(())
    }

    fn removed(&self, key: &Key, was: Option<&Stat>) {
        let fill = |event: Event| match was {
            Some(stat) => event.of(stat),
            None => event,
        };
        self.store.note(self.actor, EventKind::Deleted, key, fill);
    }

    /// Renames an object, a directory or a link. `replaced` is what the caller has seen at `to`.
    ///
    /// # Errors
    /// As [`backend::Backend::rename`].
    pub fn rename(&self, from: &Key, to: &Key, how: &Rename, replaced: Option<&Stat>) -> Result<Stat> {
        let stat = self.store.move_name(from, to, how.exchange, |checked| {
            let expect_from = match (how.expect_from, checked) {
                // What a rule has nothing against is this, and not what somebody puts there meanwhile.
                (Precondition::Any, Some(checked)) => checked.precondition(),
                (expect, _) => expect,
            };
            self.store.backend.rename(from, to, &Rename { expect_from, ..*how })
        })?;
        if from == to || replaced.is_some_and(|other| other.id == stat.id) {
            // Two names of one file: rename(2) leaves both.
            return Ok(stat);
        }
        let replaced = replaced.filter(|_| !how.exchange).and_then(|other| other.generation);
        let fill = |event: Event| {
            let event = Event { to: Some(to.clone()), ..event.of(&stat) };
            let event = if how.exchange { event.with("exchange", true) } else { event };
            match replaced {
                Some(generation) => event.with("replaced", generation.get()),
                None => event,
            }
        };
        self.store.note(self.actor, EventKind::Renamed, from, fill);
        if stat.generation.is_some() {
            self.store.checksums.add(to);
        }
        if how.exchange
            && let Ok(other) = self.store.backend.stat(from)
        {
            let fill = |event: Event| Event { to: Some(from.clone()), ..event.of(&other).with("exchange", true) };
            self.store.note(self.actor, EventKind::Renamed, to, fill);
        }
        Ok(stat)
    }

    /// The object was opened for reading, which is written down where the policy asks for it.
    pub fn opened(&self, key: &Key, stat: &Stat) {
        if self.store.audits_reads() {
            self.store.note(self.actor, EventKind::Read, key, |event| event.of(stat));
        }
    }
}

impl Store {
    /// Removes an object; its bytes stay in the history, unless it is one that makes none.
    ///
    /// # Errors
    /// [`backend::Error::NotFound`], [`backend::Error::Stale`], [`backend::Error::IsDirectory`].
    pub fn remove(&self, key: &Key, expect: Precondition) -> Result<()> {
        let was = self.backend.stat(key).ok();
        self.by(Actor::current()).remove(key, &expect, was.as_ref())
    }

    /// Removes an empty directory; the histories below it stay.
    ///
    /// # Errors
    /// [`backend::Error::NotFound`], [`backend::Error::NotDirectory`], [`backend::Error::NotEmpty`].
    pub fn remove_dir(&self, key: &Key) -> Result<()> {
        let was = self.backend.stat(key).ok();
        self.by(Actor::current()).remove_dir(key, was.as_ref())
    }

    /// Renames an object or a directory. What it replaces stays in the target's history.
    ///
    /// # Errors
    /// As [`backend::Backend::rename`].
    pub fn rename(&self, from: &Key, to: &Key, expect_to: Precondition) -> Result<Stat> {
        let replaced = self.backend.stat(to).ok();
        let how = Rename { expect_from: Precondition::Any, expect_to, exchange: false };
        self.by(Actor::current()).rename(from, to, &how, replaced.as_ref())
    }
}
