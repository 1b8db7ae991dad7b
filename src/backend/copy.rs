//! Copies between local files in the kernel: shared extents where the filesystem has them, holes kept.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Copies the bytes `start..end` of `from` to the same offsets of `to`, whose bytes there must be a hole or missing.
/// Afterwards `to` is at least `end` bytes long. Stops early, without an error, where `from` ends.
///
/// # Errors
/// The system's answer (ENOSPC, EIO); a part may have been copied.
pub fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let end = end.min(from.metadata()?.len());
    if start >= end {
        return Ok(());
    }
    if start == 0
        && to.metadata()?.len() == 0
        && end == from.metadata()?.len()
        && rustix::fs::ioctl_ficlone(to, from).is_ok()
    {
        return Ok(());
    }
    let mut at = start;
    while at < end {
        let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(data) => data.min(end),
            Err(Errno::NXIO) => end,
            // A filesystem that knows no holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(error) => return Err(error.into()),
        };
        if data >= end {
            break;
        }
        let hole = rustix::fs::seek(from, SeekFrom::Hole(data)).unwrap_or(end).clamp(data + 1, end);
        copy_data(from, to, data, hole)?;
        at = hole;
    }
    if to.metadata()?.len() < end {
        to.set_len(end)?;
    }
    Ok(())
}

fn copy_data(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut read, mut write) = (start, start);
    while read < end {
        let length = usize::try_from(end - read).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut write), length) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                return copy_by_hand(from, to, read, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut at = start;
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let n = from.read_at(&mut buffer[..most], at)?;
        if n == 0 {
            break;
        }
        to.write_all_at(&buffer[..n], at)?;
        at += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_bytes_and_holes() {
        let from = tempfile::tempfile().unwrap();
        from.write_all_at(b"begin", 0).unwrap();
        from.write_all_at(b"end", 10 << 20).unwrap();
        let to = tempfile::tempfile().unwrap();
        copy_range(&from, &to, 0, u64::MAX).unwrap();
        let mut bytes = vec![0; (10 << 20) + 3];
        to.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!((&bytes[..5], &bytes[10 << 20..]), (&b"begin"[..], &b"end"[..]));
        assert!(std::os::unix::fs::MetadataExt::blocks(&to.metadata().unwrap()) < 1000);
        copy_range(&from, &to, 20 << 20, u64::MAX).unwrap();
        assert_eq!(to.metadata().unwrap().len(), (10 << 20) + 3);
    }
}
