//! Changes behind the mount's back: seen, recorded, and never overwritten unseen. Links never lead out.

mod common;
mod rig;

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use common::{Mount, Store, run, run_within, wait_for};
use rig::load::close;
use rustix::io::Errno;

fn mounted() -> (Store, Mount) {
    let store = Store::new();
    let mount = store.mount();
    fs::create_dir(mount.join("Note")).unwrap();
    (store, mount)
}

#[test]
fn what_changes_outside_is_seen_and_becomes_generations() {
    let (store, mount) = mounted();
    let (inside, outside) = (mount.join("Note"), store.path().join("Note"));
    for name in ["edited", "appended", "replaced", "deleted"] {
        fs::write(inside.join(name), "by the mount").unwrap();
        assert_eq!(fs::read(inside.join(name)).unwrap(), b"by the mount");
    }
    assert!(fs::metadata(inside.join("added")).is_err());
    fs::write(outside.join("edited"), "edited outside").unwrap();
    OpenOptions::new().append(true).open(outside.join("appended")).unwrap().write_all(b", and outside").unwrap();
    fs::write(outside.join(".new"), "replaced outside").unwrap();
    fs::rename(outside.join(".new"), outside.join("replaced")).unwrap();
    fs::remove_file(outside.join("deleted")).unwrap();
    fs::write(outside.join("added"), "added outside").unwrap();
    let shows = |name: &str, text: &str| {
        wait_for(name, || (fs::read_to_string(inside.join(name)).ok()? == text).then_some(()));
    };
    shows("edited", "edited outside");
    shows("appended", "by the mount, and outside");
    shows("replaced", "replaced outside");
    shows("added", "added outside");
    wait_for("the deletion", || fs::metadata(inside.join("deleted")).is_err().then_some(()));
    wait_for("the listing", || {
        let names = fs::read_dir(&inside).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        (names == ["added", "appended", "edited", "replaced"]).then_some(())
    });
    for name in ["edited", "appended", "replaced"] {
        assert_eq!(store.generations(format!("Note/{name}")), [1, 2], "{name}");
    }
    // What replaced the file left the old one to Sepia; what wrote over it did not, and then the history says so.
    fs::write(inside.join("edited"), "by the mount again").unwrap();
    assert_eq!(store.generations("Note/edited"), [1, 2, 3]);
    assert_eq!(store.cat("Note/edited", Some(2)), b"edited outside");
    mount.unmount();
}

/// The kernel is given the bytes of small files when they are opened for the first time, in whole pages.
#[test]
fn what_is_read_first_is_what_is_there() {
    let (store, mount) = mounted();
    let bytes = |size: usize, seed: usize| -> Vec<u8> { (0..size).map(|at| (at / 7 + seed) as u8).collect() };
    let sizes = [0, 1, 4095, 4096, 4097, 16_384, 16_385, 50_000];
    let path = |below: &Path, from: usize, to: usize| below.join(format!("Note/{from}-{to}"));
    for from in sizes {
        for to in sizes {
            fs::write(path(store.path(), from, to), bytes(from, 1)).unwrap();
        }
    }
    for from in sizes {
        for to in sizes {
            // The kernel knows the inode, with its size, and hasn't opened it.
            assert_eq!(fs::metadata(path(mount.path(), from, to)).unwrap().len(), from as u64);
            let session = OpenOptions::new().write(true).open(path(store.path(), from, to)).unwrap();
            session.set_len(0).unwrap();
            (&session).write_all(&bytes(to, 2)).unwrap();
            drop(session);
            for round in 0..2 {
                let read = fs::read(path(mount.path(), from, to)).unwrap();
                assert!(read == bytes(to, 2), "{from} to {to}, {round}: {} bytes", read.len());
            }
        }
    }
    mount.unmount();
}

fn edit(path: &Path) {
    fs::write(path, "from outside").unwrap();
}

fn replace(path: &Path) {
    let new = path.with_file_name(".new");
    fs::write(&new, "from outside").unwrap();
    fs::rename(new, path).unwrap();
}

fn delete(path: &Path) {
    fs::remove_file(path).unwrap();
}

