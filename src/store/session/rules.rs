//! Sessions of objects for which rules hold.

use std::io;

use super::super::rules::{Applying, Bytes, KEPT_BEYOND};
use super::super::{Breach, Error, Result};
use super::Session;
use crate::backend;
use crate::types::{Key, Precondition};

impl Session {
    /// If a rule has something against what it saves in one go, the bytes are kept.
    pub(in crate::store) fn keeping_what_is_rejected(mut self) -> Self {
        self.drops_rejected = false;
        self
    }

    /// Whether a rule had something against what was written so far.
    pub fn is_rejected(&self) -> bool {
        self.rejected.is_some() || self.overrun.is_some()
    }

    /// The bytes are others than those that a rule had something against.
    pub(super) fn changed(&mut self) {
        self.dirty = true;
        self.rejected = None;
        self.times.1 = None;
    }

    /// Refuses to make it larger than it may be, where no bytes are lost by that.
    pub(super) fn check_extent(&self, end: u64) -> Result<()> {
        match self.max_size {
            Some(most) if end > most => {
                Err(Breach::too_large(&self.key, most, &format!("it would have {end} bytes")).at(&self.key))
            }
            _ => Ok(()),
        }
    }

    /// Refuses what goes so far beyond the largest size that it would not even be kept.
    pub(super) fn check_overrun(&mut self, end: u64) -> Result<()> {
        let Some(most) = self.max_size.filter(|most| end > most.saturating_add(KEPT_BEYOND)) else { return Ok(()) };
        let breach = Breach::too_large(&self.key, most, "it went on behind what is kept of it");
        self.overrun = Some(breach.clone());
        Err(breach.at(&self.key))
    }

    /// Whether the bytes may become those of `key`.
    ///
    /// # Errors
    /// [`Error::Rejected`]: the session is as before.
    pub(super) fn check_rules(&mut self, key: &Key, rules: &Applying) -> Result<()> {
        if rules.is_empty() {
            return Ok(());
        }
        if self.rejected.is_none() {
            let checked = self.store.check_bytes(key, rules, &*self);
            self.rejected = checked.map_err(|error| self.io("check it", error))?;
        }
        match &self.rejected {
            Some(breach) => Err(breach.clone().at(key)),
            None => Ok(()),
        }
    }

    /// The appends of others have made it too large, of which the medium has known first.
    pub(super) fn grown_too_large(&mut self, key: &Key, rules: &Applying, error: backend::Error) -> Error {
        match (&error, rules.max_size()) {
            (backend::Error::Io { source, .. }, Some(most)) if source.kind() == io::ErrorKind::FileTooLarge => {
                let breach = Breach::too_large(key, most, "it would be larger with what others have appended");
                self.rejected = Some(breach.clone());
                breach.at(key)
            }
            _ => error.into(),
        }
    }

    /// Whether it makes the object if there is none.
    pub(super) fn may_make(&self) -> bool {
        matches!(self.expect, Precondition::Any | Precondition::Absent)
    }
}

impl Bytes for Session {
    fn size(&self) -> io::Result<u64> {
        Session::size(self)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Session::read_at(self, buffer, offset)
    }
}
