//! Read-only mounts, syncing, two mounts of one store.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};

use super::{assert_errno, read_write};
use crate::common::{Store, wait_for};
use rustix::io::Errno;

#[test]
fn a_read_only_mount_refuses_changes() {
    let store = Store::new();
    store.mount().sh("echo kept > file; mkdir dir");
    for arguments in [&["--read-only"][..], &["-o", "ro"]] {
        let mount = store.mount_with(arguments);
        assert_eq!(fs::read(mount.join("file")).unwrap(), b"kept\n");
        assert_errno(fs::write(mount.join("file"), b""), &[Errno::ROFS]);
        assert_errno(fs::write(mount.join("new"), b""), &[Errno::ROFS]);
        assert_errno(fs::create_dir(mount.join("new")), &[Errno::ROFS]);
        assert_errno(fs::remove_file(mount.join("file")), &[Errno::ROFS]);
        assert_errno(fs::remove_dir(mount.join("dir")), &[Errno::ROFS]);
        assert_errno(fs::rename(mount.join("file"), mount.join("new")), &[Errno::ROFS]);
        assert_errno(fs::set_permissions(mount.join("file"), fs::Permissions::from_mode(0o600)), &[Errno::ROFS]);
        mount.unmount();
    }
    assert_eq!(store.generations("file"), [1]);
}

#[test]
fn syncing_files_and_directories_succeeds() {
    let store = Store::new();
    let mount = store.mount();
    mount.sh("mkdir dir; echo x > dir/file; sync dir dir/file; sync -d dir/file; sync -f dir");
    let file = read_write(&mount.join("dir/file"));
    file.write_all_at(b"y", 0).unwrap();
    file.sync_data().unwrap();
    // What fsync published is the store's own file by then.
    assert_eq!(fs::read(store.path().join("dir/file")).unwrap(), b"y\n");
    File::open(mount.path()).unwrap().sync_all().unwrap();
}

#[test]
fn two_mounts_see_each_others_saves() {
    let store = Store::new();
    let (one, two) = (store.mount(), store.mount());
    for round in 0..20 {
        let (writer, reader) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let text = format!("round {round}");
        fs::write(writer.join("file"), &text).unwrap();
        assert_eq!(fs::read_to_string(reader.join("file")).unwrap(), text, "close-to-open");
        fs::create_dir(writer.join(format!("dir{round}"))).unwrap();
        wait_for("the other mount to see the directory", || reader.join(format!("dir{round}")).is_dir().then_some(()));
    }
    assert_eq!(store.generations("file"), (1..=20).collect::<Vec<_>>());
    fs::remove_file(one.join("file")).unwrap();
    wait_for("the other mount to see that the file is gone", || (!two.join("file").exists()).then_some(()));
}