#[test]
fn what_changed_outside_is_never_overwritten_unseen() {
    let (store, mount) = mounted();
    let changes = [("edited", edit as fn(&Path)), ("replaced", replace), ("deleted", delete)];
    for (name, change) in changes {
        let key = format!("Note/{name}");
        fs::write(mount.join(&key), "first").unwrap();
        let session = OpenOptions::new().write(true).truncate(true).open(mount.join(&key)).unwrap();
        (&session).write_all(b"based on the first").unwrap();
        change(&store.path().join(&key));
        let error = close(session).expect_err(name);
        assert_eq!(error.raw_os_error(), Some(Errno::STALE.raw_os_error()), "{name}: {error}");
        match name {
            // close(2) returns before the handle is released, until when the name leads to what was there.
            "deleted" => wait_for("the end of a name", || fs::metadata(mount.join(&key)).is_err().then_some(())),
            _ => assert_eq!(fs::read(mount.join(&key)).unwrap(), b"from outside", "{name}"),
        }
        let conflicts = store.conflicts();
        let kept: Vec<_> = conflicts.iter().filter(|conflict| conflict["key"] == key).collect();
        assert_eq!(kept.len(), 1, "{name}: {conflicts:?}");
        let id = kept[0]["id"].as_str().unwrap();
        assert_eq!(run(&mut rig::conflicts(&store, &["show", id, "--bytes"])).stdout, b"based on the first", "{name}");
    }
    mount.unmount();
}

/// A directory that was swapped for a link must not lead the daemon, who may be root, out of the store.
#[test]
fn links_never_lead_the_daemon_out_of_the_store() {
    let (store, mount) = mounted();
    let elsewhere = store.scratch().dir("elsewhere");
    fs::write(elsewhere.join("secret"), "secret").unwrap();
    fs::write(mount.join("Note/n"), "inside").unwrap();
    fs::rename(store.path().join("Note"), store.path().join("Moved")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, store.path().join("Note")).unwrap();
    let through_link = run_within(&mut store.command(&["cat", "Note/secret"]), common::LIMIT);
    assert!(!through_link.stdout.starts_with(b"secret"), "the command line followed a link out of the store");
    let mut put = store.command(&["put", "Note/planted", "-"]);
    let _ = run_within(&mut put, common::LIMIT);
    assert!(!elsewhere.join("planted").exists(), "something was written outside of the store");
    // The kernel follows links for its callers, as in every filesystem; a handle on the old directory may not.
    let library = sepia::Store::open(store.path().to_str().unwrap()).unwrap();
    assert!(library.get(&sepia::Key::parse("Note/secret").unwrap()).is_err());
    mount.unmount();
}

/// Though the kernel remembers names, and that there is none, for a second: no test here waits for that.
#[test]
fn names_that_a_command_changed_are_seen_when_it_returns() {
    let store = Store::new();
    let mount = store.mount();
    let there = |key: &str| mount.join(key).symlink_metadata().is_ok();
    for round in 0..3 {
        let (a, b) = (format!("New{round}/dir/a"), format!("New{round}/b"));
        assert!(!there(&format!("New{round}")) && !there(&a) && !there(&b));
        store.sepia(&["put", &a, "/etc/hostname"]);
        assert!(there(&a), "a new object in new directories");
        store.sepia(&["mv", &a, &b]);
        assert!(there(&b) && !there(&a), "a rename");
        store.sepia(&["rm", &b]);
        assert!(!there(&b), "a removal");
        store.sepia(&["restore", "--generation", "1", &b]);
        assert!(there(&b), "what was brought back");
        store.sepia(&["put", &a, "/etc/hostname"]);
        assert!(there(&a));
        store.sepia(&["rm", "-r", &format!("New{round}")]);
        assert!(!there(&a) && !there(&b) && !there(&format!("New{round}")), "a removal of all");
    }
    assert_eq!(mount.sh("ls -A"), "");
    // A mount that hangs holds nobody up for long.
    let key = "Note/x";
    assert!(!there(key));
    rustix::process::kill_process(mount.pid(), rustix::process::Signal::STOP).unwrap();
    let start = std::time::Instant::now();
    let put = common::run_within(&mut store.command(&["put", key, "/etc/hostname"]), common::LIMIT);
    rustix::process::kill_process(mount.pid(), rustix::process::Signal::CONT).unwrap();
    assert!(put.status.success(), "{}", put.stderr);
    assert!(start.elapsed() < std::time::Duration::from_secs(20));
    assert_eq!(fs::read(mount.join(key)).unwrap(), fs::read("/etc/hostname").unwrap());
    mount.unmount();
}

