//! What only the kernel shows of a filesystem, on a real mount.

mod common;

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use common::{Store, need_root, run_within, script, sh_as, sh_as_fails, sh_fails, wait_for};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Mode, RenameFlags, Timespec, Timestamps, XattrFlags,
};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags};

fn read_write(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn names(dir: &Path) -> BTreeSet<OsString> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}

#[track_caller]
fn assert_errno<T>(result: io::Result<T>, expected: &[Errno]) {
    match result {
        Ok(_) => panic!("this should have failed with {expected:?}"),
        Err(error) => {
            let found = errno(&error);
            assert!(found.is_some_and(|found| expected.contains(&found)), "{error} instead of {expected:?}");
        }
    }
}

/// A shared mapping of the whole file.
struct Map {
    start: *mut std::ffi::c_void,
    length: usize,
}

impl Map {
    fn new(file: &File, length: usize) -> Self {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )
        };
        Self { start: start.unwrap(), length }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length);
        // SAFETY: within the mapping, which nobody in this process has borrowed.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.cast::<u8>().add(offset), bytes.len()) }
    }

    fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        assert!(offset + length <= self.length);
        let mut bytes = vec![0; length];
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(self.start.cast::<u8>().add(offset), bytes.as_mut_ptr(), length) }
        bytes
    }

    fn sync(&self) {
        // SAFETY: the mapping is ours.
        unsafe { rustix::mm::msync(self.start, self.length, MsyncFlags::SYNC) }.unwrap();
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers to it any more.
        let _ = unsafe { rustix::mm::munmap(self.start, self.length) };
    }
}

// Bytes

#[test]
fn a_shared_mapping_writes_the_file() {
    let store = Store::new();
    let mount = store.mount();
    let path = mount.join("mapped");
    fs::write(&path, vec![b'.'; 3 * 4096]).unwrap();

    let file = read_write(&path);
    let mut map = Map::new(&file, 3 * 4096);
    map.write(4090, b"across a page");
    map.sync();
    let mut seen = vec![0; 13];
    File::open(&path).unwrap().read_exact_at(&mut seen, 4090).unwrap();
    assert_eq!(seen, b"across a page");

    // The other way round: what is written with write(2) shows in the mapping.
    file.write_all_at(b"from write", 100).unwrap();
    assert_eq!(map.read(100, 10), b"from write");

    // A mapping outlives its descriptor; without msync, unmapping is enough.
    drop(file);
    map.write(8192, b"after close");
    drop(map);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(&bytes[8192..8203], b"after close");
    mount.unmount();
    assert_eq!(store.cat("mapped", None), bytes);
    let generations = store.generations("mapped");
    assert!(generations.len() >= 2, "{generations:?}");
    assert_eq!(store.cat("mapped", Some(1)), vec![b'.'; 3 * 4096]);
}

#[test]
fn a_write_through_a_mapping_changes_mtime() {
    let store = Store::new();
    let mount = store.mount();
    let path = mount.join("mapped");
    fs::write(&path, vec![b'.'; 4096]).unwrap();
    let old = Timespec { tv_sec: 1_000_000_000, tv_nsec: 5 };
    let times = Timestamps { last_access: old, last_modification: old };
    rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
    let file = read_write(&path);
    let mut map = Map::new(&file, 4096);
    map.write(0, b"x");
    map.sync();
    drop(map);
    drop(file);
    assert!(fs::metadata(&path).unwrap().mtime() > 1_000_000_000);
}

