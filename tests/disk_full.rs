//! A full disk: writes fail with ENOSPC, what was saved before stays whole, and with space again everything goes on.

mod common;
mod rig;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use common::library::{ANY, key};
use common::{LoopFs, Mount, Scratch, Store, sh_fails, wait_for};
use rig::disk::{fill, use_all_inodes};
use rig::load::close;
use rig::record::{Tag, object, read_object};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use sepia::store::{Session, SessionOptions};

struct Small {
    mount: Mount,
    store: Store,
    disk: LoopFs,
}

fn small() -> Small {
    let scratch = Scratch::new();
    let disk = LoopFs::new(&scratch, "ext4", 48 << 20);
    let store = Store::at(scratch, disk.path().join("store"));
    let mount = store.mount();
    fs::create_dir(mount.join("Note")).unwrap();
    Small { mount, store, disk }
}

fn record(seq: u64, length: usize) -> Vec<u8> {
    object(Tag { seq, writer: 0 }, length)
}

/// Writes as careful programs do, close included.
fn save(file: File, bytes: &[u8]) -> io::Result<()> {
    let written = (&file).write_all(bytes).and_then(|()| file.sync_all());
    let closed = close(file);
    written.and(closed)
}

#[track_caller]
fn assert_no_space(result: io::Result<()>) {
    let code = result.expect_err("there was no space for that").raw_os_error();
    assert_eq!(code, Some(Errno::NOSPC.raw_os_error()));
}

