//! Objects that nothing refers to.
//!
//! References are symbolic links in containers, at any depth, to objects: `Board/b1/tasks/0_t1 -> ../../../Task/t1`.
//! From the objects of some classes, the roots, everything is reached that a link leads to, and from there on; cycles
//! are no matter. What is not reached is an orphan. Nothing collects orphans by itself.
//!
//! Stores of the original Sepia library name the saves of `x` `x`, `x.1`, `x.2` and so on, side by side. These are one
//! object here: what reaches one of them reaches all. It also copies containers into each other, as directories like
//! `children/0000_d2`. That says no class, so it reaches the containers of that name in all classes.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Actor, Error, Result, Store};
use crate::backend::{self, Creator, FileKind, SetAttr};
use crate::types::{Key, Precondition, escape, unescape};

/// Where it is listed what containers were made of that were removed.
const RECORDS: &str = "orphans";

/// An object that no root reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Its key.
    pub key: Key,
    /// It is a directory, which goes with all that is in it.
    pub container: bool,
    /// The state that was seen.
    expect: Precondition,
}

/// What the roots reach, and what they don't.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orphans {
    /// By key.
    pub orphans: Vec<Orphan>,
    /// How many objects are reached, the roots included.
    pub reached: usize,
    /// Links in what is reached that lead to nothing.
    pub dangling: Vec<Key>,
}

/// What an object refers to.
#[derive(Debug, Default)]
struct Parts {
    /// The links at or below it, with their targets.
    links: Vec<(Key, Vec<u8>)>,
    /// The names of the containers that are copied into it.
    copies: HashSet<OsString>,
}

/// A directory or a link of a container that was removed, which a history can't hold.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    key: String,
    /// Of a directory: its permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<u32>,
    /// Of a link: its target, escaped as a key is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<String>,
}

impl Store {
    /// The objects that are not reached from any of the `roots`: classes, with all their objects, and single objects. Of
    /// links that leave the store those count that come back, by the path of the store's directory or one of `places`,
    /// where it is mounted.
    ///
    /// # Errors
    /// [`backend::Error::NotFound`] for a root that isn't there, [`backend::Error::Invalid`] when there is no root
    /// at all: then everything would be an orphan. The first listing that fails.
    pub fn orphans(&self, roots: &[Key], places: &[PathBuf]) -> Result<Orphans> {
        let places = self.all_places(places);
        // Objects of one family by class and name; each with its key and kind.
        let mut objects: BTreeMap<Key, Vec<(Key, FileKind)>> = BTreeMap::new();
        for class in self.backend.list(&Key::root())? {
            if class.kind != FileKind::Directory || class.name.as_bytes().starts_with(b".") {
                continue;
            }
            let class = Key::root().child(&class.name)?;
            for entry in self.backend.list(&class)? {
                if !entry.name.as_bytes().starts_with(b".") {
                    let key = class.child(&entry.name)?;
                    objects.entry(family_of(&key)?).or_default().push((key, entry.kind));
                }
            }
        }
        let mut found = Orphans::default();
        let (mut reached, mut pending) = (HashSet::new(), Vec::new());
        let mut reach = |family: &Key, pending: &mut Vec<Key>| {
            if objects.contains_key(family) && reached.insert(family.clone()) {
                pending.push(family.clone());
            }
        };
        for root in roots {
            self.backend.stat(root)?;
            let family = family_of(root)?;
            let of_root = objects.keys().filter(|known| **known == family || known.is_within(root));
            of_root.for_each(|family| reach(family, &mut pending));
        }
        if pending.is_empty() {
            let why = "none of the roots has an object, so everything would be an orphan";
            return Err(backend::Error::Invalid(Key::root(), why).into());
        }
        while let Some(family) = pending.pop() {
            for (key, kind) in &objects[&family] {
                let Parts { links, copies } = self.parts_of(key, *kind)?;
                if !copies.is_empty() {
                    let is_copied = |(key, kind): &(Key, FileKind)| {
                        *kind == FileKind::Directory && key.name().is_some_and(|name| copies.contains(name))
                    };
                    let originals = objects.iter().filter(|(_, members)| members.iter().any(is_copied));
                    originals.for_each(|(family, _)| reach(family, &mut pending));
                }
                for (link, target) in links {
                    let Some(target) = resolve(&link, &target, &places) else { continue };
                    if target.parent().is_some_and(|above| above.is_root()) {
                        // The whole class.
                        let of_class = objects.keys().filter(|family| family.is_within(&target));
                        of_class.for_each(|family| reach(family, &mut pending));
                        continue;
                    }
                    let Some(object) = object_of(&target)? else { continue };
                    let members = objects.get(&family_of(&object)?);
                    if !members.is_some_and(|members| members.iter().any(|(key, _)| *key == object)) {
                        found.dangling.push(link);
                    }
                    reach(&family_of(&object)?, &mut pending);
                }
            }
        }
        for (family, members) in &objects {
            if reached.contains(family) {
                found.reached += members.len();
                continue;
            }
            for (key, kind) in members {
                let expect = match self.backend.stat(key) {
                    Ok(stat) if *kind == FileKind::File => stat.precondition(),
                    Ok(_) => Precondition::Any,
                    // Somebody has removed it meanwhile.
                    Err(error) if error.is_not_found() => continue,
                    Err(error) => return Err(error.into()),
                };
                found.orphans.push(Orphan { key: key.clone(), container: *kind == FileKind::Directory, expect });
            }
        }
        found.orphans.sort_by(|a, b| a.key.cmp(&b.key));
        found.dangling.sort();
        Ok(found)
    }

