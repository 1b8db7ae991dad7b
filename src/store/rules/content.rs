//! What bytes are: of which media type, and whether they are text or JSON. All of it streams, so that an object of any
//! size costs no more memory than a small one.

use std::fmt;
use std::io::{self, BufReader, Read};

use serde::de::{self, Deserialize, Deserializer, IgnoredAny};

/// How deeply JSON may be nested. serde_json has the same limit where it builds values, so that no stack overflows.
pub const MAX_DEPTH: usize = 127;

/// Bytes at the beginning by which a type is told, as `infer` does it for files.
const HEAD: u64 = 8 << 10;

/// The types whose bytes are JSON, beside those that end in `+json`.
const JSON_TYPES: [&str; 2] = ["application/json", "text/json"];

/// The first halves of types that a wildcard can stand behind.
const FAMILIES: [&str; 6] = ["application", "audio", "font", "image", "text", "video"];

/// Bytes that can be read more than once.
pub trait Bytes {
    /// How many there are.
    ///
    /// # Errors
    /// The system's answer.
    fn size(&self) -> io::Result<u64>;

    /// Reads at an offset; fewer bytes than asked for only at the end.
    ///
    /// # Errors
    /// The system's answer.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// Reads bytes from their beginning.
pub struct Reader<'a> {
    bytes: &'a dyn Bytes,
    at: u64,
}

