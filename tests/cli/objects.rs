//! Objects saved, shown, compared, moved, removed and restored.

use std::io::Seek;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use serde_json::Value;

use crate::sandbox::{Sandbox, get};

#[test]
fn init_makes_one_store_and_no_second() {
    let sandbox = Sandbox::new();
    let again = sandbox.run(&["init", "store"]);
    assert!(matches!(again.code, 4 | 6), "{again:?}");
    let json = sandbox.run(&["init", "other", "--json"]).json();
    assert!(get(&json, "/store").as_str().unwrap().ends_with("other"));
    assert!(!get(&json, "/id").as_str().unwrap().is_empty());
    sandbox.run(&["init", "."]).fails(6, "holds the store");
    for inside in ["store/inside", "store/not/there/yet", "store/.sepia/inside"] {
        sandbox.run(&["init", inside]).fails(6, "lies inside the store");
        assert!(!sandbox.dir.path().join(inside).exists(), "{inside}");
    }
    assert!(!sandbox.dir.path().join("store/not").exists());
    assert!(!sandbox.dir.path().join(".sepia").exists());
    sandbox.run(&["init", "memory:"]).fails(2, "gone with its process");
    sandbox.run(&["init", "s3://bucket"]).fails(6, "no such backend");
}

#[test]
fn put_cat_and_history_of_an_object() {
    let sandbox = Sandbox::new();
    let first = sandbox.put("Note/n", b"one\n");
    assert_eq!(get(&first, "/generation"), 1);
    assert_eq!(get(&first, "/size"), 4);
    let said = sandbox.run_in(&sandbox.store, &["put", "Note/n"], b"two two\n").ok();
    assert_eq!(said.text(), "Note/n: saved as generation 2, 8 bytes\n");
    assert_eq!(sandbox.run(&["cat", "store/Note/n"]).ok().out, b"two two\n");
    assert_eq!(sandbox.run(&["cat", "store/Note/n", "--generation", "1"]).ok().out, b"one\n");
    sandbox.run(&["cat", "store/Note/n", "-g", "9"]).fails(3, "Note/n: has no generation 9");
    sandbox.run(&["cat", "store/Note/x"]).fails(3, "Note/x: no such object");
    sandbox.run(&["cat", "store/Note/n", "-g", "0"]).fails(2, "whole number from 1");

    let history = sandbox.run(&["history", "store/Note/n", "--json"]).json();
    assert_eq!(get(&history, "/key"), "Note/n");
    assert_eq!(get(&history, "/current"), 2);
    assert_eq!(get(&history, "/generations/0/current"), false);
    assert_eq!(get(&history, "/generations/0/kept"), "whole");
    assert_eq!(get(&history, "/generations/0/size"), 4);
    assert_eq!(get(&history, "/generations/1/superseded"), &Value::Null);
    assert_eq!(get(&history, "/generations/0/superseded"), get(&history, "/generations/1/committed"));
    let committed = get(&history, "/generations/1/committed").as_str().unwrap();
    assert!(committed.ends_with('Z') && committed.as_bytes()[10] == b'T', "{committed}");
    let text = sandbox.run(&["history", "store/Note/n"]).ok();
    assert!(text.text().lines().last().unwrap().contains("current"), "{text:?}");
    assert!(!text.text().contains('\x1b'));
    sandbox.run(&["history", "store/Note/x"]).fails(3, "Note/x: no such object");
}

/// What it was before a link or a directory took its name.
#[test]
fn the_history_of_a_name_that_is_something_else_now_is_shown() {
    let sandbox = Sandbox::new();
    for name in ["link", "dir"] {
        sandbox.put(name, b"one");
        sandbox.put(name, b"two");
    }
    std::fs::remove_file(sandbox.store.join("link")).unwrap();
    sandbox.run(&["rm", "store/dir"]).ok();
    std::os::unix::fs::symlink("dir", sandbox.store.join("link")).unwrap();
    std::fs::create_dir(sandbox.store.join("dir")).unwrap();
    std::fs::create_dir(sandbox.store.join("other")).unwrap();
    // The second one of the link is gone with what another program removed.
    for (name, kept) in [("link", 1), ("dir", 2)] {
        let history = sandbox.run(&["history", &format!("store/{name}"), "--json"]).json();
        assert_eq!(get(&history, "/generations").as_array().unwrap().len(), kept, "{history}");
        assert_eq!(sandbox.run(&["cat", &format!("store/{name}"), "-g", "1"]).ok().out, b"one");
    }
    sandbox.run(&["history", "store/other"]).fails(1, "is no regular file");
}

