//! Names: renames, links, special files, odd names, the reserved name, large directories.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{assert_errno, names};
use crate::common::{self, LoopFs, Scratch, Store, need_root, run_within};
use rustix::fs::{CWD, FileType, Mode, RenameFlags};
use rustix::io::Errno;

#[test]
fn rename_refuses_or_exchanges_when_asked() {
    let store = Store::new();
    let mount = store.mount();
    let (file, dir) = (mount.join("file"), mount.join("dir"));
    fs::write(&file, b"file").unwrap();
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("member"), b"member").unwrap();
    let rename = |from: &Path, to: &Path, flags| rustix::fs::renameat_with(CWD, from, CWD, to, flags);

    let other = mount.join("other");
    fs::write(&other, b"other").unwrap();
    assert_eq!(rename(&file, &other, RenameFlags::NOREPLACE), Err(Errno::EXIST));
    assert_eq!(fs::read(&other).unwrap(), b"other");
    rename(&file, &mount.join("new"), RenameFlags::NOREPLACE).unwrap();
    assert_eq!(fs::read(mount.join("new")).unwrap(), b"file");

    let (ino_new, ino_other) = (fs::metadata(mount.join("new")).unwrap().ino(), fs::metadata(&other).unwrap().ino());
    rename(&mount.join("new"), &other, RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(&other).unwrap(), b"file");
    assert_eq!(fs::read(mount.join("new")).unwrap(), b"other");
    assert_eq!(fs::metadata(&other).unwrap().ino(), ino_new);
    assert_eq!(fs::metadata(mount.join("new")).unwrap().ino(), ino_other);

    rename(&dir, &other, RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(&dir).unwrap(), b"file");
    assert_eq!(fs::read(other.join("member")).unwrap(), b"member");
    assert_eq!(rename(&dir, &mount.join("nothing"), RenameFlags::EXCHANGE), Err(Errno::NOENT));
    assert_eq!(rename(&other, &other.join("below"), RenameFlags::empty()), Err(Errno::INVAL));
}

/// The members of a directory get other numbers where its new name has a history. Who is writing one goes on.
#[test]
fn files_can_be_written_while_their_directory_comes_to_an_older_history() {
    let store = Store::new();
    let mount = store.mount();
    mount.sh("mkdir f; echo old > f/a; echo older > f/a; rm f/a; echo b > f/b; rm f/b; rmdir f");
    mount.sh("mkdir e; echo 1 > e/a; echo 1 > e/b; echo 1 > e/c; for i in 2 3 4 5; do echo $i > e/b; done");
    let open = |name: &str| fs::File::options().write(true).open(mount.join("e").join(name)).unwrap();
    let (a, b, c) = (open("a"), open("b"), open("c"));
    b.write_all_at(b"early", 0).unwrap();
    let emptied = fs::File::options().write(true).truncate(true).open(mount.join("e/c")).unwrap();
    fs::rename(mount.join("e"), mount.join("f")).unwrap();
    a.write_all_at(b"late", 0).unwrap();
    a.sync_all().unwrap();
    drop((a, b, c));
    emptied.write_all_at(b"anew", 0).unwrap();
    drop(emptied);
    for (name, bytes) in [("f/a", "late"), ("f/b", "early"), ("f/c", "anew")] {
        assert_eq!(fs::read_to_string(mount.join(name)).unwrap(), bytes, "{name}");
    }
    assert!(store.conflicts().is_empty());
    mount.unmount();
}

/// What a later fsync has acknowledged is not published by it. It goes into the history when the name goes.
#[test]
fn what_every_fsync_acknowledged_is_kept_when_the_file_is_removed_or_replaced() {
    let store = Store::new();
    let mount = store.mount();
    fs::write(mount.join("other"), "other").unwrap();
    let write = |name: &str| {
        let file = fs::File::create(mount.join(name)).unwrap();
        for text in ["AAAA", "BBBB", "CCCC"] {
            file.write_all_at(text.as_bytes(), 0).unwrap();
            if text != "CCCC" {
                file.sync_all().unwrap();
            }
        }
        file
    };
    let (removed, replaced) = (write("removed"), write("replaced"));
    fs::remove_file(mount.join("removed")).unwrap();
    fs::rename(mount.join("other"), mount.join("replaced")).unwrap();
    drop((removed, replaced));
    for name in ["removed", "replaced"] {
        assert_eq!(store.cat(name, Some(1)), b"CCCC", "{name}");
    }
    mount.unmount();
}

