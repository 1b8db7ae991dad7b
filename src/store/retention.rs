//! What is kept of the history: the rules, and the judgement on one key's generations by them.
//!
//! Nothing here reads or deletes anything. [`judge`] is a function of what it is given, so that `sepia gc --dry-run`,
//! the collector and the tests all see the same verdicts. Which rules hold for which key, [`super::policy`] says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::backend::{GenerationInfo, Kept};
use crate::types::{Age, Generation, Timestamp};

/// Rules that say what stays; what any of them keeps, stays. Times are UTC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    /// Everything.
    pub keep_all: bool,
    /// The last so many superseded generations, beside the current one.
    pub keep_last: Option<u32>,
    /// Everything that was current at any time within this span before now. (Not: before the newest generation.
    /// An object that nobody has saved for a while must not lose its history by that.)
    pub keep_within: Option<Age>,
    /// The newest of each of the last so many hours in which one was committed.
    pub keep_hourly: Option<u32>,
    /// As `keep_hourly`, of days.
    pub keep_daily: Option<u32>,
    /// As `keep_hourly`, of weeks (from Monday on).
    pub keep_weekly: Option<u32>,
    /// As `keep_hourly`, of months.
    pub keep_monthly: Option<u32>,
    /// As `keep_hourly`, of years.
    pub keep_yearly: Option<u32>,
}

/// A stretch of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Period {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// Why a generation stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The policy keeps all.
    All,
    /// It is among the last few.
    Last,
    /// It was current within the time that everything is kept.
    Within,
    /// It is the newest of a period.
    NewestOf(Period),
    /// Somebody has pinned it.
    Pinned,
    /// A snapshot holds it.
    Snapshot,
    /// A write session that has not ended is based on it.
    Open,
    /// It is a part of the history of another name, which its object had, and where the rules keep it.
    OtherName,
    /// The bytes of this older one, which stays, are its beginning.
    HoldsBytesOf(Generation),
    /// The object was removed, and can be brought back.
    Trash,
    /// The object vanished without having been removed through Sepia: this is all that is left of it.
    OnlyCopy,
    /// A note that says what became of a generation, as long as older ones stay.
    Note,
    /// It says how far the numbers of the key have been given out.
    Number,
}

/// Why a generation goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// No rule keeps it.
    NoRule,
    /// The object was removed longer ago than trash is kept.
    TrashExpired,
}

/// What is to become of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It stays, for each of these reasons.
    Keep(Vec<Reason>),
    /// It goes.
    Drop(Cause),
}

