//! Processes that died in the middle of a rename or an append, and what others did before the store was recovered. Nothing
//! here starts a process: until it runs its program, a child would hold the locks of the dead.

#[path = "../common/mod.rs"]
mod common;

mod renames;
mod saves;