#[test]
fn a_history_that_is_cleared_away_begins_anew() {
    let (store, mount) = mounted();
    let name = mount.join("Note/n");
    for text in ["one", "two"] {
        fs::write(&name, text).unwrap();
    }
    fs::write(mount.join("Note/m"), "one").unwrap();
    fs::remove_dir_all(store.path().join(".sepia/generations/Note")).unwrap();
    // Adopting it looks into the history.
    edit(&store.path().join("Note/n"));
    assert_eq!(fs::read(&name).unwrap(), b"from outside");
    fs::write(&name, "three").unwrap();
    fs::remove_file(mount.join("Note/m")).unwrap();
    assert_eq!(store.generations("Note/n"), [2, 3, 4]);
    assert_eq!(store.cat("Note/n", Some(3)), b"from outside");
    assert_eq!(store.cat("Note/m", Some(1)), b"one");
    mount.unmount();
}

/// mv(1) in the store's directory takes the file's number along, which the new name may have seen before.
#[test]
fn what_is_moved_outside_to_a_name_with_a_history_counts_on() {
    let (store, mount) = mounted();
    let rounds = ["seen by history", "saved at once", "removed at once"];
    for (name, how) in ["a", "b", "c"].into_iter().zip(rounds) {
        for text in ["1", "2", "3"] {
            fs::write(mount.join("Note").join(name), text).unwrap();
        }
        fs::remove_file(mount.join("Note").join(name)).unwrap();
        fs::write(mount.join("new"), "new").unwrap();
        fs::rename(store.path().join("new"), store.path().join("Note").join(name)).unwrap();
        let key = format!("Note/{name}");
        wait_for(how, || (fs::read(mount.join(&key)).ok()? == b"new").then_some(()));
        wait_for("the end of the old name", || fs::metadata(mount.join("new")).is_err().then_some(()));
        let last = match name {
            "a" => 4,
            "b" => {
                fs::write(mount.join(&key), "newer").unwrap();
                5
            }
            _ => {
                fs::remove_file(mount.join(&key)).unwrap();
                4
            }
        };
        let all: Vec<u64> = (1..=last).collect();
        assert_eq!(store.generations(&key), all, "{how}");
        for (number, text) in (1..).zip(["1", "2", "3", "new"]) {
            assert_eq!(store.cat(&key, Some(number)), text.as_bytes(), "{how}: generation {number}");
        }
    }
    mount.unmount();
}

/// The kernel remembers names for a minute, and the file lives on under another one.
#[test]
fn a_name_that_was_moved_away_outside_is_free() {
    let (store, mount) = mounted();
    let (old, new) = (mount.join("Note/old"), mount.join("Note/new"));
    for _ in 0..3 {
        fs::write(&old, "moved").unwrap();
        fs::rename(store.path().join("Note/old"), store.path().join("Note/new")).unwrap();
        wait_for("the new name", || (fs::read(&new).ok()? == b"moved").then_some(()));
        // close(2) returns before the handle is released: until then the file is open, and has the old name, too.
        wait_for("the end of the old name", || fs::metadata(&old).is_err().then_some(()));
        fs::write(&old, "made anew").unwrap();
        assert_eq!((fs::read(&old).unwrap(), fs::read(&new).unwrap()), (b"made anew".to_vec(), b"moved".to_vec()));
        fs::remove_file(&new).unwrap();
    }
    // Of what is open, the reader reads on.
    let reader = fs::File::open(&old).unwrap();
    fs::rename(store.path().join("Note/old"), store.path().join("Note/new")).unwrap();
    wait_for("the new name", || (fs::read(&new).ok()? == b"made anew").then_some(()));
    assert_eq!(std::io::read_to_string(reader).unwrap(), "made anew");
    mount.unmount();
}