    fn parts_of(&self, object: &Key, kind: FileKind) -> Result<Parts> {
        let mut parts = Parts::default();
        let mut pending = vec![(object.clone(), kind)];
        while let Some((key, kind)) = pending.pop() {
            match kind {
                FileKind::Symlink => parts.links.push((key.clone(), self.backend.read_link(&key)?)),
                FileKind::Directory => {
                    for entry in self.backend.list(&key)? {
                        if entry.kind == FileKind::Directory {
                            parts.copies.extend(copied(&entry.name));
                        }
                        pending.push((key.child(&entry.name)?, entry.kind));
                    }
                }
                _ => {}
            }
        }
        Ok(parts)
    }

    /// All paths by which links may name the store; the empty one, where it is in no directory.
    fn all_places(&self, places: &[PathBuf]) -> Vec<PathBuf> {
        let mut all = places.to_vec();
        match self.location.path() {
            Some(path) => all.extend([std::path::absolute(path), path.canonicalize()].into_iter().flatten()),
            None => all.push(PathBuf::new()),
        }
        all
    }

    /// Moves orphans to the trash: files as by any removal; of containers it is listed, too, which directories and
    /// links they were made of, so that [`Store::untrash_below`] can bring them back. Returns the list's name.
    ///
    /// # Errors
    /// [`Error::DeletionDisabled`]; what the medium says. What was removed before that is in the trash.
    pub fn remove_orphans(&self, orphans: &[Orphan]) -> Result<Option<Key>> {
        self.check_disabled()?;
        let mut text = Vec::new();
        for orphan in orphans {
            self.list_parts(&orphan.key, &mut text)?;
        }
        let mut record = None;
        if !text.is_empty() {
            let path = Key::parse(format!("{RECORDS}/{}.jsonl", self.now()))?;
            self.backend.put_record(&path, &text)?;
            record = Some(path);
        }
        for orphan in orphans {
            match self.remove_tree(&orphan.key, &orphan.expect) {
                // Changed since it was looked at: somebody works with it.
                Err(Error::Backend(error @ (backend::Error::Stale { .. } | backend::Error::NotEmpty(_)))) => {
                    log::warn!("{}: is left where it is: {error}", orphan.key);
                }
                Err(Error::Backend(backend::Error::NotFound(_))) => {}
                other => other?,
            }
        }
        Ok(record)
    }

