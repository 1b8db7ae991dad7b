//! The few things of this host that a store in memory needs: anonymous files, a private directory, the size of memory.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, SealFlags};

use crate::backend::FsStat;
use crate::types::{NAME_MAX, ObjectId};

/// A file in memory with these bytes, which nobody can change any more.
///
/// # Errors
/// When there are too many open files, or no memory.
pub fn materialize(bytes: &[u8]) -> io::Result<File> {
    let file = File::from(rustix::fs::memfd_create("sepia", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all_at(bytes, 0)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

/// The bytes of a local file from an offset to its end; none when that is behind the end.
///
/// # Errors
/// The system's answer.
pub fn read_from(file: &File, from: u64) -> io::Result<Vec<u8>> {
    let size = file.metadata()?.len().saturating_sub(from);
    let size = usize::try_from(size).map_err(|_| io::Error::from(rustix::io::Errno::FBIG))?;
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// The same, all of them.
///
/// # Errors
/// The system's answer.
pub fn read_all(file: &File) -> io::Result<Arc<[u8]>> {
    read_from(file, 0).map(Arc::from)
}

/// Names of which each has one holder at most.
#[derive(Debug, Default)]
pub struct Names(Arc<Mutex<HashSet<String>>>);

/// A name that is held until this is dropped.
#[derive(Debug)]
pub struct HeldName(Arc<Mutex<HashSet<String>>>, String);

impl Names {
    /// Takes a name, unless somebody has it.
    pub fn take(&self, name: &str) -> Option<HeldName> {
        self.0.lock().insert(name.to_owned()).then(|| HeldName(self.0.clone(), name.to_owned()))
    }
}

impl Drop for HeldName {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

/// A directory for this process alone, removed when dropped.
#[derive(Debug)]
pub struct PrivateDir(PathBuf);

impl PrivateDir {
    /// A new one in the directory for temporary files. When it can't be made, what is put into it fails.
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("sepia-{}-{}", std::process::id(), ObjectId::random()));
        if let Err(error) = std::fs::DirBuilder::new().mode(0o700).create(&path) {
            log::warn!("{}: can't be made, so nothing can be written: {error}", path.display());
        }
        PrivateDir(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The host's memory, as the size of a medium.
///
/// # Errors
/// When `/proc` can't be read.
pub fn stat_fs() -> io::Result<FsStat> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    // "MemTotal:       16318480 kB"
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
    };
    let free = kib("MemAvailable").or_else(|| kib("MemFree")).unwrap_or(0) / 4;
    Ok(FsStat {
        block_size: 4096,
        blocks: kib("MemTotal").unwrap_or(0) / 4,
        blocks_free: free,
        blocks_available: free,
        files: 0,
        files_free: 0,
        name_max: NAME_MAX as u32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_materialized_file_can_not_be_changed() {
        let file = materialize(b"bytes").unwrap();
        assert!(file.write_at(b"x", 0).is_err());
        assert!(file.set_len(1).is_err());
        assert_eq!(&*read_all(&file).unwrap(), b"bytes");
        assert_eq!(read_from(&file, 9).unwrap(), b"");
    }

    #[test]
    fn a_private_directory_ends_with_its_owner() {
        use std::os::unix::fs::PermissionsExt;
        let dir = PrivateDir::new();
        let path = dir.path().to_owned();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        drop(dir);
        assert!(!path.exists());
    }
}
