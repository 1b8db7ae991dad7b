//! How a request reaches [`Fs`]: a panic on the way becomes EIO and a line in the log. And what the mount answers itself.

use std::ffi::OsStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fuser::{INodeNo, Request};
use rustix::io::Errno;

use super::convert::errno;
use crate::fs::Fs;

const ROOT: u64 = 1;

pub(super) struct Handler {
    pub(super) fs: Arc<Fs>,
    /// The URL of the store, for [`super::STORE_ATTRIBUTE`].
    pub(super) store: Vec<u8>,
    /// The kernel can map files that are opened past the page cache. Where it can't, the cache is used always.
    pub(super) direct: bool,
}

impl Handler {
    pub(super) fn call<T>(&self, operation: &str, f: impl FnOnce(&Fs) -> Result<T, Errno>) -> Result<T, fuser::Errno> {
        catch_unwind(AssertUnwindSafe(|| f(&self.fs)))
            .unwrap_or_else(|panic| {
                let what = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let what = what.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                log::error!("a bug in Sepia: {operation} panicked, the program gets EIO: {what}");
                Err(Errno::IO)
            })
            .map_err(errno)
    }

    /// What only the mount itself knows of its root directory.
    pub(super) fn mount_attribute(&self, ino: INodeNo, name: &OsStr) -> Option<Vec<u8>> {
        if ino.0 != ROOT {
            None
        } else if name == super::STORE_ATTRIBUTE {
            Some(self.store.clone())
        } else if name == super::PID_ATTRIBUTE {
            Some(std::process::id().to_string().into_bytes())
        } else {
            None
        }
    }
}

/// What a request by path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    ForAttributes,
    ForMore,
}

/// A request that the kernel sends when it has walked a path to `ino`, or believes so.
pub(super) fn by_path<T>(
    fs: &Fs,
    request: &Request,
    ino: INodeNo,
    asks: Asks,
    f: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    let answer = fs.check_name(request.pid(), ino.0, asks == Asks::ForAttributes).and_then(|()| f());
    if matches!(answer, Err(Errno::STALE)) {
        fs.refused(request.pid());
    }
    answer
}