impl Verdict {
    /// Whether it goes.
    pub fn drops(&self) -> bool {
        matches!(self, Verdict::Drop(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Keep(reasons) => {
                f.write_str("stays: ")?;
                for (at, reason) in reasons.iter().enumerate() {
                    write!(f, "{}{reason}", if at > 0 { ", " } else { "" })?;
                }
                Ok(())
            }
            Verdict::Drop(Cause::NoRule) => f.write_str("goes: no rule keeps it"),
            Verdict::Drop(Cause::TrashExpired) => f.write_str("goes: removed longer ago than trash is kept"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::All => f.write_str("all are kept"),
            Reason::Last => f.write_str("one of the last"),
            Reason::Within => f.write_str("within keep_within"),
            Reason::NewestOf(Period::Hour) => f.write_str("newest of its hour"),
            Reason::NewestOf(Period::Day) => f.write_str("newest of its day"),
            Reason::NewestOf(Period::Week) => f.write_str("newest of its week"),
            Reason::NewestOf(Period::Month) => f.write_str("newest of its month"),
            Reason::NewestOf(Period::Year) => f.write_str("newest of its year"),
            Reason::Pinned => f.write_str("pinned"),
            Reason::Snapshot => f.write_str("in a snapshot"),
            Reason::Open => f.write_str("a write session is based on it"),
            Reason::OtherName => f.write_str("kept for another name's history"),
            Reason::HoldsBytesOf(older) => write!(f, "holds the bytes of generation {older}"),
            Reason::Trash => f.write_str("removed, can be brought back"),
            Reason::OnlyCopy => f.write_str("the only copy: the object vanished"),
            Reason::Note => f.write_str("a note on older ones"),
            Reason::Number => f.write_str("remembers the number"),
        }
    }
}

impl Keep {
    /// Whether no rule keeps anything.
    pub fn is_empty(&self) -> bool {
        let counts =
            [self.keep_last, self.keep_hourly, self.keep_daily, self.keep_weekly, self.keep_monthly, self.keep_yearly];
        let within = self.keep_within.is_none_or(|age| age.seconds() == 0);
        !self.keep_all && within && counts.iter().all(|count| count.unwrap_or(0) == 0)
    }

    /// Whether nothing was said at all.
    pub fn is_unset(&self) -> bool {
        *self == Keep::default()
    }

    /// Which of these stay, and why; an empty list for those that no rule keeps. Oldest first: when each became
    /// current, and when it stopped. Also for other things that come one after the other, such as snapshots.
    pub fn reasons(&self, times: &[(Timestamp, Timestamp)], now: Timestamp) -> Vec<Vec<Reason>> {
        let mut reasons = vec![Vec::new(); times.len()];
        let last = times.len().saturating_sub(self.keep_last.unwrap_or(0) as usize);
        let within = self.keep_within.map(|age| age.before(now));
        for (at, (_, until)) in times.iter().enumerate() {
            if self.keep_all {
                reasons[at].push(Reason::All);
            }
            if at >= last {
                reasons[at].push(Reason::Last);
            }
            // Against a clock that went back: what ended in the future ended just now.
            if within.is_some_and(|since| *until >= since) {
                reasons[at].push(Reason::Within);
            }
        }
        for (period, count) in [
            (Period::Hour, self.keep_hourly),
            (Period::Day, self.keep_daily),
            (Period::Week, self.keep_weekly),
            (Period::Month, self.keep_monthly),
            (Period::Year, self.keep_yearly),
        ] {
            // By number: a clock that went back doesn't make an older one the newer. So of each period the newest is
            // the last in the list, and of the periods the last ones count.
            let mut newest = BTreeMap::new();
            for (at, (made, _)) in times.iter().enumerate() {
                newest.insert(period.of(*made), at);
            }
            for at in newest.into_values().rev().take(count.unwrap_or(0) as usize) {
                reasons[at].push(Reason::NewestOf(period));
            }
        }
        reasons
    }
}

impl Period {
    /// The number of the period that a time lies in: later periods have greater numbers.
    fn of(self, time: Timestamp) -> i64 {
        let seconds = time.seconds();
        let day = seconds.div_euclid(86_400);
        match self {
            Period::Hour => seconds.div_euclid(3_600),
            Period::Day => day,
            // 1970-01-01 was a Thursday.
            Period::Week => (day + 3).div_euclid(7),
            Period::Month => {
                let (year, month) = time.year_and_month();
                year * 12 + month
            }
            Period::Year => time.year_and_month().0,
        }
    }
}

/// What must stay of one key's history whatever the rules say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held(pub BTreeMap<Generation, BTreeSet<HeldBy>>);

/// By whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeldBy {
    /// A pin.
    Pin,
    /// A snapshot.
    Snapshot,
    /// A write session that is based on it.
    Session,
    /// The history of another name.
    Name,
}

impl Held {
    /// Adds one.
    pub fn hold(&mut self, generation: Generation, by: HeldBy) {
        self.0.entry(generation).or_default().insert(by);
    }

    /// Whether somebody wants it kept even when space is short.
    pub fn is_strict(&self, generation: Generation) -> bool {
        self.0.get(&generation).is_some_and(|by| by.iter().any(|by| *by != HeldBy::Name))
    }

