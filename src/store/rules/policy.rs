//! The sections `[[rule]]` of the policy file: what must be so of the objects of a class.

use regex::bytes::Regex;
use serde::{Deserialize, Deserializer, de};

use super::content::MediaType;
use super::schema::SchemaPath;
use crate::store::policy::{Pattern, Patterns, Retention};
use crate::types::{Key, Size};

/// Bytes up to which objects are checked by a schema where the rule says nothing else: the value is built in memory,
/// at up to a hundred times the size of its text (measured: `[{"":0},{"":0},…]`).
pub const SCHEMA_SIZE: Size = Size::new(1 << 20);

/// `[[rule]]`: what must be so of the objects of a class. All rules that are for a key hold.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The class that it is for.
    pub class: String,
    /// Only for the names (or, with a slash, paths) that match.
    pub path: Option<Pattern>,
    /// Not for the names or paths that match.
    #[serde(default)]
    pub except: Patterns,
    /// The largest object.
    pub max_size: Option<Size>,
    /// How many objects the class may have.
    pub max_objects: Option<u64>,
    /// What IDs look like.
    pub id: Option<IdPattern>,
    /// The media types of which each object must have one.
    #[serde(default, deserialize_with = "one_or_more")]
    pub content_type: Vec<MediaType>,
    /// Whether objects must be JSON.
    #[serde(default)]
    pub json: bool,
    /// The JSON Schema to which objects must conform.
    pub schema: Option<SchemaPath>,
    /// How many attributes (`user.*`) an object may have.
    pub max_xattrs: Option<u64>,
    /// The largest value of an attribute.
    pub max_xattr_size: Option<Size>,
    /// How much the names and values of all attributes of an object may come to.
    pub max_xattrs_size: Option<Size>,
}

/// What a whole ID must match: a regular expression of the `regex` crate.
#[derive(Debug, Clone)]
pub struct IdPattern {
    text: String,
    regex: Regex,
}

impl IdPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it can't be understood, as the text says.
    pub fn new(text: &str) -> Result<Self, String> {
        // By itself, so that the message shows what was written.
        Regex::new(text).map_err(|error| error.to_string())?;
        let regex = Regex::new(&format!(r"\A(?:{text})\z")).map_err(|error| error.to_string())?;
        Ok(IdPattern { text: text.to_owned(), regex })
    }

    /// Whether all of an ID matches.
    pub fn matches(&self, id: &[u8]) -> bool {
        self.regex.is_match(id)
    }

    /// What was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for IdPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl<'de> Deserialize<'de> for IdPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IdPattern::new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<MediaType>, D::Error> {
    let value = toml::Value::deserialize(deserializer)?;
    let listed = if value.is_array() { value } else { toml::Value::Array(vec![value]) };
    Vec::deserialize(listed).map_err(de::Error::custom)
}

impl Rule {
    /// Whether it is for what is at a key: something in its class, but no file that makes no history, for that is
    /// what programs write on the way to an object.
    pub fn is_for(&self, key: &Key, retention: &Retention) -> bool {
        let mut names = key.components();
        names.next().is_some_and(|class| class == &*self.class)
            && names.next().is_some()
            && self.path.as_ref().is_none_or(|pattern| pattern.matches(key))
            && !self.except.match_any(key)
            && !retention.is_ephemeral(key)
    }

    /// The largest object, whoever said so.
    pub fn size_limit(&self) -> Option<Size> {
        self.max_size.or(self.schema.as_ref().map(|_| SCHEMA_SIZE))
    }

    /// Whether it says something of the bytes.
    pub fn is_about_bytes(&self) -> bool {
        self.size_limit().is_some() || !self.content_type.is_empty() || self.json
    }

    /// Whether bytes that are good may be bad behind other good ones.
    pub fn is_about_the_whole(&self) -> bool {
        self.json || self.schema.is_some() || !self.content_type.is_empty()
    }

    /// Whether it says something of attributes.
    pub fn is_about_attributes(&self) -> bool {
        self.max_xattrs.is_some() || self.max_xattr_size.is_some() || self.max_xattrs_size.is_some()
    }