#[test]
fn appends_go_to_the_end() {
    let store = Store::new();
    let mount = store.mount();
    let path = mount.join("log");
    let open = || OpenOptions::new().append(true).create(true).open(&path).unwrap();
    let (mut one, mut two) = (open(), open());
    for number in 0..10 {
        writeln!(one, "one {number}").unwrap();
        writeln!(two, "two {number}").unwrap();
    }
    // A positioned write of an O_APPEND descriptor appends too, on Linux.
    one.write_at(b"end\n", 0).unwrap();
    drop((one, two));
    let expected: String = (0..10).map(|n| format!("one {n}\ntwo {n}\n")).collect::<String>() + "end\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);

    mount.sh(
        "for p in 1 2 3 4; do
           ( for i in $(seq 250); do echo \"$p $i\" >> many; done ) &
         done; wait",
    );
    let text = fs::read_to_string(mount.join("many")).unwrap();
    for process in 1..=4 {
        let prefix = format!("{process} ");
        let found: Vec<usize> =
            text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(|n| n.parse().unwrap()).collect();
        assert_eq!(found, (1..=250).collect::<Vec<_>>(), "the lines of process {process}");
    }
    assert_eq!(text.lines().count(), 1000);
    mount.unmount();
    assert_eq!(store.cat("many", None), text.as_bytes());
}

#[test]
fn an_unlinked_file_lives_until_its_last_close() {
    let store = Store::new();
    let mount = store.mount();
    let path = mount.join("file");
    fs::write(&path, b"before").unwrap();
    let mut file = read_write(&path);
    fs::remove_file(&path).unwrap();
    assert!(!path.exists());
    assert_eq!(names(mount.path()), BTreeSet::new());
    assert_eq!(file.metadata().unwrap().nlink(), 0);

    file.seek(SeekFrom::End(0)).unwrap();
    file.write_all(b" and after").unwrap();
    file.sync_all().unwrap();
    // Another file may have the name meanwhile, and isn't touched.
    fs::write(&path, b"another").unwrap();
    assert_ne!(fs::metadata(&path).unwrap().ino(), file.metadata().unwrap().ino());
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before and after");
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    file.set_len(3).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 3);
    drop(file);
    assert_eq!(fs::read(&path).unwrap(), b"another");

    // Created, unlinked and only then written: a temporary file as many programs make them.
    let temporary = mount.join("temporary");
    let mut file = read_write(&temporary);
    fs::remove_file(&temporary).unwrap();
    file.write_all(b"scratch").unwrap();
    file.rewind().unwrap();
    text.clear();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "scratch");
    drop(file);

    // A file that a rename replaced lives on too.
    let (old, new) = (mount.join("old"), mount.join("new"));
    fs::write(&old, b"old").unwrap();
    fs::write(&new, b"new").unwrap();
    let held = File::open(&new).unwrap();
    fs::rename(&old, &new).unwrap();
    let mut bytes = [0; 3];
    held.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"new");
    assert_eq!(held.metadata().unwrap().nlink(), 0);
    drop(held);
    mount.unmount();
    assert!(store.conflicts().is_empty(), "{:?}", store.conflicts());
}

#[test]
fn fallocate_allocates_punches_and_zeroes() {
    let store = Store::new();
    let mount = store.mount();
    let path = mount.join("file");
    let file = read_write(&path);
    file.write_all_at(&vec![b'a'; 1 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let full = file.metadata().unwrap().blocks();

    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 4096, 512 << 10).unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!(meta.len(), 1 << 20);
    assert!(meta.blocks() < full, "{} blocks after the hole, {full} before", meta.blocks());
    let mut expected = vec![b'a'; 1 << 20];
    expected[4096..4096 + (512 << 10)].fill(0);
    assert!(fs::read(&path).unwrap() == expected);

    rustix::fs::fallocate(&file, FallocateFlags::ZERO_RANGE, 900_000, 1000).unwrap();
    expected[900_000..901_000].fill(0);
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 1 << 20, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 2 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 2 << 20);
    expected.resize(2 << 20, 0);
    drop(file);
    assert!(fs::read(&path).unwrap() == expected);
    mount.unmount();
    assert!(store.cat("file", None) == expected);

    // Holes punched in an older generation's file don't reach into that generation.
    let mount = store.mount();
    let file = read_write(&mount.join("file"));
    rustix::fs::fallocate(&file, punch, 0, 4096).unwrap();
    drop(file);
    let generations = store.generations("file");
    let (last, older) = generations.split_last().unwrap();
    assert!(store.cat("file", Some(*older.last().unwrap())) == expected);
    expected[..4096].fill(0);
    assert!(store.cat("file", Some(*last)) == expected);
}

#[test]
fn seek_finds_data_and_holes() {
    let store = Store::new();
    let mount = store.mount();
    let file = read_write(&mount.join("sparse"));
    file.write_all_at(&[b'x'; 4096], 1 << 20).unwrap();
    file.set_len(2 << 20).unwrap();
    file.sync_all().unwrap();
    let seek = |whence| rustix::fs::seek(&file, whence);
    assert_eq!(seek(rustix::fs::SeekFrom::Data(0)).unwrap(), 1 << 20);
    assert_eq!(seek(rustix::fs::SeekFrom::Hole(0)).unwrap(), 0);
    assert_eq!(seek(rustix::fs::SeekFrom::Hole(1 << 20)).unwrap(), (1 << 20) + 4096);
    assert_eq!(seek(rustix::fs::SeekFrom::Data((1 << 20) + 4096)), Err(Errno::NXIO));
    assert_eq!(seek(rustix::fs::SeekFrom::Hole(3 << 20)), Err(Errno::NXIO));
    assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20, "a sparse file takes no more room than its data");
}