#[track_caller]
fn assert_holds(small: &Small, name: &str, seq: u64) {
    for path in [small.mount.join(name), small.store.path().join(name)] {
        let tag = read_object(&fs::read(path).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(tag.seq, seq, "{name}");
    }
}

#[test]
fn as_root_a_full_disk_loses_nothing_and_goes_on() {
    let small = small();
    let dir = small.mount.join("Note");
    for name in ["truncated", "overwritten", "appended", "replaced", "removed"] {
        fs::write(dir.join(name), record(1, 100_000)).unwrap();
    }
    let ballast = fill(small.disk.path(), 64 << 10);
    let big = record(2, 4 << 20);

    // Over what is there, in every way.
    let truncated = OpenOptions::new().write(true).truncate(true).open(dir.join("truncated")).unwrap();
    assert_no_space(save(truncated, &big));
    assert_holds(&small, "Note/truncated", 1);
    let overwritten = OpenOptions::new().write(true).open(dir.join("overwritten")).unwrap();
    assert_no_space(save(overwritten, &big));
    assert_holds(&small, "Note/overwritten", 1);
    let appended = OpenOptions::new().append(true).open(dir.join("appended")).unwrap();
    assert_no_space(save(appended, &big));
    assert_holds(&small, "Note/appended", 1);
    // New, then over another: nobody renames what could not be written, but what is there must not suffer.
    assert_no_space(File::create(dir.join("new")).and_then(|file| save(file, &big)));
    assert_holds(&small, "Note/replaced", 1);
    for name in ["truncated", "overwritten", "appended", "replaced"] {
        assert_eq!(small.store.generations(format!("Note/{name}")), [1], "{name}");
    }
    // A removal needs no space worth speaking of.
    fs::remove_file(dir.join("removed")).unwrap();

    fs::remove_file(ballast).unwrap();
    for name in ["truncated", "overwritten", "replaced", "new"] {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(dir.join(name)).unwrap();
        save(file, &record(3, 50_000)).unwrap();
        assert_holds(&small, &format!("Note/{name}"), 3);
    }
    let mut appended = OpenOptions::new().append(true).open(dir.join("appended")).unwrap();
    appended.write_all(b"more").unwrap();
    close(appended).unwrap();
    let whole = fs::read(dir.join("appended")).unwrap();
    assert_eq!(whole, [record(1, 100_000), b"more".to_vec()].concat());
    assert_eq!(small.store.generations("Note/truncated"), [1, 2]);
    assert_eq!(small.store.cat("Note/truncated", Some(1)), record(1, 100_000));
    small.mount.unmount();
}

/// A write that failed and was repeated when there was space again is a write that succeeded.
#[test]
fn as_root_a_failed_write_can_be_repeated() {
    let small = small();
    let path = small.mount.join("Note/n");
    fs::write(&path, record(1, 1000)).unwrap();
    let file = OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    let bytes = record(2, 1 << 20);
    let ballast = fill(small.disk.path(), 0);
    let mut done = 0;
    while done < bytes.len() {
        match file.write_at(&bytes[done..], done as u64) {
            Ok(n) => done += n,
            Err(_) => break,
        }
    }
    assert!(done < bytes.len(), "the disk was not full");
    assert_holds_old(&small, 1);
    fs::remove_file(ballast).unwrap();
    file.write_all_at(&bytes[done..], done as u64).unwrap();
    file.sync_all().unwrap();
    close(file).unwrap();
    assert_holds(&small, "Note/n", 2);
    assert_eq!(small.store.generations("Note/n"), [1, 2]);
    small.mount.unmount();
}

/// Its bytes are replaced in its own file, which all of its names are.
#[test]
fn as_root_an_object_with_two_names_stays_whole() {
    let small = small();
    let (one, other) = (small.mount.join("Note/one"), small.mount.join("Note/other"));
    fs::write(&one, record(1, 100_000)).unwrap();
    fs::hard_link(&one, &other).unwrap();
    let ballast = fill(small.disk.path(), 300 << 10);
    // There is room for the bytes, and for what they replace, but not for the bytes a second time.
    let file = OpenOptions::new().write(true).truncate(true).open(&one).unwrap();
    assert_no_space(save(file, &record(2, 180_000)));
    for name in ["Note/one", "Note/other"] {
        assert_holds(&small, name, 1);
    }
    fs::remove_file(ballast).unwrap();
    save(OpenOptions::new().write(true).truncate(true).open(&one).unwrap(), &record(3, 200_000)).unwrap();
    for name in ["Note/one", "Note/other"] {
        assert_holds(&small, name, 3);
    }
    // The kernel doesn't say by which of its names a file was opened.
    let written = ["Note/one", "Note/other"].into_iter().find(|name| small.store.generations(name) == [1, 2]);
    assert_eq!(small.store.cat(written.unwrap(), Some(1)), record(1, 100_000));
    small.mount.unmount();
}

/// A save into an object with two names, of which somebody else takes the room as soon as the old bytes leave it, so that these
/// can't be put back. `None` if they were too late. Returns the session, the names, and who has the room.
fn half_a_save(disk: &Path, store: &sepia::Store, attempt: u32) -> Option<(Session, [String; 2], [PathBuf; 2])> {
    let names = ["f", "g"].map(|name| format!("{name}{attempt}"));
    let [f, g] = &names;
    let path = disk.join("store");
    store.put(&key(f), &mut &record(1, HALVED)[..], ANY).unwrap();
    fs::hard_link(path.join(f), path.join(g)).unwrap();
    let mut session = store.open_session(&key(f), &SessionOptions::default()).unwrap();
    session.truncate(0).unwrap();
    session.write_at(&record(2, HALVED), 0).unwrap();
    // There is room for a copy of the old bytes.
    let takers = [fill(disk, HALVED as u64 + (1 << 20)), disk.join("taken")];
    let (taker, done) = (File::create(&takers[1]).unwrap(), AtomicBool::new(false));
    let ready = std::sync::Barrier::new(2);
    let take = || {
        ready.wait();
        let (mut size, mut more) = (0, 4 << 20);
        while !done.load(Ordering::Relaxed) {
            let cut = fs::metadata(path.join(f)).unwrap().len() < HALVED as u64;
            if cut && rustix::fs::fallocate(&taker, FallocateFlags::empty(), size, more).is_ok() {
                size += more;
            } else if cut {
                more = (more / 2).max(4096);
            }
        }
    };
    let published = std::thread::scope(|scope| {
        scope.spawn(take);
        ready.wait();
        let published = session.publish(&key(f), false);
        done.store(true, Ordering::Relaxed);
        published
    });
    if published.is_err() && fs::metadata(path.join(f)).unwrap().len() != HALVED as u64 {
        return Some((session, names, takers));
    }
    session.close(&key(f));
    takers.into_iter().for_each(|taker| fs::remove_file(taker).unwrap());
    None
}

const HALVED: usize = 8 << 20;

/// Until there is room to put the old bytes back, nobody sees the half of the new ones.
#[test]
fn as_root_half_an_object_with_two_names_is_put_back_when_there_is_room() {
    for after in ["closed before", "closed after"] {
        let scratch = Scratch::new();
        let disk = LoopFs::new(&scratch, "ext4", 128 << 20);
        let path = disk.path().join("store");
        let store = sepia::Store::init(path.to_str().unwrap()).unwrap();
        let tried = (0..5).find_map(|attempt| half_a_save(disk.path(), &store, attempt));
        let (session, names, takers) = tried.expect("nobody has taken the room in time");
        let bytes = |name: &String| {
            let mut found = Vec::new();
            let opened = store.get(&key(name)).unwrap();
            (&*opened.file).read_to_end(&mut found).unwrap();
            (opened.stat.generation.unwrap().get(), found)
        };
        assert!(names.iter().all(|name| store.get(&key(name)).is_err()), "{after}");
        let conflicts = store.conflicts().unwrap().len();
        let free = || takers.iter().for_each(|taker| fs::remove_file(taker).unwrap());
        match after {
            "closed before" => {
                session.close(&key(&names[0]));
                assert!(names.iter().all(|name| store.get(&key(name)).is_err()), "{after}");
                free();
            }
            _ => {
                free();
                session.close(&key(&names[0]));
                assert_eq!(store.conflicts().unwrap().len(), conflicts + 1);
            }
        }
        for name in &names {
            assert!(bytes(name) == (1, record(1, HALVED)), "{name}, {after}");
        }
    }
}

/// What a copy in the history has taken before the disk was full is given back.
#[test]
fn as_root_half_a_copy_in_the_history_takes_no_room() {
    let small = small();
    let one = small.mount.join("Note/one");
    fs::write(&one, record(1, 2 << 20)).unwrap();
    let mut file = OpenOptions::new().append(true).open(&one).unwrap();
    file.write_all(b"more").unwrap();
    close(file).unwrap();
    let ballast = fill(small.disk.path(), 300 << 10);
    // A second name needs the beginnings of it whole.
    assert_no_space(fs::hard_link(&one, small.mount.join("Note/other")));
    let history = small.store.path().join(".sepia/generations/Note/one");
    let names: Vec<_> = fs::read_dir(history).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.as_encoded_bytes().starts_with(b".")), "{names:?}");
    fs::remove_file(ballast).unwrap();
    fs::hard_link(&one, small.mount.join("Note/other")).unwrap();
    assert_eq!(small.store.cat("Note/one", Some(1)), record(1, 2 << 20));
    small.mount.unmount();
}