impl<'a> Reader<'a> {
    /// From the first byte on.
    pub fn new(bytes: &'a dyn Bytes) -> Self {
        Reader { bytes, at: 0 }
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.bytes.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// A media type that objects may have: `image/png`, `image/*`, `text/plain; charset=utf-8`, `application/json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaType {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// Any bytes.
    Any,
    /// Bytes that are JSON.
    Json,
    /// UTF-8 without NUL.
    Text,
    /// What `infer` calls this, by the first bytes.
    Magic(String),
    /// What `infer` puts into this family; text and JSON belong to theirs, too.
    Family(String),
}

impl MediaType {
    /// Reads a media type.
    ///
    /// # Errors
    /// When it is none, or one that can't be told from the bytes, as the text says.
    pub fn new(text: &str) -> Result<Self, String> {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let Some((family, rest)) = name.split_once('/').filter(|(a, b)| !a.is_empty() && !b.is_empty()) else {
            return Err(format!("{text:?} is no media type such as \"image/png\" or \"text/*\""));
        };
        for parameter in parts {
            let charset = parameter.to_ascii_lowercase();
            let charset = charset.strip_prefix("charset=").map(|name| name.trim_matches('"').to_owned());
            if family != "text" || !charset.is_some_and(|name| name == "utf-8" || name == "us-ascii") {
                return Err(format!("{text:?}: only text has a parameter, and that is charset=utf-8"));
            }
        }
        let kind = match (family, rest) {
            ("*", "*") | ("application", "octet-stream") => Kind::Any,
            (_, "*") if FAMILIES.contains(&family) => Kind::Family(family.to_owned()),
            _ if JSON_TYPES.contains(&&*name) || rest.ends_with("+json") => Kind::Json,
            _ if infer::is_mime_supported(&name) => Kind::Magic(name),
            ("text", _) if !rest.contains('*') => Kind::Text,
            _ => return Err(format!("{text:?} can't be told from the bytes of an object")),
        };
        Ok(MediaType { text: text.to_owned(), kind })
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        MediaType::new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// What is wrong with bytes that have none of these types; `None` when they have one.
///
/// # Errors
/// When the bytes can't be read.
pub fn wrong_type(bytes: &dyn Bytes, allowed: &[MediaType]) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    Reader::new(bytes).take(HEAD).read_to_end(&mut head)?;
    let found = infer::get(&head).map(|known| known.mime_type());
    let mut why = None;
    for media in allowed {
        let fault = match &media.kind {
            Kind::Any => None,
            Kind::Json => wrong_json(bytes)?,
            Kind::Text => wrong_text(bytes)?,
            Kind::Magic(name) => (found != Some(name)).then(String::new),
            Kind::Family(family) => match family.as_str() {
                "text" => wrong_text(bytes)?,
                family if found.is_some_and(|name| name.split('/').next() == Some(family)) => None,
                "application" => wrong_json(bytes)?.map(|_| String::new()),
                _ => Some(String::new()),
            },
        };
        match fault {
            None => return Ok(None),
            Some(text) if !text.is_empty() => why = Some(text),
            Some(_) => {}
        }
    }
    let list: Vec<_> = allowed.iter().map(|media| media.text.as_str()).collect();
    let list = list.join(" or ");
    Ok(Some(match (found, why) {
        (Some(name), _) => format!("it is {name}, and must be {list}"),
        (None, Some(why)) => format!("it must be {list}: {why}"),
        (None, None) => format!("it must be {list}, and its bytes don't begin like that"),
    }))
}

/// What is wrong with bytes that are not UTF-8, or hold a NUL; `None` when they are text.
fn wrong_text(bytes: &dyn Bytes) -> io::Result<Option<String>> {
    let mut guard = Guard::new(Reader::new(bytes), Guards::Text);
    match io::copy(&mut guard, &mut io::sink()) {
        Ok(_) => Ok(None),
        Err(error) => guard.fault.map_or(Err(error), |fault| Ok(Some(fault))),
    }
}

/// What is wrong with bytes that are not one JSON value; `None` when they are.
///
/// # Errors
/// When the bytes can't be read.
pub fn wrong_json(bytes: &dyn Bytes) -> io::Result<Option<String>> {
    Ok(read_json::<IgnoredAny>(bytes)?.err())
}

/// Reads one JSON value; the inner error says what is wrong with it.
///
/// # Errors
/// When the bytes can't be read.
pub fn read_json<T: de::DeserializeOwned>(bytes: &dyn Bytes) -> io::Result<Result<T, String>> {
    if bytes.size()? == 0 {
        return Ok(Err("it is empty".to_owned()));
    }
    let mut guard = Guard::new(Reader::new(bytes), Guards::Json);
    let read = serde_json::from_reader(BufReader::with_capacity(64 << 10, &mut guard));
    match (read, guard.fault) {
        (Ok(value), None) => Ok(Ok(value)),
        (_, Some(fault)) => Ok(Err(fault)),
        (Err(error), None) if error.is_io() => Err(error.into()),
        (Err(error), None) => Ok(Err(error.to_string())),
    }
}

/// What a [`Guard`] lets through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guards {
    /// UTF-8 without NUL.
    Text,
    /// UTF-8 whose brackets are not nested too deeply; the rest is for the parser to say. What it skips it doesn't look
    /// at, and there it counts the nesting in memory that grows with it.
    Json,
}

/// Passes bytes on as long as there is nothing wrong with them.
struct Guard<R> {
    inner: R,
    guards: Guards,
    /// The beginning of a character that the next bytes go on with.
    pending: Vec<u8>,
    /// Bytes before `pending`.
    passed: u64,
    depth: usize,
    in_string: bool,
    escaped: bool,
    fault: Option<String>,
}

impl<R> Guard<R> {
    fn new(inner: R, guards: Guards) -> Self {
        let (pending, passed, depth) = (Vec::new(), 0, 0);
        Guard { inner, guards, pending, passed, depth, in_string: false, escaped: false, fault: None }
    }

    /// Looks at the next bytes; none: at the end.
    fn look(&mut self, bytes: &[u8]) -> Result<(), String> {
        match self.guards {
            Guards::Text => {
                if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
                    let at = self.passed + (self.pending.len() + at) as u64;
                    return Err(format!("byte {at} is NUL, which no text holds"));
                }
            }
            Guards::Json => self.look_at_nesting(bytes)?,
        }
        let at_end = bytes.is_empty();
        self.pending.extend_from_slice(bytes);
        let (good, broken) = match std::str::from_utf8(&self.pending) {
            Ok(_) => (self.pending.len(), false),
            Err(error) => (error.valid_up_to(), error.error_len().is_some() || at_end),
        };
        self.passed += good as u64;
        if broken {
            return Err(format!("it is no UTF-8 from byte {} on", self.passed));
        }
        self.pending.drain(..good);
        Ok(())
    }