    fn list_parts(&self, key: &Key, text: &mut Vec<u8>) -> Result<()> {
        let stat = match self.backend.stat(key) {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other?,
        };
        let part = match stat.kind {
            FileKind::Directory => Part { key: key.escaped(), mode: Some(stat.mode), link: None },
            FileKind::Symlink => {
                Part { key: key.escaped(), mode: None, link: Some(escape(&self.backend.read_link(key)?)) }
            }
            _ => return Ok(()),
        };
        serde_json::to_writer(&mut *text, &part).map_err(|error| bad(error.into()))?;
        text.push(b'\n');
        if stat.kind == FileKind::Directory {
            for entry in self.backend.list(key)? {
                self.list_parts(&key.child(&entry.name)?, text)?;
            }
        }
        Ok(())
    }

    fn remove_tree(&self, key: &Key, expect: &Precondition) -> Result<()> {
        let stat = self.backend.stat(key)?;
        let by = self.by(Actor::current());
        if stat.kind != FileKind::Directory {
            // Whatever its name: not even an ephemeral file goes for good by this.
            return by.remove_to_trash(key, expect, Some(&stat));
        }
        for entry in self.backend.list(key)? {
            self.remove_tree(&key.child(&entry.name)?, &Precondition::Any)?;
        }
        by.remove_dir(key, Some(&stat))
    }

    /// Brings back all that was removed at or below `dir`: files from the trash, and what was listed of containers.
    /// What is there is left alone. Returns the keys that came back.
    ///
    /// # Errors
    /// [`Error::NotInTrash`] when there is nothing; what the medium says.
    pub fn untrash_below(&self, dir: &Key) -> Result<Vec<Key>> {
        let mut back = Vec::new();
        for path in self.backend.list_records(&Key::parse(RECORDS)?)? {
            for line in BufReader::new(self.backend.open_record(&path)?).lines() {
                let Ok(part) = serde_json::from_str::<Part>(&line.map_err(bad)?) else { continue };
                let Some(key) = Key::unescape(&part.key).ok().filter(|key| key.is_within(dir)) else { continue };
                if self.bring_back(&key, &part)? {
                    back.push(key);
                }
            }
        }
        for trashed in self.trash(dir)? {
            match self.untrash(&trashed.key, None, &trashed.key) {
                Ok(_) => back.push(trashed.key),
                Err(Error::NotInTrash(_) | Error::Backend(backend::Error::Exists(_))) => {}
                Err(error) => return Err(error),
            }
        }
        if back.is_empty() {
            return Err(Error::NotInTrash(dir.clone()));
        }
        back.sort();
        Ok(back)
    }

    fn bring_back(&self, key: &Key, part: &Part) -> Result<bool> {
        if let Some(parent) = key.parent() {
            self.create_dirs(&parent)?;
        }
        let (creator, by) = (Creator::current(), self.by(Actor::current()));
        let made = match (&part.link, part.mode) {
            (Some(target), _) => by.create_symlink(key, &unescape(target), &creator),
            (None, Some(mode)) => self.make_name(key, || {
                self.backend.create_dir(key, mode, &Creator { umask: 0, ..creator })?;
                self.backend.set_attr(key, &SetAttr { mode: Some(mode), ..SetAttr::default() })
            }),
            (None, None) => return Ok(false),
        };
        match made {
            Ok(_) => Ok(true),
            Err(Error::Backend(backend::Error::Exists(_))) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Where a link leads in a store that is at these places, by its text alone; `None` for outside.
fn resolve(link: &Key, target: &[u8], places: &[PathBuf]) -> Option<Key> {
    let above = link.parent().unwrap_or_else(Key::root);
    places.iter().find_map(|place| {
        let place: Vec<&[u8]> = names(place.as_os_str().as_bytes()).collect();
        let mut path = Vec::new();
        if !target.starts_with(b"/") {
            path.clone_from(&place);
            path.extend(above.components().map(OsStrExt::as_bytes));
        } else if place.is_empty() {
            return None;
        }
        for name in names(target) {
            match name {
                b".." => {
                    if path.pop().is_none() && place.is_empty() {
                        return None;
                    }
                }
                name => path.push(name),
            }
        }
        let below = path.strip_prefix(place.as_slice())?;
        // A name that is none, or Sepia's own, is of no object.
        Key::parse(OsStr::from_bytes(&below.join(&b'/'))).ok().filter(|key| !key.is_root())
    })
}

/// The components of a path.
fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b"."))
}

