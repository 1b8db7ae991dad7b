//! The state of an object as JSON and as text: what `ls`, `stat` and the commands that save have in common.

use serde::Serialize;

use super::output::{JsonKey, json_time};
use crate::backend::{FileKind, Stat};
use crate::types::{Generation, Key};

/// The state of an object in a JSON document.
#[derive(Debug, Serialize)]
pub struct JsonStat {
    #[serde(flatten)]
    key: JsonKey,
    kind: FileKind,
    id: String,
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    generation: Option<Generation>,
    committed: Option<String>,
    mtime: String,
    atime: String,
    ctime: String,
    links: u32,
    blocks: u64,
    rdev: u64,
    recorded: bool,
}

impl JsonStat {
    /// The state of what is at `key`.
    pub fn new(key: &Key, stat: &Stat) -> Self {
        JsonStat {
            key: key.into(),
            kind: stat.kind,
            id: stat.id.to_string(),
            mode: format!("{:04o}", stat.mode),
            uid: stat.uid,
            gid: stat.gid,
            size: stat.size,
            generation: stat.generation,
            committed: stat.committed.map(json_time),
            mtime: json_time(stat.mtime),
            atime: json_time(stat.atime),
            ctime: json_time(stat.ctime),
            links: stat.nlink,
            blocks: stat.blocks,
            rdev: stat.rdev,
            recorded: stat.recorded,
        }
    }
}

/// A kind of thing in words.
pub fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symbolic link",
        FileKind::Fifo => "FIFO",
        FileKind::Socket => "socket",
        FileKind::CharDevice => "character device",
        FileKind::BlockDevice => "block device",
    }
}

/// Kind and permissions as `ls -l` shows them: `-rw-r--r--`.
pub fn mode_text(kind: FileKind, mode: u32) -> String {
    let mut text = String::with_capacity(10);
    text.push(match kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, false) => letter.to_ascii_uppercase(),
            (true, true) => letter,
        });
    }
    text
}

/// A generation's number, or a dash for what has none.
pub fn generation_text(generation: Option<Generation>) -> String {
    generation.map_or_else(|| "-".to_owned(), |generation| generation.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_as_ls_shows_them() {
        assert_eq!(mode_text(FileKind::File, 0o644), "-rw-r--r--");
        assert_eq!(mode_text(FileKind::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(mode_text(FileKind::File, 0o6711), "-rws--s--x");
        assert_eq!(mode_text(FileKind::File, 0o7000), "---S--S--T");
    }
}