#[test]
fn put_obeys_its_precondition() {
    let sandbox = Sandbox::new();
    let put_bytes =
        |args: &[&str], bytes: &[u8]| sandbox.run_in(&sandbox.store, &[&["put", "Note/n"], args].concat(), bytes);
    let put = |args: &[&str]| put_bytes(args, b"x");
    put(&["--if-absent"]).ok();
    put(&["--if-absent"]).fails(4, "Note/n");
    // The same bytes are no other generation.
    put(&["--if-generation", "1"]).ok();
    put_bytes(&["--if-generation", "1"], b"y").ok();
    put(&["--if-generation", "1"]).fails(4, "its current generation is 2; nothing was changed");
    put(&["--if-generation", "1", "--if-absent"]).fails(2, "cannot be used with");
    assert_eq!(get(&sandbox.run(&["history", "store/Note/n", "--json"]).json(), "/current"), 2);
}

#[test]
fn put_takes_a_file_or_standard_input() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.dir.path().join("f"), "from a file").unwrap();
    sandbox.run(&["put", "store/a/b/c", "f"]).ok();
    assert_eq!(sandbox.run(&["cat", "store/a/b/c"]).ok().out, b"from a file");
    sandbox.run_in(sandbox.dir.path(), &["put", "store/a/b/c", "-"], b"input").ok();
    assert_eq!(sandbox.run(&["cat", "store/a/b/c"]).ok().out, b"input");
    sandbox.run(&["put", "store/a/b/c", "missing"]).fails(1, "missing: No such file");
    sandbox.run(&["put", "store/a/b", "f"]).fails(1, "a/b: is a directory");
    sandbox.run(&["put", "store/a/b/c", "."]).fails(1, "can't read the bytes");
    assert_eq!(sandbox.run(&["cat", "store/a/b/c"]).ok().out, b"input");
}

/// No bytes were meant to be saved by a script that has closed its input.
#[test]
fn put_refuses_a_closed_standard_input() {
    let sandbox = Sandbox::new();
    sandbox.put("n", b"kept");
    let shell = |redirection: &str| {
        let mut shell = std::process::Command::new("bash");
        shell.args(["-c", &format!("\"$0\" put n --store . {redirection}"), env!("CARGO_BIN_EXE_sepia")]);
        shell.current_dir(&sandbox.store).output().unwrap()
    };
    let refused = shell("<&-");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("standard input is closed"), "{refused:?}");
    assert_eq!(sandbox.run(&["cat", "store/n"]).ok().out, b"kept");
    for empty in ["</dev/null", "/dev/null <&-"] {
        assert!(shell(empty).status.success(), "{empty}");
        assert_eq!(sandbox.run(&["cat", "store/n"]).ok().out, b"");
        sandbox.put("n", b"more");
    }
}

#[test]
fn ls_lists_sorted_and_in_full() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/b", b"22");
    sandbox.put("Note/a", b"1");
    sandbox.put("Board/x/data", b"");
    std::os::unix::fs::symlink("a", sandbox.store.join("Note/link")).unwrap();
    assert_eq!(sandbox.run(&["ls", "store"]).ok().text(), "Board\nNote\n");
    assert_eq!(sandbox.run(&["ls", "store/Note"]).ok().text(), "a\nb\nlink\n");
    assert_eq!(sandbox.run(&["ls", "store/Note/a"]).ok().text(), "a\n");
    assert_eq!(
        sandbox.run(&["ls", "-R", "store"]).ok().text(),
        "Board\nBoard/x\nBoard/x/data\nNote\nNote/a\nNote/b\nNote/link\n"
    );
    let long = sandbox.run(&["ls", "-l", "store/Note"]).ok();
    let fields: Vec<_> = long.text().lines().nth(1).unwrap().split_whitespace().collect();
    assert!(fields[0].starts_with("-rw"), "{long:?}");
    assert_eq!((fields[3], fields[4], fields.last()), ("2", "1", Some(&"b")));
    let json = sandbox.run(&["ls", "store/Note", "--json"]).json();
    assert_eq!(json.as_array().unwrap().len(), 3);
    assert_eq!(get(&json, "/0/key"), "Note/a");
    assert_eq!(get(&json, "/0/kind"), "file");
    assert_eq!(get(&json, "/2/kind"), "symlink");
    assert_eq!(get(&json, "/2/generation"), &Value::Null);
    sandbox.run(&["ls", "store/None"]).fails(3, "None: no such object");
}

