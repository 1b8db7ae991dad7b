//! The notes on renames under way, below `.sepia/renames/`: one stands from before the first step of a rename until its history
//! has moved, too.
//!
//! What a crash has left between the two is finished by the next recovery, also where the old name was taken again: by the ids of
//! the objects it is known whose the entries of a history are.

use super::moved::Note;
use super::record::Record;
use super::rename::Extent;
use super::*;
use crate::backend::GenerationName;
use crate::backend::ownership::{give_path, make_dirs};

impl FileBackend {
    fn renames_dir(&self) -> PathBuf {
        self.meta.join("renames")
    }

    /// Notes a rename, and makes what its history will need, while nothing has happened yet.
    pub(super) fn prepare_rename(&self, from: &Key, to: &Key) -> Result<PathBuf> {
        let note = self.note_rename(from, to)?;
        let above = match to.parent() {
            Some(parent) if self.history_dir(from)?.is_some() => self.make_history_dir(&parent).map(drop),
            _ => Ok(()),
        };
        match above {
            Ok(()) => Ok(note),
            Err(error) => {
                self.forget_rename(&note);
                Err(error)
            }
        }
    }

    /// Something was renamed, and then its history or not: in that case the note waits for the next recovery.
    pub(super) fn end_rename(&self, from: &Key, to: &Key, note: &Path, moved: Result<()>) {
        match moved {
            Ok(()) => self.forget_rename(note),
            Err(error) => log::error!("{to}: its history stays at {from} until the store is recovered: {error}"),
        }
    }

    fn note_rename(&self, from: &Key, to: &Key) -> Result<PathBuf> {
        let failed = |error: std::io::Error| Error::from_io(from, "note the rename", error);
        let dir = self.renames_dir();
        let path = dir.join(ObjectId::random().to_string());
        // Escaped keys hold no newline.
        let text = format!("{}\n{}\n", from.escaped(), to.escaped());
        let write = || {
            // Half a note says nothing, but would stay.
            std::fs::write(&path, &text).inspect_err(|_| drop(std::fs::remove_file(&path)))?;
            give_path(&path);
            Ok::<_, std::io::Error>(())
        };
        if let Err(error) = write() {
            if error.kind() != std::io::ErrorKind::NotFound {
                return Err(failed(error));
            }
            make_dirs(&dir).and_then(|()| write()).map_err(failed)?;
        }
        Ok(path)
    }

    pub(super) fn forget_rename(&self, note: &Path) {
        if let Err(error) = std::fs::remove_file(note) {
            log::warn!("can't remove {}: {error}", note.display());
        }
    }

    /// Moves the histories of renames whose process died in between.
    pub(super) fn finish_renames(&self) -> Result<()> {
        let root = Key::root();
        let failed = |error: std::io::Error| Error::from_io(&root, "finish renames", error);
        let notes = match std::fs::read_dir(self.renames_dir()) {
            Ok(notes) => notes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let notes = notes.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
        if notes.is_empty() {
            return Ok(());
        }
        // Nobody is in the middle of a rename while this lock is ours: what is noted was left by the dead.
        let _tree = self.locks.own_tree(&root)?;
        for note in notes {
            let Ok(text) = std::fs::read_to_string(note.path()) else { continue };
            let mut keys = text.lines().map(Key::unescape);
            if let (Some(Ok(from)), Some(Ok(to))) = (keys.next(), keys.next())
                && let Err(error) = self.finish_rename(&from, &to)
            {
                log::error!("{to}: its history stays at {from} until the next recovery: {error}");
                continue;
            }
            self.forget_rename(&note.path());
        }
        Ok(())
    }

    /// Moves the history of what was renamed along, if it was.
    fn finish_rename(&self, from: &Key, to: &Key) -> Result<()> {
        let Ok(arrived) = self.look(to) else { return Ok(()) };
        let extent = if arrived.kind == FileKind::Directory { Extent::Below } else { Extent::Own };
        if !self.look(from).is_err_and(|error| error.is_not_found()) {
            // Or it never was renamed.
            return match extent {
                Extent::Own => self.finish_retaken(from, to),
                Extent::Below => {
                    for old in self.keys_with_history(from)? {
                        if let Some(new) = old.rebase(from, to) {
                            self.finish_retaken(&old, &new)?;
                        }
                    }
                    Ok(())
                }
            };
        }
        self.move_history(from, to, extent)?;
        if extent == Extent::Below {
            self.count_on_below(to)?;
        }
        log::warn!("{to}: moved its history along from {from}, which a crash had left behind");
        Ok(())
    }

    /// As [`FileBackend::finish_rename`], where another object has taken the name `from` since: what was kept of the one that
    /// is at `to` now goes there.
    fn finish_retaken(&self, from: &Key, to: &Key) -> Result<()> {
        let (Some(moved), Some(source)) = (self.record_at(to)?, self.history_dir(from)?) else { return Ok(()) };
        if self.record_at(from)?.is_some_and(|there| there.id == moved.id) {
            return Ok(());
        }
        let mut names = self.history_entries(from)?.0;
        let mut last = None;
        for (at, name) in names.iter().enumerate().rev() {
            if self.object_of(from, &source, name)? == Some(moved.id) {
                last = Some((at, *name));
                break;
            }
        }
        let Some((at, last)) = last else { return Ok(()) };
        names.truncate(at + 1);
        let added = self.join_history(from, to, &source, names)?;
        self.count_on(to)?;
        if let (Some(left), Some(generation)) =
            (Generation::new(last.number + 1), Generation::new(last.number + 1 + added))
        {
            // Its number isn't given again.
            let note = Note { to: to.clone(), generation, id: moved.id };
            let name = GenerationName {
                number: left.get(),
                committed: last.superseded,
                superseded: self.now(),
                deleted: true,
            };
            self.keep_as_note(from, &name, &note.text(), moved.mtime)?;
        }
        log::warn!("{to}: moved its history along from {from}, which something else has the name of since");
        Ok(())
    }

    fn record_at(&self, key: &Key) -> Result<Option<Record>> {
        match self.place(key).and_then(|place| self.find_optional(key, &place)) {
            Ok(found) => Ok(found.and_then(|found| found.record)),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
