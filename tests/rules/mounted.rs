//! Rules as programs meet them on a mount.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::thread;

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use serde_json::Value;

use crate::common::{Mount, Store, sh, sh_fails, wait_for};

const POLICY: &str = "
[[rule]]
class = 'Note'
max_size = '1 KiB'

[[rule]]
class = 'Json'
json = true
id = '[a-z0-9.]+'

[[rule]]
class = 'Few'
max_objects = 10
";

fn store(policy: &str) -> Store {
    let store = Store::new();
    fs::write(store.path().join(".sepia/config.toml"), policy).unwrap();
    for class in ["Note", "Json", "Few", "Other"] {
        fs::create_dir(store.path().join(class)).unwrap();
    }
    store
}

fn errno(error: &std::io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

fn close(file: fs::File) -> Result<(), Errno> {
    // SAFETY: the descriptor is the file's own, which gives it up here.
    unsafe { rustix::io::try_close(std::os::fd::IntoRawFd::into_raw_fd(file)) }
}

/// Those that a rule refused, when the daemon is done with what was closed.
fn rejected(store: &Store, count: usize) -> Vec<Value> {
    wait_for("the refused saves to be set aside", || {
        let found = store.conflicts();
        (found.len() >= count).then_some(found)
    })
}

fn shown(store: &Store, conflict: &Value) -> Vec<u8> {
    let id = conflict["id"].as_str().unwrap();
    sh(store.scratch().path(), &format!("sepia conflicts show --store {} --bytes {id}", store.path().display())).into()
}

#[test]
fn programs_are_told_and_the_old_bytes_stay() {
    let store = store(POLICY);
    let mount = store.mount();
    mount.sh("echo old > Note/a; echo '{}' > Json/a");
    for (script, key, what) in [
        ("head -c 1025 /dev/zero > Note/a", "Note/a", "File too large"),
        ("dd if=/dev/zero of=Note/a bs=1 seek=1020 count=10 conv=notrunc status=none", "Note/a", "File too large"),
        ("head -c 1022 /dev/zero >> Note/a", "Note/a", "File too large"),
        ("truncate -s 1025 Note/a", "Note/a", "File too large"),
        ("cp /bin/true Note/a", "Note/a", "File too large"),
        ("cp /bin/true Note/new", "Note/new", "File too large"),
        ("head -c 3 /dev/zero > Json/a", "Json/a", "Invalid argument"),
        ("cat /etc/hostname >> Json/a", "Json/a", "Invalid argument"),
        ("tee Json/a < /etc/passwd > /dev/null; sync Json/a", "Json/a", ""),
    ] {
        let before = store.conflicts().len();
        let kept = usize::from(!script.starts_with("truncate"));
        let said =
            if what.is_empty() { mount.sh(&format!("({script}) || true")) } else { sh_fails(mount.path(), script) };
        assert!(said.contains(what), "{script}: {said}");
        let last = rejected(&store, before + kept).pop().unwrap();
        assert_eq!((last["reason"].as_str(), last["key"].as_str()), (Some("rejected"), Some(key)), "{script}");
        // And that is what the next program has.
        assert_eq!(mount.sh("cat Note/a; cat Json/a"), "old\n{}\n", "{script}");
    }
    assert_eq!(store.generations("Note/a"), [1]);
    assert!(mount.log().contains("max_size"), "{}", mount.log());
    mount.sh("echo new > Note/a; echo '[]' > Json/a");
    assert_eq!(store.cat("Json/a", None), b"[]\n");
    assert_eq!(store.generations("Note/a"), [1, 2]);
}

/// Which cp asks the kernel for, with as many bytes as it may be.
#[test]
fn what_is_copied_within_the_mount_is_judged_by_its_own_size() {
    let store = store(POLICY);
    let mount = store.mount();
    mount.sh("head -c 1024 /dev/zero > Other/good; head -c 1025 /dev/zero > Other/bad");
    mount.sh("cp Other/good Note/a; cmp Other/good Note/a; cp --reflink=never Note/a Note/b");
    assert!(sh_fails(mount.path(), "cp Other/bad Note/a").contains("File too large"));
    assert_eq!(rejected(&store, 1).len(), 1);
    mount.sh("cmp Other/good Note/a; cp -a Other/good Note/c; install Other/good Note/d");
}

#[test]
fn fsync_and_close_say_it_and_the_handle_can_be_mended() {
    let store = store(POLICY);
    let mount = store.mount();
    mount.sh("echo '{}' > Json/a");
    let path = mount.join("Json/a");
    let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    file.write_all(b"{\"a\":").unwrap();
    assert_eq!(errno(&file.sync_all().unwrap_err()), Some(Errno::INVAL));
    // Others have what is current.
    assert_eq!(fs::read(&path).unwrap(), b"{}\n");
    file.write_all(b"1}").unwrap();
    file.sync_all().unwrap();
    close(file).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"{\"a\":1}");
    assert!(store.conflicts().is_empty());

    let file = OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    file.write_all_at(b"[", 0).unwrap();
    let copy = file.try_clone().unwrap();
    assert_eq!((close(file), close(copy)), (Err(Errno::INVAL), Err(Errno::INVAL)));
    let conflicts = rejected(&store, 1);
    assert_eq!(shown(&store, &conflicts[0]), b"[");
    assert_eq!(fs::read(&path).unwrap(), b"{\"a\":1}");
}