/// The name of the container of which a directory in another one is a copy: what is behind `NUMBER_`.
fn copied(name: &OsStr) -> Option<OsString> {
    let name = name.as_bytes();
    let digits = name.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = name[digits..].strip_prefix(b"_").filter(|rest| digits > 0 && !rest.is_empty())?;
    Some(OsStr::from_bytes(rest).to_owned())
}

/// The object that a path lies in: its first two names.
fn object_of(key: &Key) -> Result<Option<Key>> {
    let mut names = key.components();
    match (names.next(), names.next()) {
        (Some(class), Some(name)) => Ok(Some(Key::root().child(class)?.child(name)?)),
        _ => Ok(None),
    }
}

/// The object of which this is a save in the layout of the original library: the name without `.NUMBER` at its end.
fn family_of(object: &Key) -> Result<Key> {
    let (Some(class), Some(name)) = (object.parent(), object.name()) else { return Ok(object.clone()) };
    let name = name.as_bytes();
    let base = match name.iter().rposition(|&byte| byte == b'.') {
        Some(dot @ 1..) if dot + 1 < name.len() && name[dot + 1..].iter().all(u8::is_ascii_digit) => &name[..dot],
        _ => name,
    };
    // "..7" would leave a name that is none.
    Ok(class.child(OsStr::from_bytes(base)).unwrap_or_else(|_| object.clone()))
}