#[test]
fn files_larger_than_four_gibibytes_may_be_sparse() {
    let store = Store::new();
    let mount = store.mount();
    let path = mount.join("large");
    let file = read_write(&path);
    let offset = 5 << 30;
    file.write_all_at(b"far out", offset).unwrap();
    drop(file);
    assert_eq!(fs::metadata(&path).unwrap().len(), offset + 7);
    // A change to it costs no 5 GiB on the disk.
    let file = read_write(&path);
    file.write_all_at(b"and in", 12).unwrap();
    drop(file);
    let file = File::open(&path).unwrap();
    let mut bytes = [0; 7];
    file.read_exact_at(&mut bytes, offset).unwrap();
    assert_eq!(&bytes, b"far out");
    let mut bytes = [1; 20];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"\0\0\0\0\0\0\0\0\0\0\0\0and in\0\0");
    let used: u64 = common::sh(store.path(), "du -sk . | cut -f1").trim().parse().unwrap();
    assert!(used < 10_000, "two generations of a sparse file take {used} KiB");
}

#[test]
fn copy_file_range_copies_within_and_between_files() {
    let store = Store::new();
    let mount = store.mount();
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let from = mount.join("from");
    fs::write(&from, &bytes).unwrap();
    let source = read_write(&from);
    let target = read_write(&mount.join("to"));
    let copy = |from: &File, from_offset: u64, to: &File, to_offset: u64, length: usize| {
        let (mut from_offset, mut to_offset, mut left) = (from_offset, to_offset, length);
        while left > 0 {
            let copied =
                rustix::fs::copy_file_range(from, Some(&mut from_offset), to, Some(&mut to_offset), left).unwrap();
            if copied == 0 {
                break;
            }
            left -= copied;
        }
        length - left
    };
    assert_eq!(copy(&source, 1000, &target, 5, 200_000), 200_000);
    // Past the end of the source there is nothing to copy.
    assert_eq!(copy(&source, 299_000, &target, 200_005, 5000), 1000);
    drop(target);
    let mut expected = vec![0; 5];
    expected.extend_from_slice(&bytes[1000..201_000]);
    expected.extend_from_slice(&bytes[299_000..]);
    assert!(fs::read(mount.join("to")).unwrap() == expected);

    assert_eq!(copy(&source, 0, &source, 300_000, 100_000), 100_000);
    drop(source);
    let mut expected = bytes.clone();
    expected.extend_from_slice(&bytes[..100_000]);
    assert!(fs::read(&from).unwrap() == expected);
    assert!(store.cat("from", Some(1)) == bytes);
}

#[test]
fn truncation_cuts_and_extends() {
    let store = Store::new();
    let mount = store.mount();
    let path = mount.join("file");
    fs::write(&path, b"0123456789").unwrap();
    rustix_truncate(&path, 4);
    assert_eq!(fs::read(&path).unwrap(), b"0123");
    let file = read_write(&path);
    file.set_len(8).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"0123\0\0\0\0");
    file.set_len(2).unwrap();
    file.write_all_at(b"x", 5).unwrap();
    drop(file);
    // What was cut off must not come back.
    assert_eq!(fs::read(&path).unwrap(), b"01\0\0\0x");
    File::create(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"");
    assert_eq!(store.cat("file", Some(1)), b"0123456789");
    assert_eq!(store.generations("file").len(), 4, "each of them is a save of its own");
}

fn rustix_truncate(path: &Path, length: u64) {
    // truncate(2) itself, without a handle.
    common::run(
        std::process::Command::new("python3")
            .arg("-c")
            .arg("import os, sys; os.truncate(sys.argv[1], int(sys.argv[2]))")
            .arg(path)
            .arg(length.to_string()),
    );
}

#[test]
fn one_of_many_creates_exclusively() {
    let store = Store::new();
    let (one, two) = (store.mount(), store.mount());
    for round in 0..20 {
        let name = format!("lock{round}");
        let paths = [one.join(&name), two.join(&name), one.join(&name), two.join(&name)];
        let won: usize = thread::scope(|scope| {
            let tries: Vec<_> = paths.iter().map(|path| scope.spawn(move || File::create_new(path))).collect();
            let mut won = 0;
            for tried in tries {
                match tried.join().unwrap() {
                    Ok(_) => won += 1,
                    Err(error) => assert_eq!(errno(&error), Some(Errno::EXIST)),
                }
            }
            won
        });
        assert_eq!(won, 1, "of four that created {name} with O_EXCL");
    }
}