/// Each process that has written saves by its close, and may be told that this is not good yet; what counts is the end.
#[test]
fn several_programs_write_one_file() {
    let store = store(POLICY);
    let mount = store.mount();
    mount.sh("{ printf '{'; /bin/echo '\"a\":' || true; /bin/echo '[1,2]' || true; printf '}'; } > Json/a");
    assert_eq!(mount.sh("cat Json/a"), "{\"a\":\n[1,2]\n}");
    assert!(store.conflicts().is_empty(), "{:?}", store.conflicts());
}

#[test]
fn who_opens_meanwhile_starts_from_what_is_current() {
    let store = store(POLICY);
    let mount = store.mount();
    mount.sh("echo '{}' > Json/a");
    let path = mount.join("Json/a");
    let first = OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    first.write_all_at(b"bad", 0).unwrap();
    assert_eq!(errno(&first.sync_all().unwrap_err()), Some(Errno::INVAL));
    let second = OpenOptions::new().append(true).open(&path).unwrap();
    (&second).write_all(b" ").unwrap();
    close(second).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"{}\n ");
    assert_eq!(close(first), Err(Errno::INVAL));
    let conflicts = rejected(&store, 1);
    assert_eq!(shown(&store, &conflicts[0]), b"bad");
    assert_eq!(fs::read(&path).unwrap(), b"{}\n ");
    assert_eq!(store.generations("Json/a"), [1, 2]);
}

/// As editors and `sed -i` save.
#[test]
fn a_rename_over_is_a_save_and_its_source_stays() {
    let store = store(POLICY);
    let mount = store.mount();
    mount.sh("echo '{}' > Json/a; echo '{' > Json/a.tmp; echo '{' > Other/a");
    for from in ["Json/a.tmp", "Other/a"] {
        let error = fs::rename(mount.join(from), mount.join("Json/a")).unwrap_err();
        assert_eq!(errno(&error), Some(Errno::INVAL));
    }
    assert_eq!(mount.sh("cat Json/a Json/a.tmp Other/a"), "{}\n{\n{\n");
    mount.sh("echo '[]' > Json/a.tmp; mv Json/a.tmp Json/a");
    assert_eq!(mount.sh("cat Json/a"), "[]\n");
    // Over a bad file, too, and in exchange.
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    let (from, to) = (mount.join("Other/a"), mount.join("Json/a"));
    let exchanged = rustix::fs::renameat_with(rustix::fs::CWD, &from, rustix::fs::CWD, &to, exchange);
    assert_eq!(exchanged, Err(Errno::INVAL));
    mount.sh("mkdir Other/d; echo '{' > Other/d/bad");
    assert_eq!(errno(&fs::rename(mount.join("Other/d"), mount.join("Json/d")).unwrap_err()), Some(Errno::INVAL));
    mount.sh("echo 1 > Other/d/bad; mv Other/d Json/d; cat Json/d/bad");
}

#[test]
fn vim_saves_what_is_good_and_says_what_is_not() {
    let store = store(&format!("{POLICY}\n[[rule]]\nclass = 'Json'\nmax_size = 100\n"));
    let mount = store.mount();
    mount.sh("echo '{}' > Json/a");
    let save = |text: &str| {
        format!("vim -es -u NONE -c 'set backup writebackup' -c '%s/.*/{text}/' -c 'wq' Json/a < /dev/null")
    };
    mount.sh(&save("[1]"));
    assert_eq!(mount.sh("cat Json/a"), "[1]\n");
    sh_fails(mount.path(), &save("[1"));
    let kept = rejected(&store, 1);
    assert_eq!(shown(&store, kept.last().unwrap()), b"[1\n");
    assert_eq!(store.cat("Json/a", Some(2)), b"[1]\n");
}

