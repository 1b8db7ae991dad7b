//! Sepia: a versioned object store that you can mount as a directory.
//!
//! The layers, each of which knows only those below it: [`fuse`] translates the kernel's requests, [`fs`] decides
//! about inodes, handles and write sessions, [`store`] about objects and generations, [`backend`] about bytes on one
//! medium. [`cli`] stands beside them. `docs/design.md` says why.

pub mod backend;
pub mod cli;
pub mod fs;
pub mod fuse;
pub mod store;
mod types;

pub use store::{Error, Result, Store};
pub use types::{
    Age, AgeError, Class, Generation, Key, KeyError, NAME_MAX, ObjectId, Precondition, RESERVED_NAME, Size, SizeError,
    Timestamp, moment,
};

/// The example in the README is compiled and run with the other ones.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
