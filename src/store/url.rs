//! Where a store is: the URLs that people type.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Error, Result};

/// The place of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A directory of plain files.
    File(PathBuf),
    /// In memory, gone with the process.
    Memory,
}

impl Location {
    /// Reads `memory:`, `file:DIR`, `file:///DIR`, or a plain path (which must not look like a URL of another kind).
    ///
    /// # Errors
    /// [`Error::Url`].
    pub fn parse(url: &str) -> Result<Self> {
        let wrong = |why| Err(Error::Url { url: url.to_owned(), why });
        let scheme_len = url.find(':').filter(|&end| {
            end > 1 && url[..end].bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+') && !url[..end].contains('/')
        });
        match scheme_len.map(|end| (&url[..end], &url[end + 1..])) {
            None if url.is_empty() => wrong("it is empty"),
            None => Ok(Location::File(url.into())),
            Some(("memory", "")) => Ok(Location::Memory),
            Some(("memory", _)) => wrong("'memory:' takes no name"),
            Some(("file", path)) => match path.strip_prefix("//").unwrap_or(path) {
                "" => wrong("the directory is missing"),
                path => Ok(Location::File(path.into())),
            },
            Some(("sqlite" | "s3" | "gs" | "az", _)) => wrong("this version of Sepia has no such backend yet"),
            Some(_) => wrong("unknown kind of store; a directory with a colon is written './name:x'"),
        }
    }

    /// The directory of a store of plain files.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Location::File(path) => Some(path),
            Location::Memory => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::File(path) => path.display().fmt(f),
            Location::Memory => f.write_str("memory:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_urls() {
        for (url, path) in
            [("dir", "dir"), ("./a:b", "./a:b"), ("file:x", "x"), ("file:///x/y", "/x/y"), ("a/b:c", "a/b:c")]
        {
            assert_eq!(Location::parse(url).unwrap(), Location::File(path.into()), "{url}");
        }
        assert_eq!(Location::parse("memory:").unwrap(), Location::Memory);
        for url in ["", "memory:x", "file:", "s3://bucket", "http://x"] {
            assert!(Location::parse(url).is_err(), "{url}");
        }
    }
}
