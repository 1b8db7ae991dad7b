//! Changes from outside: by plain system calls in the store directory, and what the model makes of them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::names::Model;
use super::tree::{Id, Kind, join};

/// The store directory, as another program sees it.
#[derive(Debug)]
pub struct Outside {
    pub root: PathBuf,
    /// On the same filesystem, for what is to be renamed into the store.
    pub aside: PathBuf,
    clock: u64,
}

type Result<T = ()> = std::result::Result<T, String>;

fn said(error: std::io::Error) -> String {
    format!("from outside: {error}")
}

impl Outside {
    pub fn new(root: &Path, aside: &Path) -> Self {
        Outside { root: root.to_owned(), aside: aside.to_owned(), clock: 0 }
    }

    /// Another modification time than any before: the kernel's clock ticks too seldom for that.
    fn stamp(&mut self, path: &Path) -> Result {
        self.clock += 1;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + self.clock);
        fs::File::open(path).and_then(|file| file.set_modified(time)).map_err(said)
    }

    /// Writes over the beginning, in the same file.
    pub fn overwrite(&mut self, model: &mut Model, path: &str, id: Id, data: &[u8]) -> Result {
        let at = self.root.join(path);
        let file = fs::OpenOptions::new().write(true).open(&at).map_err(said)?;
        file.write_all_at(data, 0).map_err(said)?;
        self.stamp(&at)?;
        changed(model, id, |bytes| {
            bytes.resize(bytes.len().max(data.len()), 0);
            bytes[..data.len()].copy_from_slice(data);
        });
        Ok(())
    }

    /// Appends, in the same file.
    pub fn extend(&mut self, model: &mut Model, path: &str, id: Id, data: &[u8]) -> Result {
        let at = self.root.join(path);
        let mut file = fs::OpenOptions::new().append(true).open(&at).map_err(said)?;
        file.write_all(data).map_err(said)?;
        self.stamp(&at)?;
        changed(model, id, |bytes| bytes.extend(data));
        Ok(())
    }

    /// Changes only the modification time.
    pub fn touch(&mut self, model: &mut Model, path: &str, id: Id) -> Result {
        self.stamp(&self.root.join(path))?;
        changed(model, id, |_| {});
        Ok(())
    }

    /// Renames another file over whatever is there, which is no directory.
    pub fn put_over(&mut self, model: &mut Model, (dir, name): (Id, &str), data: &[u8]) -> Result {
        let path = join(&model.shared.tree.path(dir).expect("a directory in the tree"), name);
        let new = self.aside.join("new");
        fs::write(&new, data).map_err(said)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).map_err(said)?;
        self.stamp(&new)?;
        fs::rename(&new, self.root.join(&path)).map_err(said)?;
        rob(model, &path);
        let id = model.shared.tree.add_file(data.to_vec(), 0o644, data.is_empty());
        model.shared.tree.children_mut(dir).insert(name.to_owned(), id);
        Ok(())
    }

    pub fn delete(&mut self, model: &mut Model, path: &str, dir: Id, id: Id) -> Result {
        let at = self.root.join(path);
        match model.shared.tree.children(id) {
            Some(children) if !children.is_empty() => return Ok(()),
            Some(_) => fs::remove_dir(at).map_err(said)?,
            None => fs::remove_file(at).map_err(said)?,
        }
        rob(model, path);
        model.shared.tree.children_mut(dir).remove(super::tree::base(path));
        Ok(())
    }

    pub fn mkdir(&mut self, model: &mut Model, (dir, name): (Id, &str)) -> Result {
        let path = join(&model.shared.tree.path(dir).expect("a directory in the tree"), name);
        if model.make_dir(dir, name, 0o755).is_ok() {
            let at = self.root.join(path);
            fs::create_dir(&at).map_err(said)?;
            fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).map_err(said)?;
        }
        Ok(())
    }
}

/// A file was changed in place: that is another generation, and the one before is lost.
fn changed(model: &mut Model, id: Id, change: impl FnOnce(&mut Vec<u8>)) {
    let tree = &mut model.shared.tree;
    for path in tree.names(id) {
        let current = tree.current(id).clone();
        model.shared.histories.rob(&path, &current);
        model.shared.alternatives.iter_mut().for_each(|histories| histories.rob(&path, &current));
    }
    let version = tree.fresh();
    let phys = tree.file(id).expect("a file").phys;
    change(&mut tree.bytes[phys]);
    let never_written = tree.bytes[phys].is_empty() && tree.file(id).expect("a file").generation.is_none();
    let file = tree.file_mut(id);
    file.stamp = version;
    if !never_written {
        (file.version, file.generation, file.number) = (version, Some(version), None);
        file.beginnings = vec![version];
    }
}

/// What was current at a path is gone.
fn rob(model: &mut Model, path: &str) {
    let Some(id) = model.shared.tree.find(path) else { return };
    if let Kind::File(file) = &model.shared.tree.nodes[id].kind {
        let current = model.shared.tree.bytes[file.phys].clone();
        model.shared.each_history(|histories| histories.rob(path, &current));
    }
}
