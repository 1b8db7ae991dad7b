//! Bytes that say what they are: from a record alone one can tell who wrote it, as which in line, and that it is
//! whole. A torn or zero-filled one can't pass for another.

use super::Dice;

/// What a record says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    pub seq: u64,
    pub writer: u64,
}

/// FNV-1a.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// A whole object: a header and `length` bytes that only this writer writes at this turn.
pub fn object(tag: Tag, length: usize) -> Vec<u8> {
    let body = filling(tag, length);
    let sum = checksum(&body);
    let mut bytes = format!("record {} {} {length} {sum:016x}\n", tag.writer, tag.seq).into_bytes();
    bytes.extend_from_slice(&body);
    bytes
}

/// Reads what [`object`] made.
pub fn read_object(bytes: &[u8]) -> Result<Tag, String> {
    let end = bytes.iter().position(|&b| b == b'\n').ok_or_else(|| format!("no header: {}", describe(bytes)))?;
    let (tag, length, sum) = header(&bytes[..end], "record").ok_or_else(|| describe(bytes))?;
    let body = &bytes[end + 1..];
    if body.len() != length {
        return Err(format!("{} bytes of {length}: {}", body.len(), describe(bytes)));
    }
    if checksum(body) != sum {
        return Err(format!("wrong checksum: {}", describe(bytes)));
    }
    Ok(tag)
}

/// A line of a log.
pub fn line(tag: Tag, length: usize) -> Vec<u8> {
    let body: Vec<u8> = filling(tag, length).into_iter().map(|b| b'a' + b % 26).collect();
    let mut bytes = format!("line {} {} {length} {:016x} ", tag.writer, tag.seq, checksum(&body)).into_bytes();
    bytes.extend_from_slice(&body);
    bytes.push(b'\n');
    bytes
}

/// Reads a log: all of its lines, each whole.
pub fn read_lines(bytes: &[u8]) -> Result<Vec<Tag>, String> {
    let mut tags = Vec::new();
    for text in bytes.split_inclusive(|&b| b == b'\n') {
        let wrong = || format!("line {} of the log is torn: {}", tags.len(), describe(text));
        let text = text.strip_suffix(b"\n").ok_or_else(wrong)?;
        let space = text.iter().rposition(|&b| b == b' ').ok_or_else(wrong)?;
        let (tag, length, sum) = header(&text[..space], "line").ok_or_else(wrong)?;
        let body = &text[space + 1..];
        if body.len() != length || checksum(body) != sum {
            return Err(wrong());
        }
        tags.push(tag);
    }
    Ok(tags)
}

pub const PAGE: usize = 4096;

/// A page of a database.
pub fn page(tag: Tag, number: u64) -> Vec<u8> {
    let body = filling(Tag { writer: tag.writer ^ number << 32, ..tag }, PAGE / 2);
    let mut bytes = format!("page{number} {} {} {} {:016x}\n", tag.writer, tag.seq, body.len(), checksum(&body));
    while bytes.len() < PAGE / 2 {
        bytes.push('.');
    }
    let mut bytes = bytes.into_bytes();
    bytes.extend_from_slice(&body);
    bytes
}

/// Reads a database: the turn at which each page was written.
pub fn read_pages(bytes: &[u8]) -> Result<Vec<Tag>, String> {
    if !bytes.len().is_multiple_of(PAGE) {
        return Err(format!("{} bytes are no whole pages", bytes.len()));
    }
    let read = |(number, page): (usize, &[u8])| {
        let wrong = || format!("page {number} is torn: {}", describe(page));
        let end = page.iter().position(|&b| b == b'\n').ok_or_else(wrong)?;
        let (tag, length, sum) = header(&page[..end], &format!("page{number}")).ok_or_else(wrong)?;
        let body = &page[PAGE / 2..];
        if length != body.len() || checksum(body) != sum { Err(wrong()) } else { Ok(tag) }
    };
    bytes.chunks(PAGE).enumerate().map(read).collect()
}

fn header(bytes: &[u8], kind: &str) -> Option<(Tag, usize, u64)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut words = text.split(' ');
    (words.next()? == kind).then_some(())?;
    let writer = words.next()?.parse().ok()?;
    let seq = words.next()?.parse().ok()?;
    let length = words.next()?.parse().ok()?;
    let sum = u64::from_str_radix(words.next()?, 16).ok()?;
    words.next().is_none().then_some((Tag { seq, writer }, length, sum))
}

fn filling(tag: Tag, length: usize) -> Vec<u8> {
    let mut dice = Dice::new(tag.writer << 40 ^ tag.seq);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // Never a zero byte, so that a hole shows.
        bytes.extend(dice.roll().to_le_bytes().map(|b| b.max(1)));
    }
    bytes.truncate(length);
    bytes
}

/// For a message: how long, how it begins and ends, and where zeros are.
pub fn describe(bytes: &[u8]) -> String {
    let zeros = bytes.iter().filter(|&&b| b == 0).count();
    let first_zero = bytes.iter().position(|&b| b == 0);
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
    format!("{} bytes, {zeros} of them zero (first at {first_zero:?}), beginning {start:?}", bytes.len())
}
