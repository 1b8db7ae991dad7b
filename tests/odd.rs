//! Names and places nobody would think of: a store that is read-only, dead, moved away, without attributes, inside
//! itself, or shared with a mount that dies.

mod common;
mod rig;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use common::{LoopFs, Mount, Scratch, Store, run, sh, wait_for};
use rig::disk::cut_power;
use rig::load::close;
use rig::{bounded, kill, refused, sepia};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

fn mounted() -> (Store, Mount) {
    let store = Store::new();
    let mount = store.mount();
    fs::create_dir(mount.join("Note")).unwrap();
    (store, mount)
}

#[test]
fn odd_names_are_names() {
    let (store, mount) = mounted();
    let odd: [&[u8]; 8] =
        [b"new\nline", b"\xff\xfe invalid", &[b'x'; 255], b".sepia", b" ", b"-n", b"a%41\"\\", "e\u{301}".as_bytes()];
    for name in odd {
        let path = mount.join("Note").join(OsStr::from_bytes(name));
        fs::write(&path, name).unwrap();
        fs::write(&path, [name, b"2"].concat()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [name, b"2"].concat());
        let key = [b"Note/", name].concat();
        assert_eq!(store.generations(OsStr::from_bytes(&key)), [1, 2], "{}", name.escape_ascii());
        let moved = mount.join("Note").join("moved");
        fs::rename(&path, &moved).unwrap();
        fs::rename(&moved, &path).unwrap();
        fs::remove_file(&path).unwrap();
    }
    let too_long = fs::write(mount.join("Note").join("x".repeat(256)), "").unwrap_err();
    assert_eq!(too_long.raw_os_error(), Some(Errno::NAMETOOLONG.raw_os_error()));
    for result in [fs::create_dir(mount.join(".sepia")), fs::rename(mount.join("Note"), mount.join(".sepia"))] {
        assert!(result.is_err(), "the reserved name was given away");
    }
    assert!(store.path().join(".sepia/format").exists());
    mount.unmount();
}

/// A filesystem that finds an error goes read-only under the mount.
#[test]
fn as_root_a_disk_that_becomes_read_only_says_so_and_can_be_read() {
    let scratch = Scratch::new();
    let mut disk = LoopFs::new(&scratch, "ext4", 64 << 20);
    run(Command::new("mount").args(["-o", "remount,errors=remount-ro"]).arg(disk.path()));
    let store = Store::at(scratch, disk.path().join("store"));
    let mount = store.mount();
    let path = mount.join("n");
    fs::write(&path, "one").unwrap();
    rustix::fs::syncfs(File::open(disk.path()).unwrap()).unwrap();
    let device = sh(disk.path(), "basename $(findmnt --noheadings --output SOURCE --target .)");
    fs::write(format!("/sys/fs/ext4/{}/trigger_fs_error", device.trim()), "a test").unwrap();
    let (new, over) = (mount.join("Note"), path.clone());
    let errors = bounded("answers of a read-only disk", move || {
        [fs::create_dir(new).unwrap_err(), fs::write(over, "two").unwrap_err()]
    });
    for error in errors {
        assert_eq!(error.raw_os_error(), Some(Errno::ROFS.raw_os_error()), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), b"one");
    kill(mount);
    disk.unmount();
    disk.mount();
    let mount = store.mount();
    assert_eq!(fs::read(mount.join("n")).unwrap(), b"one");
    fs::write(mount.join("n"), "two").unwrap();
    assert_eq!(store.generations("n"), [1, 2]);
    mount.unmount();
}

/// A store on a disk that is mounted read-only can be read; what would change it says EROFS.
#[test]
fn as_root_a_store_on_a_read_only_disk_can_be_mounted() {
    let scratch = Scratch::new();
    let disk = LoopFs::new(&scratch, "ext4", 64 << 20);
    let store = Store::at(scratch, disk.path().join("store"));
    let mount = store.mount();
    for text in ["one", "two"] {
        fs::write(mount.join("n"), text).unwrap();
    }
    mount.unmount();
    run(Command::new("mount").args(["-o", "remount,ro"]).arg(disk.path()));
    let mount = store.mount();
    assert_eq!(fs::read(mount.join("n")).unwrap(), b"two");
    for error in [fs::write(mount.join("n"), "three").unwrap_err(), fs::create_dir(mount.join("d")).unwrap_err()] {
        assert_eq!(error.raw_os_error(), Some(Errno::ROFS.raw_os_error()), "{error}");
    }
    assert_eq!(fs::read(mount.join("n")).unwrap(), b"two");
    assert_eq!(store.cat("n", Some(1)), b"one");
    mount.unmount();
    run(Command::new("mount").args(["-o", "remount,rw"]).arg(disk.path()));
    let mount = store.mount();
    fs::write(mount.join("n"), "three").unwrap();
    assert_eq!(store.generations("n"), [1, 2, 3]);
    mount.unmount();
}

