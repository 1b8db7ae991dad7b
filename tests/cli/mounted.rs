//! Paths below a mount name objects of the mount's store.
//!
//! But for one test, the mount is a stand-in that answers just what a path needs: it has a directory `Note`, any file in it,
//! a link `out` to what is beside it, and says which store it shows. So these tests tell whether the command finds the store and the key, whatever the mount can.
//! They need /dev/fuse and root, and fail without.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, ReplyAttr, ReplyData, ReplyEntry,
    ReplyXattr, Request, Session, SessionACL,
};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::sandbox::{Sandbox, get};

const DIRECTORY: INodeNo = INodeNo(2);
const FILE: INodeNo = INodeNo(3);

const LINK: INodeNo = INodeNo(4);

struct StandIn {
    url: String,
    /// How often it was asked for that.
    asked: Arc<AtomicUsize>,
}

fn attr(ino: INodeNo) -> FileAttr {
    let (kind, perm) = match ino {
        FILE => (FileType::RegularFile, 0o644),
        LINK => (FileType::Symlink, 0o777),
        _ => (FileType::Directory, 0o755),
    };
    FileAttr {
        ino,
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for StandIn {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match parent {
            INodeNo::ROOT if name == "Note" || name == ".sepia" || name == "store" => {
                reply.entry(&Duration::ZERO, &attr(DIRECTORY), Generation(0))
            }
            INodeNo::ROOT if name == "out" => reply.entry(&Duration::ZERO, &attr(LINK), Generation(0)),
            DIRECTORY if name == "out" => reply.entry(&Duration::ZERO, &attr(LINK), Generation(0)),
            DIRECTORY => reply.entry(&Duration::ZERO, &attr(FILE), Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::ZERO, &attr(ino));
    }

    fn readlink(&self, _: &Request, _: INodeNo, reply: ReplyData) {
        reply.data(b"../store");
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if ino != INodeNo::ROOT || name != sepia::fuse::STORE_ATTRIBUTE {
            reply.error(Errno::ENODATA);
        } else if size == 0 {
            reply.size(self.url.len() as u32);
        } else {
            self.asked.fetch_add(1, Ordering::SeqCst);
            reply.data(self.url.as_bytes());
        }
    }
}

struct Mount {
    point: PathBuf,
    asked: Arc<AtomicUsize>,
}

impl Sandbox {
    /// Mounts the stand-in for the store `url` on a directory beside the store's.
    fn mount(&self, url: &str) -> Mount {
        let point = self.dir.path().join("mount point");
        std::fs::create_dir(&point).unwrap();
        let device = File::options().read(true).write(true).open("/dev/fuse").expect("these tests need /dev/fuse");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = CString::new(options).unwrap();
        rustix::mount::mount("stand-in", &point, "fuse.sepia", MountFlags::empty(), options.as_c_str())
            .expect("these tests need root");
        let mount = Mount { point, asked: Arc::default() };
        let stand_in = StandIn { url: url.to_owned(), asked: mount.asked.clone() };
        let session = Session::from_fd(stand_in, device.into(), SessionACL::All, Config::default()).unwrap();
        std::thread::spawn(move || session.run());
        mount
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(&self.point, UnmountFlags::DETACH) {
            eprintln!("{}: still mounted: {error}", self.point.display());
        }
    }
}

fn mount_command(args: &[&OsStr]) {
    let (program, args) = args.split_first().unwrap();
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program:?} {args:?}: {output:?}");
}

/// The kernel remembers names, and that there is none, until the mount's watcher has told it of the change.
#[track_caller]
fn until(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(5), "the mount doesn't see it");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn as_root_a_path_below_a_mount_means_an_object_of_its_store() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", b"here");
    let mount = sandbox.mount(sandbox.store.to_str().unwrap());
    let run = |dir: &Path, args: &[&str]| sandbox.run_in(dir, args, b"new");
    let (root, note) = (mount.point.clone(), mount.point.join("Note"));
    assert_eq!(run(sandbox.dir.path(), &["cat", "mount point/Note/n"]).ok().out, b"here");
    assert_eq!(run(&note, &["cat", "n"]).ok().out, b"here");
    assert_eq!(run(&note, &["cat", "../Note/./n"]).ok().out, b"here");
    assert_eq!(run(&note, &["ls"]).ok().text(), "n\n");
    assert_eq!(run(&root, &["ls"]).ok().text(), "Note\n");
    assert_eq!(get(&run(&note, &["status", "--json"]).json(), "/store"), sandbox.store.to_str().unwrap());
    // Changes go to the store itself.
    run(&note, &["put", "n", "--if-generation", "1"]).ok();
    run(&note, &["mv", "n", "m"]).ok();
    assert_eq!(std::fs::read(sandbox.store.join("Note/m")).unwrap(), b"new");
    // What the mount doesn't have (any more) is named all the same.
    run(&root, &["put", "Gone/x/y"]).ok();
    assert_eq!(run(&root, &["cat", "Gone/x/y"]).ok().out, b"new");
    run(&root, &["cat", ".sepia/stats"]).fails(2, "reserved");
}

#[test]
fn as_root_a_mount_that_is_named_as_a_store_says_which_store_is_meant() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount(sandbox.store.to_str().unwrap());
    let args = ["ls", "--store", mount.point.to_str().unwrap()];
    sandbox.run(&args).fails(6, &format!("is a mount, of the store {}", sandbox.store.display()));
}

