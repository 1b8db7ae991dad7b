//! Saves that make no history, and the collector of a mount.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, RenameFlags};
use sepia::fs::{Caller, Fs, FsOptions, KernelCache};

use super::*;

const ROOT: u64 = 1;

fn caller() -> Caller {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Caller { uid, gid, umask: 0o022, thread: std::process::id() }
}

/// A mount without a kernel.
struct Mounted(Arc<Fs>);

struct Nobody;

impl KernelCache for Nobody {
    fn invalidate(&self, _: u64, _: bool) {}
    fn fill(&self, _: u64, _: &[u8]) {}
}

impl Mounted {
    fn new(rig: &Rig, collect_every: Duration) -> Self {
        let options = FsOptions { ttl: Duration::ZERO, collect_every, ..FsOptions::default() };
        Mounted(Arc::new(Fs::new(rig.store.clone(), options)))
    }

    /// Opens a file as a program does it that replaces all of it, and writes it in one go.
    fn save(&self, name: &str, bytes: &[u8]) {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let (entry, reply) =
            self.0.create(&caller(), ROOT, OsStr::new(name), 0o644, flags.bits() as i32).unwrap_or_else(|_| {
                let entry = self.0.lookup(ROOT, OsStr::new(name)).unwrap();
                let reply = self.0.open(&caller(), entry.attr.ino, flags.bits() as i32).unwrap();
                (entry, reply)
            });
        if !bytes.is_empty() {
            self.0.write(&caller(), reply.fh, 0, bytes, false, false).unwrap();
        }
        self.0.flush(&caller(), reply.fh).unwrap();
        self.0.release(reply.fh);
        self.0.forget(entry.attr.ino, 1);
    }
}

#[test]
fn the_same_bytes_make_no_generation() {
    for rig in [Rig::in_memory(""), Rig::on_disk("")] {
        let mounted = Mounted::new(&rig, Duration::from_secs(3_600));
        let current = || rig.store.stat(&key("f")).unwrap();
        mounted.save("f", b"one");
        let first = current();
        std::thread::sleep(Duration::from_millis(20));
        mounted.save("f", b"one");
        let again = current();
        assert_eq!((again.generation, again.committed), (first.generation, first.committed));
        assert!(again.mtime > first.mtime, "a write changes the modification time");
        assert!(again.recorded && rig.kept("f").is_empty());
        // As a command.
        rig.put("f", "one");
        assert_eq!(current().generation, first.generation);
        mounted.save("f", b"two");
        assert_eq!((current().generation, rig.kept("f")), (Some(generation(2)), vec![1]));
        // A session that goes on after it has changed nothing.
        let mut session = rig.store.open_session(&key("f"), &Default::default()).unwrap();
        session.write_at(b"t", 0).unwrap();
        assert_eq!(session.publish(&key("f"), true).unwrap().unwrap().generation, Some(generation(2)));
        session.write_at(b"T", 0).unwrap();
        session.publish(&key("f"), true).unwrap();
        session.write_at(b"TWO", 0).unwrap();
        session.publish(&key("f"), true).unwrap();
        session.close(&key("f"));
        assert_eq!((current().generation, rig.kept("f")), (Some(generation(3)), vec![1, 2]));
        assert_eq!(read(&rig.store, &key("f"), generation(2)), b"two");
        // Too late is too late, also with the same bytes as somebody else's.
        let mut late = rig.store.open_session(&key("f"), &Default::default()).unwrap();
        rig.put("f", "four");
        late.truncate(0).unwrap();
        late.write_at(b"four", 0).unwrap();
        assert!(late.publish(&key("f"), false).is_err());
        late.close(&key("f"));
        // What was appended and cut off again.
        let mut session = rig.store.open_session(&key("f"), &Default::default()).unwrap();
        session.append(b"+more").unwrap();
        session.truncate(4).unwrap();
        session.publish(&key("f"), false).unwrap();
        session.close(&key("f"));
        assert_eq!(current().generation, Some(generation(4)));
        // More than is worth comparing.
        let big = vec![7; (1 << 20) + 1];
        mounted.save("big", &big);
        mounted.save("big", &big);
        assert_eq!(rig.kept("big"), [1]);
        mounted.0.shutdown();
    }
}

#[test]
fn ephemeral_files_leave_nothing() {
    for rig in [Rig::in_memory(""), Rig::on_disk("")] {
        let mounted = Mounted::new(&rig, Duration::from_secs(3_600));
        for text in ["1", "22", "333"] {
            mounted.save(".f.swp", text.as_bytes());
            mounted.save("f", text.as_bytes());
        }
        assert_eq!((rig.kept(".f.swp"), rig.kept("f")), (vec![], vec![1, 2]));
        mounted.0.unlink(&caller(), ROOT, OsStr::new(".f.swp")).unwrap();
        rig.put("x.tmp", "new");
        // Onto the real one: that is a save of it.
        mounted.0.rename(&caller(), ROOT, OsStr::new("x.tmp"), ROOT, OsStr::new("f"), RenameFlags::empty()).unwrap();
        assert_eq!(rig.kept("f"), [1, 2, 3]);
        assert_eq!(read(&rig.store, &key("f"), generation(3)), b"333");
        mounted.0.shutdown();
    }
}

/// As vim does it: the history of the file's name is read from what was put aside, and is kept by the rules for it.
#[test]
fn what_an_editor_put_aside_is_kept_for_the_name_that_it_had() {
    let rig = Rig::on_disk("[retention]\nkeep_last = 3");
    let mounted = Mounted::new(&rig, Duration::from_secs(3_600));
    mounted.save("f", b"0");
    for number in 1..=6 {
        mounted.0.rename(&caller(), ROOT, OsStr::new("f"), ROOT, OsStr::new("f~"), RenameFlags::empty()).unwrap();
        mounted.save("f", number.to_string().as_bytes());
        mounted.0.unlink(&caller(), ROOT, OsStr::new("f~")).unwrap();
    }
    let texts = || -> Vec<Vec<u8>> {
        let history = rig.store.history(&key("f")).unwrap();
        let texts = history.iter().filter_map(|info| rig.store.get_generation(&key("f"), info.generation).ok());
        texts.map(|opened| read_opened(&opened)).collect()
    };
    assert_eq!(texts().len(), 7);
    rig.faulty.ahead(2 * DAY);
    rig.collect().unwrap();
    rig.collect().unwrap();
    assert_eq!(texts(), [b"3", b"4", b"5", b"6"]);
    rig.store.empty_trash(&Key::root(), "0s".parse().unwrap()).unwrap();
    assert_eq!(texts(), [b"3", b"4", b"5", b"6"]);
    mounted.0.shutdown();
}

#[test]
fn a_mount_collects_by_itself_and_ends_at_once() {
    let rig = Rig::on_disk("[retention]\nkeep_last = 1\n[gc]\ngrace = '0s'\nevery = '0s'\nload = '100%'");
    for name in 0..20 {
        for text in ["1", "2", "3"] {
            rig.put(&name.to_string(), text);
        }
    }
    let mounted = Mounted::new(&rig, Duration::from_millis(10));
    mounted.0.start(Arc::new(Nobody));
    let began = Instant::now();
    while (0..20).any(|name| rig.kept(&name.to_string()) != [2]) {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is collected");
        std::thread::sleep(Duration::from_millis(20));
    }
    mounted.0.shutdown();
    rig.put("0", "4");
    rig.put("0", "5");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(rig.kept("0"), [2, 3, 4], "it has ended");
}
