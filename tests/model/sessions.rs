//! What one mount has open: the handles of each file and the write session that they share.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::history::Histories;
use super::tree::{Id, Kind, Phys, Tree};

/// Which of the things that a mount has open.
pub type OpenId = usize;

/// What the handles of a file share that were opened on the same generation in one mount, or on what that mount made
/// of it.
#[derive(Debug, Default)]
pub struct Open {
    pub id: Id,
    pub handles: usize,
    pub writers: usize,
    /// What is read without a session: the bytes, and the state that they were.
    pub current: Option<(Phys, u64)>,
    /// The version of which it was known to be those bytes.
    pub current_version: u64,
    pub session: Option<Session>,
    pub number: u64,
    /// This mount removed its last name.
    pub orphan: bool,
    /// What is read was written without a name.
    pub unnamed: bool,
    /// The last name that this mount saw: directory and name.
    pub last_name: Option<(Id, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Version(u64),
    Number(u64),
    Reserved,
}

#[derive(Debug)]
pub enum Staged {
    None,
    /// The base's bytes up to there, and these.
    Tail(usize, Vec<u8>),
    Whole(Vec<u8>),
}

#[derive(Debug)]
pub struct Session {
    /// The file that it was opened on.
    pub id: Id,
    pub base: Option<(Phys, usize)>,
    pub expect: Expect,
    /// The number of the version that it expects, once that was seen.
    pub number: Option<u64>,
    pub staged: Staged,
    pub dirty: bool,
    pub wrote: bool,
    pub append_only: bool,
    pub published: bool,
    /// An fsync has acknowledged what isn't published.
    pub secured: bool,
    pub lost: bool,
    /// Its base was changed under it, as the bytes of an object with several names are: what it reads is open.
    pub torn: bool,
}

/// What all mounts share.
#[derive(Debug)]
pub struct Shared {
    pub tree: Tree,
    pub histories: Histories,
    /// Other ways in which the histories may have gone on: an object with several names may keep under any.
    pub alternatives: Vec<Histories>,
    /// What was set aside; `None` where the bytes are open.
    pub conflicts: Vec<Option<Vec<u8>>>,
    /// Bytes that a commit has replaced in place.
    pub torn: Vec<Phys>,
}

impl Session {
    pub fn new(id: Id, base: Option<(Phys, usize)>, expect: Expect) -> Self {
        Session {
            id,
            base,
            expect,
            number: None,
            staged: Staged::None,
            dirty: false,
            wrote: false,
            append_only: true,
            published: false,
            secured: false,
            lost: false,
            torn: false,
        }
    }

    /// The close of who opened it saves that, though nothing was written.
    pub fn has_only_cut(&self, tree: &Tree) -> bool {
        let before = self.base.map_or(1, |(_, size)| size);
        self.dirty && !self.wrote && self.content(tree).len() < before
    }

    pub fn content(&self, tree: &Tree) -> Vec<u8> {
        let base =
            |end: usize| self.base.map_or(Vec::new(), |(phys, _)| tree.bytes[phys].iter().copied().take(end).collect());
        match &self.staged {
            Staged::None => base(self.base.map_or(0, |(_, size)| size)),
            Staged::Tail(from, tail) => [base(*from), tail.clone()].concat(),
            Staged::Whole(bytes) => bytes.clone(),
        }
    }

    pub fn size(&self) -> usize {
        match &self.staged {
            Staged::None => self.base.map_or(0, |(_, size)| size),
            Staged::Tail(from, tail) => from + tail.len(),
            Staged::Whole(bytes) => bytes.len(),
        }
    }

    fn stage_from(&mut self, tree: &Tree, offset: usize) {
        let size = self.base.map_or(0, |(_, size)| size);
        if matches!(self.staged, Staged::None) {
            self.staged = if size > 0 { Staged::Tail(size, Vec::new()) } else { Staged::Whole(Vec::new()) };
        }
        if matches!(self.staged, Staged::Tail(from, _) if offset < from) {
            self.staged = Staged::Whole(self.content(tree));
        }
    }

    fn stage_whole(&mut self, tree: &Tree) {
        self.staged = Staged::Whole(self.content(tree));
    }

