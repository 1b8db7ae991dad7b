//! Which groups the process is in on whose behalf the kernel asks.
//!
//! FUSE names but one. For a new ACL the kernel would say what follows from the others (`FUSE_SETXATTR_ACL_KILL_SGID`),
//! but only with SETXATTR_EXT, which fuser 0.18 can't read. So they are read from /proc; the caller waits for the
//! answer, so what is there is still true.

use super::types::Caller;

/// CAP_FSETID (capabilities(7)) in a set of capabilities.
const FSETID: u64 = 1 << 4;

/// Whether sgid stays when the caller changes the mode of a file of this group: the kernel's `in_group_or_capable`.
pub fn may_keep_sgid(caller: &Caller, gid: u32) -> bool {
    if caller.gid == gid {
        return true;
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", caller.thread)).unwrap_or_default();
    status_allows(&status, caller.uid, gid)
}

/// Whether the caller is in a group.
pub fn is_member(caller: &Caller, gid: u32) -> bool {
    caller.gid == gid || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", caller.thread)).unwrap_or_default();
        groups_contain(&status, gid)
    }
}

fn groups_contain(status: &str, gid: u32) -> bool {
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    groups.is_some_and(|groups| groups.split_whitespace().any(|group| group.parse() == Ok(gid)))
}

/// Without a status, of a process that can't be seen from here, only root is trusted.
fn status_allows(status: &str, uid: u32, gid: u32) -> bool {
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let member = groups_contain(status, gid);
    let capabilities = line("CapEff:").and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    // In a user namespace of one's own everybody has all capabilities; there nobody is root of this one.
    member || (uid == 0 && capabilities.is_none_or(|set| set & FSETID != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_capabilities() {
        let status = "Name:\tsh\nGroups:\t4 27 1000 \nCapEff:\t0000000000000010\n";
        assert!(status_allows(status, 1, 27));
        assert!(!status_allows(status, 1, 2));
        assert!(status_allows(status, 0, 2));
        assert!(!status_allows("CapEff:\t0000000000000000\n", 0, 2));
        assert!(status_allows("", 0, 2));
        assert!(!status_allows("", 1, 2));
    }
}
