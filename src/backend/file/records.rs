//! The records of the layers above: files below `.sepia/`.

use crate::backend::ownership::{give_path, make_dirs};
use std::io::Write;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::*;

impl FileBackend {
    fn record_path(&self, path: &Key) -> PathBuf {
        self.meta.join(path.as_path())
    }

    pub(super) fn write_record_file(&self, path: &Key, bytes: &[u8]) -> Result<()> {
        let target = self.record_path(path);
        let staged = target.with_extension(format!("{}.new", ObjectId::random()));
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::File::create_new(&staged)?;
            give_path(&staged);
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&staged, &target)
        };
        let mut result = write();
        if result.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
            && let Some(dir) = target.parent()
        {
            result = make_dirs(dir).and_then(|()| write());
        }
        if result.is_err() {
            let _ = std::fs::remove_file(&staged);
        }
        result.and_then(|()| sync_parent(&target)).map_err(|e| Error::from_io(path, "write Sepia's record", e))
    }

    pub(super) fn move_staged_to_record(&self, path: &Key, staged: Staged) -> std::result::Result<(), (Error, Staged)> {
        if let Err(error) = self.end_half(&staged) {
            return Err((error, staged));
        }
        let target = self.record_path(path);
        let keep = || -> std::io::Result<()> {
            if let Some(dir) = target.parent() {
                make_dirs(dir)?;
            }
            staged.file().sync_all()?;
            std::fs::rename(staged.path(), &target)?;
            sync_parent(&target)
        };
        match keep() {
            Ok(()) => {
                drop(staged.committed());
                Ok(())
            }
            Err(error) => Err((Error::from_io(path, "keep its bytes", error), staged)),
        }
    }

    pub(super) fn append_to_record_file(&self, path: &Key, bytes: &[u8]) -> Result<u64> {
        let failed = |error: std::io::Error| Error::from_io(path, "append to Sepia's record", error);
        loop {
            let file = self.growing_record(path).map_err(failed)?;
            // One call, for then the kernel puts it in one piece behind what others append (write(2), O_APPEND).
            let written =
                rustix::io::retry_on_intr(|| rustix::io::write(&file, bytes)).map_err(|e| failed(e.into()))?;
            if written < bytes.len() {
                return Err(failed(Errno::NOSPC.into()));
            }
            // The times are not asked for: a file of which they were is given finer ones at its next change, each of
            // which costs an update of the inode (multigrain timestamps, Linux 6.13).
            let asked = StatxFlags::SIZE | StatxFlags::NLINK;
            let state = rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH, asked).map_err(|e| failed(e.into()))?;
            if state.stx_nlink > 0 {
                return Ok(state.stx_size);
            }
            // Somebody has removed the record, and nobody will read what was just written.
            *self.growing.lock() = None;
        }
    }

    fn growing_record(&self, path: &Key) -> std::io::Result<Arc<File>> {
        if let Some((_, file)) = self.growing.lock().as_ref().filter(|(growing, _)| growing == path) {
            return Ok(file.clone());
        }
        let target = self.record_path(path);
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::open(&target, flags, Mode::RUSR | Mode::WUSR);
        let opened = match (open(), target.parent()) {
            (Err(Errno::NOENT), Some(dir)) => {
                make_dirs(dir)?;
                open()
            }
            (opened, _) => opened,
        };
        let file = Arc::new(File::from(opened?));
        give_path(&target);
        *self.growing.lock() = Some((path.clone(), file.clone()));
        Ok(file)
    }

    pub(super) fn open_record_file(&self, path: &Key) -> Result<File> {
        File::open(self.record_path(path)).map_err(|e| Error::from_io(path, "open Sepia's record", e))
    }

    pub(super) fn record_files(&self, dir: &Key) -> Result<Vec<Key>> {
        let mut files = Vec::new();
        let mut pending = vec![dir.clone()];
        while let Some(dir) = pending.pop() {
            let failed = |error: std::io::Error| Error::from_io(&dir, "list Sepia's records", error);
            let entries = match std::fs::read_dir(self.record_path(&dir)) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let path = dir.child(&entry.file_name())?;
                if entry.file_type().map_err(failed)?.is_dir() { pending.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        Ok(files)
    }

    pub(super) fn remove_record_file(&self, path: &Key) -> Result<()> {
        match std::fs::remove_file(self.record_path(path)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::from_io(path, "remove Sepia's record", error))
            }
            _ => Ok(()),
        }
    }
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
