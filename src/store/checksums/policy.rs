//! The section `[checksums]` of the store's policy.

use serde::Deserialize;

/// Whether and how fast mounts compute checksums by themselves.
///
/// ```toml
/// [checksums]
/// background = true   # compute them while the store is mounted
/// rate = 16777216     # bytes that are read for that in a second
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Whether mounts compute them by themselves.
    pub background: bool,
    /// Bytes that are read for that in a second.
    pub rate: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { background: true, rate: 16 << 20 }
    }
}
