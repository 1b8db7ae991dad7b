//! What the histories must hold: the bytes of everything that was superseded, in order, and numbers that are not
//! used twice.

use std::collections::BTreeMap;

/// The history of one key.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The generations whose bytes must be there, oldest first.
    pub kept: Vec<Kept>,
    /// An object with a history has left this name, or came to it: what was kept of it may be shown too, before the
    /// name's own, so that the history goes on when an editor renames the old file away.
    pub passed: bool,
    /// Which generation each number was seen to mean.
    pub used: BTreeMap<u64, u64>,
}

/// A superseded generation.
#[derive(Debug, Clone)]
pub struct Kept {
    /// 0 where that is open.
    pub generation: u64,
    pub bytes: Vec<u8>,
    /// It may have been kept as the beginning of bytes that were changed from outside.
    pub may_be_lost: bool,
}

impl History {
    pub fn keep(&mut self, generation: u64, bytes: &[u8]) {
        self.kept.push(Kept { generation, bytes: bytes.to_vec(), may_be_lost: false });
    }
}

/// The histories of all keys.
#[derive(Debug, Clone, Default)]
pub struct Histories {
    keys: BTreeMap<String, History>,
}

impl Histories {
    pub fn of(&mut self, key: &str) -> &mut History {
        self.keys.entry(key.to_owned()).or_default()
    }

    pub fn keys(&self) -> impl Iterator<Item = &String> {
        self.keys.keys()
    }

    /// Bytes are kept for the key.
    pub fn keeps_bytes(&self, key: &str) -> bool {
        self.keys.get(key).is_some_and(|history| !history.kept.is_empty())
    }

    /// Takes the history of one key, as its object takes another name. Numbers of the old name may be used again,
    /// unless the store keeps a note of them.
    pub fn move_one(&mut self, from: &str, to: &str) {
        let moved = self.keys.remove(from).unwrap_or_default();
        self.of(from).passed = true;
        // Where the new name had numbers of its own, those that join may have to count on from them.
        let used = self.keys.remove(to).map_or(moved.used, |target| target.used);
        self.keys.insert(to.to_owned(), History { kept: moved.kept, passed: true, used });
    }

    /// The bytes that were current at a key are lost, and what was kept as their beginning with them.
    pub fn rob(&mut self, key: &str, current: &[u8]) {
        let history = self.of(key);
        // Of what is gone with its record, the number may come again.
        let History { kept, used, .. } = history;
        used.retain(|_, generation| kept.iter().any(|kept| kept.generation == *generation));
        for kept in history.kept.iter_mut().filter(|kept| current.starts_with(&kept.bytes)) {
            kept.may_be_lost = true;
        }
    }

    /// A directory takes another name, and the histories at and below it come along.
    pub fn move_below(&mut self, from: &str, to: &str) {
        let moved: Vec<_> = self.keys.keys().filter(|at| is_within(at, from)).cloned().collect();
        for at in moved {
            let history = self.keys.remove(&at).unwrap_or_default();
            let target = self.of(&format!("{to}{}", &at[from.len()..]));
            target.kept.extend(history.kept);
            target.passed |= history.passed;
            if target.used.is_empty() {
                target.used = history.used;
            }
        }
    }

    /// Two names change places.
    pub fn exchange(&mut self, a: &str, b: &str) {
        let swapped = std::mem::take(&mut self.keys).into_iter().map(|(at, history)| {
            let at = match (is_within(&at, a), is_within(&at, b)) {
                (true, _) => format!("{b}{}", &at[a.len()..]),
                (_, true) => format!("{a}{}", &at[b.len()..]),
                _ => at,
            };
            (at, history)
        });
        self.keys = swapped.collect();
    }
}

/// Whether `key` is `dir` or below it.
pub fn is_within(key: &str, dir: &str) -> bool {
    key.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