#[test]
fn hard_links_are_one_file() {
    let store = Store::new();
    let mount = store.mount();
    let (one, two) = (mount.join("one"), mount.join("dir/two"));
    fs::create_dir(mount.join("dir")).unwrap();
    fs::write(&one, b"first").unwrap();
    fs::hard_link(&one, &two).unwrap();
    let meta = |path: &Path| fs::metadata(path).unwrap();
    assert_eq!((meta(&one).nlink(), meta(&two).nlink()), (2, 2));
    assert_eq!(meta(&one).ino(), meta(&two).ino());

    // A save through one name is a save of the other, and they stay one file.
    fs::write(&two, b"second, longer").unwrap();
    assert_eq!(fs::read(&one).unwrap(), b"second, longer");
    assert_eq!(meta(&one).len(), 14);
    assert_eq!((meta(&one).nlink(), meta(&one).ino()), (2, meta(&two).ino()));
    fs::set_permissions(&one, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(meta(&two).mode() & 0o777, 0o640);
    OpenOptions::new().append(true).open(&one).unwrap().write_all(b"!").unwrap();
    assert_eq!(fs::read(&two).unwrap(), b"second, longer!");

    fs::remove_file(&one).unwrap();
    assert_eq!(meta(&two).nlink(), 1);
    assert_eq!(fs::read(&two).unwrap(), b"second, longer!");
    mount.unmount();
    let mount = store.mount();
    assert_eq!(fs::read(mount.join("dir/two")).unwrap(), b"second, longer!");

    // Links to links, and the older bytes can still be had.
    fs::hard_link(mount.join("dir/two"), mount.join("three")).unwrap();
    fs::write(mount.join("three"), b"last").unwrap();
    mount.unmount();
    for name in ["dir/two", "three"] {
        assert_eq!(fs::read(store.path().join(name)).unwrap(), b"last", "{name} in the store itself");
    }
}

#[test]
fn as_root_there_are_as_many_links_as_below() {
    need_root();
    let scratch = Scratch::new();
    let disk = LoopFs::new(&scratch, "ext4", 256 << 20);
    let store = Store::at(scratch.clone(), disk.path().join("store"));
    store.mount().sh("echo x > file; mkdir links");
    // ext4 allows 65,000. Most of them are made while nothing is mounted.
    for number in 1..64_900 {
        fs::hard_link(store.path().join("file"), store.path().join(format!("links/{number}"))).unwrap();
    }
    let mount = store.mount();
    let file = mount.join("file");
    for number in 64_900..65_000 {
        if let Err(error) = fs::hard_link(&file, mount.join(number.to_string())) {
            panic!("link {number}: {error}");
        }
    }
    assert_eq!(fs::metadata(&file).unwrap().nlink(), 65_000);
    assert_errno(fs::hard_link(&file, mount.join("one-more")), &[Errno::MLINK]);
    assert!(!mount.join("one-more").exists());
}

#[test]
fn fifos_and_sockets_work() {
    let store = Store::new();
    let mount = store.mount();
    let fifo = mount.join("fifo");
    mount.sh("mkfifo -m 600 fifo");
    assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
    let writer = thread::spawn({
        let fifo = fifo.clone();
        move || fs::write(fifo, b"through the pipe").unwrap()
    });
    assert_eq!(fs::read(&fifo).unwrap(), b"through the pipe");
    writer.join().unwrap();

    // A path to a socket is at most 107 bytes; the mount's is far below.
    let socket = mount.join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    let answer = thread::spawn(move || listener.accept().unwrap().0.write_all(b"hello").unwrap());
    let mut text = String::new();
    UnixStream::connect(&socket).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    answer.join().unwrap();
    drop(mount);
    let mount = store.mount();
    assert!(fs::symlink_metadata(mount.join("fifo")).unwrap().file_type().is_fifo());
    fs::remove_file(mount.join("fifo")).unwrap();
    fs::remove_file(mount.join("socket")).unwrap();
    assert_eq!(names(mount.path()), BTreeSet::new());
}

#[test]
fn as_root_device_nodes_work() {
    need_root();
    let store = Store::new();
    let mount = store.mount();
    let make = |name: &str, kind, major, minor| {
        let path = mount.join(name);
        rustix::fs::mknodat(CWD, &path, kind, Mode::from(0o640), rustix::fs::makedev(major, minor)).unwrap();
        fs::symlink_metadata(&path).unwrap()
    };
    let null = make("null", FileType::CharacterDevice, 1, 3);
    assert!(null.file_type().is_char_device());
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));
    fs::write(mount.join("null"), b"gone").unwrap();
    assert_eq!(fs::read(mount.join("null")).unwrap(), b"");
    let large = make("block", FileType::BlockDevice, 259, 70_000);
    assert!(large.file_type().is_block_device());
    assert_eq!(large.rdev(), rustix::fs::makedev(259, 70_000));
    let regular = make("regular", FileType::RegularFile, 0, 0);
    assert!(regular.file_type().is_file());
    drop(mount);
    let mount = store.mount();
    assert_eq!(fs::symlink_metadata(mount.join("block")).unwrap().rdev(), rustix::fs::makedev(259, 70_000));
    drop(mount);
    let mount = store.mount_with(&["-o", "nodev"]);
    assert_errno(File::open(mount.join("null")), &[Errno::ACCESS]);
}