    fn look_at_nesting(&mut self, bytes: &[u8]) -> Result<(), String> {
        for byte in bytes {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'[' | b'{' => self.depth += 1,
                b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            if self.depth > MAX_DEPTH {
                return Err(format!("it is nested more than {MAX_DEPTH} levels deep"));
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Guard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if buffer.is_empty() {
            return Ok(0);
        }
        self.look(&buffer[..n]).map_err(|fault| {
            self.fault = Some(fault);
            io::Error::from(io::ErrorKind::InvalidData)
        })?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Bytes for &[u8] {
        fn size(&self) -> io::Result<u64> {
            Ok(self.len() as u64)
        }

        /// At most seven at a time, so that characters are cut.
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            let rest = &self[(offset as usize).min(self.len())..];
            let n = rest.len().min(buffer.len()).min(7);
            buffer[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        }
    }

    fn json(bytes: &[u8]) -> Option<String> {
        wrong_json(&bytes).unwrap()
    }

    #[test]
    fn json_is_one_value_of_utf8_and_not_nested_without_end() {
        for good in ["{}", " [1, 2.5e3, \"ä]]]\\\"[\"] \n", "null", &("[".repeat(127) + &"]".repeat(127))] {
            assert_eq!(json(good.as_bytes()), None, "{good}");
        }
        for (bad, why) in [
            (&b""[..], "empty"),
            (b" ", "EOF"),
            (b"{\"a\":1", "EOF"),
            (b"{} {}", "trailing characters"),
            (b"{'a':1}", "line 1 column 2"),
            (b"\"a\nb\"", "control character"),
            (b"\"abcdef\xff\"", "no UTF-8 from byte 7"),
            (b"\"abcdef\xc3", "no UTF-8 from byte 7"),
            (b"\xef\xbb\xbf{}", "expected value"),
            ("[".repeat(128).as_bytes(), "127 levels"),
            ("[{\"a\":".repeat(1 << 20).as_bytes(), "127 levels"),
        ] {
            let said = json(bad).unwrap();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn types_are_told_by_the_bytes() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        let wrong = |types: &[&str], bytes: &[u8]| {
            let types: Vec<_> = types.iter().map(|text| MediaType::new(text).unwrap()).collect();
            wrong_type(&bytes, &types).unwrap()
        };
        for (types, bytes) in [
            (&["image/png"][..], &png[..]),
            (&["image/*"], png),
            (&["text/plain; charset=utf-8", "image/*"], png),
            (&["text/plain"], "grün\n".as_bytes()),
            (&["text/markdown"], b""),
            (&["text/*"], b"<!DOCTYPE html>"),
            (&["text/html"], b"<!DOCTYPE HTML><p>"),
            (&["application/json"], b"[]"),
            (&["application/vnd.api+json"], b"[]"),
            (&["application/*"], b"%PDF-1.7\n"),
            (&["application/pdf"], b"%PDF-1.7\n"),
            (&["*/*"], b"\0"),
        ] {
            assert_eq!(wrong(types, bytes), None, "{types:?}");
        }
        for (types, bytes, why) in [
            (&["image/*"][..], &b"text"[..], "must be image/*"),
            (&["image/jpeg", "image/gif"], png, "it is image/png, and must be image/jpeg or image/gif"),
            (&["text/plain"], b"abc\xffd", "no UTF-8 from byte 3"),
            (&["text/plain"], b"abcdefghi\0d", "byte 9 is NUL"),
            (&["application/json"], b"{", "EOF"),
            (&["image/*"], b"", "must be image/*"),
        ] {
            let said = wrong(types, bytes).unwrap();
            assert!(said.contains(why), "{said}");
        }
        for text in ["", "png", "image/", "imgae/*", "image/svg+xml", "text/plain; charset=latin1", "video/mp4; a=b"] {
            assert!(MediaType::new(text).is_err(), "{text}");
        }
    }
}
