//! Does each operation both in the model and in the filesystem, and compares what they answer.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::Duration;

use rustix::fs::{OFlags, RenameFlags};
use rustix::io::Errno;
use sepia::Store;
use sepia::backend::FileKind;
use sepia::fs::{Caller, Changes, Fh, Fs, FsOptions, Ino};

use super::names::Model;
use super::ops::{At, How, Op, RenameHow};
use super::outside::Outside;
use super::sessions::OpenId;
use super::tree::{Id, ROOT, base, join};

/// What the store is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A directory, mounted twice.
    File,
    /// Memory, mounted once.
    Memory,
}

pub type Result<T = ()> = std::result::Result<T, String>;

/// A mount, and what its kernel would know.
pub struct Side {
    pub fs: Fs,
    pub store: Store,
    /// Paths that the kernel remembers beside those of open files. It never forgets a directory before what is in it.
    pub held: Vec<Vec<Ino>>,
    /// Those of the operation under way.
    pub loose: Vec<Ino>,
}

#[derive(Debug)]
pub struct Handle {
    pub side: usize,
    pub id: Id,
    pub ino: Ino,
    pub fh: Fh,
    pub write: bool,
    append: bool,
    pub open: OpenId,
    session: u64,
    /// Something was written through it, so that closing it saves.
    wrote: Cell<bool>,
    /// As long as it is open, the kernel remembers its path.
    path: Vec<Ino>,
}

pub struct Driver {
    pub model: Model,
    pub sides: Vec<Side>,
    pub handles: Vec<Handle>,
    pub outside: Option<Outside>,
    pub inos: BTreeMap<Id, Ino>,
    /// The mount in which names were just changed, so that numbers may be others.
    pub renaming: Option<usize>,
    _dir: Option<tempfile::TempDir>,
}

pub const NAMES: [&str; 4] = ["a", "b", "c", "d"];
pub const MODES: [u32; 4] = [0o644, 0o600, 0o755, 0o666];
const UMASK: u32 = 0o022;
/// Of directories below each other.
const DEEPEST: usize = 2;
const MAX_HANDLES: usize = 6;

pub fn caller() -> Caller {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Caller { uid, gid, umask: UMASK, thread: std::process::id() }
}

pub fn pick<T>(from: &[T], index: u8) -> Option<&T> {
    if from.is_empty() { None } else { from.get(usize::from(index) % from.len()) }
}

/// Both answer the same.
pub fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    model: std::result::Result<T, Errno>,
    real: std::result::Result<T, Errno>,
) -> Result {
    if model == real { Ok(()) } else { Err(format!("{what}: the model says {model:?}, the filesystem {real:?}")) }
}

impl Driver {
    pub fn new(medium: Medium) -> Self {
        let options = || FsOptions { ttl: Duration::ZERO, watched_ttl: Duration::ZERO, ..FsOptions::default() };
        let side =
            |store: Store| Side { fs: Fs::new(store.clone(), options()), store, held: Vec::new(), loose: Vec::new() };
        let (sides, outside, dir) = match medium {
            Medium::Memory => (vec![side(Store::open("memory:").unwrap())], None, None),
            Medium::File => {
                let dir = tempfile::tempdir().unwrap();
                let (root, aside) = (dir.path().join("store"), dir.path().join("aside"));
                std::fs::create_dir(&aside).unwrap();
                let url = root.to_str().unwrap();
                let first = Store::init(url).unwrap();
                let second = Store::open(url).unwrap();
                (vec![side(first), side(second)], Some(Outside::new(&root, &aside)), Some(dir))
            }
        };
        let inos = BTreeMap::from([(ROOT, 1)]);
        Driver {
            model: Model::new(medium == Medium::Memory),
            sides,
            handles: Vec::new(),
            outside,
            inos,
            renaming: None,
            _dir: dir,
        }
    }

    pub fn run(mut self, ops: &[Op]) -> Result {
        for (at, op) in ops.iter().enumerate() {
            let failed = |error: String| format!("step {at}, {op:?}: {error}");
            self.renaming = None;
            self.step(op).map_err(failed)?;
            if !op.is_quiet() {
                self.compare().map_err(failed)?;
            }
        }
        while let Some(handle) = self.handles.pop() {
            self.release(handle);
        }
        self.compare().map_err(|error| format!("at the end: {error}"))
    }

