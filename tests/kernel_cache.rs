//! What `fs::Fs` gives the kernel for its page cache, without a kernel.

use std::ffi::OsStr;
use std::sync::{Arc, Mutex};

use rustix::fs::OFlags;
use sepia::Store;
use sepia::fs::{Caller, Fs, FsOptions, Ino, KernelCache, OpenReply};

const ROOT: Ino = 1;

/// A kernel that notes what it is given.
#[derive(Default)]
struct Kernel(Mutex<Vec<Vec<u8>>>);

impl KernelCache for Kernel {
    fn invalidate(&self, _: Ino, _: bool) {}

    fn fill(&self, _: Ino, bytes: &[u8]) {
        self.0.lock().unwrap().push(bytes.to_owned());
    }
}

struct Rig {
    fs: Arc<Fs>,
    kernel: Arc<Kernel>,
    _dir: tempfile::TempDir,
}

impl Rig {
    fn new(files: &[(&str, usize)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::init(dir.path().to_str().unwrap()).unwrap();
        for (name, size) in files {
            std::fs::write(dir.path().join(name), vec![b'b'; *size]).unwrap();
        }
        let (fs, kernel) = (Arc::new(Fs::new(store, FsOptions::default())), Arc::new(Kernel::default()));
        fs.start(kernel.clone());
        Rig { fs, kernel, _dir: dir }
    }

    fn look_up(&self, name: &str) -> Ino {
        self.fs.lookup(ROOT, OsStr::new(name)).unwrap().attr.ino
    }

    fn open(&self, ino: Ino, flags: OFlags) -> OpenReply {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let caller = Caller { uid, gid, umask: 0o022, thread: std::process::id() };
        self.fs.open(&caller, ino, flags.bits() as i32).unwrap()
    }

    /// Opens and closes, and returns the sizes of what the kernel was given by that.
    fn given(&self, ino: Ino, flags: OFlags) -> Vec<usize> {
        let reply = self.open(ino, flags);
        assert!(reply.keep_cache, "what was given is dropped again");
        self.fs.release(reply.fh);
        std::mem::take(&mut *self.kernel.0.lock().unwrap()).iter().map(Vec::len).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.fs.shutdown();
    }
}

#[test]
fn a_small_file_is_given_once() {
    let rig = Rig::new(&[("small", 4096), ("most", 16 << 10)]);
    for (name, size) in [("small", 4096), ("most", 16 << 10)] {
        let ino = rig.look_up(name);
        assert_eq!(rig.given(ino, OFlags::RDONLY), [size]);
        assert_eq!(rig.given(ino, OFlags::RDONLY), [0; 0], "it has them");
        rig.fs.forget(ino, 1);
        let ino = rig.look_up(name);
        assert_eq!(rig.given(ino, OFlags::RDONLY), [size], "it has forgotten them");
    }
}

#[test]
fn nothing_is_given_that_is_large_or_empty_or_not_going_to_be_read() {
    let rig = Rig::new(&[("empty", 0), ("large", (16 << 10) + 1), ("written", 10)]);
    let none = [0; 0];
    assert_eq!(rig.given(rig.look_up("empty"), OFlags::RDONLY), none);
    assert_eq!(rig.given(rig.look_up("large"), OFlags::RDONLY), none);
    let written = rig.look_up("written");
    assert_eq!(rig.given(written, OFlags::WRONLY), none);
    assert_eq!(rig.given(written, OFlags::RDONLY), none, "it may have some, and asks for the rest");
}

/// A page is locked from when the kernel asks for it until it is answered.
#[test]
fn nothing_is_given_of_what_is_open() {
    let rig = Rig::new(&[("file", 10)]);
    let ino = rig.look_up("file");
    let held = rig.open(ino, OFlags::RDWR);
    assert_eq!(rig.given(ino, OFlags::RDONLY), [0; 0]);
    rig.fs.release(held.fh);
}
