//! What a session has made, as events: one for each generation, however often it is amended.

use super::super::{Actor, Event, EventKind};
use super::Session;
use crate::backend::Stat;
use crate::types::{Generation, Key, Precondition};

/// What of a session is in the events.
#[derive(Debug, Default)]
pub(super) struct Announced {
    /// The object was made by this session, and nobody was told.
    new: bool,
    /// The bytes are those of this older generation.
    restored: Option<Generation>,
    /// The generation that was made or renamed last.
    last: Option<Generation>,
}

impl Announced {
    /// The session has made the object.
    pub(super) fn is_new(&mut self) {
        self.new = true;
    }

    /// The session's own generation has this number now, and that was said.
    pub(super) fn is_now(&mut self, generation: Option<Generation>) {
        self.last = generation;
    }
}

impl Session {
    /// On whose behalf the session goes on.
    pub fn set_actor(&mut self, actor: Actor) {
        self.actor = actor;
    }

    /// Whether its end would be an event.
    pub fn has_news(&self) -> bool {
        self.dirty || self.announced.new
    }

    /// The bytes to be saved are those of an older generation.
    pub(in crate::store) fn restoring(mut self, generation: Generation) -> Self {
        self.announced.restored = Some(generation);
        self
    }

    /// A generation has become current.
    pub(super) fn announce(&mut self, key: &Key, stat: &Stat) {
        self.store.checksums.add(key);
        if self.announced.last.is_some() && self.announced.last == stat.generation {
            return;
        }
        self.announced.last = stat.generation;
        let new = std::mem::take(&mut self.announced.new);
        let (kind, restored) = match self.announced.restored.take() {
            Some(generation) => (EventKind::Restored, Some(generation)),
            None if new => (EventKind::Created, None),
            None => (EventKind::Updated, None),
        };
        let fill = |event: Event| match restored {
            Some(generation) => event.of(stat).with("restored", generation.get()),
            None => event.of(stat),
        };
        self.store.note(self.actor, kind, key, fill);
    }

    /// The session ends. An object that it has made, and never saved anything to, is there all the same.
    pub(super) fn announce_empty(&mut self, key: &Key) {
        let Precondition::Reserved(id) = self.expect else { return };
        if std::mem::take(&mut self.announced.new) {
            self.store.note(self.actor, EventKind::Created, key, |event| Event {
                id: Some(id),
                size: Some(0),
                ..event
            });
        }
    }
}