/// So are they where nothing was ever saved to it.
#[test]
fn as_root_an_empty_object_with_two_names_stays_empty() {
    let small = small();
    let (one, other) = (small.mount.join("Note/one"), small.mount.join("Note/other"));
    File::create(&one).unwrap();
    fs::hard_link(&one, &other).unwrap();
    let ballast = fill(small.disk.path(), 300 << 10);
    assert_no_space(save(OpenOptions::new().write(true).open(&one).unwrap(), &record(1, 180_000)));
    for name in ["Note/one", "Note/other"] {
        assert!(fs::read(small.mount.join(name)).unwrap().is_empty(), "{name}");
        assert!(small.store.generations(name).is_empty(), "{name}");
    }
    fs::remove_file(ballast).unwrap();
    save(OpenOptions::new().write(true).open(&one).unwrap(), &record(2, 200_000)).unwrap();
    for name in ["Note/one", "Note/other"] {
        assert_holds(&small, name, 2);
        assert_eq!(small.store.generations(name), [1], "{name}");
    }
    small.mount.unmount();
}

/// What all processes share is a page of a file, and who finds no block to write it is ended.
#[test]
fn as_root_directories_can_be_renamed() {
    let small = small();
    fs::create_dir_all(small.mount.join("Note/from/below")).unwrap();
    let ballast = fill(small.disk.path(), 0);
    let _ = fs::rename(small.mount.join("Note/from"), small.mount.join("Note/to"));
    fs::read_dir(small.mount.join("Note")).expect("the daemon has died");
    fs::remove_file(ballast).unwrap();
    small.mount.unmount();
}