fn bad(source: std::io::Error) -> Error {
    Error::Records { what: "the list of what orphans were made of", source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> Key {
        Key::parse(path).unwrap()
    }

    fn store(files: &[&str], links: &[(&str, &str)]) -> Store {
        let store = Store::open("memory:").unwrap();
        for path in files {
            store.put(&Key::parse(path).unwrap(), &mut path.as_bytes(), Precondition::Absent).unwrap();
        }
        for (path, target) in links {
            let key = Key::parse(path).unwrap();
            store.create_dirs(&key.parent().unwrap()).unwrap();
            store.backend().create_symlink(&key, target.as_bytes(), &Creator::current()).unwrap();
        }
        store
    }

    fn orphans(store: &Store, roots: &[&str]) -> Vec<String> {
        let roots: Vec<Key> = roots.iter().map(|name| key(name)).collect();
        store.orphans(&roots, &[]).unwrap().orphans.iter().map(|orphan| orphan.key.to_string()).collect()
    }

    #[test]
    fn what_links_reach_is_no_orphan() {
        let store = store(
            &["Board/b1/data.json", "Lane/l1/data.json", "Card/c1", "Card/c2", "Card/c3", "Card/lost", "Board/b2/x"],
            &[
                ("Board/b1/lanes/0_l1", "../../../Lane/l1"),
                ("Lane/l1/deep/er/0_c1", "../../../../Card/c1"),
                // A cycle, and a link that leads out of the store.
                ("Lane/l1/board", "../../Board/b1"),
                ("Lane/l1/out", "../../../../../etc/passwd"),
                ("Lane/l1/gone", "../../Card/gone"),
                ("Lane/l2/0_c2", "../../Card/c2"),
                ("Card/alias", "c3"),
                ("Lane/l1/alias", "../../Card/alias"),
            ],
        );
        assert_eq!(orphans(&store, &["Board"]), ["Card/c2", "Card/lost", "Lane/l2"]);
        assert_eq!(orphans(&store, &["Lane"]), ["Board/b2", "Card/lost"]);
        assert_eq!(orphans(&store, &["Board/b2", "Card/c2"])[..2], ["Board/b1", "Card/alias"]);
        assert_eq!(store.orphans(&[key("Board")], &[]).unwrap().dangling, [Key::parse("Lane/l1/gone").unwrap()]);
        assert!(store.orphans(&[key("None")], &[]).is_err());
        assert!(store.orphans(&[], &[]).is_err());
    }

    #[test]
    fn links_by_way_of_a_mount_count() {
        let place = "/mnt/notes";
        let store = store(
            &["Board/b/x", "Task/one", "Task/two", "Task/three"],
            &[
                ("Board/b/0", "/mnt/notes/Task/one"),
                ("Board/b/1", "/mnt/./x/../notes//Task/two"),
                ("Board/b/2", "/mnt/notes2/Task/three"),
            ],
        );
        let found = store.orphans(&[key("Board")], &[place.into()]).unwrap();
        assert_eq!(found.orphans.iter().map(|orphan| orphan.key.to_string()).collect::<Vec<_>>(), ["Task/three"]);
        assert_eq!(orphans(&store, &["Board"]), ["Task/one", "Task/three", "Task/two"]);
    }

    #[test]
    fn older_saves_of_the_original_library_stay_with_their_object() {
        let store = store(
            &[
                "Shelf/s/data.json",
                "Note/a",
                "Note/a.1",
                "Note/a.12",
                "Note/b.7",
                "Note/c",
                "Note/c.x",
                "Note/10.0.0.1",
            ],
            &[("Shelf/s/notes/0_a.1", "../../../Note/a.1"), ("Shelf/s/notes/1_b", "../../../Note/b")],
        );
        assert_eq!(orphans(&store, &["Shelf"]), ["Note/10.0.0.1", "Note/c", "Note/c.x"]);
        let copies = self::store(
            &[
                "Dir/d1/children/0000_d2/children/0000_d3/x",
                "Dir/d2/x",
                "Dir/d3/x",
                "Dir/d4/x",
                "Dir/d2b",
                "Other/d2/x",
            ],
            &[],
        );
        assert_eq!(orphans(&copies, &["Dir/d1"]), ["Dir/d2b", "Dir/d4"]);
        assert_eq!(orphans(&store, &["Note/a.12"])[..2], ["Note/10.0.0.1", "Note/b.7"]);
    }

    #[test]
    fn orphans_come_back_whole() {
        let store = store(
            &["Root/r", "Box/b/data.json", "Box/b/in/deep", "Box/x.tmp"],
            &[("Box/b/in/0_r", "../../../Root/r"), ("Box/b/odd", "a b%\\\u{e9}")],
        );
        let found = store.orphans(&[key("Root")], &[]).unwrap();
        store.remove_orphans(&found.orphans).unwrap();
        let dir = Key::parse("Box").unwrap();
        assert!(store.list(&dir).unwrap().is_empty());
        assert_eq!(store.trash(&dir).unwrap().len(), 3);
        assert_eq!(store.untrash_below(&Key::parse("Box/b").unwrap()).unwrap().len(), 6);
        let read_link = |path: &str| store.backend().read_link(&Key::parse(path).unwrap()).unwrap();
        assert_eq!(read_link("Box/b/in/0_r"), b"../../../Root/r");
        assert_eq!(read_link("Box/b/odd"), "a b%\\\u{e9}".as_bytes());
        assert_eq!(store.get(&Key::parse("Box/b/in/deep").unwrap()).unwrap().stat.size, 13);
        store.disable_deletion("for this test").unwrap();
        assert!(matches!(store.remove_orphans(&found.orphans), Err(Error::DeletionDisabled(_))));
    }
}
