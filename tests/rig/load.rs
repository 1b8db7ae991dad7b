//! Writers on a mount that keep account, outside the mount, of what the mount has acknowledged.
//!
//! Each writer is a thread with a directory of its own, so that there is one order of events for every object, and a
//! conflict is never to be expected. See [`super::check`] for what must be true after a crash.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use super::Dice;
use super::record::{self, PAGE, Tag};

/// Against what an acknowledgement holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ack {
    /// The request did not return, or failed.
    None,
    /// close, rename or unlink returned: safe from the daemon's death.
    Close,
    /// fsync of the file and, where names changed, of the directory returned: safe from the loss of power too.
    Fsync,
}

/// What a request makes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is not there.
    Absent,
    /// It is the record with this number.
    Record(u64),
}

/// The requests on one object in their order, the first of which is what was found at the beginning of the round.
#[derive(Debug, Clone)]
pub struct Account {
    pub events: Vec<(State, Ack)>,
}

impl Default for Account {
    fn default() -> Self {
        Account { events: vec![(State::Absent, Ack::Fsync)] }
    }
}

/// A log to which is only appended.
#[derive(Debug, Clone, Default)]
pub struct LogAccount {
    pub name: String,
    /// The lines that were tried, in their order.
    pub lines: Vec<u64>,
    /// How many of them close or fsync has acknowledged.
    pub closed: usize,
    /// How many of them fsync has acknowledged.
    pub synced: usize,
    /// The last lines of the sessions whose close returned: each of them is a generation.
    pub sessions: Vec<u64>,
}

/// A database: for each page, the turns at which it was written, and whether fsync or close acknowledged them.
#[derive(Debug, Clone)]
pub struct BaseAccount {
    pub pages: Vec<Vec<(u64, Ack)>>,
}

/// An object that was opened, partly written and never closed.
#[derive(Debug, Clone)]
pub struct LeftOpen {
    /// What an fsync made of it; before that, what it was.
    pub state: State,
    /// All that was written into it, if write returned.
    pub written: Vec<u8>,
}

/// One writer: what it knows lasts longer than the mounts on which it writes.
#[derive(Default)]
pub struct Writer {
    pub number: u64,
    pub seq: u64,
    pub files: BTreeMap<String, Account>,
    pub log: LogAccount,
    pub base: Option<BaseAccount>,
    pub left_open: BTreeMap<String, LeftOpen>,
    /// Handles that stay open until the daemon is dead.
    pub held: Vec<File>,
    pub requests: u64,
}

/// What the writers know of their mount: first the word, then the deed, so that no failure comes before its reason.
#[derive(Default)]
pub struct Fate(AtomicU8);

impl Fate {
    /// From now on requests may fail; the writers go on until one does.
    pub fn dying(&self) {
        self.0.store(1, Ordering::SeqCst);
    }

    /// Nobody need try any more.
    pub fn dead(&self) {
        self.0.store(2, Ordering::SeqCst);
    }

    fn is(&self, at_least: u8) -> bool {
        self.0.load(Ordering::SeqCst) >= at_least
    }
}

/// How the load behaves.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// One in so many objects is fsynced before it is closed, and its directory after a change of names.
    pub sync_one_in: u64,
    /// Objects are at most so long.
    pub longest: u64,
}

pub const NAMES: u64 = 8;
pub const PAGES: u64 = 12;

impl Writer {
    pub fn new(number: u64) -> Self {
        Writer { number, ..Writer::default() }
    }

    pub fn dir(&self) -> String {
        format!("W{}", self.number)
    }

    /// Works until a request fails. Before the mount is dying, that is the mount's fault.
    pub fn work(&mut self, mount: &Path, dice: &mut Dice, style: Style, fate: &Fate) {
        let dir = mount.join(self.dir());
        let mut base = None;
        let result = self.leave_one_open(&dir, dice).and_then(|()| {
            while !fate.is(2) {
                self.requests += 1;
                match dice.below(20) {
                    0..4 => self.overwrite(&dir, dice, style)?,
                    4..8 => self.replace(&dir, dice, style)?,
                    8..10 => self.delete(&dir, dice, style)?,
                    10..14 => self.append(&dir, dice, style)?,
                    14..19 => self.transact(&dir, dice, style, &mut base)?,
                    _ => self.leave_one_open(&dir, dice)?,
                }
            }
            Ok(())
        });
        if let Some(base) = base {
            // Not closed by us: the daemon dies first.
            self.held.push(base);
        }
        if let Err(error) = result {
            assert!(fate.is(1), "writer {}: a request failed on a sound mount: {error}", self.number);
        }
    }

    fn tag(&mut self) -> Tag {
        self.seq += 1;
        Tag { seq: self.seq, writer: self.number }
    }

    fn note(&mut self, name: &str, state: State) {
        self.files.entry(name.to_owned()).or_default().events.push((state, Ack::None));
    }

    fn acknowledged(&mut self, name: &str, ack: Ack) {
        let last = self.files.get_mut(name).unwrap().events.last_mut().unwrap();
        last.1 = last.1.max(ack);
    }

    fn pick(dice: &mut Dice) -> String {
        format!("f{}", dice.below(NAMES))
    }

    /// A new record, mostly short, sometimes longer than a request can carry.
    fn record(&mut self, dice: &mut Dice, style: Style) -> (u64, Vec<u8>) {
        let tag = self.tag();
        let most = if dice.one_in(5) { style.longest } else { 5000 };
        (tag.seq, record::object(tag, dice.below(most) as usize))
    }

    /// In pieces, so that there is something to tear.
    fn write(mut file: &File, bytes: &[u8], dice: &mut Dice) -> io::Result<()> {
        let piece = bytes.len() / (1 + dice.below(4) as usize) + 1;
        bytes.chunks(piece).try_for_each(|piece| file.write_all(piece))
    }

