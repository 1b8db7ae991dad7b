//! Keys: the paths that name objects within a store.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// The longest name of one path component, in bytes (`NAME_MAX` of every Linux filesystem).
pub const NAME_MAX: usize = 255;

/// The name at the root of every store that belongs to Sepia itself.
pub const RESERVED_NAME: &[u8] = b".sepia";

/// Why a key or a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// An empty name, or two slashes in a row.
    #[error("a name must not be empty")]
    Empty,
    /// `.` or `..`, which mean directories.
    #[error("'.' and '..' are not names of objects")]
    Dots,
    /// A NUL byte, which no filesystem can store.
    #[error("a name must not hold a NUL byte")]
    Nul,
    /// A slash inside one name.
    #[error("a name must not hold a slash")]
    Slash,
    /// Longer than [`NAME_MAX`] bytes.
    #[error("a name must not be longer than 255 bytes")]
    TooLong,
    /// `.sepia` at the root, where Sepia keeps its own records.
    #[error("'.sepia' at the root of a store is reserved for Sepia's own records")]
    Reserved,
}

/// The first component of a key: `Note` in `Note/note-1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class(OsString);

impl Class {
    /// The class as the name of a directory at the root of the store.
    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }
}

/// The path of an object below the root of its store: bytes, components joined by single slashes.
///
/// The root itself is the empty key. A key never holds an empty component, `.`, `..` or NUL, and never starts
/// with the reserved name, so joining it to a directory can't lead out of that directory.
///
/// ```
/// use sepia::Key;
/// let key = Key::parse("Board/b1/data.json")?;
/// assert_eq!(key.parent().unwrap().to_string(), "Board/b1");
/// assert_eq!(key.name().unwrap(), "data.json");
/// assert!(Key::parse("Note/../etc").is_err());
/// # Ok::<(), sepia::KeyError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Box<[u8]>);

impl Key {
    /// The root of the store.
    pub fn root() -> Self {
        Key(Box::default())
    }

    /// Reads a path such as `Note/note-1`. Leading and trailing slashes are dropped; the empty path is the root.
    ///
    /// # Errors
    /// A [`KeyError`] when a component is not a valid name.
    pub fn parse(path: impl AsRef<OsStr>) -> Result<Self, KeyError> {
        let bytes = path.as_ref().as_bytes();
        let start = bytes.iter().take_while(|&&b| b == b'/').count();
        let end = bytes.len() - bytes[start..].iter().rev().take_while(|&&b| b == b'/').count();
        let bytes = &bytes[start..end];
        if bytes.is_empty() {
            return Ok(Self::root());
        }
        for (depth, name) in bytes.split(|&b| b == b'/').enumerate() {
            check_name(name)?;
            if depth == 0 && name == RESERVED_NAME {
                return Err(KeyError::Reserved);
            }
        }
        Ok(Key(bytes.into()))
    }

    /// The key of an object in a class by its ID. A slash in the ID becomes `_`, as in the original Sepia library.
    ///
    /// # Errors
    /// A [`KeyError`] when the class or the ID is not a valid name.
    pub fn object(class: &str, id: &str) -> Result<Self, KeyError> {
        Self::root().child(OsStr::new(class))?.child(OsStr::new(&id.replace('/', "_")))
    }

    /// The key of the entry `name` in the directory `self`.
    ///
    /// # Errors
    /// A [`KeyError`] when `name` is not a valid name, or is the reserved one at the root.
    pub fn child(&self, name: &OsStr) -> Result<Self, KeyError> {
        let name = name.as_bytes();
        check_name(name)?;
        if self.is_root() {
            if name == RESERVED_NAME {
                return Err(KeyError::Reserved);
            }
            return Ok(Key(name.into()));
        }
        let mut path = Vec::with_capacity(self.0.len() + 1 + name.len());
        path.extend_from_slice(&self.0);
        path.push(b'/');
        path.extend_from_slice(name);
        Ok(Key(path.into()))
    }

