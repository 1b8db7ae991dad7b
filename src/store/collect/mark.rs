//! The first phase: what would go is written down.
//!
//! Below `gc/marks/`, in records of some thousand generations each, one JSON line for a key.

use std::io::{BufRead, BufReader};

use serde::{Deserialize, Serialize};

use super::super::pins::Protected;
use super::super::retention::Verdict;
use super::super::{Error, Result, Store};
use super::Pace;
use super::scan::Histories;
use super::state::{Phase, State};
use crate::backend::{GenerationInfo, Kept};
use crate::types::{Age, Generation, Key, Timestamp};

/// Where the records of what is marked are.
const MARKS: &str = "gc/marks";
/// So many generations are marked in one record, and one key's at most more.
const PER_RECORD: usize = 4096;
/// So many keys are looked at between two breaks.
const BATCH: usize = 64;
/// How long the numbers of a key are remembered at which nothing is any more.
const NUMBERS_KEPT: Age = Age::days(365);

/// What is marked of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Escaped.
    pub key: String,
    /// Number, commit and end of each, in nanoseconds.
    pub generations: Vec<(Generation, i64, i64)>,
    /// Nothing is left there but numbers, and these have been remembered for long enough.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forget: bool,
}

impl Mark {
    /// Whether it means this generation.
    pub fn holds(&self, info: &GenerationInfo) -> bool {
        let at = self.generations.binary_search_by_key(&info.generation, |(generation, ..)| *generation);
        at.is_ok_and(|at| self.generations[at] == identity(info))
    }
}

fn identity(info: &GenerationInfo) -> (Generation, i64, i64) {
    (info.generation, info.committed.nanos(), info.superseded.unwrap_or(info.committed).nanos())
}

/// The judgement on one key, for people.
#[derive(Debug)]
pub struct Judged {
    /// The key.
    pub key: Key,
    /// Whether there is an object now; its generation, which always stays, is not among the others.
    pub current: bool,
    /// Oldest first.
    pub generations: Vec<(GenerationInfo, Verdict)>,
}

impl Store {
    /// Judges all histories at or below a directory as of now, and changes nothing.
    ///
    /// # Errors
    /// The first listing that fails, and what `visit` says.
    pub fn judge_history(&self, dir: &Key, visit: &mut dyn FnMut(Judged) -> Result<()>) -> Result<()> {
        let now = self.now();
        let (config, protected) = (self.config()?, Protected::read(self)?);
        let mut histories = Histories::below(self, dir);
        while let Some((key, generations)) = histories.next()? {
            if generations.is_empty() {
                continue;
            }
            let (verdicts, current) = self.judge_key(&key, &generations, &config.retention, &protected, now)?;
            visit(Judged { key, current, generations: generations.into_iter().zip(verdicts).collect() })?;
        }
        Ok(())
    }

    pub(super) fn mark(&self, state: &mut State, pace: &mut Pace<'_>) -> Result<()> {
        // Before anything is looked at: what happens meanwhile is not judged by it.
        let cutoff = self.now();
        *state = State { phase: Phase::Marking, cutoff: cutoff.nanos(), last: state.last.take(), ..State::default() };
        state.write(self)?;
        self.clear_marks()?;
        let (config, protected) = (self.config()?, Protected::read(self)?);
        let mut histories = Histories::below(self, &Key::root());
        let (mut records, mut text, mut in_record, mut looked_at) = (0, Vec::new(), 0, 0);
        while let Some((key, generations)) = histories.next()? {
            looked_at += 1;
            if looked_at % BATCH == 0 && !pace.next()? {
                return Ok(());
            }
            if generations.is_empty() {
                continue;
            }
            let (verdicts, current) = self.judge_key(&key, &generations, &config.retention, &protected, cutoff)?;
            let before = |info: &GenerationInfo| info.superseded.is_some_and(|superseded| superseded < cutoff);
            let doomed = generations.iter().zip(&verdicts).filter(|(info, verdict)| verdict.drops() && before(info));
            let mut mark = Mark { key: key.escaped(), generations: Vec::new(), forget: false };
            for (info, _) in doomed {
                mark.generations.push(identity(info));
                state.marked += 1;
                state.marked_bytes += if info.kept == Kept::Whole { info.size } else { 0 };
            }
            mark.forget = !current && is_forgotten(&generations, cutoff);
            if mark.generations.is_empty() && !mark.forget {
                continue;
            }
            in_record += mark.generations.len().max(1);
            serde_json::to_writer(&mut text, &mark).map_err(|error| bad(error.into()))?;
            text.push(b'\n');
            if in_record >= PER_RECORD {
                self.backend.put_record(&record_path(records)?, &text)?;
                (records, in_record) = (records + 1, 0);
                text.clear();
            }
        }
        if !text.is_empty() {
            self.backend.put_record(&record_path(records)?, &text)?;
        }
        state.phase = Phase::Marked;
        state.marked_at = Some(self.now().nanos());
        state.write(self)
    }

    /// Removes all that is marked, and what was being written when a collector died: nobody else collects now.
    pub(super) fn clear_marks(&self) -> Result<()> {
        for record in self.backend.list_records(&Key::parse(MARKS)?)? {
            self.backend.remove_record(&record)?;
        }
        Ok(())
    }

    /// The records of what is marked, in order.
    pub(super) fn marks(&self) -> Result<Vec<Key>> {
        let mut records = self.backend.list_records(&Key::parse(MARKS)?)?;
        records.retain(|path| path.as_bytes().ends_with(b".jsonl"));
        records.sort();
        Ok(records)
    }

    pub(super) fn read_marks(&self, record: &Key) -> Result<Vec<Mark>> {
        let file = self.backend.open_record(record)?;
        let lines = BufReader::new(file).lines();
        // A line that can't be understood marks nothing.
        lines.filter_map(|line| line.map(|line| serde_json::from_str(&line).ok()).map_err(bad).transpose()).collect()
    }
}

/// Whether nothing is left but what remembers the numbers, and that for long enough.
pub(super) fn is_forgotten(generations: &[GenerationInfo], now: Timestamp) -> bool {
    let since = NUMBERS_KEPT.before(now);
    let old = |info: &GenerationInfo| info.superseded.unwrap_or(info.committed) < since;
    generations.iter().all(|info| matches!(info.kept, Kept::Lost(_)) && old(info))
}

fn record_path(number: usize) -> Result<Key> {
    Ok(Key::parse(format!("{MARKS}/{number:08}.jsonl"))?)
}

fn bad(source: std::io::Error) -> Error {
    Error::Records { what: "what is marked to be deleted", source }
}