/// A rename makes a note, and a directory for the history of what is moved: there may be inodes for some of that.
#[test]
fn as_root_a_rename_is_done_with_its_history_or_not_at_all() {
    let small = small();
    let mut done = Vec::new();
    for free in 0..5 {
        let (from, to) = (format!("from-{free}"), format!("to-{free}/moved"));
        for dir in [&from, &format!("to-{free}")] {
            fs::create_dir(small.mount.join(dir)).unwrap();
        }
        for seq in [1, 2] {
            fs::write(small.mount.join(&from).join("f"), record(seq, 100)).unwrap();
        }
        let inodes = use_all_inodes(small.disk.path());
        (0..free).for_each(|number| fs::remove_file(inodes.join(number.to_string())).unwrap());
        let renamed = fs::rename(small.mount.join(&from), small.mount.join(&to));
        let (there, gone) = if renamed.is_ok() { (&to, &from) } else { (&from, &to) };
        assert!(fs::metadata(small.mount.join(gone)).is_err(), "{free} inodes free: {renamed:?}");
        assert_holds(&small, &format!("{there}/f"), 2);
        assert_eq!(small.store.generations(format!("{there}/f")), [1, 2], "{free} inodes free: {renamed:?}");
        done.push(renamed.is_ok());
        fs::remove_dir_all(inodes).unwrap();
    }
    assert!(done.contains(&true) && done.contains(&false), "{done:?}");
    small.mount.unmount();
}

fn assert_holds_old(small: &Small, seq: u64) {
    let bytes = fs::read(small.store.path().join("Note/n")).unwrap();
    assert_eq!(read_object(&bytes).unwrap().seq, seq);
}

/// Each range by itself, in whichever order.
#[test]
fn as_root_several_failed_writes_can_be_repeated() {
    let small = small();
    let path = small.mount.join("Note/n");
    for order in [[0, 40_000], [40_000, 0]] {
        fs::write(&path, vec![b'o'; 80_000]).unwrap();
        let ballast = fill(small.disk.path(), 20 << 10);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        for at in order {
            assert_no_space(file.write_all_at(&[b'n'; 4096], at));
        }
        fs::remove_file(ballast).unwrap();
        for at in order {
            file.write_all_at(&[b'n'; 4096], at).unwrap();
        }
        file.sync_all().unwrap();
        close(file).unwrap();
        let bytes = fs::read(small.store.path().join("Note/n")).unwrap();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'n').count(), 8192);
    }
    assert!(small.store.conflicts().is_empty());
    small.mount.unmount();
}

/// A service with its log open, and others that append to it.
#[test]
fn as_root_a_failed_append_takes_no_others_with_it() {
    let small = small();
    let path = small.mount.join("Note/log");
    fs::write(&path, "start\n").unwrap();
    let append = || OpenOptions::new().append(true).open(&path).unwrap();
    let service = append();
    let ballast = fill(small.disk.path(), 0);
    assert_no_space((&service).write_all(&[b'x'; 100_000]));
    fs::remove_file(ballast).unwrap();
    for _ in 0..3 {
        let mut other = append();
        other.write_all(b"other\n").unwrap();
        close(other).unwrap();
    }
    close(service).unwrap();
    for path in [path, small.store.path().join("Note/log")] {
        assert_eq!(fs::read_to_string(path).unwrap(), "start\nother\nother\nother\n");
    }
    assert!(small.store.conflicts().is_empty());
    small.mount.unmount();
}

/// What fsync has acknowledged is current afterwards, whatever failed later.
#[test]
fn as_root_a_full_disk_takes_nothing_that_fsync_has_acknowledged() {
    let small = small();
    let path = small.mount.join("Note/n");
    let file = File::create(&path).unwrap();
    file.write_all_at(&[b'a'; 20_480], 0).unwrap();
    file.sync_all().unwrap();
    file.write_all_at(&[b'b'; 100], 0).unwrap();
    file.sync_all().unwrap();
    let ballast = fill(small.disk.path(), 0);
    assert_no_space(file.write_all_at(&[b'c'; 500_000], 20_480));
    let closed = close(file);
    fs::remove_file(ballast).unwrap();
    closed.unwrap();
    let bytes = fs::read(small.store.path().join("Note/n")).unwrap();
    assert_eq!((bytes.len(), &bytes[..101]), (20_480, [[b'b'; 100].as_slice(), b"a"].concat().as_slice()));
    assert!(small.store.conflicts().is_empty());
    small.mount.unmount();
}