    // Paths

    pub fn forget_loose(&mut self) {
        for side in &mut self.sides {
            for ino in side.loose.drain(..) {
                side.fs.forget(ino, 1);
            }
        }
    }

    /// Looks a path up as the kernel would, name by name.
    pub fn walk(&mut self, side: usize, path: &str) -> std::result::Result<Ino, Errno> {
        let side = &mut self.sides[side];
        let mut ino = 1;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            ino = side.fs.lookup(ino, OsStr::new(name))?.attr.ino;
            side.loose.push(ino);
        }
        Ok(ino)
    }

    /// A directory and a name in it.
    fn place(&self, at: At) -> (String, Id, &'static str) {
        let dirs = self.model.shared.tree.dirs();
        let dirs: Vec<_> = dirs.into_iter().filter(|(path, _)| path.split('/').count() <= DEEPEST).collect();
        let (path, dir) = pick(&dirs, at.0).expect("the root").clone();
        (path, dir, NAMES[usize::from(at.1) % NAMES.len()])
    }

    fn step(&mut self, op: &Op) -> Result {
        let result = self.apply(op);
        self.forget_loose();
        result
    }

    fn apply(&mut self, op: &Op) -> Result {
        let tree = &self.model.shared.tree;
        match *op {
            Op::Create { side, at, mode, excl, append, trunc } => self.create(side, at, mode, (excl, append, trunc)),
            Op::Mknod { side, at, mode } => {
                let (path, dir, name) = self.place(at);
                let parent = self.walk(side, &path).map_err(|e| e.to_string())?;
                let mode = MODES[usize::from(mode)];
                let real = self.sides[side].fs.mknod(&caller(), parent, OsStr::new(name), FileKind::File, mode, 0);
                let real = real.map(|entry| self.sides[side].loose.push(entry.attr.ino));
                same("mknod", self.model.make_file(dir, name, mode & !UMASK).map(drop), real)
            }
            Op::Open { side, file, how, append, trunc } => {
                let Some((path, _, id)) = pick(&tree.files(), file).cloned() else { return Ok(()) };
                self.open(side, &path, id, how, (append, trunc))
            }
            Op::Write { handle, at, length, byte } => self.write(handle, at, &vec![byte; length.into()]),
            Op::Truncate { handle, size } => self.truncate(handle, size.into()),
            Op::Flush { handle } => self.publish(handle, false),
            Op::Fsync { handle } => self.publish(handle, true),
            Op::Release { handle } => {
                if !self.handles.is_empty() {
                    let handle = self.handles.remove(usize::from(handle) % self.handles.len());
                    self.release(handle);
                }
                Ok(())
            }
            Op::Unlink { side, entry } => {
                let Some((path, dir, _)) = pick(&tree.entries(), entry).cloned() else { return Ok(()) };
                let (parent, name) = self.walk_parent(side, &path)?;
                self.walk(side, &path).map_err(|e| format!("look up {path}: {e}"))?;
                self.learn_number(side, &path)?;
                let real = self.sides[side].fs.unlink(&caller(), parent, OsStr::new(&name));
                same("unlink", self.model.unlink(side, dir, &name), real)
            }
            Op::Mkdir { side, at } => {
                let (path, dir, name) = self.place(at);
                let parent = self.walk(side, &path).map_err(|e| e.to_string())?;
                let real = self.sides[side].fs.mkdir(&caller(), parent, OsStr::new(name), 0o777);
                let real = real.map(|entry| self.sides[side].loose.push(entry.attr.ino));
                same("mkdir", self.model.make_dir(dir, name, 0o755).map(drop), real)
            }
            Op::Rmdir { side, dir } => {
                let dirs: Vec<_> = tree.entries().into_iter().filter(|(_, _, id)| tree.is_dir(*id)).collect();
                let Some((path, dir, _)) = pick(&dirs, dir).cloned() else { return Ok(()) };
                let (parent, name) = self.walk_parent(side, &path)?;
                let real = self.sides[side].fs.rmdir(&caller(), parent, OsStr::new(&name));
                same("rmdir", self.model.rmdir(dir, &name), real)
            }
            Op::Rename { side, from, to, how } => {
                let Some((path, dir, _)) = pick(&tree.entries(), from).cloned() else { return Ok(()) };
                let (to_path, to_dir, name) = self.place(to);
                self.rename(side, (&path, dir), (&join(&to_path, name), to_dir), how)
            }
            Op::Replace { side, from, to, how } => {
                let Some((path, dir, _)) = pick(&tree.entries(), from).cloned() else { return Ok(()) };
                let Some((to_path, to_dir, _)) = pick(&tree.entries(), to).cloned() else { return Ok(()) };
                self.rename(side, (&path, dir), (&to_path, to_dir), how)
            }
            Op::Link { side, file, to } => {
                // What was never written to would be numbered by whichever of its names it is saved under first.
                let written = |(_, _, id): &(String, Id, Id)| tree.file(*id).is_some_and(|f| f.generation.is_some());
                let files: Vec<_> = tree.files().into_iter().filter(written).collect();
                let Some((path, _, id)) = pick(&files, file).cloned() else { return Ok(()) };
                let (to_path, dir, name) = self.place(to);
                let ino = self.walk(side, &path).map_err(|e| e.to_string())?;
                let parent = self.walk(side, &to_path).map_err(|e| e.to_string())?;
                self.renaming = Some(side);
                let real = self.sides[side].fs.link(&caller(), ino, parent, OsStr::new(name));
                let real = real.map(|entry| self.sides[side].loose.push(entry.attr.ino));
                same("link", self.model.link(side, id, dir, name), real)
            }
            Op::Symlink { side, at, target } => {
                let (path, dir, name) = self.place(at);
                let parent = self.walk(side, &path).map_err(|e| e.to_string())?;
                let target = NAMES[usize::from(target)];
                let real = self.sides[side].fs.symlink(&caller(), parent, OsStr::new(name), target.as_bytes());
                let real = real.map(|entry| self.sides[side].loose.push(entry.attr.ino));
                same("symlink", self.model.make_link(dir, name, target).map(drop), real)
            }
            Op::Remember { side, entry } => {
                let Some((path, ..)) = pick(&tree.entries(), entry).cloned() else { return Ok(()) };
                self.walk(side, &path).map_err(|e| e.to_string())?;
                let side = &mut self.sides[side];
                side.held.push(std::mem::take(&mut side.loose));
                Ok(())
            }
            Op::Forget { side, which } => {
                let side = &mut self.sides[side];
                if !side.held.is_empty() {
                    let path = side.held.remove(usize::from(which) % side.held.len());
                    path.into_iter().rev().for_each(|ino| side.fs.forget(ino, 1));
                }
                Ok(())
            }
            _ if op.is_outside() => self.do_outside(op),
            _ => self.metadata(op),
        }
    }

    fn do_outside(&mut self, op: &Op) -> Result {
        let Some(mut outside) = self.outside.take() else { return Ok(()) };
        let model = &mut self.model;
        let files = model.shared.tree.files();
        let result =
            match *op {
                Op::Overwrite { file, length, byte, .. } => pick(&files, file)
                    .map(|(path, _, id)| outside.overwrite(model, path, *id, &vec![byte; length.into()])),
                Op::Extend { file, length, byte } => {
                    pick(&files, file).map(|(path, _, id)| outside.extend(model, path, *id, &vec![byte; length.into()]))
                }
                Op::Touch { file, .. } => pick(&files, file).map(|(path, _, id)| outside.touch(model, path, *id)),
                Op::Delete { entry } => pick(&model.shared.tree.entries(), entry)
                    .map(|(path, dir, id)| outside.delete(model, path, *dir, *id)),
                Op::PutOver { at, length, byte, .. } => {
                    let (_, dir, name) = self.place(at);
                    let model = &mut self.model;
                    let in_the_way = model.child(dir, name).is_some_and(|id| model.shared.tree.is_dir(id));
                    (!in_the_way).then(|| outside.put_over(model, (dir, name), &vec![byte; length.into()]))
                }
                Op::MkdirOutside { at } => {
                    let (_, dir, name) = self.place(at);
                    Some(outside.mkdir(&mut self.model, (dir, name)))
                }
                _ => unreachable!("{op:?} is not from outside"),
            };
        self.outside = Some(outside);
        result.unwrap_or(Ok(()))
    }

    // Names

    fn walk_parent(&mut self, side: usize, path: &str) -> Result<(Ino, String)> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.walk(side, dir).map_err(|e| format!("look up {dir}: {e}"))?;
        Ok((parent, name.to_owned()))
    }

    /// Whether an expectation is met can't be told before somebody has looked at what was changed from outside.
    pub fn learn_number(&mut self, side: usize, path: &str) -> Result {
        let tree = &mut self.model.shared.tree;
        let file = tree.find(path).filter(|id| tree.file(*id).is_some_and(|file| file.number.is_none()));
        if let (Some(id), Some(_)) = (file, self.model.mounts[side].expected(path)) {
            let key = sepia::Key::parse(path).unwrap();
            let opened = self.sides[side].store.get(&key).map_err(|e| format!("{path}: {e}"))?;
            tree.file_mut(id).number = opened.stat.generation.map(|generation| generation.get());
        }
        Ok(())
    }

    fn rename(&mut self, side: usize, from: (&str, Id), to: (&str, Id), how: RenameHow) -> Result {
        let (parent, name) = self.walk_parent(side, from.0)?;
        let (new_parent, new_name) = self.walk_parent(side, to.0)?;
        // The kernel looks up both before it asks.
        let _ = (self.walk(side, from.0), self.walk(side, to.0));
        let flags = match how {
            RenameHow::Plain => RenameFlags::empty(),
            RenameHow::NoReplace => RenameFlags::NOREPLACE,
            RenameHow::Exchange => RenameFlags::EXCHANGE,
        };
        self.learn_number(side, from.0)?;
        self.learn_number(side, to.0)?;
        self.renaming = Some(side);
        let real =
            self.sides[side].fs.rename(&caller(), parent, OsStr::new(&name), new_parent, OsStr::new(&new_name), flags);
        let model = self.model.rename(side, (from.1, base(from.0)), (to.1, base(to.0)), how);
        same(&format!("rename {} {}", from.0, to.0), model, real)
    }

    // Files

    fn create(&mut self, side: usize, at: At, mode: u8, (excl, append, trunc): (bool, bool, bool)) -> Result {
        let (path, dir, name) = self.place(at);
        let parent = self.walk(side, &path).map_err(|e| e.to_string())?;
        let there = self.model.child(dir, name);
        let is_file = there.is_some_and(|id| self.model.shared.tree.file(id).is_some());
        if self.handles.len() == MAX_HANDLES || (there.is_some() && !is_file) {
            return Ok(());
        }
        let full = join(&path, name);
        self.learn_number(side, &full)?;
        let mode = MODES[usize::from(mode)];
        let mut flags = OFlags::RDWR | OFlags::CREATE;
        flags.set(OFlags::EXCL, excl);
        flags.set(OFlags::APPEND, append);
        flags.set(OFlags::TRUNC, trunc);
        let real = self.sides[side].fs.create(&caller(), parent, OsStr::new(name), mode, flags.bits() as i32);
        let model = match there {
            Some(_) if excl => Err(Errno::EXIST),
            Some(id) => self.model.open(side, (&full, id), (true, trunc)).map(|session| (id, session)),
            None => self.model.create(side, dir, name, mode & !UMASK),
        };
        match (model, real) {
            (Ok((id, (open, session))), Ok((entry, reply))) => {
                let ino = entry.attr.ino;
                let mut path = std::mem::take(&mut self.sides[side].loose);
                path.push(ino);
                self.handles.push(Handle {
                    side,
                    id,
                    ino,
                    fh: reply.fh,
                    write: true,
                    append,
                    open,
                    session,
                    wrote: Cell::default(),
                    path,
                });
                Ok(())
            }
            (model, real) => same("create", model.map(drop), real.map(drop)),
        }
    }

    fn open(&mut self, side: usize, path: &str, id: Id, how: How, (append, trunc): (bool, bool)) -> Result {
        if self.handles.len() == MAX_HANDLES {
            return Ok(());
        }
        let ino = self.walk(side, path).map_err(|e| format!("look up {path}: {e}"))?;
        let (mut flags, write) = match how {
            How::Read => (OFlags::RDONLY, false),
            How::Write => (OFlags::WRONLY, true),
            How::Both => (OFlags::RDWR, true),
        };
        flags.set(OFlags::APPEND, append && write);
        flags.set(OFlags::TRUNC, trunc && write);
        self.learn_number(side, path)?;
        let real = self.sides[side].fs.open(&caller(), ino, flags.bits() as i32);
        let model = self.model.open(side, (path, id), (write, trunc && write));
        match (model, real) {
            (Ok((open, session)), Ok(reply)) => {
                let append = append && write;
                let path = std::mem::take(&mut self.sides[side].loose);
                self.handles.push(Handle {
                    side,
                    id,
                    ino,
                    fh: reply.fh,
                    write,
                    append,
                    open,
                    session,
                    wrote: Cell::default(),
                    path,
                });
                Ok(())
            }
            (model, real) => same("open", model.map(drop), real.map(drop)),
        }
    }

    fn write(&mut self, handle: u8, at: u8, data: &[u8]) -> Result {
        let Some(handle) = pick(&self.handles, handle) else { return Ok(()) };
        let offset = if handle.append { None } else { Some(usize::from(at)) };
        let fs = &self.sides[handle.side].fs;
        let real = fs.write(&caller(), handle.fh, at.into(), data, false, false).map(drop);
        handle.wrote.set(true);
        let model = self.model.session(handle.side, handle.open, handle.write, handle.session);
        let model = model.and_then(|(session, tree)| session.write(tree, offset, data));
        same("write", model, real)
    }

    fn truncate(&mut self, handle: u8, size: u64) -> Result {
        let Some(handle) = pick(&self.handles, handle) else { return Ok(()) };
        if !handle.write {
            return Ok(());
        }
        // Of what somebody else has removed, the answer doesn't tell more.
        if self.model.mounts[handle.side].target(&self.model.shared.tree, handle.open) != Some(Some(handle.id)) {
            return Ok(());
        }
        let changes = Changes { size: Some(size), ..Changes::default() };
        let real = self.sides[handle.side].fs.setattr(&caller(), handle.ino, Some(handle.fh), &changes).map(drop);
        let (side, id) = (handle.side, handle.id);
        let model = self.model.session(side, handle.open, true, handle.session);
        let changed = model.and_then(|(session, tree)| session.truncate(tree, size as usize));
        if changed == Ok(false) {
            self.model.set_mtime(side, id);
        }
        same("truncate", changed.map(drop), real)
    }

    fn publish(&mut self, handle: u8, durable: bool) -> Result {
        let Some(handle) = pick(&self.handles, handle) else { return Ok(()) };
        let fs = &self.sides[handle.side].fs;
        let real = if durable { fs.fsync(handle.fh) } else { fs.flush(&caller(), handle.fh) };
        let (side, open) = (handle.side, handle.open);
        let model =
            self.model.publish(side, open, (handle.write, handle.session), durable || handle.wrote.get(), durable);
        same(if durable { "fsync" } else { "flush" }, model, real)
    }

    fn release(&mut self, handle: Handle) {
        let fs = &self.sides[handle.side].fs;
        fs.release(handle.fh);
        handle.path.iter().rev().for_each(|ino| fs.forget(*ino, 1));
        self.model.release(handle.side, handle.open, handle.write);
    }
}

/// All that an open file holds.
pub fn read_all(fs: &Fs, fh: Fh) -> std::result::Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; 4096];
    let n = fs.read(fh, 0, &mut bytes)?;
    bytes.truncate(n);
    Ok(bytes)
}

/// Opens, reads and closes.
pub fn read_once(fs: &Fs, ino: Ino) -> std::result::Result<Vec<u8>, Errno> {
    let reply = fs.open(&caller(), ino, OFlags::RDONLY.bits() as i32)?;
    let bytes = read_all(fs, reply.fh);
    fs.release(reply.fh);
    bytes
}
