//! The sections `[retention]` and `[gc]` of the policy file: which rules hold for which key, and how the collector
//! behaves.
//!
//! A section that says nothing means the defaults, which are meant for somebody who has not thought about it. What
//! is said replaces them: a `[retention]` with any `keep_…` has only the rules that it names, and so has a rule for a
//! class or a path. Of several rules that match a key the last one counts, as in a `.gitignore`.

use std::path::Path;

use globset::{Glob, GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Deserializer};

use super::retention::{Keep, Policy};
use crate::types::{Age, Key};

/// Names of files that make no history: what editors and programs write beside the files that people mean.
const EPHEMERAL: [&str; 9] = ["*~", ".*.sw?", "4913", ".#*", "#*#", "*.tmp", ".~lock.*#", "~$*", ".goutputstream-*"];
/// How long what came to such a name by a rename is kept all the same.
const EPHEMERAL_KEPT: Age = Age::days(1);

/// `[retention]`: what is kept of the history.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct Retention {
    /// The rules for all that no other rule is for.
    #[serde(flatten, deserialize_with = "rest")]
    pub keep: Keep,
    /// How long a removed object can be brought back.
    pub trash_keep: Age,
    /// How long conflicts are kept.
    pub conflicts_keep: Age,
    /// Names (or, with a slash, paths) of files whose saves are not kept, and that leave nothing when removed.
    pub ephemeral: Patterns,
    /// Rules for a class or a path, the last that matches counts.
    pub rule: Vec<Rule>,
    /// Which snapshots stay; all, unless a rule is given.
    pub snapshots: Keep,
}

/// `[[retention.rule]]`: rules of their own for a class, or for the paths that match a pattern.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// The class that it is for.
    pub class: Option<String>,
    /// The names or paths that it is for.
    pub path: Option<Pattern>,
    /// What is kept.
    #[serde(flatten, deserialize_with = "rest")]
    pub keep: Keep,
    /// How long removed objects can be brought back, if otherwise than elsewhere.
    pub trash_keep: Option<Age>,
}

/// `[gc]`: how the collector behaves.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gc {
    /// Whether mounts collect by themselves.
    pub background: bool,
    /// How long after the end of a run the next one begins.
    pub every: Age,
    /// How long something is marked before it is deleted.
    pub grace: Age,
    /// How much of the time the collector of a mount may be busy, in percent.
    pub load: Percent,
    /// The oldest history goes, whatever the rules say, when less of the medium is free. `0%`: never.
    pub min_free: Percent,
}

/// A pattern for names or paths, with the wildcards of globset: `*`, `?`, `**`, `[ab]`, `{a,b}`. One without a slash
/// is matched against the last name of a key, another one against the whole key.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    glob: Glob,
    matcher: GlobMatcher,
}

/// Several patterns of which any may match. Each save asks that, so all are looked for in one go.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "Vec<Pattern>")]
pub struct Patterns {
    each: Vec<Pattern>,
    of_names: GlobSet,
    of_paths: GlobSet,
}

/// A share, from 0 to 100 in the hundred, written `5%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

impl Default for Retention {
    fn default() -> Self {
        Retention {
            keep: Keep::default(),
            trash_keep: Age::days(30),
            conflicts_keep: Age::days(90),
            ephemeral: EPHEMERAL
                .iter()
                .filter_map(|text| Pattern::new(text).ok())
                .collect::<Vec<_>>()
                .try_into()
                .unwrap_or_default(),
            rule: Vec::new(),
            snapshots: Keep::default(),
        }
    }
}

impl Default for Gc {
    fn default() -> Self {
        Gc { background: true, every: hours(1), grace: hours(1), load: Percent(20), min_free: Percent(5) }
    }
}

fn hours(number: u32) -> Age {
    // A number and a unit always are a span of time.
    format!("{number}h").parse().unwrap_or(Age::days(1))
}

