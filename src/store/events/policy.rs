//! The section `[events]` of the store's policy.

use serde::Deserialize;

use crate::types::Age;

/// What is written down, and for how long.
///
/// ```toml
/// [events]
/// enabled = true          # write events at all
/// keep = "90d"            # remove segments of which all is older
/// audit_reads = false     # also write down who opens what for reading through a mount
/// segment_size = 16777216 # bytes from which on a new segment is begun; each day begins one, too
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Write events at all.
    pub enabled: bool,
    /// Segments of which all is older may be removed.
    pub keep: Age,
    /// Also write down who opens what for reading through a mount.
    pub audit_reads: bool,
    /// Bytes from which on a new segment is begun.
    pub segment_size: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { enabled: true, keep: Age::days(90), audit_reads: false, segment_size: 16 << 20 }
    }
}
