//! Filesystems in loop files.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::scratch::detach;
use super::{Scratch, is_mounted, need_root, run, tool};

/// A filesystem of its own in a loop file. Needs root.
pub struct LoopFs {
    dir: PathBuf,
    image: PathBuf,
    device: Option<PathBuf>,
    _scratch: Arc<Scratch>,
}

impl LoopFs {
    /// Makes and mounts a filesystem (`ext4`, `xfs`, `btrfs`) of `size` bytes, in a sparse file.
    #[track_caller]
    pub fn new(scratch: &Arc<Scratch>, kind: &str, size: u64) -> Self {
        need_root();
        let image = scratch.path().join(format!("{kind}.img"));
        let file = File::create_new(&image).unwrap();
        file.set_len(size).unwrap();
        let mut make = Command::new(tool(&format!("mkfs.{kind}")));
        make.arg(if kind == "ext4" { "-qF" } else { "-qf" }).arg(&image);
        run(&mut make);
        let dir = scratch.dir(&format!("{kind}.dir"));
        let mut made = Self { dir, image, device: None, _scratch: Arc::clone(scratch) };
        made.mount();
        fs::set_permissions(&made.dir, fs::Permissions::from_mode(0o755)).unwrap();
        made
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Mounts it again after [`LoopFs::unmount`], or after its image was replaced.
    #[track_caller]
    pub fn mount(&mut self) {
        assert!(self.device.is_none(), "it is mounted already");
        let device = run(Command::new(tool("losetup")).args(["--find", "--show"]).arg(&self.image)).text();
        let device = PathBuf::from(device.trim());
        self.device = Some(device.clone());
        run(Command::new(tool("mount")).arg(device).arg(&self.dir));
    }

    /// Unmounts it; the image then holds everything.
    #[track_caller]
    pub fn unmount(&mut self) {
        run(Command::new(tool("umount")).arg(&self.dir));
        self.release();
    }

    fn release(&mut self) {
        let Some(device) = self.device.take() else { return };
        if is_mounted(&self.dir) {
            let ended = Command::new("umount").arg(&self.dir).stdin(Stdio::null()).status();
            if !ended.is_ok_and(|status| status.success()) {
                detach(&self.dir);
            }
        }
        let _ = Command::new(tool("losetup")).arg("--detach").arg(device).stdin(Stdio::null()).status();
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        self.release();
    }
}