#[test]
fn mknod_makes_a_plain_file() {
    let store = Store::new();
    let mount = store.mount();
    let path = mount.join("plain");
    rustix::fs::mknodat(CWD, &path, FileType::RegularFile, Mode::from(0o644), 0).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"");
    assert_eq!(
        rustix::fs::mknodat(CWD, &path, FileType::RegularFile, Mode::from(0o644), 0),
        Err(Errno::EXIST),
        "the name is taken"
    );
    fs::write(&path, b"bytes").unwrap();
    drop(mount);
    assert_eq!(store.cat("plain", None), b"bytes");
}

#[test]
fn names_are_bytes() {
    let store = Store::new();
    let mount = store.mount();
    let odd: Vec<OsString> = [
        b"invalid \xff\xfe utf-8".to_vec(),
        b"new\nline".to_vec(),
        b" spaces ".to_vec(),
        b"-rf".to_vec(),
        b"...".to_vec(),
        b"back\\slash \"quotes\" 'too' %41 *?[".to_vec(),
        b"\x01\x7f\x1b[31m".to_vec(),
        "ä".repeat(127).into_bytes(),
        vec![b'n'; 255],
        vec![0xff; 255],
    ]
    .into_iter()
    .map(OsString::from_vec)
    .collect();
    let expected: BTreeSet<OsString> = odd.iter().cloned().collect();
    let dir = mount.join("dir");
    fs::create_dir(&dir).unwrap();
    for name in &odd {
        fs::write(dir.join(name), b"one").unwrap();
        fs::write(dir.join(name), name.as_bytes()).unwrap();
        let deep = mount.join(name);
        fs::create_dir(&deep).unwrap();
        fs::write(deep.join(name), b"deep").unwrap();
        symlink(name, dir.join("link")).unwrap();
        assert_eq!(fs::read_link(dir.join("link")).unwrap().as_os_str(), name);
        assert_eq!(fs::read(dir.join("link")).unwrap(), name.as_bytes());
        fs::remove_file(dir.join("link")).unwrap();
    }
    assert_eq!(names(&dir), expected);
    drop(mount);
    let mount = store.mount();
    assert_eq!(names(&mount.join("dir")), expected);
    for name in &odd {
        let mut key = OsString::from("dir/");
        key.push(name);
        assert_eq!(store.sepia(&[OsStr::new("cat"), OsStr::new("--"), &key]), name.as_bytes(), "{name:?}");
        assert_eq!(store.sepia(&[OsStr::new("cat"), OsStr::new("--generation=1"), OsStr::new("--"), &key]), b"one");
        fs::rename(mount.join("dir").join(name), mount.join("dir/renamed")).unwrap();
        fs::rename(mount.join("dir/renamed"), mount.join("dir").join(name)).unwrap();
        assert_eq!(fs::read(mount.join(name).join(name)).unwrap(), b"deep");
    }
    for long in [vec![b'n'; 256], vec![b'n'; 1000]] {
        let path = mount.join(OsString::from_vec(long));
        assert_errno(fs::write(&path, b""), &[Errno::NAMETOOLONG]);
        assert_errno(fs::create_dir(&path), &[Errno::NAMETOOLONG]);
        assert_errno(fs::metadata(&path), &[Errno::NAMETOOLONG]);
    }
    for name in &odd {
        fs::remove_file(mount.join("dir").join(name)).unwrap();
    }
    assert_eq!(names(&mount.join("dir")), BTreeSet::new());
}

