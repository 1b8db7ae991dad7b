//! The words of the design as types: what an object is called, which of its versions is meant, and when.
//!
//! Every layer speaks these; none of them does any I/O. Wrong values can't be made: the constructors check.

mod duration;
mod generation;
mod key;
mod moment;
mod precondition;
mod size;
mod time;

pub use duration::{Age, AgeError};
pub use generation::{Generation, ObjectId};
pub use key::{Class, Key, KeyError, NAME_MAX, RESERVED_NAME};
pub(crate) use key::{escape, unescape};
pub use moment::moment;
pub use precondition::Precondition;
pub use size::{Size, SizeError};
pub use time::Timestamp;