    /// At an offset, or at the end.
    pub fn write(&mut self, tree: &Tree, offset: Option<usize>, data: &[u8]) -> Result<(), Errno> {
        self.append_only &= offset.is_none();
        if self.lost {
            return Err(Errno::STALE);
        }
        let offset = offset.unwrap_or_else(|| self.size());
        self.stage_from(tree, offset);
        let (bytes, at) = match &mut self.staged {
            Staged::Tail(from, tail) => (tail, offset - *from),
            Staged::Whole(bytes) => (bytes, offset),
            Staged::None => unreachable!("staged above"),
        };
        bytes.resize(bytes.len().max(at + data.len()), 0);
        bytes[at..at + data.len()].copy_from_slice(data);
        self.dirty = true;
        self.wrote = true;
        Ok(())
    }

    /// Returns whether it had another size.
    pub fn truncate(&mut self, tree: &Tree, size: usize) -> Result<bool, Errno> {
        if self.lost {
            return Err(Errno::STALE);
        }
        let old = self.size();
        if size == old {
            return Ok(false);
        }
        self.append_only = false;
        if size == 0 {
            self.base = None;
            self.staged = Staged::Whole(Vec::new());
        } else {
            self.stage_from(tree, size.min(old));
            match &mut self.staged {
                Staged::Tail(from, tail) => tail.resize(size - *from, 0),
                Staged::Whole(bytes) => bytes.resize(size, 0),
                Staged::None => unreachable!("staged above"),
            }
        }
        self.dirty = true;
        Ok(true)
    }

    /// Whether it goes on from the generation with this number.
    fn is_change_of(&self, number: u64) -> bool {
        match self.expect {
            Expect::Version(_) => self.number == Some(number),
            Expect::Number(expected) => expected == number,
            Expect::Reserved => false,
        }
    }

    /// Whether what is current is what it would replace.
    fn is_based_on(&self, file: &super::tree::File) -> bool {
        match self.expect {
            Expect::Version(version) => file.version == version,
            Expect::Reserved => file.generation.is_none(),
            Expect::Number(_) => false,
        }
    }

    fn holds(&self, shared: &Shared, target: Option<Id>) -> bool {
        let Some((id, file)) = target.and_then(|id| Some((id, shared.tree.file(id)?))) else { return false };
        match self.expect {
            Expect::Version(version) => file.version == version,
            Expect::Number(number) => file.number == Some(number),
            Expect::Reserved => id == self.id && file.generation.is_none(),
        }
    }

    /// Only appended, to something that is the beginning of what is there now.
    fn merges(&self, shared: &Shared, target: Option<Id>) -> bool {
        let file = target.and_then(|id| shared.tree.file(id));
        let tail = matches!(self.staged, Staged::Tail(..));
        let begins = |version| file.is_some_and(|file| file.beginnings.contains(&version));
        tail && self.append_only && matches!(self.expect, Expect::Version(version) if begins(version))
    }

    /// Only appended to an empty file, to which somebody else was the first to commit: appends to that.
    fn join_new(&mut self, shared: &Shared, target: Option<Id>) {
        let Some(file) = target.filter(|id| *id == self.id).and_then(|id| shared.tree.file(id)) else { return };
        if matches!(self.expect, Expect::Reserved) && self.append_only && file.generation.is_some() {
            let tail = self.content(&shared.tree);
            let length = shared.tree.bytes[file.phys].len();
            self.base = Some((file.phys, length));
            self.staged = Staged::Tail(length, tail);
            self.expect = Expect::Version(file.version);
        }
    }

    fn lose(&mut self, shared: &mut Shared) -> Errno {
        shared.conflicts.push((!self.torn).then(|| self.content(&shared.tree)));
        self.staged = Staged::None;
        self.lost = true;
        self.dirty = false;
        Errno::STALE
    }

    /// Whether there is a generation of just these bytes, which are all that was written.
    fn changes_nothing(&self, tree: &Tree, id: Id) -> bool {
        let written = match &self.staged {
            Staged::None => false,
            Staged::Tail(_, tail) => tail.is_empty(),
            Staged::Whole(bytes) => bytes == tree.current(id),
        };
        written && tree.file(id).is_some_and(|file| file.generation.is_some())
    }

