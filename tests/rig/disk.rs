//! What happens to disks.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The power goes from the filesystem at `dir`: what is not on the medium by now never will be, and every access
/// fails until it is mounted anew.
pub fn cut_power(dir: &Path) {
    const FS_IOC_SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587d;
    const NO_LOG_FLUSH: u32 = 2;
    let dir = File::open(dir).unwrap();
    // SAFETY: FS_IOC_SHUTDOWN reads one u32 behind the pointer and writes nothing.
    unsafe {
        let setter = rustix::ioctl::Setter::<FS_IOC_SHUTDOWN, u32>::new(NO_LOG_FLUSH);
        rustix::ioctl::ioctl(&dir, setter).expect("FS_IOC_SHUTDOWN");
    }
}

/// Fills the filesystem at `dir` to the last block, less `leave` bytes; returns the file that does so.
pub fn fill(dir: &Path, leave: u64) -> PathBuf {
    let path = dir.join("ballast");
    let mut file = File::create(&path).unwrap();
    let mut chunk = 1 << 20;
    while chunk >= 512 {
        if file.write_all(&vec![0x5a; chunk]).is_err() {
            chunk /= 2;
        }
    }
    let _ = file.sync_all();
    if leave > 0 {
        file.set_len(file.metadata().unwrap().len().saturating_sub(leave)).unwrap();
        file.sync_all().unwrap();
    }
    path
}

/// Uses all inodes of the filesystem at `dir`; returns the directory that holds them.
pub fn use_all_inodes(dir: &Path) -> PathBuf {
    let path = dir.join("inodes");
    std::fs::create_dir(&path).unwrap();
    for number in 0.. {
        if let Err(error) = File::create(path.join(number.to_string())) {
            assert_eq!(error.raw_os_error(), Some(28), "{error}");
            break;
        }
    }
    path
}
