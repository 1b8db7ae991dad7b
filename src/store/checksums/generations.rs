//! The generations of a key, by the files that hold their bytes.

use std::collections::HashSet;

use super::hash::{Source, Summed, sum_beginnings};
use super::record::Identity;
use crate::backend::{self, GenerationInfo, Kept, Opened, Stat};
use crate::store::{Result, Store};
use crate::types::{Key, Timestamp};

/// All of a key whose bytes are kept.
#[derive(Debug)]
pub struct Generations {
    /// What is at the key, if it is a file.
    pub current: Option<Stat>,
    /// Newest first. Each is a file that holds generations whole or as its beginnings.
    pub bodies: Vec<Body>,
    /// Those that are the beginning of something that isn't kept.
    pub baseless: Vec<GenerationInfo>,
    /// The times of all commits.
    pub commits: HashSet<Timestamp>,
}

/// A file that holds generations.
#[derive(Debug)]
pub struct Body {
    /// The one that is the whole file, or what is known of the current one.
    pub whole: GenerationInfo,
    /// Those that are beginnings of it, the shortest last.
    pub beginnings: Vec<GenerationInfo>,
}

impl Body {
    /// Whether it is the current file.
    pub fn is_current(&self) -> bool {
        self.whole.superseded.is_none()
    }

    /// Opens it. What was changed from outside since it was listed counts as gone, and isn't recorded by this.
    ///
    /// # Errors
    /// [`backend::Error::NoGeneration`] when it has gone, or is another one, since it was listed.
    pub fn open(&self, store: &Store, key: &Key) -> Result<Opened, backend::Error> {
        let gone = || backend::Error::NoGeneration(key.clone(), self.whole.generation);
        if self.is_current() && !self.is_unchanged(store, key)? {
            return Err(gone());
        }
        let opened = store.backend.open_kept(key, &self.whole)?;
        let same = opened.stat.committed == Some(self.whole.committed);
        if same { Ok(opened) } else { Err(gone()) }
    }

    /// Whether the file is still what it was when it was listed.
    ///
    /// # Errors
    /// What the medium says.
    pub fn is_unchanged(&self, store: &Store, key: &Key) -> Result<bool, backend::Error> {
        if !self.is_current() {
            // What is in the history never changes in place.
            return Ok(true);
        }
        match store.backend.stat(key) {
            Ok(stat) => Ok(stat.recorded
                && (stat.generation, stat.committed) == (Some(self.whole.generation), Some(self.whole.committed))
                && (stat.size, stat.mtime) == (self.whole.size, self.whole.mtime)),
            Err(error) if error.is_gone() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The generations in it, the shortest first.
    pub fn generations(&self) -> impl Iterator<Item = &GenerationInfo> {
        self.beginnings.iter().rev().chain([&self.whole])
    }

    /// What of its generations the records tell them by, the shortest first.
    pub fn identities(&self, key: &Key, opened: &Opened) -> Vec<Identity> {
        let identity = |info: &GenerationInfo| Identity {
            id: opened.stat.id,
            committed: info.committed,
            size: info.size,
            mtime: info.mtime,
            key: key.clone(),
            generation: info.generation,
        };
        self.generations().map(identity).collect()
    }

    /// The checksums of its generations, the shortest first. Those behind `wanted` are left out.
    pub fn sum(&self, opened: &Opened, wanted: usize, source: Source, go_on: &mut dyn FnMut(u64) -> bool) -> Summed {
        let ends: Vec<u64> = self.generations().take(wanted).map(|info| info.size).collect();
        sum_beginnings(&opened.file, &ends, source, go_on)
    }
}

/// What is kept of a key now. Nothing is opened or changed by that.
///
/// # Errors
/// What the medium says.
pub fn generations_of(store: &Store, key: &Key) -> Result<Generations, backend::Error> {
    // The object first: what is superseded meanwhile is in both then, and not in neither.
    let current = match store.backend.stat(key) {
        Ok(stat) => Some(stat).filter(|stat| stat.kind == backend::FileKind::File),
        Err(error) if error.is_gone() => None,
        Err(error) => return Err(error),
    };
    let kept = store.backend.generations(key)?;
    let mut found = Generations { current, bodies: Vec::new(), baseless: Vec::new(), commits: HashSet::new() };
    let recorded = found.current.as_ref().filter(|stat| stat.recorded);
    if let Some((stat, generation, committed)) =
        recorded.and_then(|stat| Some((stat, stat.generation?, stat.committed?)))
        && kept.last().is_none_or(|last| last.generation < generation)
    {
        let whole = GenerationInfo {
            generation,
            committed,
            superseded: None,
            deleted: false,
            size: stat.size,
            mtime: stat.mtime,
            kept: Kept::Whole,
        };
        found.commits.insert(committed);
        found.bodies.push(Body { whole, beginnings: Vec::new() });
    }
    // As long as the current file isn't recorded, nobody knows what it is the continuation of.
    let mut unknown = found.current.as_ref().is_some_and(|stat| !stat.recorded);
    for info in kept.into_iter().rev() {
        match (&info.kept, found.bodies.last_mut()) {
            (Kept::Lost(_), _) => continue,
            (Kept::Whole, _) => {
                unknown = false;
                found.commits.insert(info.committed);
                found.bodies.push(Body { whole: info, beginnings: Vec::new() });
            }
            (Kept::Prefix(_), _) if unknown => {}
            (Kept::Prefix(_), Some(body)) => {
                found.commits.insert(info.committed);
                body.beginnings.push(info);
            }
            (Kept::Prefix(_), None) => found.baseless.push(info),
        }
    }
    for body in &mut found.bodies {
        // As they are, unless something is damaged.
        body.beginnings.sort_by_key(|info| std::cmp::Reverse(info.size));
    }
    Ok(found)
}