#[test]
fn rm_keeps_what_restore_brings_back() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", b"one");
    sandbox.put("Note/n", b"two");
    sandbox.run(&["rm", "store/Note/n", "--if-generation", "1"]).fails(4, "its current generation is 2");
    let said = sandbox.run(&["rm", "store/Note/n", "--if-generation", "2"]).ok();
    assert_eq!(said.text(), "Note/n: removed, 'sepia trash restore' brings it back\n");
    sandbox.run(&["rm", "store/Note/n"]).fails(3, "no such object");
    let history = sandbox.run(&["history", "store/Note/n", "--json"]).json();
    assert_eq!(get(&history, "/current"), &Value::Null);
    assert_eq!(get(&history, "/generations/1/deleted"), true);
    assert!(sandbox.run(&["history", "store/Note/n"]).ok().text().contains("(removed)"));
    let restored = sandbox.run(&["restore", "store/Note/n", "--generation", "1", "--json"]).json();
    assert_eq!(get(&restored, "/generation"), 3);
    assert_eq!(sandbox.run(&["cat", "store/Note/n"]).ok().out, b"one");
    let said = sandbox.run(&["restore", "store/Note/n", "-g", "2"]).ok();
    assert_eq!(said.text(), "Note/n: generation 2 restored as generation 4, 3 bytes\n");
    sandbox.run(&["restore", "store/Note/n", "-g", "1", "--if-generation", "3"]).fails(4, "generation is 4");
    sandbox.run(&["restore", "store/Note/n", "-g", "7"]).fails(3, "has no generation 7");
}

/// Nobody reads what they couldn't read before.
#[test]
fn what_is_restored_after_its_removal_has_its_mode_and_owner() {
    let sandbox = Sandbox::new();
    let path = sandbox.store.join("Note/private");
    let access = || path.metadata().map(|meta| (meta.mode() & 0o7777, meta.uid(), meta.gid())).unwrap();
    sandbox.put("Note/private", b"one");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(4321), Some(8765)).unwrap();
    }
    let before = access();
    sandbox.put("Note/private", b"two");
    sandbox.run(&["rm", "store/Note/private"]).ok();
    sandbox.run(&["restore", "store/Note/private", "-g", "1"]).ok();
    assert_eq!((access(), std::fs::read(&path).unwrap()), (before, b"one".to_vec()));
    // What is there keeps the mode that somebody gave it.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    sandbox.run(&["restore", "store/Note/private", "-g", "2"]).ok();
    assert_eq!(access().0, 0o640);
}

/// The group bits of a file with an ACL are what its entries may be at most, not what the group may do.
#[test]
fn what_had_an_acl_is_restored_for_nobody_more() {
    let sandbox = Sandbox::new();
    let path = sandbox.store.join("shared");
    sandbox.put("shared", b"one");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let set = std::process::Command::new("setfacl").arg("-m").arg("u:4321:rw").arg(&path).status().unwrap();
    assert!(set.success());
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o660);
    sandbox.run(&["rm", "store/shared"]).ok();
    sandbox.run(&["restore", "store/shared", "-g", "1"]).ok();
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
}

/// A file of mostly nothing would take up all of its size.
#[test]
fn holes_stay_holes_when_they_are_restored() {
    let sandbox = Sandbox::new();
    let path = sandbox.store.join("image");
    let file = std::fs::File::create(&path).unwrap();
    file.write_all_at(b"end", 64 << 20).unwrap();
    drop(file);
    sandbox.put("image", b"small");
    sandbox.run(&["restore", "store/image", "-g", "1"]).ok();
    let meta = path.metadata().unwrap();
    assert_eq!(meta.len(), (64 << 20) + 3);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
}

