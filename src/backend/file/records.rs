//! The records of the layers above: files below `.sepia/`.

use std::io::Write;

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
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&staged, &target)
        };
        let mut result = write();
        if result.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
            && let Some(dir) = target.parent()
        {
            result = std::fs::create_dir_all(dir).and_then(|()| write());
        }
        if result.is_err() {
            let _ = std::fs::remove_file(&staged);
        }
        result.and_then(|()| sync_parent(&target)).map_err(|e| Error::from_io(path, "write Sepia's record", e))
    }

    pub(super) fn move_staged_to_record(&self, path: &Key, staged: Staged) -> std::result::Result<(), (Error, Staged)> {
        let target = self.record_path(path);
        let keep = || -> std::io::Result<()> {
            if let Some(dir) = target.parent() {
                std::fs::create_dir_all(dir)?;
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