    /// Makes what was written the current bytes of what is at the session's name. Returns its stamp; `None`: nothing to
    /// publish.
    pub fn publish(&mut self, shared: &mut Shared, target: Option<Id>) -> Result<Option<u64>, Errno> {
        if self.lost {
            return Err(Errno::STALE);
        }
        if !self.dirty {
            return Ok(None);
        }
        self.join_new(shared, target);
        let same = self.holds(shared, target);
        let (Some(id), true) = (target, same || self.merges(shared, target)) else { return Err(self.lose(shared)) };
        let content = self.content(&shared.tree);
        let amends = self.published && same;
        if same && !amends && self.changes_nothing(&shared.tree, id) {
            let stamp = shared.tree.fresh();
            let file = shared.tree.file_mut(id);
            file.stamp = stamp;
            self.base = Some((file.phys, content.len()));
            (self.staged, self.dirty, self.wrote) = (Staged::None, false, false);
            return Ok(Some(stamp));
        }
        shared.supersede(id, amends);
        let linked = shared.tree.names(id).len() > 1;
        let version = shared.tree.fresh();
        let private = shared.tree.store(content.clone());
        let file = shared.tree.file_mut(id);
        match &self.staged {
            Staged::Tail(_, tail) => {
                let phys = file.phys;
                file.beginnings.push(version);
                shared.tree.bytes[phys].extend(tail);
                self.base = Some((phys, shared.tree.bytes[phys].len()));
            }
            // All names go on being the same file: whoever has it open sees the new bytes.
            _ if linked => {
                let phys = file.phys;
                file.beginnings = vec![version];
                shared.tree.bytes[phys] = content.clone();
                shared.torn.push(phys);
                self.base = Some((private, content.len()));
            }
            _ => {
                file.phys = private;
                file.beginnings = vec![version];
                self.base = Some((private, content.len()));
            }
        }
        let file = shared.tree.file_mut(id);
        (file.version, file.stamp) = (version, version);
        if !amends || file.generation.is_none() {
            (file.generation, file.number) = (Some(version), None);
        }
        self.staged = Staged::None;
        (self.expect, self.number) = (Expect::Version(version), None);
        (self.dirty, self.wrote, self.published, self.secured) = (false, false, true, false);
        Ok(Some(version))
    }

    /// As [`Session::publish`], durable: what was published before is only secured.
    pub fn sync(&mut self, shared: &mut Shared, target: Option<Id>) -> Result<Option<u64>, Errno> {
        if !self.dirty || !self.published || matches!(self.staged, Staged::Tail(..)) || self.lost {
            return self.publish(shared, target);
        }
        if !self.holds(shared, target) {
            return Err(self.lose(shared));
        }
        self.stage_whole(&shared.tree);
        self.secured = true;
        Ok(None)
    }
}

impl Shared {
    /// The current bytes of a file are about to be replaced: they belong to the history now.
    fn supersede(&mut self, id: Id, amends: bool) {
        let Some(generation) = self.tree.file(id).and_then(|file| file.generation) else { return };
        if amends {
            return;
        }
        let bytes = self.tree.current(id).clone();
        let names = self.tree.names(id);
        let ways = std::iter::once(&self.histories).chain(&self.alternatives);
        let mut ways = ways.flat_map(|histories| {
            names.iter().map(|name| {
                let mut way = histories.clone();
                way.of(name).keep(generation, &bytes);
                way
            })
        });
        let first = ways.next();
        let rest = ways.collect();
        if let Some(first) = first {
            (self.histories, self.alternatives) = (first, rest);
        }
    }

    /// A name of a file goes: the last one's bytes belong to the history of that name.
    pub fn keep_removed(&mut self, id: Id, path: &str) {
        let Kind::File(file) = &self.tree.nodes[id].kind else { return };
        if let Some(generation) = file.generation
            && self.tree.names(id).len() == 1
        {
            let bytes = self.tree.bytes[file.phys].clone();
            for histories in std::iter::once(&mut self.histories).chain(&mut self.alternatives) {
                histories.of(path).keep(generation, &bytes);
            }
        }
    }

    pub fn each_history(&mut self, change: impl Fn(&mut Histories)) {
        std::iter::once(&mut self.histories).chain(&mut self.alternatives).for_each(change);
    }
}

/// What one mount has open.
#[derive(Debug, Default)]
pub struct Mount {
    pub opens: BTreeMap<OpenId, Open>,
    /// What those share who open a file now.
    newest: BTreeMap<Id, OpenId>,
    counter: OpenId,
    /// What `user.sepia.expect` was set to: the number, and for which object, by name.
    pub expect: BTreeMap<String, (u64, Id)>,
}

impl Mount {
    pub fn newest(&self, id: Id) -> Option<&Open> {
        self.newest.get(&id).map(|open| &self.opens[open])
    }