/// None of them was opened in the mount: so nothing but the kernel's names leads to them.
#[test]
fn what_is_made_anew_at_names_that_were_moved_away_outside_is_new() {
    let (store, mount) = mounted();
    let (inside, outside) = (mount.join("Note"), store.path().join("Note"));
    let names = |what: &str| (0..3).map(|at| format!("{what}{at}")).collect::<Vec<_>>();
    for round in 0..3 {
        for old in names("old") {
            fs::write(outside.join(&old), "moved").unwrap();
            wait_for("the name", || fs::metadata(inside.join(&old)).is_ok().then_some(()));
        }
        for (old, new) in names("old").iter().zip(names("new")) {
            fs::rename(outside.join(old), outside.join(&new)).unwrap();
            wait_for("the new name", || fs::metadata(inside.join(&new)).is_ok().then_some(()));
        }
        for (old, new) in names("old").iter().zip(names("new")) {
            match round {
                0 => fs::write(inside.join(old), "made anew").unwrap(),
                1 => {
                    let other = mount.sh(&format!("cat Note/{new} > /dev/null; echo -n 'made anew' >> Note/{old}"));
                    assert_eq!(other, "");
                }
                _ => {
                    assert!(rustix::fs::lgetxattr(inside.join(old), "user.sepia.id", &mut [0; 64]).is_err());
                    fs::write(inside.join(old), "made anew").unwrap();
                }
            }
            assert_eq!(fs::read_to_string(inside.join(old)).unwrap(), "made anew", "{old}, round {round}");
            assert_eq!(fs::read_to_string(inside.join(&new)).unwrap(), "moved", "{new}, round {round}");
        }
        for name in names("old").iter().chain(&names("new")) {
            fs::remove_file(inside.join(name)).unwrap();
        }
    }
    mount.unmount();
}

/// The kernel has one cache for both.
#[test]
fn who_opens_what_a_command_saved_reads_it_beside_those_who_have_the_older_one_open() {
    let (store, mount) = mounted();
    let name = mount.join("Note/n");
    let read = |mut file: &fs::File| {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    };
    for round in 0..5 {
        fs::write(&name, "one").unwrap();
        let older = fs::File::open(&name).unwrap();
        fs::write(store.scratch().path().join("two"), "two").unwrap();
        store.sepia(&["put", "Note/n", "two"]);
        let newer = fs::File::open(&name).unwrap();
        assert_eq!((read(&older), read(&newer)), ("one".to_owned(), "two".to_owned()), "round {round}");
        assert_eq!(fs::read_to_string(&name).unwrap(), "two", "round {round}: while both are open");
        if round % 2 == 0 {
            drop(older);
            assert_eq!(fs::read_to_string(&name).unwrap(), "two", "round {round}: while the newer one is open");
        }
        drop(newer);
        assert_eq!(fs::read_to_string(&name).unwrap(), "two", "round {round}: when they are closed");
    }
    mount.unmount();
}

#[test]
fn what_the_kernel_may_believe_for_long_is_taken_back_when_it_changes_outside() {
    let (store, mount) = mounted();
    for dir in ["moved", "replaced", "kept"] {
        fs::create_dir(mount.join(dir)).unwrap();
        fs::write(mount.join(dir).join("file"), dir).unwrap();
    }
    let listed = || run(std::process::Command::new("ls").args(["-lRi"]).arg(mount.path())).text();
    assert_eq!(listed(), listed());

    let outside = store.path();
    let start = Instant::now();
    fs::rename(outside.join("moved"), outside.join("elsewhere")).unwrap();
    fs::rename(outside.join("replaced"), outside.join("old")).unwrap();
    fs::create_dir(outside.join("replaced")).unwrap();
    fs::set_permissions(outside.join("kept"), std::os::unix::fs::PermissionsExt::from_mode(0o701)).unwrap();
    let absent = |path: &str| fs::symlink_metadata(mount.join(path)).is_err().then_some(());
    wait_for("a directory that was moved away", || absent("moved/file"));
    wait_for("a directory that was replaced", || absent("replaced/file"));
    wait_for("a mode", || {
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(mount.join("kept")).unwrap());
        (mode & 0o777 == 0o701).then_some(())
    });
    // No measure: it takes milliseconds, and without being told the kernel would believe it for a minute.
    assert!(start.elapsed().as_secs() < 45, "the kernel has forgotten it by itself");
    assert_eq!(fs::read_to_string(mount.join("elsewhere/file")).unwrap(), "moved");
    assert_eq!(fs::read_to_string(mount.join("old/file")).unwrap(), "replaced");
    mount.unmount();
}