#[test]
fn a_link_out_of_the_store_is_kept_and_not_followed_by_sepia() {
    let store = Store::new();
    let outside = store.scratch().dir("outside");
    fs::write(outside.join("secret"), b"secret").unwrap();
    let mount = store.mount();
    symlink("../../outside", mount.join("dir")).unwrap();
    symlink(outside.join("secret"), mount.join("file")).unwrap();
    symlink("/nowhere", mount.join("dangling")).unwrap();
    // The kernel resolves links where the reader is, as everywhere.
    assert_eq!(fs::read(mount.join("file")).unwrap(), b"secret");
    assert_eq!(fs::read_link(mount.join("dir")).unwrap(), Path::new("../../outside"));
    assert_eq!(fs::read_link(mount.join("dangling")).unwrap(), Path::new("/nowhere"));
    drop(mount);

    // Sepia's own walks never leave the store.
    for arguments in [
        &["cat", "dir/secret"][..],
        &["cat", "file"],
        &["ls", "dir/"],
        &["history", "dir/secret"],
        &["restore", "dir/secret", "--generation", "1"],
        &["rm", "dir/secret"],
    ] {
        let output = run_within(&mut store.command(arguments), common::LIMIT);
        let text = output.text();
        assert!(!text.contains("secret\n") && !text.ends_with("secret"), "{arguments:?} printed {text}");
        if arguments[0] != "ls" {
            assert!(!output.status.success(), "{arguments:?} succeeded");
        }
        assert!(!output.stderr.contains("panicked"), "{arguments:?}: {}", output.stderr);
    }
    let input = store.scratch().path().join("input");
    fs::write(&input, b"overwritten").unwrap();
    let mut put = store.command(&["put", "dir/secret"]);
    put.arg(&input);
    assert!(!run_within(&mut put, common::LIMIT).status.success());
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
    assert_eq!(names(&outside), BTreeSet::from(["secret".into()]));
}