    /// What is wrong with it, if anything.
    fn fault(&self) -> Option<String> {
        if self.class.is_empty() || self.class.contains('/') || self.class == ".sepia" {
            return Some("must have the name of a class in 'class'".to_owned());
        }
        let sizes = [self.max_size, self.max_xattr_size, self.max_xattrs_size].into_iter().flatten().map(Size::bytes);
        let counts = [self.max_objects, self.max_xattrs].into_iter().flatten();
        if sizes.chain(counts).any(|number| number == 0) {
            return Some("has a limit of 0, which nothing could keep".to_owned());
        }
        if self.max_objects.is_some() && self.path.is_some() {
            return Some("has 'max_objects', which is for a whole class, and 'path'".to_owned());
        }
        let limits_names = self.max_objects.is_some() || self.id.is_some();
        (!limits_names && !self.is_about_attributes() && !self.is_about_bytes()).then(|| "says nothing".to_owned())
    }
}

/// What is wrong with the rules, if anything.
pub fn fault(rules: &[Rule]) -> Option<String> {
    for (at, rule) in rules.iter().enumerate() {
        let number = at + 1;
        let class = &rule.class;
        if let Some(fault) = rule.fault() {
            return Some(format!("[[rule]] {number} (class {class:?}) {fault}"));
        }
        let counts = |rule: &&Rule| rule.max_objects.is_some() && rule.class == *class;
        if rule.max_objects.is_some() && rules[..at].iter().any(|other| counts(&other)) {
            return Some(format!("[[rule]] {number} is the second with 'max_objects' for class {class:?}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Config;

    fn read(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        fault(&config.rule).map_or(Ok(config), Err)
    }

    #[test]
    fn a_rule_is_for_the_objects_of_its_class() {
        let config = read(
            "[[rule]]\nclass = 'Note'\njson = true\nexcept = ['README']\n\
             [[rule]]\nclass = 'Board'\npath = '*.json'\nmax_size = '1 kB'\ncontent_type = 'application/json'",
        )
        .unwrap();
        let is_for = |rule: usize, key: &str| config.rule[rule].is_for(&Key::parse(key).unwrap(), &config.retention);
        for key in ["Note/a", "Note/a/b", "Note/.hidden"] {
            assert!(is_for(0, key), "{key}");
        }
        for key in ["Note", "Notes/a", "Other/Note/a", "Note/a~", "Note/.a.swp", "Note/README"] {
            assert!(!is_for(0, key), "{key}");
        }
        assert!(is_for(1, "Board/b1/data.json") && is_for(1, "Board/x.json"));
        assert!(!is_for(1, "Board/b1") && !is_for(1, "Board/b1/data.txt"));
    }

    #[test]
    fn a_rule_that_can_not_be_meant_is_refused() {
        for (text, why) in [
            ("class = 'a'", "says nothing"),
            ("class = 'a'\njson = false", "says nothing"),
            ("class = 'a'\nmax_size = 0", "limit of 0"),
            ("class = 'a'\nmax_objects = 0", "limit of 0"),
            ("class = 'a'\nmax_xattrs = 0", "limit of 0"),
            ("class = 'a'\nmax_size = '10 M'", "\"10 M\" is no size"),
            ("class = 'a'\nmax_size = -1", "a size is a number of bytes"),
            ("class = 'a/b'\njson = true", "name of a class"),
            ("json = true", "missing field `class`"),
            ("class = 'a'\nmax_sise = 1", "unknown field `max_sise`"),
            ("class = 'a'\nid = '[a'", "unclosed character class"),
            ("class = 'a'\nid = 'a)|(b'", "unopened group"),
            ("class = 'a'\ncontent_type = 'imgae/*'", "can't be told"),
            ("class = 'a'\ncontent_type = ['text/plain; charset=koi8-r']", "charset=utf-8"),
            ("class = 'a'\nschema = 'https://example.org/s.json'", "a schema is a file of the store"),
            ("class = 'a'\nschema = '../s.json'", "no path below .sepia"),
            ("class = 'a'\nmax_objects = 1\npath = 'b*'", "whole class"),
            ("class = 'a'\nmax_objects = 1\n[[rule]]\nclass = 'a'\nmax_objects = 2", "the second with 'max_objects'"),
        ] {
            let said = read(&format!("[[rule]]\n{text}")).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn an_id_matches_as_a_whole() {
        let pattern = IdPattern::new("[a-z]+|x-[0-9]+").unwrap();
        for id in ["abc", "x-17"] {
            assert!(pattern.matches(id.as_bytes()), "{id}");
        }
        for id in ["", "abc1", "x-17a", "ax-17", "abc\n"] {
            assert!(!pattern.matches(id.as_bytes()), "{id}");
        }
        assert!(!IdPattern::new(".*").unwrap().matches(b"\xff"), "what is no UTF-8 is no character");
    }
}
