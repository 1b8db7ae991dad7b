//! How things are printed: JSON for programs, tables for people, colours only on a terminal.
//!
//! Names come from anybody: none is printed with its control characters, which could rewrite the terminal.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::Failure;
use crate::types::{Key, Timestamp};

/// Standard output.
pub struct Output {
    out: io::BufWriter<io::StdoutLock<'static>>,
    colour: bool,
}

/// How a text stands out on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Style {
    Plain,
    Bold,
    Blue,
    Cyan,
    Red,
    Green,
}

impl Output {
    /// Standard output, with colours if it is a terminal and nothing speaks against them (<https://no-color.org>).
    pub fn new() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let colour = io::stdout().is_terminal() && !set("NO_COLOR") && !dumb;
        Output { out: io::BufWriter::with_capacity(64 << 10, io::stdout().lock()), colour }
    }

    /// Prints a line.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        writeln!(self.out, "{}", text.as_ref()).map_err(Failure::output)
    }

    /// Prints bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(Failure::output)
    }

    /// Prints one JSON document.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Failure::output(error.into()))?;
        self.line(text)
    }

    /// Prints one JSON document in one line.
    pub fn json_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| Failure::output(error.into()))?;
        self.line(text)
    }

    /// The text as it looks on this terminal.
    pub fn paint(&self, style: Style, text: &str) -> String {
        let code = match style {
            _ if !self.colour => return text.to_owned(),
            Style::Plain => return text.to_owned(),
            Style::Bold => "1",
            Style::Blue => "1;34",
            Style::Cyan => "36",
            Style::Red => "31",
            Style::Green => "32",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Prints rows with their columns aligned.
    pub fn table(&mut self, table: &Table) -> Result<(), Failure> {
        let mut widths = vec![0; table.columns.len()];
        for row in &table.rows {
            for (width, cell) in widths.iter_mut().zip(&row.cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &table.rows {
            let mut line = String::new();
            for (at, cell) in row.cells.iter().enumerate() {
                let padding = " ".repeat(widths[at] - cell.chars().count());
                if at > 0 {
                    line.push_str("  ");
                }
                let last = at + 1 == row.cells.len();
                let cell = self.paint(if last { row.last } else { row.style }, cell);
                match table.columns[at] {
                    Align::Right => line.extend([padding, cell]),
                    Align::Left if last => line.push_str(&cell),
                    Align::Left => line.extend([cell, padding]),
                }
            }
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// Writes out what is buffered, for somebody who waits for it.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Failure::output)
    }

    /// Writes out what is buffered. Every command ends with this, so that no failure is lost.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Failure::output)
    }
}

/// On which side of its column a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Align {
    Left,
    Right,
}

/// Rows for [`Output::table`].
pub struct Table {
    columns: Vec<Align>,
    rows: Vec<Row>,
}

struct Row {
    cells: Vec<String>,
    style: Style,
    last: Style,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[Align]) -> Self {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; `last` is the style of its last cell, `style` that of the others. Further cells than there are
    /// columns are not shown.
    pub fn row(&mut self, style: Style, last: Style, mut cells: Vec<String>) {
        cells.truncate(self.columns.len());
        self.rows.push(Row { cells, style, last });
    }
}

/// Bytes of a name for people: as text, with control characters and what isn't UTF-8 escaped.
pub fn name(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// A number of bytes for people: `12 bytes`, `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes == 1 {
        return "1 byte".to_owned();
    }
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// So many things, with the noun in the right number.
pub fn count(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

/// A key in a JSON document, to be flattened into what it is the key of.
#[derive(Debug, Serialize)]
pub struct JsonKey {
    key: String,
    /// Only for a key that is not UTF-8, which `key` can't hold: as [`Key::escaped`].
    #[serde(skip_serializing_if = "Option::is_none")]
    key_escaped: Option<String>,
}

impl From<&Key> for JsonKey {
    fn from(key: &Key) -> Self {
        let text = String::from_utf8_lossy(key.as_bytes());
        let exact = matches!(text, std::borrow::Cow::Borrowed(_));
        JsonKey { key: text.into_owned(), key_escaped: (!exact).then(|| key.escaped()) }
    }
}

/// A time in a JSON document.
pub fn json_time(time: Timestamp) -> String {
    time.rfc3339()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_on_their_line() {
        assert_eq!(name(b"a\n\x1b[2J\xffz\xc3\xa9"), "a\\n\\u{1b}[2J\\xffz\u{e9}");
    }

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_key_that_is_no_text_is_also_escaped() {
        use std::os::unix::ffi::OsStrExt;
        let key = |bytes| Key::parse(std::ffi::OsStr::from_bytes(bytes)).unwrap();
        let json = |bytes| serde_json::to_value(JsonKey::from(&key(bytes))).unwrap();
        assert_eq!(json(b"a/b"), serde_json::json!({"key": "a/b"}));
        assert_eq!(json(b"a/\xff"), serde_json::json!({"key": "a/\u{fffd}", "key_escaped": "a/%FF"}));
    }
}
