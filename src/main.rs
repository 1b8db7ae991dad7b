//! The `sepia` command.
fn main() {}
