//! What is asked of the kernel when it says what it offers.

use fuser::{InitFlags, KernelConfig};

/// Each is asked for if the kernel offers it. Left out on purpose:
/// - `WRITEBACK_CACHE`: it would disable passthrough, and size and times would be the kernel's to know.
/// - `POSIX_LOCKS`, `FLOCK_LOCKS`: without them the kernel does the locks within a mount itself.
/// - `NO_OPEN_SUPPORT`, `NO_OPENDIR_SUPPORT`: every handle matters.
/// - `ATOMIC_O_TRUNC`: the kernel then asks for the truncation before it has found out that the file is being
///   executed (open with O_RDONLY|O_TRUNC), and the program dies of SIGBUS instead of the open failing with ETXTBSY.
/// - `AUTO_INVAL_DATA`: `Fs` says at open whether cached pages are good, and invalidates what changes later.
/// - `SETXATTR_EXT`, `EXPORT_SUPPORT`, `HAS_EXPIRE_ONLY`, `CREATE_SUPP_GROUP`: fuser 0.18 can't read or send them.
const WANTED: [InitFlags; 9] = [
    // Without it every write(2) asks for security.capability first.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_POSIX_ACL,
    // An inherited default ACL takes the umask's place, so `Fs` must see both.
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_ASYNC_DIO,
    // With other mounts files are read past the page cache, and sqlite maps its WAL index (Linux 6.6).
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
    // A link's target never changes as long as it has its inode number.
    InitFlags::FUSE_CACHE_SYMLINKS,
];

/// The largest write and read request in bytes: what the kernel's default limit of 256 pages allows.
const MAX_REQUEST: u32 = 1 << 20;

/// Asks for all of that, as far as the kernel goes along.
pub(super) fn negotiate(config: &mut KernelConfig) {
    for wanted in WANTED {
        if config.add_capabilities(wanted).is_err() {
            log::debug!("this kernel doesn't offer {wanted:?}");
        }
    }
    // Each fails with the nearest value that the kernel takes. FUSE_MAX_PAGES is asked for by fuser.
    if let Err(nearest) = config.set_max_write(MAX_REQUEST) {
        let _ = config.set_max_write(nearest);
    }
    if let Err(nearest) = config.set_max_readahead(MAX_REQUEST) {
        let _ = config.set_max_readahead(nearest);
    }
}