    pub fn newest_mut(&mut self, id: Id) -> Option<&mut Open> {
        self.newest.get(&id).and_then(|open| self.opens.get_mut(open))
    }

    /// All that is open of a file.
    pub fn of(&mut self, id: Id) -> impl Iterator<Item = &mut Open> {
        self.opens.values_mut().filter(move |open| open.id == id)
    }

    /// What is opened from now on is not shared with what is open.
    pub fn add(&mut self, id: Id) -> OpenId {
        self.counter += 1;
        self.newest.insert(id, self.counter);
        self.opens.insert(self.counter, Open { id, ..Open::default() });
        self.counter
    }

    /// What is expected at a name.
    pub fn expected(&self, path: &str) -> Option<u64> {
        self.expect.get(path).map(|(number, _)| *number)
    }

    pub fn set_expected(&mut self, names: Vec<String>, id: Id, number: u64) {
        self.expect.retain(|_, (_, other)| *other != id);
        self.expect.extend(names.into_iter().map(|path| (path, (number, id))));
    }

    /// What was expected is met, or taken back: under all names.
    pub fn end_expected(&mut self, path: &str) {
        if let Some((_, id)) = self.expect.remove(path) {
            self.expect.retain(|_, (_, other)| *other != id);
        }
    }

    /// Directories have other names.
    pub fn move_expected(&mut self, moves: &[(&str, &str)]) {
        let new = |path: &str| {
            let moved = moves.iter().find(|(from, _)| super::history::is_within(path, from));
            moved.map_or(path.to_owned(), |(from, to)| format!("{to}{}", &path[from.len()..]))
        };
        let (moved, stay): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.expect).into_iter().partition(|(path, _)| new(path) != *path);
        self.expect = stay.into_iter().chain(moved.into_iter().map(|(path, expect)| (new(&path), expect))).collect();
    }

    pub fn open(
        &mut self,
        shared: &mut Shared,
        (path, id): (&str, Id),
        (write, truncate): (bool, bool),
    ) -> Result<(OpenId, u64), Errno> {
        let expect = if write { self.expected(path) } else { None };
        let file = shared.tree.file(id).ok_or(Errno::INVAL)?.clone();
        let is_older = |open: &Open| {
            let session = open.session.as_ref();
            let joins = session.is_some_and(|session| session.dirty && !session.lost);
            let same = open.current.is_some_and(|(_, stamp)| stamp == file.stamp);
            // Who has it open stays with what they have.
            !joins && !same && !session.is_some_and(|session| session.is_based_on(&file))
        };
        let at = match self.newest.get(&id) {
            Some(at) if !is_older(&self.opens[at]) => *at,
            _ => self.add(id),
        };
        let open = self.opens.get_mut(&at).expect("it is open");
        if let Some(session) = open.session.as_ref().filter(|session| session.dirty && !session.lost) {
            // It goes on with what was begun, and that can't be made to depend on something else.
            if expect.is_some_and(|number| !session.is_change_of(number)) {
                return Err(Errno::STALE);
            }
        } else {
            let opened = (file.phys, file.stamp);
            let same = open.current.is_some_and(|(_, stamp)| stamp == file.stamp);
            if !same {
                (open.current, open.current_version) = (Some(opened), file.version);
            }
            let had_session = open.session.is_some();
            let outdated =
                |old: &Session| matches!(old.expect, Expect::Version(version) if version != file.version) || old.lost;
            if let Some(old) =
                open.session.take_if(|old| (write && (old.published || expect.is_some())) || outdated(old))
            {
                open.number += u64::from(old.lost);
            }
            if open.session.is_none() && (write || open.writers > 0) {
                open.number += u64::from(!had_session);
                let found = match file.generation {
                    Some(_) => Expect::Version(file.version),
                    None => Expect::Reserved,
                };
                let base = file.generation.map(|_| (file.phys, shared.tree.bytes[file.phys].len()));
                open.session = Some(Session::new(id, base, expect.map_or(found, Expect::Number)));
            }
        }
        if truncate && let Some(session) = &mut open.session {
            session.truncate(&shared.tree, 0)?;
        }
        open.handles += 1;
        open.writers += usize::from(write);
        let number = open.number;
        if write {
            self.end_expected(path);
        }
        Ok((at, number))
    }