#[test]
fn as_root_a_bind_mount_of_a_part_is_as_good() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", b"here");
    let mount = sandbox.mount(sandbox.store.to_str().unwrap());
    let part = sandbox.dir.path().join("part");
    std::fs::create_dir(&part).unwrap();
    let note = mount.point.join("Note");
    mount_command(&["mount".as_ref(), "--bind".as_ref(), note.as_os_str(), part.as_os_str()]);
    let ran = sandbox.run(&["cat", "part/n"]);
    mount_command(&["umount".as_ref(), part.as_os_str()]);
    assert_eq!(ran.ok().out, b"here");
}

#[test]
fn as_root_a_mount_that_another_one_hides_is_not_meant() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", b"hidden");
    let mount = sandbox.mount(sandbox.store.to_str().unwrap());
    let (above, place) = (sandbox.dir.path().join("above"), sandbox.dir.path().join("above/place"));
    std::fs::create_dir_all(&place).unwrap();
    mount_command(&["mount".as_ref(), "--bind".as_ref(), mount.point.as_os_str(), place.as_os_str()]);
    mount_command(&["mount".as_ref(), "-t".as_ref(), "tmpfs".as_ref(), "none".as_ref(), above.as_os_str()]);
    let none = sandbox.run(&["ls", "above/place/Note"]);
    let init = sandbox.run(&["init", "above/place"]);
    let another = sandbox.run(&["ls", "above/place"]);
    mount_command(&["umount".as_ref(), above.as_os_str()]);
    let again = sandbox.run(&["ls", "above/place"]);
    mount_command(&["umount".as_ref(), place.as_os_str()]);
    none.fails(6, "neither in a store's directory nor below a mount");
    init.ok();
    assert_eq!(another.ok().text(), "");
    assert_eq!(again.ok().text(), "Note\n");
}

#[test]
fn as_root_a_link_leads_out_of_a_mount_whose_store_is_out_of_reach() {
    for url in ["memory:", "/nowhere/store"] {
        let sandbox = Sandbox::new();
        sandbox.put("Note/n", b"here");
        let _mount = sandbox.mount(url);
        for path in ["mount point/out/Note/n", "mount point/out/../store/Note/n"] {
            assert_eq!(sandbox.run(&["cat", path]).ok().out, b"here", "{url} {path}");
        }
    }
}

#[test]
fn as_root_a_path_that_climbs_out_of_a_view_goes_where_its_links_lead() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", b"here");
    let _mount = sandbox.mount(sandbox.store.to_str().unwrap());
    // By way of `mount point/store`.
    assert_eq!(sandbox.run(&["cat", "mount point/.sepia/out/../../store/Note/n"]).ok().out, b"here");
    assert_eq!(sandbox.run(&["cat", "mount point/.sepia/../Note/n"]).ok().out, b"here");
}

#[test]
fn as_root_a_mount_is_asked_for_its_store_once() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/a/b/c", b"here");
    let mount = sandbox.mount(sandbox.store.to_str().unwrap());
    assert_eq!(sandbox.run(&["cat", "mount point/Note/a/b/c"]).ok().out, b"here");
    assert_eq!(mount.asked.load(Ordering::SeqCst), 1, "each time may take half a minute");
}

#[test]
fn as_root_a_mount_of_memory_says_that_nobody_else_can_reach_it() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount("memory:");
    sandbox.run_in(&mount.point, &["history", "Note/n"], b"").fails(6, "in the memory of the process");
}

#[test]
fn commands_and_a_real_mount_see_each_other() {
    let sandbox = Sandbox::new();
    let point = sandbox.dir.path().join("m");
    std::fs::create_dir(&point).unwrap();
    // Not by run(), which waits for the end of a standard error that the mount's process keeps.
    let status = sandbox.command(sandbox.dir.path()).args(["mount", "store", "m"]).status().unwrap();
    assert!(status.success(), "these tests need root and /dev/fuse");
    let _unmounted = Mount { point: point.clone(), asked: Arc::default() };
    let (note, run) = (point.join("Note"), |args: &[&str]| sandbox.run_in(&point, args, b"three"));
    std::fs::create_dir(&note).unwrap();
    std::fs::write(note.join("n"), "one").unwrap();
    std::fs::write(note.join("n"), "two").unwrap();
    assert_eq!(get(&run(&["history", "Note/n", "--json"]).json(), "/current"), 2);
    assert_eq!(run(&["cat", "Note/n", "-g", "1"]).ok().out, b"one");
    run(&["put", "Note/n", "--if-generation", "2"]).ok();
    assert_eq!(std::fs::read(note.join("n")).unwrap(), b"three");
    run(&["put", "Note/n", "--if-generation", "2"]).fails(4, "its current generation is 3");
    std::fs::remove_file(note.join("n")).unwrap();
    run(&["restore", "Note/n", "-g", "1"]).ok();
    until(|| std::fs::read(note.join("n")).is_ok_and(|bytes| bytes == b"one"));
    run(&["mv", "Note/n", "Note/m"]).ok();
    until(|| !note.join("n").exists());
    assert_eq!(std::fs::read(note.join("m")).unwrap(), b"one");
    run(&["rm", "Note/m"]).ok();
    until(|| !note.join("m").exists());
    assert_eq!(get(&run(&["status", "--json"]).json(), "/users/0/mount"), true);
}