#[test]
fn ids_and_links_are_refused_where_they_are_made() {
    let store = store(POLICY);
    let mount = store.mount();
    mount.sh("echo '{}' > Json/a; echo '{}' > Other/a");
    let inval = |result: std::io::Result<()>| assert_eq!(result.map_err(|e| errno(&e)), Err(Some(Errno::INVAL)));
    inval(fs::write(mount.join("Json/A"), "{}"));
    inval(fs::create_dir(mount.join("Json/A")));
    inval(symlink("a", mount.join("Json/A")));
    inval(fs::rename(mount.join("Json/a"), mount.join("Json/A")));
    inval(fs::hard_link(mount.join("Json/a"), mount.join("Json/A")));
    let error = fs::hard_link(mount.join("Other/a"), mount.join("Json/b")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CrossesDevices);
    // Which mv gets around by copying.
    mount.sh("ln Json/a Json/b; mv Json/b Other/b; test $(stat -c %h Json/a) = 1; cat Other/b");
    assert!(!Path::new(&store.path().join("Json/A")).exists());
}

#[test]
fn attributes_are_limited_as_setxattr_says() {
    let store = store("[[rule]]\nclass = 'Note'\nmax_xattrs = 2\nmax_xattr_size = 8\nmax_xattrs_size = 24\n");
    let mount = store.mount();
    mount.sh("echo old > Note/a");
    let set = |name: &str, value: &str| {
        rustix::fs::setxattr(mount.join("Note/a"), name, value.as_bytes(), XattrFlags::empty())
    };
    assert_eq!(set("user.a", "123456789"), Err(Errno::TOOBIG));
    set("user.a", "12345678").unwrap();
    assert_eq!(set("user.b", "12345"), Err(Errno::NOSPC));
    set("user.b", "1234").unwrap();
    assert_eq!(set("user.c", ""), Err(Errno::NOSPC));
    // Sepia's own don't count, and can be set as before.
    set("user.sepia.expect", "1").unwrap();
    set("user.sepia.id", "1").unwrap();
    mount.sh("setfattr -x user.b Note/a; setfattr -n user.c -v 1 Note/a");
}

#[test]
fn two_mounts_make_no_more_objects_than_one() {
    let store = store(POLICY);
    let mounts = [store.mount(), store.mount()];
    let make = |mount: &Mount, side: usize| {
        let mut made = 0;
        for number in 0..20 {
            match fs::write(mount.join(format!("Few/{side}-{number}")), "x") {
                Ok(()) => made += 1,
                Err(error) => assert_eq!(errno(&error), Some(Errno::DQUOT)),
            }
        }
        made
    };
    let made: usize = thread::scope(|scope| {
        let make = &make;
        let sides: Vec<_> =
            mounts.iter().enumerate().map(|(side, mount)| scope.spawn(move || make(mount, side))).collect();
        sides.into_iter().map(|side| side.join().unwrap()).sum()
    });
    assert_eq!((made, fs::read_dir(store.path().join("Few")).unwrap().count()), (10, 10));
    let said = sh_fails(mounts[0].path(), "touch Few/more");
    assert!(said.contains("Disk quota exceeded"), "{said}");
    mounts[1].sh("rm Few/$(ls Few | head -n 1)");
    mounts[0].sh("touch Few/more");
    sh_fails(mounts[1].path(), "mkdir Few/another");
}

#[test]
fn what_another_program_changes_is_adopted_and_logged() {
    let store = store(POLICY);
    let mount = store.mount();
    mount.sh("echo '{}' > Json/a");
    fs::write(store.path().join("Json/a"), "what somebody has written").unwrap();
    assert_eq!(mount.sh("cat Json/a"), "what somebody has written");
    wait_for("the log to say so", || mount.log().contains("was changed by another program").then_some(()));
    assert!(store.conflicts().is_empty());
    mount.sh("echo '{}' > Json/a");
}

/// A database is written in the middle of, and synced, all the time.
#[test]
fn a_database_in_another_class_is_none_of_their_business() {
    let store = store(POLICY);
    let mount = store.mount();
    mount.sh("sqlite3 Other/db 'create table t(a); insert into t values (1)'
         sqlite3 Other/db 'insert into t values (2)'
         test \"$(sqlite3 Other/db 'select count(*) from t')\" = 2");
    assert!(store.conflicts().is_empty());
}

#[test]
fn the_views_have_it_too() {
    let store = store(POLICY);
    let mount = store.mount();
    mount.sh("echo '{}' > Json/a; head -c 3 /dev/zero > Json/a || true");
    rejected(&store, 1);
    assert_eq!(mount.sh("cat .sepia/conflicts/Json/a/* | wc -c").trim(), "3");
    assert!(mount.sh("cat .sepia/events/Json/a.jsonl").contains("\"rule\":\"json\""));
}
