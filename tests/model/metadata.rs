//! Operations on attributes, in the model and in the filesystem.

use std::ffi::OsStr;

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use sepia::backend::SetTime;
use sepia::fs::Changes;

use super::driver::{Driver, MODES, NAMES, Result, caller, pick, same};
use super::ops::Op;
use super::tree::Id;

impl Driver {
    pub fn metadata(&mut self, op: &Op) -> Result {
        let tree = &self.model.shared.tree;
        match *op {
            Op::SetMode { side, entry, mode } => {
                let entries: Vec<_> = tree
                    .entries()
                    .into_iter()
                    .filter(|(_, _, id)| tree.is_dir(*id) || tree.file(*id).is_some())
                    .collect();
                let Some((path, _, id)) = pick(&entries, entry).cloned() else { return Ok(()) };
                // Who isn't root must go on being allowed into directories.
                let mode = MODES[usize::from(mode)] | if tree.is_dir(id) { 0o100 } else { 0 };
                self.model.shared.tree.nodes[id].mode = mode;
                self.setattr(side, &path, &Changes { mode: Some(mode), ..Changes::default() }, Ok(()))
            }
            Op::SetMtime { side, file } => {
                let Some((path, _, id)) = pick(&tree.files(), file).cloned() else { return Ok(()) };
                self.model.set_mtime(side, id);
                let mtime = Some(SetTime::At(sepia::Timestamp::from_nanos(1_000_000_000)));
                self.setattr(side, &path, &Changes { mtime, ..Changes::default() }, Ok(()))
            }
            Op::SetSize { side, file, size } => {
                let Some((path, _, id)) = pick(&tree.files(), file).cloned() else { return Ok(()) };
                self.learn_number(side, &path)?;
                let expected = self.model.set_size(side, (&path, id), size.into());
                self.setattr(side, &path, &Changes { size: Some(size.into()), ..Changes::default() }, expected)
            }
            Op::SetXattr { side, entry, name, value, flags } => {
                let Some((path, _, id)) = pick(&self.with_xattrs(), entry).cloned() else { return Ok(()) };
                let ino = self.walk(side, &path).map_err(|e| e.to_string())?;
                let name = format!("user.{}", NAMES[usize::from(name)]);
                let flags = [XattrFlags::empty(), XattrFlags::CREATE, XattrFlags::REPLACE][usize::from(flags)];
                let attrs = &mut self.model.shared.tree.nodes[id].xattrs;
                let expected = match attrs.contains_key(&name) {
                    true if flags == XattrFlags::CREATE => Err(Errno::EXIST),
                    false if flags == XattrFlags::REPLACE => Err(Errno::NODATA),
                    _ => {
                        attrs.insert(name.clone(), vec![value]);
                        Ok(())
                    }
                };
                let real =
                    self.sides[side].fs.setxattr(&caller(), ino, OsStr::new(&name), &[value], flags.bits() as i32);
                same("setxattr", expected, real)
            }
            Op::RemoveXattr { side, entry, name } => {
                let Some((path, _, id)) = pick(&self.with_xattrs(), entry).cloned() else { return Ok(()) };
                let ino = self.walk(side, &path).map_err(|e| e.to_string())?;
                let name = format!("user.{}", NAMES[usize::from(name)]);
                let expected = self.model.shared.tree.nodes[id].xattrs.remove(&name).map(drop).ok_or(Errno::NODATA);
                same("removexattr", expected, self.sides[side].fs.removexattr(ino, OsStr::new(&name)))
            }
            Op::Expect { side, file, right } => {
                let Some((path, _, id)) = pick(&tree.files(), file).cloned() else { return Ok(()) };
                // One that nobody has the number of is of no use.
                let Some(number) = tree.file(id).and_then(|file| file.number) else { return Ok(()) };
                let number = if right { number } else { number + 100 };
                // It holds for the names by which the mount knows the file.
                let names = tree.names(id);
                for name in &names {
                    self.walk(side, name).map_err(|e| e.to_string())?;
                }
                let ino = self.walk(side, &path).map_err(|e| e.to_string())?;
                let (mount, fs) = (&mut self.model.mounts[side], &self.sides[side].fs);
                let name = OsStr::new("user.sepia.expect");
                // What is expected already is taken back.
                if mount.expected(&path) == Some(number) {
                    names.iter().for_each(|name| mount.end_expected(name));
                    return same("remove user.sepia.expect", Ok(()), fs.removexattr(ino, name));
                }
                mount.set_expected(names, id, number);
                same(
                    "set user.sepia.expect",
                    Ok(()),
                    fs.setxattr(&caller(), ino, name, number.to_string().as_bytes(), 0),
                )
            }
            _ => unreachable!("{op:?} was handled"),
        }
    }

    /// Everything that can have attributes of its user's.
    fn with_xattrs(&self) -> Vec<(String, Id, Id)> {
        let tree = &self.model.shared.tree;
        let mut entries = tree.entries();
        entries.retain(|(_, _, id)| tree.is_dir(*id) || tree.file(*id).is_some());
        entries
    }

    fn setattr(
        &mut self,
        side: usize,
        path: &str,
        changes: &Changes,
        expected: std::result::Result<(), Errno>,
    ) -> Result {
        let ino = self.walk(side, path).map_err(|e| e.to_string())?;
        let real = self.sides[side].fs.setattr(&caller(), ino, None, changes).map(drop);
        same("setattr", expected, real)
    }
}