/// Copied in the kernel, as `cp` and `cat` do.
#[test]
fn as_root_half_a_copy_onto_a_full_disk_is_not_current() {
    let small = small();
    let dir = small.mount.path();
    fs::write(dir.join("Note/source"), record(2, 3 << 20)).unwrap();
    for command in ["cp source copied", "cat source > copied", "install source copied"] {
        fs::write(dir.join("Note/copied"), record(1, 100_000)).unwrap();
        let ballast = fill(small.disk.path(), 1200 << 10);
        sh_fails(&dir.join("Note"), command);
        fs::remove_file(ballast).unwrap();
        if command.starts_with("install") {
            // It removes what is there first.
            assert_eq!(fs::read(small.store.path().join("Note/copied")).map_or(0, |bytes| bytes.len()), 0);
        } else {
            assert_holds(&small, "Note/copied", 1);
        }
    }
    small.mount.unmount();
}

/// It changes nothing, takes no space, and stands in nobody's way.
#[test]
fn as_root_a_failed_allocation_changes_nothing() {
    let small = small();
    let path = small.mount.join("Note/n");
    fs::write(&path, "old.").unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"NEW", 0).unwrap();
    let space = || rustix::fs::statvfs(small.disk.path()).unwrap().f_bavail;
    let before = space();
    for mode in [FallocateFlags::empty(), FallocateFlags::KEEP_SIZE] {
        assert_eq!(rustix::fs::fallocate(&file, mode, 0, 1 << 30), Err(Errno::NOSPC));
        assert_eq!(file.metadata().unwrap().len(), 4);
        assert!(before - space() < 100, "{} blocks were taken", before - space());
    }
    close(file).unwrap();
    for path in [path, small.store.path().join("Note/n")] {
        assert_eq!(fs::read(path).unwrap(), b"NEW.");
    }
    small.mount.unmount();
}

/// Neither what a mapping could not be written back to, nor what a save that failed had written.
#[test]
fn as_root_nobody_reads_what_could_not_be_saved() {
    let small = small();
    let path = small.mount.join("Note/n");
    fs::write(&path, "old.".repeat(5000)).unwrap();
    let ballast = fill(small.disk.path(), 0);
    let store = "import mmap, os; f = os.open('n', os.O_RDWR); m = mmap.mmap(f, 20000); m[0:4] = b'NEW!'; m.flush()";
    let said = sh_fails(&small.mount.join("Note"), &format!("python3 -c \"{store}\""));
    assert!(said.contains("No space left"), "{said}");
    fs::remove_file(ballast).unwrap();
    assert_eq!(fs::read(&path).unwrap()[..4], *b"old.");

    let reader = File::open(&path).unwrap();
    let shown = || {
        let mut bytes = [0; 4];
        reader.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    assert_eq!(shown(), *b"old.");
    let writer = OpenOptions::new().write(true).open(&path).unwrap();
    writer.write_all_at(b"NEW!", 0).unwrap();
    assert_eq!(shown(), *b"NEW!");
    writer.write_all_at(b"far", 1 << 45).unwrap_err();
    close(writer).unwrap_err();
    wait_for("the reader to have what is there", || (shown() == *b"old.").then_some(()));
    assert_eq!(small.store.conflicts().len(), 1);
    drop(reader);
    small.mount.unmount();
}

/// No inode and hardly a block left for directories and records.
#[test]
fn as_root_no_room_for_names_loses_nothing_and_goes_on() {
    let small = small();
    let dir = small.mount.join("Note");
    for number in 0..20 {
        fs::write(dir.join(format!("n{number}")), record(1, 3000)).unwrap();
    }
    // The file that will fill it needs an inode itself.
    File::create(small.disk.path().join("ballast")).unwrap();
    let open = OpenOptions::new().read(true).write(true).open(dir.join("n0")).unwrap();
    let inodes = use_all_inodes(small.disk.path());
    let ballast = fill(small.disk.path(), 0);
    assert_no_space(open.set_len(0));
    let mut still = vec![0; 4000];
    let count = open.read_at(&mut still, 0).unwrap();
    assert!(still[..count] == record(1, 3000), "what could not be cut off is still there");
    drop(open);
    let mut failed = 0;
    let new = File::create(dir.join("new")).and_then(|file| save(file, b"new"));
    assert_no_space(new);
    for number in 0..20 {
        let opened = OpenOptions::new().write(true).truncate(true).open(dir.join(format!("n{number}")));
        if opened.and_then(|file| save(file, &record(2, 3000))).is_err() {
            failed += 1;
            assert_holds(&small, &format!("Note/n{number}"), 1);
        } else {
            assert_holds(&small, &format!("Note/n{number}"), 2);
        }
    }
    assert!(failed > 0, "nothing failed: the disk was not full");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 20, "a name that could not be made is not there");
    fs::remove_dir_all(inodes).unwrap();
    fs::remove_file(ballast).unwrap();
    for number in 0..20 {
        fs::write(dir.join(format!("n{number}")), record(3, 3000)).unwrap();
        assert_holds(&small, &format!("Note/n{number}"), 3);
        let generations = small.store.generations(format!("Note/n{number}"));
        assert!(generations.is_sorted_by(|a, b| a < b) && generations.len() <= 3, "{generations:?}");
        assert_eq!(small.store.cat(&format!("Note/n{number}"), Some(1)), record(1, 3000));
    }
    small.mount.unmount();
}