/// Nor is a file filled up that comes from elsewhere, by its name or as standard input.
#[test]
fn holes_stay_holes_when_they_are_put() {
    let sandbox = Sandbox::new();
    let from = sandbox.dir.path().join("from");
    let file = std::fs::File::create(&from).unwrap();
    for (at, size) in [(1 << 20, 64 << 20), (64 << 20, (64 << 20) + 3), (3, 3)] {
        file.set_len(0).unwrap();
        file.write_all_at(b"abc", at.min(size - 3)).unwrap();
        file.set_len(size).unwrap();
        sandbox.run(&["put", "store/named", "from"]).ok();
        let input = std::fs::File::open(&from).unwrap();
        assert!(sandbox.command(&sandbox.store).args(["put", "piped"]).stdin(input).output().unwrap().status.success());
        for name in ["named", "piped"] {
            let path = sandbox.store.join(name);
            assert!(std::fs::read(&path).unwrap() == std::fs::read(&from).unwrap(), "{name} of {size} bytes");
            let blocks = path.metadata().unwrap().blocks();
            assert!(blocks * 512 < 1 << 20, "{name} of {size} bytes: {blocks} blocks");
        }
    }
    // From where its reader has come to.
    let mut rest = std::fs::File::open(&from).unwrap();
    rest.seek(std::io::SeekFrom::Start(1)).unwrap();
    assert!(sandbox.command(&sandbox.store).args(["put", "rest"]).stdin(rest).output().unwrap().status.success());
    assert_eq!(std::fs::read(sandbox.store.join("rest")).unwrap(), b"bc");
}

#[test]
fn rm_takes_directories_only_when_told() {
    let sandbox = Sandbox::new();
    sandbox.put("Board/x/data", b"1");
    sandbox.put("Board/y", b"2");
    sandbox.run(&["rm", "store/Board"]).fails(1, "Board: is a directory");
    sandbox.run(&["rm", "-r", "store"]).fails(2, "root");
    let removed = sandbox.run(&["rm", "-r", "--json", "store/Board"]).json();
    let keys: Vec<_> = removed.as_array().unwrap().iter().map(|one| get(one, "/key").as_str().unwrap()).collect();
    assert_eq!(keys, ["Board/x/data", "Board/x", "Board/y", "Board"]);
    assert_eq!(sandbox.run(&["ls", "store"]).ok().text(), "");
    sandbox.run(&["restore", "store/Board/x/data", "-g", "1"]).ok();
    assert_eq!(sandbox.run(&["cat", "store/Board/x/data"]).ok().out, b"1");
}

#[test]
fn mv_renames_with_the_history() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", b"one");
    sandbox.put("Note/n", b"two");
    sandbox.put("Task/t", b"task");
    sandbox.run(&["mv", "store/Note/n", "store/Note/m"]).ok();
    assert_eq!(sandbox.run(&["cat", "store/Note/m", "-g", "1"]).ok().out, b"one");
    sandbox.run(&["mv", "--if-absent", "store/Note/m", "store/Task/t"]).fails(4, "Task/t");
    let moved = sandbox.run(&["mv", "--json", "store/Note/m", "store/Task/"]).json();
    assert_eq!(get(&moved, "/key"), "Task/m");
    sandbox.run(&["mv", "store/Task/m", "store/Task/t"]).ok();
    assert_eq!(sandbox.run(&["cat", "store/Task/t"]).ok().out, b"two");
    assert_eq!(sandbox.run(&["cat", "store/Task/t", "-g", "1"]).ok().out, b"task");
    sandbox.run(&["init", "other"]).ok();
    sandbox.run(&["mv", "store/Task/t", "other/t"]).fails(2, "is in the store");
    sandbox.run(&["mv", "store/Task/x", "store/Task/y"]).fails(3, "Task/x: no such object");
}

/// As mv(1) does it; rename(2) leaves both.
#[test]
fn mv_of_one_name_of_an_object_to_another_removes_the_first() {
    let sandbox = Sandbox::new();
    sandbox.put("a", b"one");
    std::fs::hard_link(sandbox.store.join("a"), sandbox.store.join("b")).unwrap();
    sandbox.run(&["mv", "--if-absent", "store/a", "store/b"]).fails(4, "b");
    assert!(sandbox.store.join("a").exists());
    assert!(sandbox.run(&["mv", "store/a", "store/b"]).ok().text().starts_with("a: is now b"));
    assert_eq!(sandbox.run(&["ls", "store"]).ok().text(), "b\n");
    assert_eq!(sandbox.run(&["cat", "store/b"]).ok().out, b"one");
    sandbox.run(&["mv", "store/b", "store/b"]).ok();
    assert_eq!(sandbox.run(&["cat", "store/b"]).ok().out, b"one");
}