    fn overwrite(&mut self, dir: &Path, dice: &mut Dice, style: Style) -> io::Result<()> {
        let name = Self::pick(dice);
        let (seq, bytes) = self.record(dice, style);
        self.note(&name, State::Record(seq));
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(dir.join(&name))?;
        Self::write(&file, &bytes, dice)?;
        if dice.one_in(style.sync_one_in) {
            file.sync_all()?;
            self.acknowledged(&name, Ack::Fsync);
        }
        close(file)?;
        self.acknowledged(&name, Ack::Close);
        Ok(())
    }

    /// As editors do.
    fn replace(&mut self, dir: &Path, dice: &mut Dice, style: Style) -> io::Result<()> {
        let name = Self::pick(dice);
        let (seq, bytes) = self.record(dice, style);
        let new = dir.join(format!(".{name}.tmp"));
        // What a crash has left there would be the generation before in the object's history, and could be brought back.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        let file = File::create(&new)?;
        Self::write(&file, &bytes, dice)?;
        let sync = dice.one_in(style.sync_one_in);
        if sync {
            file.sync_all()?;
        }
        close(file)?;
        self.note(&name, State::Record(seq));
        std::fs::rename(new, dir.join(&name))?;
        self.acknowledged(&name, Ack::Close);
        if sync {
            File::open(dir)?.sync_all()?;
            self.acknowledged(&name, Ack::Fsync);
        }
        Ok(())
    }

    fn delete(&mut self, dir: &Path, dice: &mut Dice, style: Style) -> io::Result<()> {
        let name = Self::pick(dice);
        self.note(&name, State::Absent);
        match std::fs::remove_file(dir.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        self.acknowledged(&name, Ack::Close);
        if dice.one_in(style.sync_one_in) {
            File::open(dir)?.sync_all()?;
            self.acknowledged(&name, Ack::Fsync);
        }
        Ok(())
    }

    fn append(&mut self, dir: &Path, dice: &mut Dice, style: Style) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(dir.join(&self.log.name))?;
        let mut last = 0;
        for _ in 0..=dice.below(4) {
            let tag = self.tag();
            last = tag.seq;
            self.log.lines.push(tag.seq);
            file.write_all(&record::line(tag, dice.below(300) as usize))?;
            if dice.one_in(style.sync_one_in) {
                file.sync_data()?;
                self.log.synced = self.log.lines.len();
                self.log.closed = self.log.lines.len();
            }
        }
        close(file)?;
        self.log.closed = self.log.lines.len();
        self.log.sessions.push(last);
        Ok(())
    }

    /// Writes pages of the database in place and secures them; leaves it open or not.
    fn transact(&mut self, dir: &Path, dice: &mut Dice, style: Style, open: &mut Option<File>) -> io::Result<()> {
        let path = dir.join("base");
        let file = match open.take() {
            Some(file) => file,
            None => OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?,
        };
        if self.base.is_none() {
            let tag = self.tag();
            self.base = Some(BaseAccount { pages: vec![vec![(tag.seq, Ack::None)]; PAGES as usize] });
            let all: Vec<u8> = (0..PAGES).flat_map(|number| record::page(tag, number)).collect();
            file.write_all_at(&all, 0)?;
        }
        for _ in 0..=dice.below(2) {
            let (number, tag) = (dice.below(PAGES), self.tag());
            self.base.as_mut().unwrap().pages[number as usize].push((tag.seq, Ack::None));
            file.write_all_at(&record::page(tag, number), number * PAGE as u64)?;
        }
        if dice.one_in(style.sync_one_in) {
            file.sync_data()?;
            self.base_acknowledged(Ack::Fsync);
        }
        if dice.one_in(4) {
            close(file)?;
            self.base_acknowledged(Ack::Close);
        } else {
            *open = Some(file);
        }
        Ok(())
    }

    fn base_acknowledged(&mut self, ack: Ack) {
        for page in &mut self.base.as_mut().unwrap().pages {
            let last = page.last_mut().unwrap();
            last.1 = last.1.max(ack);
        }
    }

    /// A record that is saved, then half overwritten with another, which is never closed.
    fn leave_one_open(&mut self, dir: &Path, dice: &mut Dice) -> io::Result<()> {
        if self.left_open.len() >= 6 {
            return Ok(());
        }
        let tag = self.tag();
        let name = format!("open{}", tag.seq);
        let first = record::object(tag, dice.below(9000) as usize);
        let file = File::create(dir.join(&name))?;
        Self::write(&file, &first, dice)?;
        file.sync_all()?;
        close(file)?;
        File::open(dir)?.sync_all()?;
        let mut written = Vec::new();
        let truncate = dice.one_in(2);
        let mut file = OpenOptions::new().write(true).truncate(truncate).open(dir.join(&name))?;
        if !truncate {
            written.clone_from(&first);
        }
        let half = record::object(self.tag(), 20_000)[..5000].to_vec();
        self.left_open.insert(name.clone(), LeftOpen { state: State::Record(tag.seq), written: Vec::new() });
        file.write_all(&half)?;
        let kept = written.split_off(written.len().min(half.len()));
        let left = self.left_open.get_mut(&name).unwrap();
        left.written = [half, kept].concat();
        self.held.push(file);
        Ok(())
    }
}

/// close(2) with its result, which `File` throws away: FUSE answers here whether the bytes were saved.
pub fn close(file: File) -> io::Result<()> {
    // SAFETY: the descriptor was just given up by its owner and is closed once.
    Ok(unsafe { rustix::io::try_close(file.into_raw_fd()) }?)
}