/// As if all generations of `Note/n` before that number had been superseded long ago.
fn make_old(store: &Store, before: u64) {
    let history = store.path().join(".sepia/generations/Note/n");
    for entry in fs::read_dir(&history).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let number: u64 = name.split_once('@').unwrap().0.parse().unwrap();
        if number < before {
            let old = format!("{number}@20200101T00000{number}.000000000Z-20200101T00000{}.000000000Z", number + 1);
            fs::rename(history.join(&name), history.join(old)).unwrap();
        }
    }
}

/// Older history than an hour makes room for what is being written; the rest stays, and so does what is current.
#[test]
fn as_root_a_full_disk_gives_up_old_history_first() {
    let small = small();
    let path = small.mount.join("Note/n");
    for seq in 1..=6 {
        fs::write(&path, record(seq, 2 << 20)).unwrap();
    }
    make_old(&small.store, 5);
    let ballast = fill(small.disk.path(), 0);
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(small.mount.join("Note/new")).unwrap();
    save(file, &record(1, 3 << 20)).unwrap();
    assert_holds(&small, "Note/new", 1);
    assert_holds(&small, "Note/n", 6);
    assert_eq!(small.store.cat("Note/n", Some(5)), record(5, 2 << 20));
    // What may not go doesn't, though the next write fails for it.
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(small.mount.join("Note/more")).unwrap();
    assert_no_space(save(file, &record(1, 24 << 20)));
    assert_eq!(small.store.cat("Note/n", Some(5)), record(5, 2 << 20));
    fs::remove_file(ballast).unwrap();
    small.mount.unmount();
}

/// A mount needs a few blocks itself.
#[test]
fn as_root_a_store_on_a_full_disk_is_mounted_where_old_history_makes_room() {
    let Small { mount, store, disk } = small();
    for seq in 1..=4 {
        fs::write(mount.join("Note/n"), record(seq, 2 << 20)).unwrap();
    }
    mount.unmount();
    let ballast = fill(disk.path(), 0);
    fs::create_dir(store.scratch().path().join("refused")).unwrap();
    let refused = sh_fails(store.scratch().path(), &format!("sepia mount {} refused", store.path().display()));
    assert!(refused.contains("No space left") && refused.contains("sepia gc --now"), "{refused}");
    make_old(&store, 3);
    let small = Small { mount: store.mount(), store, disk };
    assert_holds(&small, "Note/n", 4);
    assert_eq!(small.store.cat("Note/n", Some(3)), record(3, 2 << 20));
    fs::write(small.mount.join("Note/more"), record(1, 3000)).unwrap();
    fs::remove_file(ballast).unwrap();
    small.mount.unmount();
}
