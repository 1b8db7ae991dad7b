//! Compares everything that can be seen with the model.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;

use sepia::backend::{FileKind, Kept as Form, Opened};
use sepia::fs::DirItem;
use sepia::{Key, Store};

use super::driver::{Driver, Result, read_all, read_once};
use super::history::{Histories, Kept};
use super::sessions::{Expect, Open, Staged};
use super::tree::{Id, Kind, ROOT, base, join};

/// The numbers and bytes of the generations of a key, oldest first; `None` for bytes that are not kept.
type Generations = Vec<(u64, Option<Vec<u8>>)>;

fn equal<T: PartialEq + std::fmt::Debug>(what: impl FnOnce() -> String, model: T, real: T) -> Result {
    if model == real { Ok(()) } else { Err(format!("{}: the model has {model:?}, the store {real:?}", what())) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn key(path: &str) -> Key {
    if path.is_empty() { Key::root() } else { Key::parse(path).unwrap() }
}

fn bytes_of(opened: &Opened) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; opened.stat.size as usize];
    opened.file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

impl Driver {
    pub fn compare(&mut self) -> Result {
        self.model.tear();
        for side in 0..self.sides.len() {
            self.compare_dir(side, "", ROOT, 1).map_err(|e| format!("mount {side}: {e}"))?;
            self.forget_loose();
        }
        self.compare_handles()?;
        self.compare_plain()?;
        self.compare_histories()?;
        self.compare_conflicts()?;
        self.note_names();
        Ok(())
    }

    fn compare_dir(&mut self, side: usize, path: &str, dir: Id, ino: u64) -> Result {
        let fs = &self.sides[side].fs;
        let mut items: BTreeMap<String, DirItem> = BTreeMap::new();
        let fh = fs.opendir(ino).map_err(|e| format!("opendir {path}: {e}"))?;
        let listed = fs.readdir(fh, 0, true, &mut |item| {
            if item.entry.is_some() {
                items.insert(item.name.to_str().unwrap().to_owned(), item.clone());
            }
            true
        });
        fs.releasedir(fh);
        let result = listed.map_err(|e| format!("readdir {path}: {e}")).and_then(|()| {
            let names: Vec<String> = self.model.shared.tree.children(dir).unwrap().keys().cloned().collect();
            equal(|| format!("names in {path:?}"), names, items.keys().cloned().collect())?;
            for (name, item) in &items {
                let id = self.model.child(dir, name).unwrap();
                self.compare_entry(side, &join(path, name), id, item)?;
            }
            Ok(())
        });
        for item in items.values() {
            self.sides[side].fs.forget(item.ino, 1);
        }
        result
    }

    fn compare_entry(&mut self, side: usize, path: &str, id: Id, item: &DirItem) -> Result {
        let what = |what: &str| format!("{what} of {path}");
        let attr = &item.entry.as_ref().unwrap().attr;
        let known = *self.inos.entry(id).or_insert(item.ino);
        equal(|| what("the inode"), known, item.ino)?;
        let tree = &self.model.shared.tree;
        let node = &tree.nodes[id];
        let kind = match node.kind {
            Kind::Dir(_) => FileKind::Directory,
            Kind::Link(_) => FileKind::Symlink,
            Kind::File(_) => FileKind::File,
        };
        equal(|| what("the kind"), kind, item.kind)?;
        let fs = &self.sides[side].fs;
        if let Kind::Link(target) = &node.kind {
            let real = fs.readlink(item.ino).map_err(|e| format!("readlink {path}: {e}"))?;
            return equal(|| what("the target"), target.clone(), text(&real));
        }
        equal(|| what("the mode"), node.mode, attr.stat.mode)?;
        let mut xattrs = BTreeMap::new();
        for name in fs.listxattr(item.ino).map_err(|e| format!("listxattr {path}: {e}"))? {
            let name = name.into_string().unwrap();
            if !name.starts_with("user.sepia") {
                let value = fs.getxattr(item.ino, OsStr::new(&name)).map_err(|e| format!("getxattr {path}: {e}"))?;
                xattrs.insert(name, value);
            }
        }
        equal(|| what("attributes"), node.xattrs.clone(), xattrs)?;
        // Of an inode with several names, the kernel asks without saying by which.
        if tree.names(id).len() == 1 {
            let expected = self.model.mounts[side].expected(path).map(|number| number.to_string());
            let real = fs.getxattr(item.ino, OsStr::new("user.sepia.expect")).ok().map(|value| text(&value));
            equal(|| what("user.sepia.expect"), expected, real)?;
        }
        if kind == FileKind::Directory {
            return self.compare_dir(side, path, id, item.ino);
        }
        equal(|| what("links"), tree.names(id).len() as u32, attr.stat.nlink)?;
        let open = self.model.mounts[side].newest(id);
        let current = tree.current(id);
        if !open.is_some_and(is_torn) {
            equal(|| what("the size"), self.size(side, id), attr.stat.size)?;
        }
        // Opening would change what those who have it open read.
        if open.is_none() {
            let real = read_once(fs, item.ino).map_err(|e| format!("read {path}: {e}"))?;
            equal(|| what("bytes"), text(current), text(&real))?;
        }
        Ok(())
    }

    /// What stat shows: the size of what is staged, else of the object.
    fn size(&self, side: usize, id: Id) -> u64 {
        let open = self.model.mounts[side].newest(id);
        match open.and_then(|open| open.session.as_ref()) {
            Some(session) if !matches!(session.staged, Staged::None) => session.size() as u64,
            None if open.is_some_and(|open| open.unnamed) => {
                let (phys, _) = open.and_then(|open| open.current).expect("what was written");
                self.model.shared.tree.bytes[phys].len() as u64
            }
            _ => self.model.shared.tree.current(id).len() as u64,
        }
    }

    fn compare_handles(&self) -> Result {
        for (at, handle) in self.handles.iter().enumerate() {
            let (mount, fs) = (&self.model.mounts[handle.side], &self.sides[handle.side].fs);
            let open = &mount.opens[&handle.open];
            if is_torn(open) {
                continue;
            }
            let expected = mount.read(&self.model.shared.tree, handle.open);
            let real = read_all(fs, handle.fh).map_err(|e| format!("read handle {at}: {e}"))?;
            equal(|| format!("bytes of handle {at} ({handle:?})"), text(&expected), text(&real))?;
            if open.orphan {
                let attr = fs.getattr(handle.ino, Some(handle.fh)).map_err(|e| format!("getattr handle {at}: {e}"))?;
                equal(|| format!("links of handle {at}"), 0, attr.stat.nlink)?;
                equal(|| format!("the size of handle {at}"), self.size(handle.side, handle.id), attr.stat.size)?;
            }
        }
        Ok(())
    }

    /// The store directory, as any program sees it.
    fn compare_plain(&self) -> Result {
        let Some(outside) = &self.outside else { return Ok(()) };
        let tree = &self.model.shared.tree;
        for (path, id) in tree.dirs() {
            let entries = std::fs::read_dir(outside.root.join(&path)).map_err(|e| format!("{path}: {e}"))?;
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.retain(|name| name != ".sepia");
            names.sort();
            let model = tree.children(id).unwrap().keys().cloned().collect();
            equal(|| format!("plain names in {path:?}"), model, names)?;
        }
        for (path, _, id) in tree.entries() {
            let (at, node) = (outside.root.join(&path), &tree.nodes[id]);
            let meta = std::fs::symlink_metadata(&at).map_err(|e| format!("{path}: {e}"))?;
            if let Kind::Link(target) = &node.kind {
                let real = std::fs::read_link(&at).map_err(|e| format!("{path}: {e}"))?;
                equal(|| format!("the plain target of {path}"), OsStr::new(target), real.as_os_str())?;
                continue;
            }
            equal(|| format!("the plain mode of {path}"), node.mode, meta.permissions().mode() & 0o7777)?;
            if tree.file(id).is_some() {
                let real = std::fs::read(&at).map_err(|e| format!("{path}: {e}"))?;
                equal(|| format!("plain bytes of {path}"), text(tree.current(id)), text(&real))?;
            }
        }
        Ok(())
    }

    fn compare_conflicts(&self) -> Result {
        let store = &self.sides[0].store;
        let mut real = Vec::new();
        for conflict in store.conflicts().map_err(|e| e.to_string())? {
            let mut bytes = Vec::new();
            let mut file = store.open_conflict(&conflict.id).map_err(|e| e.to_string())?;
            std::io::Read::read_to_end(&mut file, &mut bytes).map_err(|e| e.to_string())?;
            real.push(text(&bytes));
        }
        let known = self.model.shared.conflicts.iter().flatten();
        let mut open = self.model.shared.conflicts.iter().filter(|bytes| bytes.is_none()).count();
        let mut left: Vec<String> = known.map(|bytes| text(bytes)).collect();
        for bytes in &real {
            match left.iter().position(|known| known == bytes) {
                Some(at) => drop(left.swap_remove(at)),
                None if open > 0 => open -= 1,
                None => return Err(format!("a conflict too many: {bytes:?}; expected {left:?} of {real:?}")),
            }
        }
        if left.is_empty() && open == 0 {
            Ok(())
        } else {
            Err(format!("conflicts are missing: {left:?} ({open} unknown)"))
        }
    }

    fn compare_histories(&mut self) -> Result {
        let store = self.sides[0].store.clone();
        self.compare_versions(&store)?;
        let mut keys: BTreeSet<String> = self.model.shared.tree.files().into_iter().map(|(path, ..)| path).collect();
        let recorded = store.backend().histories(&Key::root()).map_err(|e| e.to_string())?;
        keys.extend(recorded.iter().map(|key| key.to_string()));
        keys.extend(self.model.shared.histories.keys().cloned());
        keys.extend(self.model.shared.alternatives.iter().flat_map(|histories| histories.keys().cloned()));
        let mut found = BTreeMap::new();
        for path in keys {
            found.insert(path.clone(), generations(&store, &path)?);
        }
        let shared = &mut self.model.shared;
        let ways = std::iter::once(&shared.histories).chain(&shared.alternatives);
        let mut first_error = None;
        for way in ways {
            let mut way = way.clone();
            match match_histories(&mut way, &found, &shared.tree) {
                Ok(()) => {
                    (shared.histories, shared.alternatives) = (way, Vec::new());
                    return Ok(());
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_default())
    }

    /// What sessions are based on changes when, and only when, the model says so.
    fn compare_versions(&mut self, store: &Store) -> Result {
        for (path, _, id) in self.model.shared.tree.files() {
            let opened = store.get(&key(&path)).map_err(|e| format!("{path}: {e}"))?;
            equal(
                || format!("stored bytes of {path}"),
                text(self.model.shared.tree.current(id)),
                text(&bytes_of(&opened)),
            )?;
            let precondition = opened.stat.precondition();
            let number = opened.stat.generation.map(|generation| generation.get());
            let tree = &mut self.model.shared.tree;
            let file = tree.file(id).unwrap().clone();
            equal(|| format!("{path} has a generation"), file.generation.is_some(), number.is_some())?;
            if let Some((version, seen)) = file.seen {
                if version == file.version && seen != precondition {
                    let Some(side) = self.renaming else {
                        return Err(format!("{path} was {seen:?} and is {precondition:?}, though nobody changed it"));
                    };
                    let version = tree.fresh();
                    let file = tree.file_mut(id);
                    file.version = version;
                    // The bytes are the same.
                    file.beginnings.push(version);
                    let (stamp, seen) = (file.stamp, file.seen.map(|(version, _)| version));
                    let mut open = self.model.mounts[side].newest_mut(id);
                    if let Some(open) = open.as_mut().filter(|open| open.current.is_some_and(|(_, of)| of == stamp)) {
                        open.current_version = version;
                    }
                    let session = open.and_then(|open| open.session.as_mut());
                    if let Some(session) = session.filter(|session| seen.map(Expect::Version) == Some(session.expect)) {
                        session.expect = Expect::Version(version);
                    }
                } else if version != file.version && seen == precondition {
                    return Err(format!("{path} still is {seen:?}, though it was changed"));
                }
            }
            let file = self.model.shared.tree.file_mut(id);
            file.number = number;
            file.seen = Some((file.version, precondition));
            let version = file.version;
            for open in self.model.mounts.iter_mut().flat_map(|mount| mount.of(id)) {
                let session = open.session.as_mut().filter(|session| session.expect == Expect::Version(version));
                session.into_iter().for_each(|session| session.number = number);
            }
        }
        Ok(())
    }

    /// By which names each mount knows what it has open, now that it has looked.
    fn note_names(&mut self) {
        let tree = &self.model.shared.tree;
        for (path, dir, id) in tree.files() {
            for mount in &mut self.model.mounts {
                mount.of(id).for_each(|open| open.last_name = Some((dir, base(&path).to_owned())));
            }
        }
    }
}

/// The bytes of an object with several names were replaced under a session that goes on.
fn is_torn(open: &Open) -> bool {
    open.session.as_ref().is_some_and(|session| session.torn)
}

fn generations(store: &Store, path: &str) -> Result<Generations> {
    let (key, backend) = (key(path), store.backend());
    let failed = |error: sepia::backend::Error| format!("the history of {path}: {error}");
    let mut found = Vec::new();
    for info in backend.generations(&key).map_err(failed)? {
        let bytes = match info.kept {
            Form::Lost(_) => None,
            _ => Some(bytes_of(&backend.open_generation(&key, info.generation).map_err(failed)?)),
        };
        found.push((info.generation.get(), bytes));
    }
    Ok(found)
}

fn match_histories(way: &mut Histories, found: &BTreeMap<String, Generations>, tree: &super::tree::Tree) -> Result {
    for (path, generations) in found {
        let history = way.of(path);
        let current = tree.find(path).and_then(|id| tree.file(id));
        let numbers: Vec<u64> =
            generations.iter().map(|(number, _)| *number).chain(current.and_then(|file| file.number)).collect();
        if numbers.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(format!("the numbers of {path} don't increase: {numbers:?}"));
        }
        let kept: Vec<_> = generations.iter().filter_map(|(number, bytes)| Some((*number, bytes.as_ref()?))).collect();
        if history.passed && kept.len() > history.kept.len() {
            let more = kept.iter().take(kept.len() - history.kept.len());
            let more = more.map(|(_, bytes)| Kept { generation: 0, bytes: bytes.to_vec(), may_be_lost: true });
            history.kept.splice(0..0, more.collect::<Vec<_>>());
        }
        let missing = history.kept.len().saturating_sub(kept.len());
        let mut may_go = missing;
        let mut at = 0;
        // Of those that may be lost, as many as are missing.
        history.kept.retain(|expected| {
            let there = kept.get(at).is_some_and(|(_, bytes)| **bytes == expected.bytes);
            if !there && expected.may_be_lost && may_go > 0 {
                may_go -= 1;
                return false;
            }
            at += 1;
            true
        });
        let model: Vec<_> = history.kept.iter().map(|kept| text(&kept.bytes)).collect();
        let real: Vec<_> = kept.iter().map(|(_, bytes)| text(bytes)).collect();
        equal(|| format!("what is kept of {path} (numbers {numbers:?})"), model, real)?;
        let mut meanings: Vec<(u64, u64)> =
            kept.iter().zip(&history.kept).map(|((number, _), kept)| (*number, kept.generation)).collect();
        meanings.extend(current.and_then(|file| Some((file.number?, file.generation?))));
        for (number, generation) in meanings.into_iter().filter(|(_, generation)| *generation > 0) {
            let first = *history.used.entry(number).or_insert(generation);
            if first != generation {
                return Err(format!("the number {number} of {path} was used again"));
            }
        }
    }
    Ok(())
}
