//! Times, statfs, attributes, ACLs.

use std::ffi::CString;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::read_write;
use crate::common::{self, Store};
use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

#[test]
fn times_are_kept_to_the_nanosecond() {
    let store = Store::new();
    let mount = store.mount();
    fs::write(mount.join("file"), b"x").unwrap();
    fs::create_dir(mount.join("dir")).unwrap();
    symlink("file", mount.join("link")).unwrap();
    let times = Timestamps {
        last_access: Timespec { tv_sec: 1_234_567_890, tv_nsec: 123_456_789 },
        last_modification: Timespec { tv_sec: -1, tv_nsec: 987_654_321 },
    };
    for name in ["file", "dir", "link"] {
        rustix::fs::utimensat(CWD, mount.join(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    let check = |dir: &Path| {
        for name in ["file", "dir", "link"] {
            let meta = fs::symlink_metadata(dir.join(name)).unwrap();
            assert_eq!((meta.atime(), meta.atime_nsec()), (1_234_567_890, 123_456_789), "atime of {name}");
            assert_eq!((meta.mtime(), meta.mtime_nsec()), (-1, 987_654_321), "mtime of {name}");
        }
    };
    check(mount.path());
    drop(mount);
    check(store.mount().path());
    check(store.path());
}

/// Any user may set any time on a file of theirs; the nearest that the medium can hold is kept. Each is set more often
/// than the daemon has threads, so that none of them can have died of it.
#[test]
fn no_time_is_too_extreme_for_the_daemon() {
    let store = Store::new();
    let mount = store.mount();
    fs::write(mount.join("file"), b"x").unwrap();
    fs::create_dir(mount.join("dir")).unwrap();
    for tv_sec in [i64::MIN, i64::MIN + 1, -9_223_372_037, 9_223_372_036, i64::MAX - 1, i64::MAX] {
        for tv_nsec in [0, 1, 999_999_999] {
            let time = Timespec { tv_sec, tv_nsec };
            let times = Timestamps { last_access: time, last_modification: time };
            for name in ["file", "dir"] {
                rustix::fs::utimensat(CWD, mount.join(name), &times, AtFlags::empty())
                    .unwrap_or_else(|error| panic!("{tv_sec}.{tv_nsec} for {name}: {error}"));
                assert_eq!(fs::symlink_metadata(mount.join(name)).unwrap().mtime() < 0, tv_sec < 0, "{tv_sec}");
            }
        }
    }
    assert_eq!(fs::read(mount.join("file")).unwrap(), b"x");
    mount.unmount();
}

#[test]
fn changes_touch_the_times_that_they_should() {
    let store = Store::new();
    let mount = store.mount();
    let path = mount.join("file");
    fs::write(&path, b"x").unwrap();
    let old = Timespec { tv_sec: 1_000_000_000, tv_nsec: 1 };
    let settle = |path: &Path| {
        let times = Timestamps { last_access: old, last_modification: old };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
        fs::metadata(path).unwrap()
    };
    let mtime = |meta: &fs::Metadata| (meta.mtime(), meta.mtime_nsec());
    let ctime = |meta: &fs::Metadata| (meta.ctime(), meta.ctime_nsec());
    // The clock behind ctime may tick only every few milliseconds.
    let tick = || thread::sleep(Duration::from_millis(20));

    let before = settle(&path);
    tick();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!(mtime(&after), mtime(&before), "chmod leaves mtime alone");
    assert!(ctime(&after) > ctime(&before), "chmod changes ctime");

    let before = settle(&path);
    tick();
    fs::write(&path, b"yy").unwrap();
    let after = fs::metadata(&path).unwrap();
    assert!(mtime(&after) > mtime(&before) && ctime(&after) > ctime(&before), "a write changes both");

    // A session that changes nothing leaves everything alone.
    let before = settle(&path);
    tick();
    drop(read_write(&path));
    let after = fs::metadata(&path).unwrap();
    assert_eq!((mtime(&after), ctime(&after)), (mtime(&before), ctime(&before)));

    // Times that were set on an open file after writing stay after the close, as cp -p and tar need it.
    let file = read_write(&path);
    file.write_all_at(b"zzz", 0).unwrap();
    rustix::fs::futimens(&file, &Timestamps { last_access: old, last_modification: old }).unwrap();
    drop(file);
    assert_eq!(mtime(&fs::metadata(&path).unwrap()), (1_000_000_000, 1));

    // A directory's mtime follows its entries.
    let dir = mount.join("dir");
    fs::create_dir(&dir).unwrap();
    for change in ["touch dir/a", "mv dir/a dir/b", "ln dir/b dir/c", "rm dir/b", "mkdir dir/d", "rmdir dir/d"] {
        let before = settle(&dir);
        mount.sh(change);
        assert!(mtime(&fs::metadata(&dir).unwrap()) > mtime(&before), "`{change}` changes the directory's mtime");
    }
}

/// As relatime has it (mount(8)): the first read after a change is marked, and not the next one. The same for what the
/// kernel reads from its own cache; and with noatime nothing, neither on the mount nor in the store.
#[test]
fn as_root_reading_is_marked_as_relatime_has_it_or_not_at_all() {
    let scratch = common::Scratch::new();
    let disk = common::LoopFs::new(&scratch, "ext4", 64 << 20);
    let store = Store::at(scratch, disk.path().join("store"));
    let atimes = |mount: &common::Mount, name: &str| {
        let of = |path: &Path| fs::metadata(path).map(|meta| (meta.atime(), meta.atime_nsec())).unwrap();
        let (above, below) = (of(&mount.join(name)), of(&store.path().join(name)));
        assert_eq!(above, below, "{name}: the mount says the same as the store");
        above
    };
    let a_moment = || thread::sleep(Duration::from_millis(20));
    let mount = store.mount();
    fs::create_dir(mount.join("dir")).unwrap();
    // Whole pages that were just written are read from the kernel's cache.
    for (name, bytes) in [("small", 5), ("large", 300_000), ("pages", 65_536), ("empty", 0)] {
        fs::write(mount.join(name), vec![b'x'; bytes]).unwrap();
        let written = atimes(&mount, name);
        a_moment();
        fs::read(mount.join(name)).unwrap();
        let first = atimes(&mount, name);
        assert!(first > written || bytes == 0, "{name}: the first read after a change is marked");
        a_moment();
        fs::read(mount.join(name)).unwrap();
        assert_eq!(atimes(&mount, name), first, "{name}: the second is not");
        a_moment();
        fs::write(mount.join(name), vec![b'y'; bytes]).unwrap();
        fs::OpenOptions::new().write(true).open(mount.join(name)).unwrap();
        assert_eq!(atimes(&mount, name), first, "{name}: writing is no reading");
        fs::set_permissions(mount.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        fs::read(mount.join(name)).unwrap();
        assert!(atimes(&mount, name) > first || bytes == 0, "{name}: read after its change");
    }
    let made = atimes(&mount, "dir");
    a_moment();
    fs::write(mount.join("dir/file"), "x").unwrap();
    fs::read_dir(mount.join("dir")).unwrap().count();
    assert!(atimes(&mount, "dir") > made, "a listing is marked");
    drop(mount);

    let mount = store.mount_with(&["-o", "noatime"]);
    fs::write(mount.join("small"), "changed").unwrap();
    fs::write(mount.join("dir/other"), "x").unwrap();
    let before = (atimes(&mount, "small"), atimes(&mount, "large"), atimes(&mount, "dir"));
    a_moment();
    mount.sh("touch -md 2001-01-01 large; cat small large > /dev/null; ls dir > /dev/null");
    assert_eq!((atimes(&mount, "small"), atimes(&mount, "large"), atimes(&mount, "dir")), before);
}

/// By an open descriptor, all that can be done to a file can be done when its name is gone.
#[test]
fn what_has_no_name_any_more_keeps_and_takes_attributes() {
    let store = Store::new();
    let mount = store.mount();
    let (path, dir, over) = (mount.join("file"), mount.join("dir"), mount.join("over"));
    fs::write(&path, b"bytes").unwrap();
    fs::write(&over, b"other").unwrap();
    fs::create_dir(&dir).unwrap();
    mount.sh("setfattr -n user.before -v old file over dir");
    let open = [File::open(&path).unwrap(), File::open(&dir).unwrap(), File::open(&over).unwrap()];
    fs::remove_file(&path).unwrap();
    fs::remove_dir(&dir).unwrap();
    fs::write(mount.join("new"), b"new").unwrap();
    fs::rename(mount.join("new"), &over).unwrap();
    for file in &open {
        let mut value = [0; 64];
        let mut get = |name: &str| rustix::fs::fgetxattr(file, name, &mut value[..]).map(|n| value[..n].to_vec());
        assert_eq!(get("user.before"), Ok(b"old".to_vec()));
        rustix::fs::fsetxattr(file, "user.after", b"new", XattrFlags::CREATE).unwrap();
        assert_eq!(rustix::fs::fsetxattr(file, "user.after", b"x", XattrFlags::CREATE), Err(Errno::EXIST));
        assert_eq!(get("user.after"), Ok(b"new".to_vec()));
        rustix::fs::fremovexattr(file, "user.before").unwrap();
        assert_eq!(get("user.before"), Err(Errno::NODATA));
        let mut list = [0; 256];
        let length = rustix::fs::flistxattr(file, &mut list[..]).unwrap();
        assert_eq!(String::from_utf8_lossy(&list[..length]), "user.after\0");
        rustix::fs::fchmod(file, Mode::from_raw_mode(0o700)).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o700);
        let time = Timespec { tv_sec: 1, tv_nsec: 0 };
        rustix::fs::futimens(file, &Timestamps { last_access: time, last_modification: time }).unwrap();
        assert_eq!(file.metadata().unwrap().mtime(), 1);
    }
    // Whose name it was has its own.
    assert_eq!(mount.sh("getfattr -d over | grep -c user.after || true").trim(), "0");
    drop(open);
    mount.unmount();
}

/// As tar, cp -p and rsync set them, on whatever kind of save.
#[test]
fn times_that_are_set_on_an_open_file_stay() {
    let store = Store::new();
    let mount = store.mount();
    let times = Timestamps {
        last_access: Timespec { tv_sec: 111, tv_nsec: 1 },
        last_modification: Timespec { tv_sec: 222, tv_nsec: 2 },
    };
    type Open = fn(&mut fs::OpenOptions) -> &mut fs::OpenOptions;
    let opens: [(&str, Open); 4] = [
        ("new", |options| options.write(true).create_new(true)),
        ("written", |options| options.write(true)),
        ("written anew", |options| options.write(true).truncate(true)),
        ("appended to", |options| options.append(true)),
    ];
    for (name, options) in opens {
        for (bytes, sync) in [("three bytes", false), ("other bytes", true)] {
            let path = mount.join(format!("{name}, {bytes}"));
            if name != "new" {
                fs::write(&path, "three bytes").unwrap();
            }
            let mut file = options(&mut fs::OpenOptions::new()).open(&path).unwrap();
            std::io::Write::write_all(&mut file, bytes.as_bytes()).unwrap();
            rustix::fs::futimens(&file, &times).unwrap();
            if sync {
                file.sync_all().unwrap();
            }
            drop(file);
            let shown = |meta: fs::Metadata| (meta.atime(), meta.atime_nsec(), meta.mtime(), meta.mtime_nsec());
            assert_eq!(shown(fs::metadata(&path).unwrap()), (111, 1, 222, 2), "{name}, {bytes}");
        }
    }
    mount.unmount();
}

/// The daemon answers the question that follows a save from what the save has told it. Whatever else was done to the file
/// before the question, the answer is true.
#[test]
fn what_is_asked_after_a_save_is_what_the_store_has() {
    let store = Store::new();
    let mount = store.mount();
    let shown = |path: &Path| {
        let meta = fs::symlink_metadata(path).unwrap();
        let times = [meta.atime(), meta.atime_nsec(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        (meta.mode(), meta.uid(), meta.gid(), meta.nlink(), meta.len(), meta.blocks(), times)
    };
    let commands = [
        "true",
        "chmod 640 FILE",
        "setfattr -n user.colour -v red FILE",
        "setfattr -n user.colour -v red FILE; echo more >> FILE; setfattr -x user.colour FILE",
        "setfacl -m u:7:rw FILE",
        "ln FILE other-FILE",
        "ln FILE other-FILE; rm other-FILE",
        "mv FILE other-FILE; mv other-FILE FILE",
        "echo another > other-FILE; mv other-FILE FILE",
        "touch -d 2001-02-03 FILE",
        "cat FILE",
        "truncate -s 2 FILE",
        "echo more >> FILE",
        "exec 3<> FILE; echo other >&3; sync FILE; chmod 600 FILE; cat <&3; echo more >&3",
        "exec 3> FILE; echo other >&3; sync FILE; setfattr -n user.colour -v red FILE; ln FILE other-FILE",
        "exec 3< FILE; echo other > FILE; cat <&3",
        "exec 3<> FILE; echo other >&3; sync FILE; sleep 0.02; python3 -c 'import os; os.copy_file_range(3, 1, 4, 0)' > other-FILE",
    ];
    let as_root = common::is_root().then_some("chown 1:2 FILE");
    for (number, command) in commands.into_iter().chain(as_root).enumerate() {
        let name = format!("file{number}");
        // Longer ago than clocks are coarse.
        mount.sh(&format!("echo what is saved > {name}; sleep 0.02"));
        mount.sh(&command.replace("FILE", &name));
        assert_eq!(shown(&mount.join(&name)), shown(&store.path().join(&name)), "after `{command}`");
    }
    for (number, command) in ["chmod 640 FILE", "echo more >> FILE", "ln FILE FILE-2"].into_iter().enumerate() {
        let name = format!("outside{number}");
        mount.sh(&format!("echo what is saved > {name}"));
        common::sh(store.path(), &command.replace("FILE", &name));
        common::wait_for(&format!("the mount to show `{command}`, which was done outside"), || {
            (shown(&mount.join(&name)) == shown(&store.path().join(&name))).then_some(())
        });
    }
    mount.unmount();
}

#[test]
fn statfs_tells_of_the_disk_below() {
    let store = Store::new();
    let mount = store.mount();
    let (below, above) = (rustix::fs::statvfs(store.path()).unwrap(), rustix::fs::statvfs(mount.path()).unwrap());
    assert_eq!(above.f_blocks * above.f_frsize, below.f_blocks * below.f_frsize);
    assert_eq!(above.f_files, below.f_files);
    assert_eq!(above.f_namemax, 255);
    assert!(above.f_bavail > 0 && above.f_bavail <= above.f_blocks);
    mount.sh("df -h . && df -i .");
}

#[test]
fn user_attributes_obey_their_flags() {
    let store = Store::new();
    let mount = store.mount();
    fs::create_dir(mount.join("dir")).unwrap();
    fs::write(mount.join("file"), b"x").unwrap();
    for name in ["file", "dir"] {
        let path = mount.join(name);
        let set = |name: &str, value: &[u8], flags| rustix::fs::setxattr(&path, name, value, flags);
        let get = |name: &str| {
            let mut buffer = vec![0; 4096];
            let length = rustix::fs::getxattr(&path, name, &mut buffer[..])?;
            buffer.truncate(length);
            Ok::<_, Errno>(buffer)
        };
        assert_eq!(set("user.a", b"1", XattrFlags::REPLACE), Err(Errno::NODATA));
        set("user.a", b"1", XattrFlags::CREATE).unwrap();
        assert_eq!(set("user.a", b"2", XattrFlags::CREATE), Err(Errno::EXIST));
        set("user.a", b"two", XattrFlags::REPLACE).unwrap();
        assert_eq!(get("user.a").unwrap(), b"two");
        set("user.empty", b"", XattrFlags::empty()).unwrap();
        assert_eq!(get("user.empty").unwrap(), b"");
        set("user.binary \u{e4}", &[0, 255, 10], XattrFlags::empty()).unwrap();
        assert_eq!(get("user.binary \u{e4}").unwrap(), [0, 255, 10]);
        set("user.large", &[b'l'; 2000], XattrFlags::empty()).unwrap();
        assert_eq!(get("user.large").unwrap(), [b'l'; 2000]);
        assert_eq!(get("user.none"), Err(Errno::NODATA));
        let mut small = [0; 2];
        assert_eq!(rustix::fs::getxattr(&path, "user.a", &mut small), Err(Errno::RANGE));

        let mut buffer = vec![MaybeUninit::<u8>::uninit(); 4096];
        let (list, _) = rustix::fs::listxattr(&path, buffer.as_mut_slice()).unwrap();
        let list: Vec<&[u8]> = list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        for expected in ["user.a", "user.empty", "user.binary \u{e4}", "user.large"] {
            assert!(list.contains(&expected.as_bytes()), "{expected} is listed");
        }
        assert!(!list.contains(&b"user.sepia".as_slice()), "Sepia's own record is not shown");
        rustix::fs::removexattr(&path, "user.a").unwrap();
        assert_eq!(rustix::fs::removexattr(&path, "user.a"), Err(Errno::NODATA));
    }
    // They outlive saves: the file is another one below, the object is the same.
    fs::write(mount.join("file"), b"saved again").unwrap();
    assert_eq!(mount.sh("getfattr --only-values -n user.large file").len(), 2000);
    drop(mount);
    assert_eq!(store.mount().sh("getfattr --only-values -n user.large file").len(), 2000);
    let mount = store.mount();
    symlink("file", mount.join("link")).unwrap();
    let name = CString::new("user.a").unwrap();
    let on_link = rustix::fs::lsetxattr(mount.join("link"), &name, b"1", XattrFlags::empty());
    assert!(matches!(on_link, Err(Errno::PERM | Errno::OPNOTSUPP)), "{on_link:?}: symbolic links have no user.*");
}

#[test]
fn acls_are_kept_and_inherited() {
    let store = Store::new();
    let mount = store.mount();
    mount.sh("mkdir dir && touch file
         setfacl -m u:games:rwx,g:daemon:r-x,m::r-x file
         setfacl -d -m u:games:rwx,o::- dir
         touch dir/new && mkdir dir/sub && touch dir/sub/deep");
    let acl = |path: &str| mount.sh(&format!("getfacl -cE {path} 2>/dev/null"));
    assert!(acl("file").contains("user:games:rwx"));
    assert!(acl("file").contains("group:daemon:r-x"));
    assert!(acl("file").contains("mask::r-x"));
    assert_eq!(fs::metadata(mount.join("file")).unwrap().mode() & 0o070, 0o050, "the group bits are the mask");
    assert!(acl("dir/new").contains("user:games:rwx"), "{}", acl("dir/new"));
    assert!(acl("dir/new").contains("other::---"));
    assert!(acl("dir/sub").contains("default:user:games:rwx"));
    assert!(acl("dir/sub/deep").contains("user:games:rwx"));
    // Exactly what ext4 makes of the same commands.
    let native = store.scratch().dir("native");
    common::sh(
        &native,
        "mkdir dir && touch file
         setfacl -m u:games:rwx,g:daemon:r-x,m::r-x file
         setfacl -d -m u:games:rwx,o::- dir
         touch dir/new && mkdir dir/sub && touch dir/sub/deep",
    );
    let all = "getfacl -RcnE dir file 2>/dev/null";
    assert_eq!(mount.sh(all), common::sh(&native, all));
    // A save and a chmod keep what they should; the umask doesn't count under a default ACL.
    mount.sh("echo saved > file && chmod g-x file && getfacl -cE file | grep -q mask::r--");
    mount.sh("umask 077; echo x > dir/masked; getfacl -cE dir/masked | grep -q user:games:rw");
    mount.sh("setfacl -b file && ! getfacl -cE file | grep -q games");
    drop(mount);
    assert!(store.mount().sh("getfacl -cE dir/sub").contains("default:user:games:rwx"));
}
