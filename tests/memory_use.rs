//! What the daemon holds on to while somebody walks a large tree: little, and only as long as the kernel remembers it.

mod common;
mod rig;

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;

use common::{LoopFs, Mount, Scratch, Store, run, sh, wait_for};
use rig::{descriptors, proc_status, watched_directories};

const FILES: usize = 200_000;
const PARTS: usize = 4;
/// In each part: far more than the daemon may keep open.
const DIRS: usize = 500;
/// How many directories the daemon keeps open for what comes next, of objects and of histories (docs/design.md, Locks).
const KEPT_OPEN: usize = 256 + 32;
const MEBIBYTE: u64 = 1 << 20;

/// Has the kernel forget all it knows of names and inodes, which tells the daemon so.
fn drop_caches() {
    rustix::fs::sync();
    File::options().write(true).open("/proc/sys/vm/drop_caches").unwrap().write_all(b"2").unwrap();
}

/// All names with their attributes; returns how many there are.
fn walk(mount: &Mount, part: &str) -> usize {
    // -ls asks for the attributes of every file.
    run(Command::new("find").arg(mount.join(part)).args(["-type", "f", "-ls"])).stdout.split(|b| *b == b'\n').count()
        - 1
}

#[test]
fn as_root_a_walk_through_a_large_tree_takes_little_and_keeps_nothing() {
    let scratch = Scratch::new();
    let disk = LoopFs::new(&scratch, "xfs", 2 << 30);
    let path = disk.path().join("store");
    for part in 0..PARTS {
        for dir in 0..DIRS {
            let dir = path.join(format!("Part{part}/d{dir}"));
            fs::create_dir_all(&dir).unwrap();
            for number in 0..FILES / PARTS / DIRS {
                File::create(dir.join(format!("object-{number}"))).unwrap();
            }
        }
    }
    let store = Store::at(scratch, path);

    // All of it at once: the kernel may remember as much as it likes.
    let mount = store.mount();
    assert_eq!(walk(&mount, ""), FILES);
    // Without the pages of the program itself, which are some 6 MiB, but in a debug build several times that.
    let peak = proc_status(&mount, "VmHWM:").saturating_sub(proc_status(&mount, "RssFile:"));
    println!("{FILES} files walked: {} MiB at most", peak / MEBIBYTE);
    assert!(peak < (64 - 8) * MEBIBYTE, "the daemon grew to {} MiB", peak / MEBIBYTE);
    mount.unmount();

    // Part by part, with the kernel's caches dropped in between: what is forgotten must not add up.
    drop_caches();
    let mount = store.mount();
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), PARTS);
    let (empty, open) = (proc_status(&mount, "VmRSS:"), descriptors(&mount));
    let watched = watched_directories(&mount);
    let mut grown = Vec::new();
    for part in 0..PARTS {
        assert_eq!(walk(&mount, &format!("Part{part}")), FILES / PARTS);
        grown.push(proc_status(&mount, "VmRSS:").saturating_sub(empty));
        drop_caches();
        // The record of a directory holds a watch as long as it is there: none is left but of what the kernel remembers.
        // FORGETs may come in after what is asked later (fuse_dev_do_read lets requests go first now and then).
        wait_for("the kernel's forgetting", || (watched_directories(&mount) <= watched + PARTS).then_some(()));
    }
    println!("grown by (KiB): {:?}", grown.iter().map(|bytes| bytes / 1024).collect::<Vec<_>>());
    assert!(
        grown[PARTS - 1] < 2 * grown[0] + 4 * MEBIBYTE,
        "what the kernel has forgotten is still there: grown by {grown:?} bytes, part by part"
    );
    let still_open = descriptors(&mount);
    assert!(still_open <= open + KEPT_OPEN, "{open} descriptors before the walk, {still_open} after it");
    mount.unmount();
}

#[test]
fn reading_and_writing_leak_no_descriptor() {
    let store = Store::new();
    let mount = store.mount();
    let work = r#"
        mkdir -p Note; cd Note
        for i in $(seq 200); do echo $i > n$i; echo more >> n$i; cat n$i > /dev/null; done
        for i in $(seq 200); do mv n$i m$((i % 20)); done
        rm *; cd ..; rmdir Note; ls -R > /dev/null
    "#;
    // What it keeps open on purpose is open after this.
    for _ in 0..3 {
        sh(mount.path(), work);
    }
    let before = descriptors(&mount);
    for _ in 0..3 {
        sh(mount.path(), work);
    }
    let after = descriptors(&mount);
    assert!(after <= before + 4, "{before} descriptors became {after}");
    mount.unmount();
}
