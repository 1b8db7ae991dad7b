//! `/.sepia` in a mount: older generations, conflicts and events as files, for ordinary tools, and for nobody who could not
//! read them before.

mod common;
mod rig;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::{Store, need_root, run, sh, sh_as, sh_as_fails};
use rig::load::close;
use rustix::io::Errno;

/// As on a filesystem that is mounted read-only; of directories that only root may write to, the kernel says so first.
#[track_caller]
fn assert_read_only(result: std::io::Result<impl Sized>) {
    let errno = errno(result);
    let denied = !common::is_root() && errno == Some(Errno::ACCESS.raw_os_error());
    assert!(denied || errno == Some(Errno::ROFS.raw_os_error()), "{errno:?}");
}

fn errno(result: std::io::Result<impl Sized>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn the_directory_is_not_listed_but_explains_itself() {
    let store = Store::new();
    let mount = store.mount();
    fs::write(mount.join("n"), "bytes").unwrap();
    assert_eq!(sh(mount.path(), "ls -A").trim(), "n");
    assert_eq!(sh(mount.path(), "find . | sort").trim(), ".\n./n");
    assert_eq!(
        sh(mount.path(), "ls .sepia").trim(),
        "README\nat\nconflicts\nevents\ngenerations\nsnapshots\nstats\ntrash"
    );
    assert!(sh(mount.path(), "cat .sepia/README").contains("generations/KEY/N"));
    let stats: serde_json::Value = serde_json::from_str(&sh(mount.path(), "cat .sepia/stats")).unwrap();
    assert_eq!(stats["conflicts"], 0);
    assert!(stats["free_bytes"].as_u64().unwrap() > 0);
    assert!(!mount.join(".sepia/format").exists(), "that is the store's own");
    mount.unmount();
}

#[test]
fn generations_are_files_that_any_tool_can_read() {
    let store = Store::new();
    let mount = store.mount();
    sh(
        mount.path(),
        "mkdir Note; for i in 1 2 3; do echo version $i > Note/n; done; echo more >> Note/n; echo x > Note/2",
    );
    let dir = mount.join(".sepia/generations/Note/n");
    assert_eq!(sh(&dir, "ls").trim(), "1\n2\n3\n4\nlatest");
    assert_eq!(sh(&dir, "cat 1 2 3").trim(), "version 1\nversion 2\nversion 3");
    // Of which the third is the beginning of the fourth.
    assert_eq!(sh(&dir, "cat 4; wc -c < 3; tail -c 2 3").trim(), "version 3\nmore\n10\n3");
    assert_eq!(fs::read(dir.join("latest")).unwrap(), fs::read(mount.join("Note/n")).unwrap());
    let compared = Command::new("diff").arg("-u").arg(dir.join("1")).arg(dir.join("2")).output().unwrap();
    assert!(String::from_utf8(compared.stdout).unwrap().contains("-version 1\n+version 2"));
    // An object whose name is a number is a directory here like any other.
    assert_eq!(sh(mount.path(), "ls .sepia/generations/Note; cat .sepia/generations/Note/2/1").trim(), "2\nn\nx");

    let copies = store.scratch().dir("copies");
    let view = mount.join(".sepia/generations");
    run(Command::new("rsync").arg("-a").arg(&view).arg(&copies));
    run(Command::new("cp").args(["-a", "-T"]).arg(&view).arg(copies.join("cp")));
    run(Command::new("diff").arg("-r").arg(&view).arg(copies.join("generations")));
    run(Command::new("diff").arg("-r").arg(&view).arg(copies.join("cp")));
    assert_eq!(sh(&view, "find . -type f | wc -l").trim(), "7");

    fs::rename(mount.join("Note/n"), mount.join("Note/m")).unwrap();
    assert_eq!(sh(&view, "cat Note/m/1").trim(), "version 1");
    fs::remove_file(mount.join("Note/m")).unwrap();
    assert_eq!(sh(&view, "ls Note/m; cat Note/m/latest").trim(), "1\n2\n3\n4\nlatest\nversion 3\nmore");
    sh(mount.path(), "rm -r Note");
    assert_eq!(sh(&view, "cat Note/m/2").trim(), "version 2", "of a directory that is gone");
    assert!(!view.join("Note/none").exists());
    assert!(!view.join("Note/m/9").exists());
    mount.unmount();
}

#[test]
fn nothing_in_a_view_can_be_changed() {
    let store = Store::new();
    let mount = store.mount();
    fs::write(mount.join("n"), "bytes").unwrap();
    let dir = mount.join(".sepia/generations/n");
    assert_read_only(fs::write(dir.join("1"), "other"));
    assert_read_only(fs::write(dir.join("new"), "other"));
    assert_read_only(fs::remove_file(dir.join("1")));
    assert_read_only(fs::create_dir(dir.join("d")));
    assert_read_only(fs::remove_dir(&dir));
    assert_read_only(fs::rename(dir.join("1"), mount.join("m")));
    assert_read_only(fs::rename(mount.join("n"), dir.join("m")));
    assert_read_only(fs::hard_link(dir.join("1"), mount.join("m")));
    assert_read_only(fs::set_permissions(dir.join("1"), PermissionsExt::from_mode(0o777)));
    assert_eq!(fs::read_to_string(dir.join("1")).unwrap(), "bytes");
    mount.unmount();
}

#[test]
fn conflicts_and_events_are_found_by_the_path_of_their_object() {
    let store = Store::new();
    let (a, b) = (store.mount(), store.mount());
    fs::create_dir(a.join("Note")).unwrap();
    fs::write(a.join("Note/n"), "one").unwrap();
    let mut late = OpenOptions::new().write(true).open(a.join("Note/n")).unwrap();
    late.write_all(b"AAA").unwrap();
    fs::write(b.join("Note/n"), "BBB").unwrap();
    close(late).unwrap_err();
    for mount in [&a, &b] {
        assert_eq!(sh(mount.path(), "cat .sepia/conflicts/Note/n/*"), "AAA");
        assert_eq!(sh(mount.path(), "ls .sepia/conflicts/Note").trim(), "n");
        let events = fs::read_to_string(mount.join(".sepia/events/Note/n.jsonl")).unwrap();
        let kinds: Vec<String> = events
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["type"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(kinds, ["created", "updated", "conflict"]);
        assert_eq!(sh(mount.path(), "ls .sepia/events/Note").trim(), "n.jsonl");
    }
    a.unmount();
    b.unmount();
}

#[test]
fn the_tree_as_it_was_can_be_entered_by_its_time() {
    let store = Store::new();
    let mount = store.mount();
    let now = || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let now = sepia::Timestamp::now().rfc3339().replace(':', "-");
        std::thread::sleep(std::time::Duration::from_millis(20));
        mount.join(".sepia/at").join(now)
    };
    sh(mount.path(), "mkdir -p Note Board/b1; echo one > Note/n; echo log > Note/log; ln -s ../../Note/n Board/b1/ref");
    let early = now();
    sh(mount.path(), "echo two > Note/n; echo more >> Note/log; echo new > Note/new; rm Board/b1/ref");
    let middle = now();
    sh(mount.path(), "rm -r Note; echo three > Board/b1/three");
    let late = now();

    let tree = |dir: &Path| sh(dir, "find . ! -type d | sort | xargs -r grep -H ''").trim().to_owned();
    assert_eq!(tree(&early), "./Note/log:log\n./Note/n:one");
    assert_eq!(tree(&middle), "./Note/log:log\n./Note/log:more\n./Note/n:two\n./Note/new:new");
    assert_eq!(tree(&late), "./Board/b1/three:three");
    // Under the names of that time.
    sh(mount.path(), "mv Board Shelf; mv Shelf/b1/three Shelf/b1/four; mkdir -p Board/b1; echo new > Board/b1/new");
    assert_eq!(tree(&late), "./Board/b1/three:three");
    assert_eq!(tree(&now()), "./Board/b1/new:new\n./Shelf/b1/four:three");
    assert_eq!(tree(&middle), "./Note/log:log\n./Note/log:more\n./Note/n:two\n./Note/new:new");
    assert_eq!(tree(&mount.join(".sepia/at/1h")), "");
    let copy = store.scratch().dir("copy");
    run(Command::new("rsync").arg("-a").arg(middle.join("")).arg(&copy));
    run(Command::new("diff").arg("-r").arg(&middle).arg(&copy));
    assert!(!mount.join(".sepia/at/some day").exists());
    assert_eq!(sh(mount.path(), "ls .sepia/at").trim(), "");
    mount.unmount();
}

#[test]
fn what_was_removed_is_moved_out_of_the_trash() {
    let store = Store::new();
    let mount = store.mount();
    sh(
        mount.path(),
        "mkdir -p Note/deep; echo one > Note/n; echo two > Note/n; chmod 640 Note/n; echo d > Note/deep/d",
    );
    sh(
        mount.path(),
        "setfattr -n user.colour -v red Note/n; touch -d 2020-01-02T03:04:05Z Note/n; echo stays > Note/stays",
    );
    assert_eq!(sh(mount.path(), "ls .sepia/trash; find .sepia/trash/* 2>/dev/null || true").trim(), "");
    sh(mount.path(), "rm -r Note/n Note/deep");
    let trash = mount.join(".sepia/trash");
    assert_eq!(sh(&trash, "find . -mindepth 1 | sort").trim(), "./Note\n./Note/deep\n./Note/deep/d\n./Note/n");
    assert_eq!(sh(&trash, "cat Note/n; stat -c '%a %s %Y' Note/n").trim(), "two\n640 4 1577934245");
    assert_eq!(sh(&trash, "getfattr --only-values -n user.colour Note/n").trim(), "red");
    assert_read_only(fs::remove_file(trash.join("Note/n")));
    assert_read_only(fs::write(trash.join("Note/n"), "other"));
    assert_read_only(fs::rename(mount.join("Note/stays"), trash.join("Note/stays")));
    assert_read_only(fs::rename(&trash, mount.join("all")));
    assert_eq!(
        errno(fs::rename(trash.join("Note/n"), mount.join("Note/stays"))),
        Some(Errno::EXIST.raw_os_error()),
        "nothing is overwritten"
    );

    sh(mount.path(), "mv .sepia/trash/Note/n Note/n");
    assert_eq!(sh(mount.path(), "cat Note/n; stat -c '%a %s %Y' Note/n").trim(), "two\n640 4 1577934245");
    assert_eq!(sh(mount.path(), "getfattr --only-values -n user.colour Note/n").trim(), "red");
    assert_eq!(sh(mount.path(), "ls .sepia/generations/Note/n").trim(), "1\n2\n3\nlatest", "the history goes on");
    let events = fs::read_to_string(mount.join(".sepia/events/Note/n.jsonl")).unwrap();
    assert!(events.lines().last().unwrap().contains("restored"), "{events}");
    // A directory, and under another name.
    sh(mount.path(), "mv .sepia/trash/Note/deep Note/again; echo more >> Note/again/d");
    assert_eq!(sh(mount.path(), "cat Note/again/d; ls Note").trim(), "d\nmore\nagain\nn\nstays");
    assert_eq!(sh(&trash, "find . -type f").trim(), "./Note/deep/d", "whose name it had is free still");
    mount.unmount();
}

/// As three users: who owns it, one who may do all in the directory, and one who may not.
#[test]
fn as_root_the_trash_gives_nobody_more_than_there_was() {
    need_root();
    let store = Store::new();
    let mount = store.mount_with(&["--allow-other"]);
    let dir = mount.path();
    fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
    sh(dir, "mkdir open closed; chmod 777 open; chmod 755 closed");
    sh(dir, "for d in open closed; do echo secret > $d/mine; chmod 600 $d/mine; chown nobody $d/mine; done");
    sh(dir, "echo run > open/suid; chmod 4755 open/suid; mkdir open/sub; chmod 700 open/sub; echo hid > open/sub/f");
    sh(dir, "rm -r open/* closed/*; mkdir -m 777 out");
    let trash = dir.join(".sepia/trash");
    sh_as_fails("daemon", &trash, "cat open/mine");
    assert_eq!(sh_as("nobody", &trash, "cat open/mine").trim(), "secret");
    sh_as_fails("daemon", &trash, "ls open/sub");
    sh_as_fails("daemon", &trash, "perl -e 'rename \"open/sub\", \"../../out/sub\" or die'");
    sh_as_fails("daemon", &trash, "perl -e 'rename \"open/suid\", \"../../out/suid\" or die'");
    sh_as_fails("nobody", &trash, "perl -e 'rename \"closed/mine\", \"../../out/mine\" or die'");
    // As with any file in a directory that all may write to: it can be moved, and stays as it is.
    sh_as("daemon", &trash, "perl -e 'rename \"open/mine\", \"../../out/mine\" or die'");
    assert_eq!(sh(dir, "ls out; stat -c '%U %a' out/mine").trim(), "mine\nnobody 600");
    sh_as_fails("daemon", dir, "cat out/mine");
    sh(&trash, "mv open/suid open/sub ../../out");
    assert_eq!(sh(dir, "stat -c %a out/suid; cat out/sub/f").trim(), "4755\nhid");
    mount.unmount();
}

#[test]
fn a_snapshot_is_made_read_and_dropped_as_a_directory() {
    let store = Store::new();
    let mount = store.mount();
    sh(
        mount.path(),
        "mkdir -p Note Board/b1 empty; echo one > Note/n; ln Note/n Note/other; chmod 640 Note/n; echo x > Note/x; \
         setfattr -n user.colour -v red Note/x; ln -s ../../Note/n Board/b1/ref; mkfifo fifo; touch -d 2001-02-03 Note/x; \
         chmod 711 Board; touch reserved; echo a >> log",
    );
    let (before, backup) = (store.scratch().dir("before"), store.scratch().dir("backup"));
    let copy = |from: &Path, to: &Path| {
        // What a mount says of an object in attributes is not part of it.
        let filter = "--filter=-x user.sepia.*";
        run(Command::new("rsync").args(["-aHAX", "--delete", filter]).arg(from.join("")).arg(to));
    };
    copy(mount.path(), &before);
    let snapshots = mount.join(".sepia/snapshots");
    fs::create_dir(snapshots.join("first")).unwrap();
    assert_eq!(errno(fs::create_dir(snapshots.join("first"))), Some(Errno::EXIST.raw_os_error()));
    sh(
        mount.path(),
        "echo two > Note/n; rm Note/x; mv Board Elsewhere; echo b >> log; rm fifo; rmdir empty; echo new > new; \
         chmod 600 Note/other",
    );
    let first = snapshots.join("first");
    copy(&first, &backup);
    let difference =
        Command::new("rsync").args(["-aHAXcni", "--delete"]).args([before.join(""), backup.join("")]).output().unwrap();
    // But for the times of directories, into which the copying itself has written.
    assert!(difference.status.success());
    let said = String::from_utf8(difference.stdout).unwrap();
    assert!(said.lines().all(|line| line.starts_with(".d..t")), "{said}");
    run(Command::new("diff").args(["-r", "--no-dereference"]).arg(before.join("Note")).arg(first.join("Note")));
    assert_eq!(
        sh(&first, "stat -c %h Note/n; readlink Board/b1/ref; getfattr --only-values -n user.colour Note/x").trim(),
        "2\n../../Note/n\nred"
    );
    assert_eq!(sh(&first, "stat -c %i Note/n"), sh(&first, "stat -c %i Note/other"));
    assert_eq!(errno(fs::write(first.join("Note/n"), "other")), Some(Errno::ROFS.raw_os_error()));
    assert_eq!(errno(fs::create_dir(first.join("Note/d"))), Some(Errno::ROFS.raw_os_error()));
    assert_eq!(sh(&snapshots, "ls").trim(), "first");
    fs::remove_dir(&first).unwrap();
    assert_eq!(sh(&snapshots, "ls").trim(), "");
    assert!(!first.join("Note").exists());
    assert!(String::from_utf8(store.sepia(&["events", "--json"])).unwrap().contains("\"snapshot\""));
    mount.unmount();
}

#[test]
fn the_example_of_a_backup_keeps_the_last_few() {
    let store = Store::new();
    let mount = store.mount();
    let backups = store.scratch().path().join("backups");
    sh(mount.path(), "mkdir Note; echo same > Note/same; echo 1 > Note/changing");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/rotate-backup");
    for round in 2..=4 {
        run(Command::new(script).arg(mount.path()).arg(&backups).arg("2"));
        fs::write(mount.join("Note/changing"), format!("{round}\n")).unwrap();
    }
    assert_eq!(sh(&backups, "cat */Note/changing; cat */Note/same").trim(), "2\n3\nsame\nsame");
    assert_eq!(sh(&backups, "stat -c %i */Note/same | uniq | wc -l").trim(), "1", "what is the same is one file");
    assert_eq!(sh(mount.path(), "ls .sepia/snapshots").trim(), "", "no snapshot is left");
    mount.unmount();
}

const USERS: [&str; 2] = ["nobody", "daemon"];

#[test]
fn as_root_a_view_shows_nobody_what_they_could_not_read() {
    need_root();
    let store = Store::new();
    let mount = store.mount_with(&["--allow-other"]);
    let everybody = |path: &Path, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    everybody(mount.path(), 0o755);
    sh(
        mount.path(),
        "mkdir open closed; chmod 755 open; chmod 700 closed; echo 1 > closed/n; echo 2 > closed/n; chmod 644 closed/n; \
         umask 077; echo secret > open/now-public; chmod 600 open/now-public; echo public > open/now-public; \
         chmod 644 open/now-public; echo public > open/now-secret; chmod 644 open/now-secret; \
         echo secret > open/now-secret; chmod 600 open/now-secret; echo 1 > open/n; echo 2 > open/n; chmod 644 open/n; \
         echo 3 > open/n; echo 1 > open/gone; chmod 600 open/gone; rm open/gone",
    );
    let views = mount.join(".sepia/generations");
    for user in USERS {
        assert_eq!(sh_as(user, &views, "cat open/n/3 open/n/latest").trim(), "3\n3");
        sh_as_fails(user, &views, "cat open/n/1");
        sh_as_fails(user, &views, "ls closed");
        sh_as_fails(user, &views, "cat closed/n/2");
        assert_eq!(sh_as(user, &views, "cat open/now-public/2").trim(), "public");
        // It was for its owner only while it was current.
        sh_as_fails(user, &views, "cat open/now-public/1");
        sh_as_fails(user, &views, "ls open/now-secret");
        sh_as_fails(user, &views, "cat open/now-secret/1");
        sh_as_fails(user, &views, "cat open/gone/1");
        sh_as_fails(user, &mount.join(".sepia/events"), "cat open/now-secret.jsonl");
        sh_as_fails(user, &mount.join(".sepia/events"), "cat closed/n.jsonl");
    }
    assert_eq!(sh(&views, "cat open/gone/1 closed/n/1 open/now-public/1").trim(), "1\n1\nsecret");
    // Who owns an object reads what they have written.
    let home = mount.join("home");
    fs::create_dir(&home).unwrap();
    run(Command::new("chown").arg(USERS[0]).arg(&home));
    sh_as(USERS[0], &home, "umask 077; echo mine > n; echo mine too > n");
    assert_eq!(sh_as(USERS[0], &views, "cat home/n/1").trim(), "mine");
    sh_as_fails(USERS[1], &views, "cat home/n/1");
    mount.unmount();
}
