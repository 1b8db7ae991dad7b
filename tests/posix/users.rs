//! What other users may, and what they make.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::common::{Store, need_root, sh, sh_as, sh_as_fails};

#[test]
fn as_root_permissions_hold_for_other_users() {
    need_root();
    let store = Store::new();
    let mount = store.mount_with(&["--allow-other"]);
    let dir = mount.path();
    mount.sh("chmod 755 .
         echo root > secret; chmod 600 secret
         echo shared > acl; chmod 600 acl; setfacl -m u:games:rw acl
         mkdir open; chmod 777 open
         mkdir sticky; chmod 1777 sticky; touch sticky/of-root
         mkdir group; chgrp games group; chmod 2777 group");
    sh_as_fails("nobody", dir, "cat secret");
    sh_as_fails("nobody", dir, "echo x > new");
    sh_as_fails("nobody", dir, "cat acl");
    assert_eq!(sh_as("games", dir, "cat acl; echo more >> acl"), "shared\n");
    assert_eq!(fs::read_to_string(mount.join("acl")).unwrap(), "shared\nmore\n");

    // Files belong to who makes them.
    sh_as("nobody", dir, "umask 027; echo x > open/file; mkdir open/dir; mkfifo open/fifo; ln -s x open/link");
    for name in ["file", "dir", "fifo", "link"] {
        let meta = fs::symlink_metadata(mount.join("open").join(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (65534, 65534), "{name} belongs to who made it");
    }
    assert_eq!(fs::metadata(mount.join("open/file")).unwrap().mode() & 0o7777, 0o640, "less the umask");
    assert_eq!(fs::metadata(mount.join("open/dir")).unwrap().mode() & 0o7777, 0o750);
    sh_as_fails("nobody", dir, "chown games open/file");
    sh_as_fails("games", dir, "chmod 777 open/file");
    sh_as_fails("games", dir, "touch -d 2001-01-01 open/file");
    sh_as_fails("games", dir, "setfattr -n user.x -v 1 open/file");

    // In a sticky directory only the owner removes or renames.
    sh_as("nobody", dir, "echo mine > sticky/of-nobody");
    sh_as_fails("games", dir, "rm -f sticky/of-nobody");
    sh_as_fails("games", dir, "mv sticky/of-root sticky/taken");
    sh_as_fails("games", dir, "echo x > sticky/mine; mv sticky/mine sticky/of-nobody");
    sh_as("nobody", dir, "mv sticky/of-nobody sticky/renamed; rm sticky/renamed");

    // In a setgid directory the group is inherited, and by directories the bit too.
    sh_as("nobody", dir, "touch group/file; mkdir group/dir; touch group/dir/deep");
    let games = fs::metadata(mount.join("group")).unwrap().gid();
    for name in ["file", "dir", "dir/deep"] {
        assert_eq!(fs::metadata(mount.join("group").join(name)).unwrap().gid(), games, "group/{name}");
    }
    assert_eq!(fs::metadata(mount.join("group/dir")).unwrap().mode() & 0o2000, 0o2000);

    // A save by another user leaves the owner alone, and takes suid and sgid away.
    mount.sh("echo '#!/bin/sh' > open/suid; chmod 6777 open/suid");
    sh_as("nobody", dir, "echo 'echo x' >> open/suid");
    let meta = fs::metadata(mount.join("open/suid")).unwrap();
    assert_eq!(meta.uid(), 0);
    assert_eq!(meta.mode() & 0o7777, 0o777, "suid and sgid are gone after a write");
    for change in [": > open/suid", "truncate -s 3 open/suid", "fallocate -l 10 open/suid"] {
        mount.sh("chmod 6777 open/suid");
        sh_as("nobody", dir, change);
        assert_eq!(fs::metadata(mount.join("open/suid")).unwrap().mode() & 0o7777, 0o777, "after `{change}`");
    }
    mount.unmount();
}

/// An ACL changes the mode, and sgid is no more its owner's to keep than with chmod(2) (xfstests generic/375).
#[test]
fn as_root_an_acl_set_by_who_is_not_in_the_group_takes_sgid_away() {
    need_root();
    let store = Store::new();
    let mount = store.mount_with(&["--allow-other"]);
    let native = store.scratch().dir("native");
    // The group is one of the caller's, its first or another one; and not.
    let callers = [
        ("--regid=games --clear-groups", 0o2000),
        ("--regid=nogroup --groups=daemon,games", 0o2000),
        ("--regid=nogroup --clear-groups", 0),
    ];
    for (number, (groups, sgid)) in callers.into_iter().enumerate() {
        for (name, make) in [("file", "touch"), ("dir", "mkdir")] {
            let name = format!("{name}{number}");
            for dir in [mount.path(), &native] {
                let set = |acl: &str| {
                    format!(
                        "{make} {name}; chown nobody:games {name}; chmod 2775 {name}
                         setpriv --reuid=nobody {groups} setfacl -m {acl} {name}"
                    )
                };
                for acl in ["u:daemon:rx", "u::rwx,g::rx,o::rx"] {
                    sh(dir, &format!("chmod 755 .; rm -rf {name}; {}", set(acl)));
                    let mode = fs::metadata(dir.join(&name)).unwrap().mode();
                    assert_eq!(mode & 0o2000, sgid, "{groups} sets {acl} on {}/{name}", dir.display());
                }
            }
        }
    }
    sh(mount.path(), "touch file; chown nobody:games file; chmod 2775 file; setfacl -m u:daemon:rx file");
    assert_eq!(fs::metadata(mount.join("file")).unwrap().mode() & 0o2000, 0o2000, "root may keep it");
    mount.unmount();
}

#[test]
fn as_root_other_users_can_be_kept_out() {
    need_root();
    let store = Store::new();
    let mount = store.mount_with(&["-o", "noallow_other"]);
    mount.sh("chmod 777 .; echo x > file; chmod 666 file");
    let said = sh_as_fails("nobody", store.scratch().path(), &format!("cat '{}'", mount.join("file").display()));
    assert!(said.contains("Permission denied"), "{said}");
}