#[test]
fn stat_prints_all_that_is_known() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", b"one");
    let json = sandbox.run(&["stat", "store/Note/n", "--json"]).json();
    assert_eq!(get(&json, "/id").as_str().unwrap().len(), 16);
    assert_eq!(get(&json, "/class"), "Note");
    assert_eq!(get(&json, "/generation"), 1);
    assert_eq!(get(&json, "/recorded"), true);
    assert_eq!(get(&json, "/mode").as_str().unwrap().len(), 4);
    let text = sandbox.run(&["stat", "store/Note/n"]).ok();
    for label in ["key:", "store:", "id:", "generation:", "committed:", "size:", "mode:", "owner:", "modified:"] {
        assert!(text.text().contains(label), "{label} {text:?}");
    }
    std::os::unix::fs::symlink("../else", sandbox.store.join("Note/link")).unwrap();
    assert_eq!(get(&sandbox.run(&["stat", "store/Note/link", "--json"]).json(), "/target"), "../else");
    assert_eq!(get(&sandbox.run(&["stat", "store", "--json"]).json(), "/kind"), "directory");
}

#[test]
fn diff_shows_text_and_sums_up_the_rest() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", b"a\nb\nc\n");
    sandbox.run(&["diff", "store/Note/n"]).fails(3, "only generation 1");
    sandbox.put("Note/n", b"a\nB\nc\n");
    // Saving the same bytes again would make no generation.
    sandbox.put("Note/m", b"a\nB\nc\n");
    sandbox.run(&["mv", "store/Note/m", "store/Note/n"]).ok();
    let diff = sandbox.run(&["diff", "store/Note/n", "1"]).ok();
    let lines: Vec<_> = diff.text().lines().collect();
    assert!(lines[0].starts_with("--- Note/n (generation 1, "), "{lines:?}");
    assert!(lines[1].starts_with("+++ Note/n (generation 3, "), "{lines:?}");
    assert_eq!(lines[2..], ["@@ -1,3 +1,3 @@", " a", "-b", "+B", " c"]);
    assert_eq!(sandbox.run(&["diff", "store/Note/n"]).ok().text(), "");
    assert_eq!(sandbox.run(&["diff", "store/Note/n", "--exit-code"]).code, 0);
    let differs = sandbox.run(&["diff", "store/Note/n", "2", "1", "--exit-code"]);
    assert_eq!((differs.code, differs.err.as_str()), (1, ""));
    let json = sandbox.run(&["diff", "store/Note/n", "1", "2", "--json"]).json();
    assert_eq!(get(&json, "/equal"), false);
    assert_eq!(get(&json, "/text"), true);
    assert_eq!(get(&json, "/from/generation"), 1);
    assert_eq!(get(&json, "/first_difference"), 2);
    assert!(get(&json, "/unified").as_str().unwrap().contains("+B\n"));

    sandbox.put("Pic/p", b"\0\x01\x02\x03");
    sandbox.put("Pic/p", b"\0\x01\xff\x03\x04");
    let text = sandbox.run(&["diff", "store/Pic/p"]).ok();
    assert!(text.text().contains("first difference is at byte 2, 1 of the first 4 differ"), "{text:?}");
    sandbox.put("Pic/p", b"\0\x01\xff\x03\x04\x05\x06");
    assert!(sandbox.run(&["diff", "store/Pic/p"]).ok().text().contains("2 bytes were appended"));
    sandbox.put("Pic/p", b"\0");
    assert!(sandbox.run(&["diff", "store/Pic/p"]).ok().text().contains("the last 6 bytes were cut off"));
    let json = sandbox.run(&["diff", "store/Pic/p", "--json"]).json();
    assert_eq!((get(&json, "/text"), get(&json, "/first_difference")), (&Value::Bool(false), &Value::from(1)));
}

