//! Scripts that mount in other ways: by mount(8) and as an ordinary user. As root they run in a mount namespace of their
//! own, so that nothing outside is touched.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::commands::environment;
use super::mount::need_fuse;
use super::{is_root, need_root, run, sepia_binary, sh, tool};

/// A bash script, ready to run in `dir`, for which the program under test is installed as the helper that mount(8)
/// calls for `fuse.sepia`. It runs in a mount namespace of its own, in which the program stands in the place of
/// /sbin/mount.fuse, the helper that mount(8) falls back to; nothing outside is touched. Needs root.
pub fn script_with_mount_helper(dir: &Path, text: &str) -> Command {
    need_root();
    let helper = tool("mount.fuse").canonicalize().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-euc"]);
    command.arg(
        r#"mount -t tmpfs none /mnt
         printf '#!/bin/bash\nexec -a mount.fuse.sepia "%s" "$@"\n' "$1" > /mnt/helper
         chmod 755 /mnt/helper
         mount --bind /mnt/helper "$2"
         umount -l /mnt
         exec bash -euo pipefail -c "$3""#,
    );
    command.arg("bash").arg(sepia_binary()).arg(helper).arg(text).current_dir(dir);
    environment(&mut command);
    command
}

/// Runs a bash script as an ordinary user who may mount with fusermount3, in `dir`, which is made to belong to that
/// user. Run by root, it becomes `nobody` in a mount namespace of its own in which `/dev/fuse` is open to all, as on
/// any Debian with udev; nothing outside is touched, and what the script leaves mounted is gone with the namespace.
/// The script finds the program under test as `sepia`.
#[track_caller]
pub fn sh_as_ordinary_user(dir: &Path, text: &str) -> String {
    tool("fusermount3");
    if !is_root() {
        need_fuse();
        return sh(dir, text);
    }
    // The build directory may lie where other users can't look.
    let bin = dir.join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy(sepia_binary(), bin.join("sepia")).unwrap();
    let device = dir.join("fuse-device");
    run(Command::new("mknod").arg("-m").arg("666").arg(&device).args(["c", "10", "229"]));
    run(Command::new("chown").arg("nobody:nogroup").arg(dir));
    let text = format!("export HOME=\"$PWD\"\n{text}");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-euc"]);
    command.arg(
        "mount --bind \"$1\" /dev/fuse
         exec setpriv --reuid=nobody --regid=nogroup --clear-groups bash -euo pipefail -c \"$2\"",
    );
    command.arg("bash").arg(&device).arg(text).current_dir(dir);
    environment(&mut command);
    let mut path = OsString::from(bin);
    path.push(":/usr/bin:/bin:/usr/sbin:/sbin");
    command.env("PATH", path);
    run(&mut command).text()
}
