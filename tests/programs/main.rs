//! Real programs, through a mount.

#[path = "../common/mod.rs"]
mod common;

mod databases;
mod editors;
mod shell;
mod trees;
