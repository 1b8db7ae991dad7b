//! The answers that several requests have in common.

use fuser::{Generation, ReplyEmpty, ReplyEntry, ReplyWrite, ReplyXattr};

use super::convert::{XATTR_MAX, file_attr};
use crate::fs::Entry;

/// Inode numbers are not used again, so they need no generation beside them.
pub(super) const NO_GENERATION: Generation = Generation(0);

pub(super) fn entry(reply: ReplyEntry, result: Result<Entry, fuser::Errno>) {
    match result {
        Ok(found) => reply.entry_with_ttls(&found.attr.ttl, &found.ttl, &file_attr(&found.attr), NO_GENERATION),
        Err(error) => reply.error(error),
    }
}

pub(super) fn empty(reply: ReplyEmpty, result: Result<(), fuser::Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

pub(super) fn written(reply: ReplyWrite, result: Result<usize, fuser::Errno>) {
    match result {
        // No request asks for more than `MAX_COPY`.
        Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
        Err(error) => reply.error(error),
    }
}

/// Answers what getxattr(2) and listxattr(2) ask: with size 0 they want to know the size.
pub(super) fn xattr(reply: ReplyXattr, size: u32, result: Result<Vec<u8>, fuser::Errno>) {
    match result {
        Ok(value) if value.len() > XATTR_MAX => reply.error(fuser::Errno::E2BIG),
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(fuser::Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(error),
    }
}
