//! The kernel's side of a mount: `fuser`'s requests become calls of [`Fs`], and its answers replies.
//!
//! Nothing is decided here about files; that is the business of [`crate::fs`]. What is decided is how Sepia speaks
//! with the kernel: `capabilities` which of the kernel's offers are taken, `invalidate` from which thread it is told
//! of changes, and [`mount`](mod@mount) how a mount is made and ended.

mod cache;
mod calls;
mod capabilities;
mod convert;
mod handler;
mod mount;
pub mod mountinfo;
mod reply;

pub use mount::{MountConfig, Mounted, Unmounter, mount, unmount};

#[allow(unused_imports, reason = "for the documentation above")]
use crate::fs::Fs;

/// The attribute of a mount's root directory that holds the URL of its store.
pub const STORE_ATTRIBUTE: &str = "user.sepia.store";

/// The attribute of a mount's root directory that holds the id of the process behind the mount. It is not listed.
pub const PID_ATTRIBUTE: &str = "user.sepia.pid";