#[test]
fn changes_from_outside_become_generations() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", b"one");
    std::fs::write(sandbox.store.join("Note/n"), b"written over").unwrap();
    assert_eq!(get(&sandbox.run(&["stat", "store/Note/n", "--json"]).json(), "/recorded"), false);
    let history = sandbox.run(&["history", "store/Note/n", "--json"]).json();
    assert_eq!(get(&history, "/current"), 2);
    assert_eq!(get(&history, "/generations/0/kept"), "lost");
    assert_eq!(get(&history, "/generations/0/lost_because"), "the file was changed outside Sepia");
    assert!(sandbox.run(&["history", "store/Note/n"]).ok().text().contains("lost: the file was changed"));
    sandbox.run(&["cat", "store/Note/n", "-g", "1"]).fails(3, "has no generation 1");
    sandbox.run(&["diff", "store/Note/n"]).fails(3, "only generation 2 is kept");
    sandbox.run(&["restore", "store/Note/n", "-g", "1"]).fails(3, "has no generation 1");
    assert_eq!(sandbox.run(&["cat", "store/Note/n"]).ok().out, b"written over");
}

#[test]
fn what_is_no_file_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", b"one");
    for command in ["cat", "history", "diff"] {
        sandbox.run(&[command, "store/Note"]).fails(1, "Note: is no regular file");
    }
    let fifo = sandbox.store.join("Note/fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    sandbox.run(&["cat", "store/Note/fifo"]).fails(1, "Note/fifo: is no regular file");
    sandbox.run(&["put", "store/Note/fifo"]).fails(1, "not a regular file");
    assert_eq!(get(&sandbox.run(&["stat", "store/Note/fifo", "--json"]).json(), "/kind"), "fifo");
    assert_eq!(sandbox.run(&["rm", "store/Note/fifo"]).ok().text(), "Note/fifo: removed\n");
}

/// Bits that let a program run as its owner or its group are for those, not for who brings it back.
#[test]
fn as_root_what_an_ordinary_user_brings_back_of_others_has_nobodys_rights() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    const OWNER: (u32, u32) = (4321, 4321);
    let sandbox = Sandbox::new();
    let path = |name: &str| sandbox.store.join(name);
    let access = |name: &str| path(name).metadata().map(|meta| (meta.mode() & 0o7777, meta.uid(), meta.gid())).unwrap();
    std::fs::set_permissions(sandbox.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let acl = |arg: &str, name: &str| {
        let set = std::process::Command::new("setfacl").args(["-m", arg]).arg(path(name)).status().unwrap();
        assert!(set.success());
    };
    for name in ["others", "own", "shared"] {
        sandbox.put(name, b"program");
    }
    for entry in [&sandbox.store, &path(".sepia"), &path("own")] {
        std::os::unix::fs::chown(entry, Some(OWNER.0), Some(OWNER.1)).unwrap();
    }
    let given = std::process::Command::new("chown").args(["-R", "4321:4321"]).arg(path(".sepia")).status().unwrap();
    assert!(given.success());
    acl("u:5555:rwx", "shared");
    for name in ["others", "own"] {
        std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(0o6755)).unwrap();
    }
    let run = |args: &[&str]| {
        let ran = std::process::Command::new("setpriv")
            .args(["--reuid=4321", "--regid=4321", "--clear-groups", env!("CARGO_BIN_EXE_sepia"), "--store"])
            .arg(&sandbox.store)
            .args(args)
            .current_dir("/")
            .output()
            .unwrap();
        assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    };
    for name in ["others", "own", "shared"] {
        run(&["rm", name]);
        run(&["trash", "restore", name]);
        assert_eq!(std::fs::read(path(name)).unwrap(), b"program");
    }
    assert_eq!(access("others"), (0o705, OWNER.0, OWNER.1));
    assert_eq!(access("own"), (0o6755, OWNER.0, OWNER.1));
    assert_eq!(access("shared"), (0o600, OWNER.0, OWNER.1));
    let shown = std::process::Command::new("getfacl").arg("-cs").arg(path("shared")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "", "rights that another owner has given");
    // Root can give it all back.
    std::os::unix::fs::chown(path("own"), Some(1), Some(1)).unwrap();
    std::fs::set_permissions(path("own"), std::fs::Permissions::from_mode(0o6750)).unwrap();
    acl("u:5555:r", "own");
    sandbox.run(&["rm", "store/own"]).ok();
    sandbox.run(&["trash", "restore", "store/own"]).ok();
    assert_eq!(access("own"), (0o6750, 1, 1));
    let shown = std::process::Command::new("getfacl").arg("-cs").arg(path("own")).output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("user:5555:r--"));
}
