//! Which objects break a rule all the same: those that were there before it, and those that another program has changed.

use super::{Breach, Rule, wrong_id};
use crate::backend::FileKind;
use crate::store::{Error, Result, Store};
use crate::types::Key;

/// What was found by [`Store::find_breaches`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audited<'a> {
    /// Something for which there are rules, of so many bytes, was looked at.
    Looked(u64),
    /// This breaks a rule.
    Broken(&'a Key, &'a Breach),
}

impl Store {
    /// Looks at all that rules are for, at and below `dir`, by the rules of now. `found` is told of each.
    ///
    /// # Errors
    /// [`Error::Config`] when the rules or a schema can't be understood; what the medium says of the first that can't be
    /// read.
    pub fn find_breaches(&self, dir: &Key, found: &mut dyn FnMut(Audited<'_>)) -> Result<()> {
        self.check_rules()?;
        if self.config()?.rule.is_empty() {
            return Ok(());
        }
        self.audit(dir, found)
    }

    fn audit(&self, key: &Key, found: &mut dyn FnMut(Audited<'_>)) -> Result<()> {
        let stat = match self.backend.stat(key) {
            // Removed meanwhile, but for what was asked for.
            Err(error) if error.is_gone() && !key.is_root() => return Ok(()),
            other => other?,
        };
        let rules = self.rules_for(key);
        if !rules.is_empty() {
            found(Audited::Looked(if stat.kind == FileKind::File { stat.size } else { 0 }));
            let id = if key.components().count() == 2 { wrong_id(key, &rules) } else { None };
            let bytes = match stat.kind {
                FileKind::File if stat.generation.is_some() && rules.is_about_bytes() => {
                    let opened = self.backend.open(key)?;
                    self.check_bytes(key, &rules, &opened).map_err(Error::Source)?
                }
                _ => None,
            };
            let attributes = match stat.kind {
                FileKind::File | FileKind::Directory if rules.iter().any(Rule::is_about_attributes) => {
                    self.wrong_attributes(key, &rules, None)?
                }
                _ => None,
            };
            for breach in [id, bytes, attributes].into_iter().flatten() {
                found(Audited::Broken(key, &breach));
            }
        }
        if stat.kind != FileKind::Directory {
            return Ok(());
        }
        if let Some(breach) = self.overfull(key)? {
            found(Audited::Broken(key, &breach));
        }
        for entry in self.list(key)? {
            self.audit(&key.child(&entry.name)?, found)?;
        }
        Ok(())
    }
}
