//! The `sepia` command as scripts see it: what it prints, what it ends with, which object an argument means.

mod events;
mod mounted;
mod objects;
mod retention;
mod rules;
mod sandbox;
mod snapshots;
mod surface;
mod trouble;
mod verify;