    /// What is at the name by which this mount knows a file; the outer `None`: it has no name any more.
    pub fn target(&self, tree: &Tree, open: OpenId) -> Option<Option<Id>> {
        let open = self.opens.get(&open)?;
        let id = open.id;
        if open.orphan {
            return None;
        }
        if !tree.names(id).is_empty() {
            return Some(Some(id));
        }
        let (dir, name) = open.last_name.as_ref()?;
        Some(tree.path(*dir).and_then(|_| tree.children(*dir)?.get(name).copied()))
    }

    pub fn publish(&mut self, shared: &mut Shared, open: OpenId, durable: bool) -> Result<(), Errno> {
        let Some(target) = self.target(&shared.tree, open) else { return Ok(()) };
        let Some(open) = self.opens.get_mut(&open) else { return Ok(()) };
        let Some(session) = &mut open.session else { return Ok(()) };
        let stamp = if durable { session.sync(shared, target)? } else { session.publish(shared, target)? };
        if let (Some(stamp), Some((phys, _)), Some(file)) =
            (stamp, session.base, target.and_then(|id| shared.tree.file(id)))
        {
            (open.current, open.current_version) = (Some((phys, stamp)), file.version);
        }
        Ok(())
    }

    /// After a rename or a link.
    pub fn follow(&mut self, shared: &Shared, id: Id) {
        if let (Some(file), Some(open)) = (shared.tree.file(id), self.newest_mut(id))
            && open.current.is_some_and(|(_, stamp)| stamp == file.stamp)
        {
            open.current_version = file.version;
        }
    }

    /// Before a rename or a link.
    pub fn settle(&mut self, shared: &mut Shared, id: Id) -> Result<(), Errno> {
        let dirty = self.newest(id).and_then(|open| open.session.as_ref());
        if dirty.is_some_and(|session| session.dirty && !session.lost) {
            return self.publish(shared, self.newest[&id], false);
        }
        Ok(())
    }

    /// The file is about to lose a name: what an fsync has acknowledged is kept, if it doesn't come too late.
    pub fn settle_secured(&mut self, shared: &mut Shared, id: Id) {
        let secured = self.newest(id).and_then(|open| open.session.as_ref());
        if secured.is_some_and(|session| session.secured && session.dirty && !session.lost) {
            let _ = self.publish(shared, self.newest[&id], false);
        }
    }

    pub fn release(&mut self, shared: &mut Shared, at: OpenId, write: bool) {
        let open = self.opens.get_mut(&at).expect("an open file");
        let id = open.id;
        open.handles -= 1;
        open.writers -= usize::from(write);
        if write && open.writers == 0 {
            self.end(shared, at);
        }
        if self.opens[&at].handles == 0 {
            self.opens.remove(&at);
            if self.newest.get(&id) == Some(&at) {
                self.newest.remove(&id);
            }
        }
    }

    fn end(&mut self, shared: &mut Shared, at: OpenId) {
        let unfinished = self.opens[&at].session.as_ref().is_some_and(|s| !s.lost && s.dirty);
        let orphan = self.opens[&at].orphan;
        if unfinished && !orphan {
            // Nobody hears of it: release has no answer.
            let _ = self.publish(shared, at, false);
        }
        let open = self.opens.get_mut(&at).expect("an open file");
        let Some(session) = open.session.take() else { return };
        // Without a name, the remaining handles go on sharing what was written.
        if orphan && !matches!(session.staged, Staged::None) {
            let content = session.content(&shared.tree);
            open.current = Some((shared.tree.store(content), 0));
            open.unnamed = true;
        } else if let (Some((phys, _)), Some(current)) = (session.base, &mut open.current) {
            current.0 = phys;
        }
    }

    /// What a handle of the file reads.
    pub fn read(&self, tree: &Tree, open: OpenId) -> Vec<u8> {
        let open = &self.opens[&open];
        match (&open.session, open.current) {
            (Some(session), _) => session.content(tree),
            (None, Some((phys, _))) => tree.bytes[phys].clone(),
            (None, None) => Vec::new(),
        }
    }
}
