//! Making bytes writable: what of the base is copied, and when.

use std::fs::File;
use std::sync::Arc;

use super::super::Result;
use super::Session;
use crate::backend::{Intent, RunningSum, Staged, copy_range};
use crate::types::Precondition;

impl Session {
    /// Makes the bytes from `offset` on writable.
    pub(super) fn stage_from(&mut self, offset: u64) -> Result<()> {
        self.check_lost()?;
        if self.staged.is_none() {
            let base_size = self.base_size();
            let tail_from = (base_size > 0).then_some(base_size);
            let intent = self.intent(tail_from);
            let staged = self.store.backend.staging().stage(&intent).map_err(|e| self.io("stage", e))?;
            if let Some(from) = tail_from {
                staged.file().set_len(from).map_err(|e| self.io("stage", e))?;
            }
            self.sum = RunningSum::new(tail_from.unwrap_or(0));
            self.staged = Some(staged);
            self.tail_from = tail_from;
        }
        match self.tail_from {
            Some(from) if offset < from => self.stage_whole(),
            _ => Ok(()),
        }
    }

    /// Makes what is staged empty, with nothing of the base before it.
    pub(super) fn stage_nothing(&mut self) -> Result<()> {
        if self.staged.is_none() {
            self.stage_from(0)?;
        }
        // ext4 writes out at the close what was ever truncated to nothing (auto_da_alloc), so not what is empty.
        if self.end()? > 0 {
            self.staged_file()?.set_len(0).map_err(|e| self.io("truncate", e))?;
        }
        self.sum = RunningSum::new(0);
        self.base_lost = None;
        if self.tail_from.take().is_some()
            && let Some(staged) = &self.staged
        {
            self.note(staged, None)?;
        }
        Ok(())
    }

    /// Makes all bytes writable: copies the base into the staged file.
    pub(super) fn stage_whole(&mut self) -> Result<()> {
        self.stage_from(u64::MAX)?;
        let Some(from) = self.tail_from else { return Ok(()) };
        let staged = self.staged.as_ref().ok_or_else(|| self.broken())?;
        let mut lost = None;
        if let Some(base) = &self.base
            && !self.store.copy_base(&self.key, base, staged.file(), from).map_err(|error| self.io("copy", error))?
        {
            log::error!("{}: the bytes that a save was based on are kept nowhere: it will be set aside", self.key);
            // What there is in their place tells more than nothing.
            copy_range(&base.file, staged.file(), 0, from).map_err(|error| self.io("copy", error))?;
            lost = Some(from);
        }
        self.note(staged, None)?;
        self.tail_from = None;
        self.base_lost = lost;
        self.sum.lose();
        Ok(())
    }

    pub(super) fn intent(&self, append_from: Option<u64>) -> Intent {
        let base = append_from.and(self.mergeable_base());
        Intent {
            key: self.key.clone(),
            expect: self.expect,
            append_from,
            base,
            acknowledged: false,
            in_place: false,
            sum: None,
            copied: self.copied,
        }
    }

    /// The bytes to which others may append, too. Who named a generation wants that one and no other.
    pub(super) fn mergeable_base(&self) -> Option<u64> {
        let base = self.base.as_ref().filter(|_| self.append_only && matches!(self.expect, Precondition::Version(..)));
        base.map(|base| base.stat.incarnation)
    }

    pub(super) fn note(&self, staged: &Staged, append_from: Option<u64>) -> Result<()> {
        staged.note(&self.intent(append_from)).map_err(|e| self.io("write the journal", e))
    }

    pub(super) fn staged_file(&self) -> Result<&Arc<File>> {
        self.staged.as_ref().map(Staged::file).ok_or_else(|| self.broken())
    }

    pub(super) fn base_size(&self) -> u64 {
        self.base.as_ref().map_or(0, |base| base.stat.size)
    }
}