    /// Whether this is the root of the store.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that the key is in; `None` for the root.
    pub fn parent(&self) -> Option<Key> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(Key(self.0[..end].into()))
    }

    /// The last component; `None` for the root.
    pub fn name(&self) -> Option<&OsStr> {
        if self.is_root() {
            return None;
        }
        let start = self.0.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
        Some(OsStr::from_bytes(&self.0[start..]))
    }

    /// The first component; `None` for the root.
    pub fn class(&self) -> Option<Class> {
        let first = self.0.split(|&b| b == b'/').next().filter(|name| !name.is_empty())?;
        Some(Class(OsStr::from_bytes(first).to_owned()))
    }

    /// Whether `self` is `dir` or lies below it.
    pub fn is_within(&self, dir: &Key) -> bool {
        dir.is_root() || (self.0.starts_with(&dir.0) && (self.0.len() == dir.0.len() || self.0[dir.0.len()] == b'/'))
    }

    /// The same key after the directory `from` was renamed to `to`; `None` when `self` is not within `from`.
    pub fn rebase(&self, from: &Key, to: &Key) -> Option<Key> {
        if !self.is_within(from) {
            return None;
        }
        let rest = &self.0[from.0.len()..];
        let rest = if to.is_root() || from.is_root() { rest.strip_prefix(b"/").unwrap_or(rest) } else { rest };
        let mut path = to.0.to_vec();
        if from.is_root() && !to.is_root() && !rest.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(rest);
        Some(Key(path.into()))
    }

    /// The bytes of the path; empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key as a relative path; empty for the root.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The names from the root down.
    pub fn components(&self) -> impl Iterator<Item = &OsStr> {
        self.0.split(|&b| b == b'/').filter(|name| !name.is_empty()).map(OsStr::from_bytes)
    }

    /// The key in a form that any text format can hold: bytes outside printable ASCII, `%` and `"` as `%XX`.
    pub fn escaped(&self) -> String {
        escape(&self.0)
    }

    /// Reads what [`Key::escaped`] wrote.
    ///
    /// # Errors
    /// A [`KeyError`] when the unescaped bytes are not a key.
    pub fn unescape(text: &str) -> Result<Self, KeyError> {
        Self::parse(OsString::from_vec(unescape(text)))
    }
}

/// Any bytes in the form of [`Key::escaped`].
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if (byte.is_ascii_graphic() || byte == b' ') && !matches!(byte, b'%' | b'"' | b'\\') {
            text.push(byte as char);
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// What [`escape`] made a text of.
pub fn unescape(text: &str) -> Vec<u8> {
    let text = text.as_bytes();
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let code = (text[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(code.unwrap_or(text[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    bytes
}

fn check_name(name: &[u8]) -> Result<(), KeyError> {
    match name {
        b"" => Err(KeyError::Empty),
        b"." | b".." => Err(KeyError::Dots),
        _ if name.len() > NAME_MAX => Err(KeyError::TooLong),
        _ if name.contains(&0) => Err(KeyError::Nul),
        _ if name.contains(&b'/') => Err(KeyError::Slash),
        _ => Ok(()),
    }
}

impl fmt::Display for Key {
    /// The key for people: control characters and invalid UTF-8 are escaped, so that a message stays on its line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str("/");
        }
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    #[test]
    fn refuses_what_is_no_name() {
        for (text, error) in [
            ("a//b", KeyError::Empty),
            ("a/./b", KeyError::Dots),
            ("..", KeyError::Dots),
            ("a\0b", KeyError::Nul),
            (".sepia/x", KeyError::Reserved),
            (&"x".repeat(256), KeyError::TooLong),
        ] {
            assert_eq!(Key::parse(text), Err(error), "{text:?}");
        }
        assert!(Key::parse("a/.sepia").is_ok());
        assert!(Key::parse("x".repeat(255)).is_ok());
    }

    #[test]
    fn takes_itself_apart() {
        let k = key("/Board/b1/data.json/");
        assert_eq!(k.parent().unwrap(), key("Board/b1"));
        assert_eq!(k.class().unwrap().as_os_str(), "Board");
        assert_eq!(k.components().count(), 3);
        assert_eq!(key("Note").parent().unwrap(), Key::root());
        assert_eq!(Key::root().parent(), None);
    }

    #[test]
    fn moves_with_its_directory() {
        assert_eq!(key("a/b/c").rebase(&key("a"), &key("x/y")), Some(key("x/y/b/c")));
        assert_eq!(key("a").rebase(&key("a"), &key("x")), Some(key("x")));
        assert_eq!(key("ab/c").rebase(&key("a"), &key("x")), None);
    }

    #[test]
    fn escapes_and_comes_back() {
        let odd = Key::parse(OsStr::from_bytes(b"a/\xff\n%41 \"b")).unwrap();
        assert_eq!(Key::unescape(&odd.escaped()).unwrap(), odd);
        assert!(odd.escaped().is_ascii());
    }

    #[test]
    fn an_id_with_a_slash_is_one_name() {
        assert_eq!(Key::object("Note", "a/b").unwrap(), key("Note/a_b"));
    }
}
