//! What only the kernel shows of a filesystem, on a real mount.

#[path = "../common/mod.rs"]
mod common;

mod bytes;
mod locks;
mod metadata;
mod names;
mod users;
mod whole;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use rustix::io::Errno;

fn read_write(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn names(dir: &Path) -> BTreeSet<OsString> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}

#[track_caller]
fn assert_errno<T>(result: io::Result<T>, expected: &[Errno]) {
    match result {
        Ok(_) => panic!("this should have failed with {expected:?}"),
        Err(error) => {
            let found = errno(&error);
            assert!(found.is_some_and(|found| expected.contains(&found)), "{error} instead of {expected:?}");
        }
    }
}
