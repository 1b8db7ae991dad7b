//! Bytes: maps, appends, unlinked files, holes, copies, truncation.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::thread;

use super::{errno, names, read_write};
use crate::common::{self, Store};
use rustix::fs::{AtFlags, CWD, FallocateFlags, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags};

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

    mount.sh("for p in 1 2 3 4; do
           ( for i in $(seq 250); do echo \"$p $i\" >> many; done ) &
         done; wait");
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

/// Nothing else comes to say so: whoever looks right after the close sees it.
#[test]
fn what_was_only_truncated_is_saved_by_the_close_of_who_opened_it() {
    let store = Store::new();
    let mount = store.mount();
    let path = mount.join("file");
    let stored = || fs::read(store.path().join("file")).unwrap();
    for round in 0..20 {
        fs::write(&path, "bytes").unwrap();
        let file = fs::File::options().write(true).truncate(true).open(&path).unwrap();
        let copy = file.try_clone().unwrap();
        drop(file);
        assert_eq!(stored(), b"bytes", "round {round}: a copy of the descriptor is open");
        drop(copy);
        assert_eq!(stored(), b"", "round {round}: opened with O_TRUNC");
        fs::write(&path, "bytes").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(2).unwrap();
        assert_eq!(stored(), b"by", "round {round}: cut off");
        fs::write(&path, "bytes").unwrap();
        mount.sh(": > file");
        assert_eq!(stored(), b"", "round {round}: by a shell");
    }
    // Who makes it longer may have mapped it.
    fs::write(&path, "bytes").unwrap();
    let before = store.generations("file").len();
    let script = "import mmap, os; f = os.open('file', os.O_RDWR); os.ftruncate(f, 8192); m = mmap.mmap(f, 8192); os.close(f); \
                  print(os.path.getsize(os.environ['STORED'])); m[0:4] = b'more'; m.flush(); m.close()";
    let output = common::run(
        common::script(mount.path(), &format!("python3 -c \"{script}\"")).env("STORED", store.path().join("file")),
    );
    assert_eq!(output.text().trim(), "5", "zeros are shown to nobody");
    common::wait_for("what was written through the mapping", || stored().starts_with(b"mores").then_some(()));
    assert_eq!((stored().len(), store.generations("file").len()), (8192, before + 1));
    // Who hands the descriptor on has done with it. What is written then belongs to the same generation.
    fs::write(&path, "bytes").unwrap();
    let before = store.generations("file");
    mount.sh("python3 -c 'import subprocess; f = open(\"file\", \"w\"); c = subprocess.Popen([\"sh\", \"-c\", \"sleep 0.2; echo new\"], stdout=f); f.close(); c.wait()'");
    let after = store.generations("file");
    assert_eq!((stored(), after.len()), (b"new\n".to_vec(), before.len() + 1), "{before:?} {after:?}");
    mount.unmount();
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

#[test]
fn a_forked_child_that_drops_its_copy_of_the_descriptor_saves_nothing() {
    let store = Store::new();
    let mount = store.mount();
    fs::write(mount.join("f"), "whole\n").unwrap();
    let mut file = OpenOptions::new().write(true).truncate(true).open(mount.join("f")).unwrap();
    file.write_all(b"ha").unwrap();
    // It closes its copy by execve(2), since Rust opens files with O_CLOEXEC.
    common::run(&mut std::process::Command::new("true"));
    assert_eq!(store.cat("f", None), b"whole\n", "half of it was saved");
    // Another thread writes and closes, as any of a process may.
    thread::spawn(move || {
        file.write_all(b"lf\n").unwrap();
        drop(file);
    })
    .join()
    .unwrap();
    assert_eq!(store.cat("f", None), b"half\n");
    assert_eq!(store.generations("f"), [1, 2]);
    // A child that writes saves, too, by ending.
    let file = File::create(mount.join("by-child")).unwrap();
    let status = std::process::Command::new("echo").arg("text").stdout(file.try_clone().unwrap()).status().unwrap();
    assert!(status.success());
    assert_eq!(store.cat("by-child", None), b"text\n");
    drop(file);
    assert_eq!(store.generations("by-child"), [1]);
    mount.unmount();
}