#[test]
fn the_reserved_name_is_reserved_at_the_root_only() {
    let store = Store::new();
    let mount = store.mount();
    fs::create_dir_all(mount.join("a/b")).unwrap();
    for dir in ["a", "a/b"] {
        let path = mount.join(dir).join(".sepia");
        fs::write(&path, b"ordinary").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"ordinary");
        assert!(names(&mount.join(dir)).contains(OsStr::new(".sepia")));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("format"), b"mine").unwrap();
        assert_eq!(fs::read(path.join("format")).unwrap(), b"mine");
    }
    assert_eq!(names(mount.path()), BTreeSet::from(["a".into()]), ".sepia is not listed at the root");
    let reserved = mount.join(".sepia");
    let refused = [Errno::EXIST, Errno::PERM, Errno::ACCESS, Errno::BUSY, Errno::INVAL, Errno::ISDIR, Errno::NOTDIR];
    assert_errno(fs::write(&reserved, b""), &refused);
    assert_errno(fs::create_dir(&reserved), &refused);
    assert_errno(symlink("a", &reserved), &refused);
    fs::write(mount.join("file"), b"").unwrap();
    assert_errno(fs::hard_link(mount.join("file"), &reserved), &refused);
    assert_errno(fs::rename(mount.join("file"), &reserved), &refused);
    assert_errno(fs::rename(mount.join("a"), &reserved), &[refused.as_slice(), &[Errno::NOTEMPTY]].concat());
    // Without views there may be nothing to see there; with them it can't be moved or removed.
    let gone_or_refused = [refused.as_slice(), &[Errno::NOENT, Errno::NOTEMPTY]].concat();
    assert_errno(fs::rename(&reserved, mount.join("b")), &gone_or_refused);
    assert_errno(fs::remove_dir(&reserved), &gone_or_refused);
    assert_errno(fs::remove_file(&reserved), &gone_or_refused);
    // Nor does the store's own `.sepia/staging` show through.
    assert_errno(fs::metadata(reserved.join("staging")), &[Errno::NOENT, Errno::ACCESS, Errno::PERM]);
    mount.sh("rm -rf ./* && test -z \"$(ls -A)\"");
    drop(mount);
    store.mount().sh("echo works > after");
}

#[test]
fn large_directories_can_be_read_while_they_change() {
    let store = Store::new();
    let mount = store.mount();
    let dir = mount.join("many");
    fs::create_dir(&dir).unwrap();
    for number in 0..5000 {
        File::create(dir.join(format!("file{number}"))).unwrap();
    }
    let found = names(&dir);
    assert_eq!(found.len(), 5000);
    // Each entry exactly once, and those that stay are never left out while others go.
    let mut seen = BTreeSet::new();
    for (count, entry) in fs::read_dir(&dir).unwrap().enumerate() {
        let entry = entry.unwrap();
        assert!(seen.insert(entry.file_name()), "{:?} came twice", entry.file_name());
        if count % 2 == 0 {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    assert_eq!(seen, found);
    assert_eq!(names(&dir).len(), 2500);
    assert_eq!(mount.sh("find many -type f | wc -l").trim(), "2500");
    // What readdir says of an inode is what stat says.
    mount.sh("cd many; diff <(ls -i1 | awk '{ print $1, $2 }' | sort) <(stat -c '%i %n' * | sort) >&2");
    mount.sh("rm -r many");
    assert_eq!(names(mount.path()), BTreeSet::new());
}

/// As editors save, beside programs that look: a LOOKUP that runs beside the rename sees it before it is over.
#[test]
fn who_saves_by_renaming_beside_others_who_look_never_fails() {
    let store = Store::new();
    let mount = store.mount();
    let (file, new) = (mount.join("file"), mount.join(".file.new"));
    fs::write(&file, b"first").unwrap();
    let seconds = std::env::var("SEPIA_TEST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let (start, limit) = (Instant::now(), Duration::from_secs(seconds));
    let goes_on = || start.elapsed() < limit;
    let check = |what: &str, result: std::io::Result<()>| {
        result.unwrap_or_else(|error| panic!("{what} after {:?}: {error}", start.elapsed()));
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while goes_on() {
                    check("stat", fs::metadata(&file).map(drop));
                    check("open", File::open(&file).map(drop));
                }
            });
        }
        while goes_on() {
            check("making", fs::write(&new, b"saved\n"));
            check("renaming", fs::rename(&new, &file));
            let opened = OpenOptions::new().append(true).open(&file);
            let append = |mut file: File| file.write_all(b"appended\n").and_then(|()| file.sync_all());
            check("appending", opened.and_then(append));
            assert_eq!(fs::read(&file).unwrap(), b"saved\nappended\n");
        }
    });
    mount.unmount();
}