/// What holds where the policy names no rule: a week of everything, then one a day, a week and a month.
fn default_keep() -> Keep {
    Keep {
        keep_last: Some(10),
        keep_within: Some(Age::days(7)),
        keep_daily: Some(30),
        keep_weekly: Some(12),
        keep_monthly: Some(24),
        ..Keep::default()
    }
}

/// The rules among the fields of a section, of which all others were taken out. A misspelt one is an error, which serde
/// alone doesn't see to where structures are flattened.
fn rest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Keep, D::Error> {
    toml::Table::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
}

impl Retention {
    /// The rules for a key.
    pub fn policy(&self, key: &Key) -> Policy {
        if self.is_ephemeral(key) {
            let keep = Keep { keep_within: Some(EPHEMERAL_KEPT), ..Keep::default() };
            return Policy { keep, trash: EPHEMERAL_KEPT };
        }
        let rule = self.rule.iter().rev().find(|rule| rule.is_for(key));
        let keep = match rule.map(|rule| &rule.keep) {
            Some(keep) if !keep.is_unset() => keep.clone(),
            _ if self.keep.is_unset() => default_keep(),
            _ => self.keep.clone(),
        };
        Policy { keep, trash: rule.and_then(|rule| rule.trash_keep).unwrap_or(self.trash_keep) }
    }

    /// Whether saves of this key are not kept.
    pub fn is_ephemeral(&self, key: &Key) -> bool {
        self.ephemeral.match_any(key)
    }

    /// What is wrong with it, if anything.
    pub fn fault(&self) -> Option<String> {
        let empty = |keep: &Keep| !keep.is_unset() && keep.is_empty();
        let keeps_nothing = "keeps nothing of the history; leave out what is not meant, or name the files that need \
                             none in retention.ephemeral";
        if empty(&self.keep) || empty(&self.snapshots) {
            return Some(format!("[retention] {keeps_nothing}"));
        }
        for (at, rule) in self.rule.iter().enumerate() {
            let number = at + 1;
            if rule.class.is_some() == rule.path.is_some() {
                return Some(format!("[[retention.rule]] {number} must have either 'class' or 'path'"));
            }
            if empty(&rule.keep) {
                return Some(format!("[[retention.rule]] {number} {keeps_nothing}"));
            }
            if rule.keep.is_unset() && rule.trash_keep.is_none() {
                return Some(format!("[[retention.rule]] {number} says nothing"));
            }
        }
        None
    }
}

impl Rule {
    fn is_for(&self, key: &Key) -> bool {
        let class = || self.class.as_ref().is_some_and(|name| key.class().is_some_and(|c| c.as_os_str() == &**name));
        class() || self.path.as_ref().is_some_and(|pattern| pattern.matches(key))
    }
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it can't be understood, as the text says.
    pub fn new(text: &str) -> Result<Self, String> {
        let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
        let glob = glob.map_err(|error| error.to_string())?;
        Ok(Pattern { text: text.to_owned(), matcher: glob.compile_matcher(), glob })
    }

    /// What was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it means this key.
    pub fn matches(&self, key: &Key) -> bool {
        match key.name() {
            Some(name) if !self.is_of_paths() => self.matcher.is_match(Path::new(name)),
            _ => self.matcher.is_match(key.as_path()),
        }
    }

    /// Whether it is matched against whole keys.
    pub fn is_of_paths(&self) -> bool {
        self.text.contains('/')
    }
}

impl Patterns {
    /// Whether any of them means this key.
    pub fn match_any(&self, key: &Key) -> bool {
        key.name().is_some_and(|name| self.of_names.is_match(Path::new(name))) || self.of_paths.is_match(key.as_path())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Pattern> {
        self.each.iter()
    }
}

impl TryFrom<Vec<Pattern>> for Patterns {
    type Error = globset::Error;

