//! Two versions of some bytes compared, for `sepia diff` and `sepia conflicts diff`.
//!
//! Text as a unified diff, the rest as a summary, which needs no memory whatever the size.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use similar::TextDiff;

use super::Failure;
use super::output::{Output, Style, size};

/// More than this is not compared line by line.
const TEXT_MAX: u64 = 32 << 20;
/// Afterwards the diff is completed without looking for the shortest.
const TEXT_TIME: Duration = Duration::from_secs(5);
const CHUNK: usize = 256 << 10;

/// One of the two versions.
#[derive(Debug)]
pub struct Side {
    /// What it is called in the diff's header; one line.
    pub label: String,
    /// Holds its bytes.
    pub file: Arc<File>,
    /// How many of the file's bytes, from the first.
    pub size: u64,
}

/// What came of it, for a JSON document.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Whether all bytes are the same.
    pub equal: bool,
    /// Whether both are text that was compared line by line.
    text: bool,
    /// The unified diff of two texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    unified: Option<String>,
    /// The offset of the first byte that differs; the shorter one's size when it is the other's beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_difference: Option<u64>,
    /// How many bytes differ, up to the end of the shorter one.
    differing_bytes: u64,
}

/// Compares `old` and `new`, with so many equal lines around each difference.
pub fn compare(old: &Side, new: &Side, context: usize) -> Result<Comparison, Failure> {
    let (first_difference, differing_bytes) = differences(old, new)?;
    let mut result =
        Comparison { equal: first_difference.is_none(), text: false, unified: None, first_difference, differing_bytes };
    if !result.equal
        && let (Some(old_text), Some(new_text)) = (text(old)?, text(new)?)
    {
        let diff = TextDiff::configure().timeout(TEXT_TIME).diff_lines(&old_text, &new_text);
        let unified = diff.unified_diff().context_radius(context).header(&old.label, &new.label).to_string();
        result.text = true;
        result.unified = Some(unified);
    }
    Ok(result)
}

impl Comparison {
    /// Prints the diff or the summary; nothing when they are equal.
    pub fn print(&self, old: &Side, new: &Side, out: &mut Output) -> Result<(), Failure> {
        if let Some(unified) = &self.unified {
            for (number, line) in unified.split_inclusive('\n').enumerate() {
                let style = match line.as_bytes().first() {
                    _ if number < 2 => Style::Bold,
                    Some(b'-') => Style::Red,
                    Some(b'+') => Style::Green,
                    Some(b'@') => Style::Cyan,
                    _ => Style::Plain,
                };
                let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
                let painted = out.paint(style, line) + end;
                out.raw(painted.as_bytes())?;
            }
        } else if let Some(first) = self.first_difference {
            out.line(out.paint(Style::Bold, &format!("--- {}: {}", old.label, size(old.size))))?;
            out.line(out.paint(Style::Bold, &format!("+++ {}: {}", new.label, size(new.size))))?;
            let common = old.size.min(new.size);
            out.line(match (new.size.cmp(&old.size), first == common) {
                (std::cmp::Ordering::Greater, true) => format!("{} were appended", size(new.size - common)),
                (std::cmp::Ordering::Less, true) => format!("the last {} were cut off", size(old.size - common)),
                _ => format!(
                    "not compared as text; the first difference is at byte {first}, {} of the first {common} differ",
                    self.differing_bytes
                ),
            })?;
        }
        Ok(())
    }
}

fn differences(old: &Side, new: &Side) -> Result<(Option<u64>, u64), Failure> {
    let common = old.size.min(new.size);
    let (mut first, mut count, mut at) = (None, 0, 0);
    let (mut old_chunk, mut new_chunk) = (vec![0; CHUNK], vec![0; CHUNK]);
    while at < common {
        let len = usize::try_from(common - at).unwrap_or(usize::MAX).min(CHUNK);
        let (old_chunk, new_chunk) = (&mut old_chunk[..len], &mut new_chunk[..len]);
        old.read(old_chunk, at)?;
        new.read(new_chunk, at)?;
        if old_chunk != new_chunk {
            for (offset, _) in old_chunk.iter().zip(new_chunk.iter()).enumerate().filter(|(_, (a, b))| a != b) {
                first.get_or_insert(at + offset as u64);
                count += 1;
            }
        }
        at += len as u64;
    }
    if first.is_none() && old.size != new.size {
        first = Some(common);
    }
    Ok((first, count))
}

/// The bytes, if they are text: UTF-8 without NUL, of bearable size.
fn text(side: &Side) -> Result<Option<String>, Failure> {
    if side.size > TEXT_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; side.size as usize];
    side.read(&mut bytes, 0)?;
    Ok(String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')))
}

impl Side {
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), Failure> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|error: io::Error| Failure::error(format!("{}: can't read: {error}", self.label)))
    }
}