// Names

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
    mount.sh("cd many && diff <(ls -i1 | sort) <(stat -c '%i %n' * | sed 's/^ *//' | sort) >&2 <<< ''");
    mount.sh("rm -r many");
    assert_eq!(names(mount.path()), BTreeSet::new());
}

// Metadata

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
    let tick = || thread::sleep(std::time::Duration::from_millis(20));

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
        // Asked with an empty buffer, the size comes back.
        assert_eq!(rustix::fs::getxattr(&path, "user.a", &mut [0_u8; 0]).unwrap(), 3);

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
    mount.sh(
        "mkdir dir && touch file
         setfacl -m u:games:rwx,g:daemon:r-x,m::r-x file
         setfacl -d -m u:games:rwx,o::- dir
         touch dir/new && mkdir dir/sub && touch dir/sub/deep",
    );
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

// Other users

#[test]
fn as_root_permissions_hold_for_other_users() {
    need_root();
    let store = Store::new();
    let mount = store.mount_with(&["--allow-other"]);
    let dir = mount.path();
    mount.sh(
        "chmod 755 .
         echo root > secret; chmod 600 secret
         echo shared > acl; chmod 600 acl; setfacl -m u:games:rw acl
         mkdir open; chmod 777 open
         mkdir sticky; chmod 1777 sticky; touch sticky/of-root
         mkdir group; chgrp games group; chmod 2777 group",
    );
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

#[test]
fn as_root_other_users_see_nothing_unless_allowed() {
    need_root();
    let store = Store::new();
    let mount = store.mount();
    mount.sh("chmod 777 .; echo x > file; chmod 666 file");
    let said = sh_as_fails("nobody", store.scratch().path(), &format!("cat '{}'", mount.join("file").display()));
    assert!(said.contains("Permission denied"), "{said}");
}

// Locks

#[test]
fn locks_exclude_processes_of_a_mount() {
    let store = Store::new();
    let mount = store.mount();
    let path = mount.join("lock");
    let file = read_write(&path);
    rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
    let said = common::run_within(&mut script(mount.path(), "flock -n lock true"), common::LIMIT);
    assert_eq!(said.status.code(), Some(1), "flock -n while another process holds it: {}", said.stderr);
    assert_eq!(rustix::fs::flock(&read_write(&path), FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK));
    rustix::fs::flock(&file, FlockOperation::Unlock).unwrap();
    mount.sh("flock -n lock true");

    // Counting under the lock loses nothing.
    mount.sh(
        "echo 0 > count
         for p in 1 2 3 4; do
           ( for i in $(seq 25); do flock lock sh -c 'echo $(($(cat count) + 1)) > count'; done ) &
         done; wait
         test \"$(cat count)\" = 100",
    );

    // fcntl locks of ranges, which a process can ask about.
    mount.sh(
        r#"python3 - <<'PY'
import fcntl, os, struct, sys
f = open("ranges", "w+b"); f.write(b"x" * 100); f.flush()
fcntl.lockf(f, fcntl.LOCK_EX, 10, 0)
r, w = os.pipe()
pid = os.fork()
if pid == 0:
    g = open("ranges", "r+b")
    try:
        fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
        os._exit(1)
    except BlockingIOError:
        pass
    fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 50)
    os.write(w, b"1")
    # Waits until the parent lets go.
    fcntl.lockf(g, fcntl.LOCK_EX, 10, 0)
    os._exit(0)
os.read(r, 1)
fcntl.lockf(f, fcntl.LOCK_UN, 10, 0)
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
PY"#,
    );
    // A waiting lock can be interrupted.
    rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
    let said = common::run_within(&mut script(mount.path(), "timeout -s TERM 0.3 flock lock true"), common::LIMIT);
    assert_eq!(said.status.code(), Some(124), "a blocked flock ends when it is told to");
}

#[test]
fn closing_releases_locks() {
    let store = Store::new();
    let mount = store.mount();
    let file = read_write(&mount.join("lock"));
    rustix::fs::fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
    let try_lock = "python3 -c 'import fcntl; fcntl.lockf(open(\"lock\", \"r+b\"), fcntl.LOCK_EX | fcntl.LOCK_NB)'";
    sh_fails(mount.path(), try_lock);
    drop(file);
    mount.sh(try_lock);
}

// The mount as a whole

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