    fn try_from(each: Vec<Pattern>) -> Result<Self, globset::Error> {
        let set = |of_paths: bool| {
            let mut set = GlobSetBuilder::new();
            for pattern in each.iter().filter(|pattern| pattern.is_of_paths() == of_paths) {
                set.add(pattern.glob.clone());
            }
            set.build()
        };
        let (of_names, of_paths) = (set(false)?, set(true)?);
        Ok(Patterns { each, of_names, of_paths })
    }
}

impl PartialEq for Patterns {
    fn eq(&self, other: &Self) -> bool {
        self.each == other.each
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Pattern::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Percent {
    /// In the hundred.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Everything.
    pub const ALL: Percent = Percent(100);
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = text.strip_suffix('%').and_then(|number| number.parse().ok()).filter(|number| *number <= 100);
        number.map(Percent).ok_or_else(|| serde::de::Error::custom("a share is written as \"5%\", from 0% to 100%"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Retention {
        toml::from_str(text).unwrap()
    }

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    #[test]
    fn the_last_rule_that_matches_counts() {
        let retention = read(
            "keep_last = 3\n[[rule]]\nclass = 'Log'\nkeep_within = '1d'\n\
             [[rule]]\npath = 'Log/**/*.gz'\ntrash_keep = '1h'\n[[rule]]\npath = '*.iso'\nkeep_last = 1",
        );
        let keep = |text: &str| retention.policy(&key(text)).keep;
        assert_eq!(keep("Note/a"), Keep { keep_last: Some(3), ..Keep::default() });
        assert_eq!(keep("Log/a"), Keep { keep_within: Some(Age::days(1)), ..Keep::default() });
        assert_eq!(keep("Log/x.iso"), Keep { keep_last: Some(1), ..Keep::default() });
        // It says nothing of what is kept, so that is as for all.
        assert_eq!(keep("Log/d/e/a.gz"), Keep { keep_last: Some(3), ..Keep::default() });
        assert_eq!(retention.policy(&key("Log/d/e/a.gz")).trash, hours(1));
        assert_eq!(retention.policy(&key("Note/a")).trash, Age::days(30));
        assert_eq!(Retention::default().policy(&key("Note/a")).keep, default_keep());
    }

    #[test]
    fn what_keeps_nothing_is_refused() {
        for text in ["keep_last = 0", "keep_within = '0s'\nkeep_daily = 0", "[[rule]]\nclass = 'a'\nkeep_last = 0"] {
            assert!(read(text).fault().unwrap().contains("keeps nothing"), "{text}");
        }
        for text in
            ["[[rule]]\nkeep_last = 1", "[[rule]]\nclass = 'a'\npath = 'b'\nkeep_last = 1", "[[rule]]\nclass = 'a'"]
        {
            assert!(read(text).fault().is_some(), "{text}");
        }
        for text in ["", "keep_all = true", "trash_keep = '1d'", "[snapshots]\nkeep_last = 7"] {
            assert_eq!(read(text).fault(), None, "{text}");
        }
        for text in ["keep_lost = 3", "[[rule]]\nclas = 'a'\nkeep_last = 1", "ephemeral = ['[']", "keep_within = '3'"] {
            assert!(toml::from_str::<Retention>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_editors_leave_is_ephemeral() {
        let retention = Retention::default();
        for name in ["a/b~", ".notes.swp", "d/.x.swo", "4913", ".#lock", "#auto#", "x.tmp", ".~lock.t.odt#", "~$t.doc"]
        {
            assert!(retention.is_ephemeral(&key(name)), "{name}");
        }
        for name in ["notes", "a~/b", "swp", "tmp", "x.tmp/y", "#", "14913", "a.swp"] {
            assert!(!retention.is_ephemeral(&key(name)), "{name}");
        }
        assert!(read("ephemeral = ['Build/**']").is_ephemeral(&key("Build/x/y")));
        assert!(read("ephemeral = []").policy(&key("x~")).keep == default_keep());
    }
}
