//! What must be true of an object for a change to it to happen.

use super::{Generation, ObjectId, Timestamp};

/// The state of an object that a change was based on. A change whose precondition fails has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Whatever is there.
    Any,
    /// Nothing is there.
    Absent,
    /// This generation is the current one.
    Generation(Generation),
    /// This generation of this very object is the current one, and it is as it was when it was committed at this
    /// time: a session that is still open may have replaced its own generation under the same number since. What a
    /// write session is based on.
    Version(Generation, ObjectId, Timestamp),
    /// The empty file that a write session created under this name, to which nothing was committed yet.
    Reserved(ObjectId),
}