#[test]
fn as_root_a_dead_disk_gives_eio_and_a_line_in_the_log() {
    let scratch = Scratch::new();
    let mut disk = LoopFs::new(&scratch, "ext4", 64 << 20);
    let store = Store::at(scratch, disk.path().join("store"));
    let mount = store.mount();
    let path = mount.join("n");
    let file = File::create(&path).unwrap();
    (&file).write_all(b"one").unwrap();
    file.sync_all().unwrap();
    close(file).unwrap();
    cut_power(disk.path());
    let (new, over) = (mount.join("new"), path.clone());
    let errors = bounded("answers of a dead disk", move || {
        [fs::create_dir(new).unwrap_err(), fs::write(over, "two").unwrap_err()]
    });
    for error in errors {
        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()), "{error}");
    }
    assert!(mount.log().lines().any(|line| !line.trim().is_empty()), "not a line in the log");
    kill(mount);
    disk.unmount();
    disk.mount();
    let mount = store.mount();
    assert_eq!(fs::read(mount.join("n")).unwrap(), b"one");
    fs::write(mount.join("n"), "two").unwrap();
    mount.unmount();
}

/// The store's directory is moved away, something else comes in its place, and it comes back.
#[test]
fn a_directory_that_vanishes_and_comes_back() {
    let (store, mount) = mounted();
    fs::write(mount.join("Note/n"), "one").unwrap();
    let away = store.scratch().path().join("away");
    fs::rename(store.path(), &away).unwrap();
    fs::create_dir(store.path()).unwrap();
    let path = mount.join("Note/n");
    let written = bounded("a write to a store that is not there", move || fs::write(path, "two"));
    if let Err(error) = &written {
        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()), "{error}");
    }
    assert_eq!(fs::read_dir(store.path()).unwrap().count(), 0, "it wrote to what took the store's place");
    fs::remove_dir(store.path()).unwrap();
    fs::rename(&away, store.path()).unwrap();
    let expected = if written.is_ok() { "two" } else { "one" };
    wait_for("the store to be back", || (fs::read_to_string(mount.join("Note/n")).ok()? == expected).then_some(()));
    fs::write(mount.join("Note/n"), "three").unwrap();
    assert_eq!(fs::read(store.path().join("Note/n")).unwrap(), b"three");
    mount.unmount();
}

#[test]
fn as_root_a_filesystem_without_attributes_is_refused_with_advice() {
    let scratch = Scratch::new();
    let dir = scratch.dir("ramfs");
    sh(scratch.path(), "mount -t ramfs none ramfs");
    assert!(rustix::fs::setxattr(&dir, "user.x", b"x", XattrFlags::empty()).is_err(), "ramfs has attributes now");
    let said = refused(sepia("init").arg(dir.join("store")));
    assert!(said.contains("attributes"), "{said}");
    // A store that was copied there.
    let store = Store::new();
    sh(scratch.path(), &format!("cp -r '{}' ramfs/copy", store.path().display()));
    let mount_point = scratch.dir("mnt");
    let said = refused(sepia("mount").arg(dir.join("copy")).arg(&mount_point));
    assert!(said.contains("attributes"), "{said}");
    assert!(!common::is_mounted(&mount_point));
}

#[test]
fn a_store_is_not_mounted_inside_itself() {
    let store = Store::new();
    fs::create_dir(store.path().join("sub")).unwrap();
    let mut places = vec![store.path().to_owned(), store.path().join("sub"), store.path().join(".sepia")];
    let link = store.scratch().path().join("link");
    std::os::unix::fs::symlink(store.path().join("sub"), &link).unwrap();
    places.push(link);
    for place in places {
        let said = refused(sepia("mount").arg(store.path()).arg(&place));
        assert!(said.contains("inside"), "{}: {said}", place.display());
        assert!(!common::is_mounted(&place));
    }
}

#[test]
fn a_store_is_not_made_inside_another_one() {
    let store = Store::new();
    let mount = store.mount();
    fs::create_dir(mount.join("sub")).unwrap();
    for place in [store.path().join("sub"), mount.join("sub"), mount.join("new/one"), mount.path().to_owned()] {
        let said = refused(sepia("init").arg(&place));
        assert!(said.contains("inside") || said.contains("is a store already"), "{}: {said}", place.display());
    }
    mount.unmount();
}

#[test]
fn when_one_of_two_mounts_dies_the_other_goes_on() {
    let store = Store::new();
    let (dead, living) = (store.mount(), store.mount());
    for name in ["dead", "living"] {
        fs::write(living.join(name), "before").unwrap();
    }
    let session = |mount: &Mount, name: &str| {
        let mut file = OpenOptions::new().write(true).truncate(true).open(mount.join(name)).unwrap();
        file.write_all(name.as_bytes()).unwrap();
        file
    };
    let (lost, kept) = (session(&dead, "dead"), session(&living, "living"));
    kill(dead);
    drop(lost);
    let recovered = rig::json(&store.sepia(&["recover", "--json"]));
    assert_eq!(recovered.len(), 1, "{recovered:?}");
    assert_eq!((&recovered[0]["key"], &recovered[0]["outcome"]), (&"dead".into(), &"set-aside".into()));
    (&kept).write_all(b", still").unwrap();
    close(kept).unwrap();
    assert_eq!(fs::read(living.join("living")).unwrap(), b"living, still");
    assert_eq!(fs::read(living.join("dead")).unwrap(), b"before");
    fs::write(living.join("dead"), "after").unwrap();
    assert_eq!(store.generations("dead"), [1, 2]);
    living.unmount();
}