    fn reasons(&self, generation: Generation) -> impl Iterator<Item = Reason> {
        self.0.get(&generation).into_iter().flatten().map(|by| match by {
            HeldBy::Pin => Reason::Pinned,
            HeldBy::Snapshot => Reason::Snapshot,
            HeldBy::Session => Reason::Open,
            HeldBy::Name => Reason::OtherName,
        })
    }
}

/// The rules for one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What stays.
    pub keep: Keep,
    /// How long a removed object can be brought back. After that its whole history goes.
    pub trash: Age,
}

/// Decides about the generations of one key, oldest first, as [`crate::backend::Backend::generations`] lists them:
/// without the current one, which always stays. `current` says whether an object is there now.
///
/// What it promises: a generation that goes is kept by no rule, held by nobody, and no generation that stays is
/// stored in terms of it.
pub fn judge(
    generations: &[GenerationInfo],
    current: bool,
    policy: &Policy,
    held: &Held,
    now: Timestamp,
) -> Vec<Verdict> {
    let has_bytes = |info: &GenerationInfo| !matches!(info.kept, Kept::Lost(_));
    let until = |info: &GenerationInfo| info.superseded.unwrap_or(info.committed);
    let removed = generations.last().filter(|last| !current && last.deleted);
    let in_trash = removed.is_some_and(|last| until(last) >= policy.trash.before(now));
    let expired = removed.is_some() && !in_trash;

    let mut reasons: Vec<Vec<Reason>> = vec![Vec::new(); generations.len()];
    if !expired {
        // Notes have no bytes, so they must not take the place of one that has; unless they say where the bytes are,
        // which are then held there.
        let (at, times): (Vec<usize>, Vec<_>) = generations
            .iter()
            .enumerate()
            .filter(|(_, info)| has_bytes(info) || info.moved_to().is_some())
            .map(|(at, info)| (at, (info.committed, until(info))))
            .unzip();
        for (at, kept_for) in at.into_iter().zip(policy.keep.reasons(&times, now)) {
            reasons[at] = kept_for;
        }
    }
    for (info, reasons) in generations.iter().zip(&mut reasons) {
        reasons.extend(held.reasons(info.generation));
    }
    let newest = generations.iter().rposition(has_bytes);
    if in_trash && let Some(newest) = newest {
        reasons[newest].push(Reason::Trash);
    }
    // Gone without a word: how long ago is not known, and it may have been a mistake.
    if !current
        && removed.is_none()
        && let Some(newest) = newest
    {
        reasons[newest].push(Reason::OnlyCopy);
    }
    // From the newest to the oldest, a whole one stays if a beginning of it does.
    let mut beginning: Option<Generation> = None;
    let mut holds = vec![None; generations.len()];
    for (at, info) in generations.iter().enumerate() {
        match &info.kept {
            Kept::Prefix(_) if !reasons[at].is_empty() => beginning = beginning.or(Some(info.generation)),
            Kept::Whole => holds[at] = beginning.take(),
            _ => {}
        }
    }
    for (reasons, older) in reasons.iter_mut().zip(holds) {
        reasons.extend(older.map(Reason::HoldsBytesOf));
    }
    // What a note says of the bytes before it must be known as long as these are there.
    let mut anything_older = false;
    for (at, info) in generations.iter().enumerate() {
        if !has_bytes(info) {
            if at + 1 == generations.len() {
                reasons[at].push(Reason::Number);
            } else if anything_older {
                reasons[at].push(Reason::Note);
            } else if !expired && policy.keep.keep_within.is_some_and(|age| until(info) >= age.before(now)) {
                reasons[at].push(Reason::Within);
            }
        }
        anything_older |= !reasons[at].is_empty();
    }
    let cause = if expired { Cause::TrashExpired } else { Cause::NoRule };
    let verdict = |reasons: Vec<Reason>| if reasons.is_empty() { Verdict::Drop(cause) } else { Verdict::Keep(reasons) };
    reasons.into_iter().map(verdict).collect()
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
