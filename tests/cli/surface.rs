//! Which store and object an argument means, odd names, pipes, help.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use crate::sandbox::{Sandbox, get};

#[test]
fn status_describes_the_store() {
    let sandbox = Sandbox::new();
    let json = sandbox.run(&["status", "store", "--json"]).json();
    assert_eq!(get(&json, "/store").as_str().unwrap(), sandbox.store.canonicalize().unwrap().to_str().unwrap());
    assert_eq!(get(&json, "/format"), 1);
    assert_eq!(get(&json, "/conflicts"), 0);
    assert_eq!(get(&json, "/users"), &serde_json::json!([]));
    assert!(get(&json, "/size").as_u64().unwrap() >= get(&json, "/free").as_u64().unwrap());
    let text = sandbox.run_in(&sandbox.store, &["status"], b"").ok();
    for part in ["store:", "id:", "free of", "conflicts:", "nobody"] {
        assert!(text.text().contains(part), "{text:?}");
    }
    sandbox.run(&["status"]).fails(6, "--store URL");
    sandbox.run(&["status", "store/Note/n", "--store", "store"]).fails(2, "twice");
    sandbox.run(&["status", "--store", "nowhere"]).fails(6, "nowhere");
}

#[test]
fn a_path_means_an_object() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", b"here");
    let inside = sandbox.store.join("Note");
    let outside = sandbox.dir.path().join("outside");
    std::os::unix::fs::symlink(&inside, &outside).unwrap();
    for (dir, path) in [
        (&sandbox.store, "Note/n"),
        (&sandbox.store, "./Note/../Note/n"),
        (&sandbox.store, "Note/n/"),
        (&inside, "n"),
        (&inside, "../Note/n"),
        (&outside, "n"),
    ] {
        assert_eq!(sandbox.run_in(dir, &["cat", path], b"").ok().out, b"here", "{path}");
    }
    let absolute = inside.join("n");
    assert_eq!(sandbox.run(&["cat", absolute.to_str().unwrap()]).ok().out, b"here");
    assert_eq!(sandbox.run(&["ls", "outside"]).ok().text(), "n\n");
    assert_eq!(sandbox.run_in(&inside, &["ls"], b"").ok().text(), "n\n");
    assert_eq!(sandbox.run_in(&inside, &["ls", ".."], b"").ok().text(), "Note\n");
    sandbox.run_in(&inside, &["rm", "n"], b"").ok();
    std::fs::remove_dir(&inside).unwrap();
    // Neither the object nor its directory exists any more.
    sandbox.run(&["restore", "store/Note/n", "-g", "1"]).ok();
    assert_eq!(std::fs::read(inside.join("n")).unwrap(), b"here");
    sandbox.run(&["cat", "elsewhere/n"]).fails(6, "elsewhere/n: neither in a store");
    sandbox.run(&["cat", ""]).fails(2, "names no object");
    sandbox.run(&["cat", "store/.sepia/format"]).fails(2, "reserved");
}

#[test]
fn a_named_store_makes_arguments_keys() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", b"here");
    let url = format!("file://{}", sandbox.store.display());
    assert_eq!(sandbox.run(&["cat", "--store", &url, "Note/n"]).ok().out, b"here");
    assert_eq!(sandbox.run(&["--store", "store", "cat", "/Note/n"]).ok().out, b"here");
    assert_eq!(sandbox.run(&["--store", "store", "ls"]).ok().text(), "Note\n");
    let output = sandbox.command(sandbox.dir.path()).env("SEPIA_STORE", &url).args(["cat", "Note/n"]).output();
    assert_eq!(output.unwrap().stdout, b"here");
    let output = sandbox.command(&sandbox.store).env("SEPIA_STORE", "").args(["cat", "Note/n"]).output();
    assert_eq!(output.unwrap().stdout, b"here");
    sandbox.run(&["cat", "--store", "store", "./Note/n"]).fails(2, "the argument is a key");
    sandbox.run(&["cat", "--store", "nowhere", "Note/n"]).fails(6, "nowhere");
    sandbox.run(&["init", "x", "--store", "store"]).fails(2, "means nothing");
}

#[test]
fn odd_names_are_printed_harmlessly() {
    let sandbox = Sandbox::new();
    let name = OsStr::from_bytes(b"a\n\x1b[31m\xff b");
    let path = sandbox.store.join("Note").join(name);
    let said = sandbox.run_in(&sandbox.store, &[OsStr::new("put"), path.as_os_str()], b"x").ok();
    assert_eq!(said.text(), "Note/a\\n\\u{1b}[31m\\xff b: saved as generation 1, 1 byte\n");
    assert_eq!(std::fs::read(&path).unwrap(), b"x");
    assert_eq!(sandbox.run(&["ls", "store/Note"]).ok().text(), "a\\n\\u{1b}[31m\\xff b\n");
    let json = sandbox.run(&["ls", "store/Note", "--json"]).json();
    assert_eq!(get(&json, "/0/key"), "Note/a\n\u{1b}[31m\u{fffd} b");
    assert_eq!(get(&json, "/0/key_escaped"), "Note/a%0A%1B[31m%FF b");
    let missing = sandbox.run(&[OsStr::new("cat"), path.with_file_name("x\ty").as_os_str()]);
    missing.fails(3, "Note/x\\ty: no such object");
    let long = sandbox.store.join("x".repeat(256));
    sandbox.run(&[OsStr::new("cat"), long.as_os_str()]).fails(2, "longer than 255 bytes");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", &vec![b'x'; 4 << 20]);
    let mut command = sandbox.command(&sandbox.store);
    let mut child = command.args(["cat", "Note/n"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut start = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let sandbox = Sandbox::new();
    let help = sandbox.run(&["--help"]).ok();
    for code in 0..=7 {
        assert!(help.text().contains(&format!("\n  {code}  ")), "the help lists the exit code {code}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = sandbox.run(&["completions", shell]).ok();
        for word in ["history", "conflicts", "resolve", "snapshot", "dry-run", "if-generation"] {
            assert!(script.text().contains(word), "{shell}: {word}");
        }
    }
    sandbox.run(&["completions", "nosuch"]).fails(2, "nosuch");
    assert!(sandbox.run(&["man"]).ok().text().contains("sepia\\-history(1)"));
    assert!(sandbox.run(&["man", "conflicts", "resolve"]).ok().text().contains(".TH sepia-conflicts-resolve 1"));
    sandbox.run(&["man", "nosuch"]).fails(2, "there is no command nosuch");
    sandbox.run(&["man", "--dir", "pages"]).ok();
    let pages = sandbox.dir.path().join("pages");
    for page in ["sepia.1", "sepia-put.1", "sepia-conflicts-show.1", "sepia-snapshot-restore.1"] {
        assert!(pages.join(page).metadata().unwrap().len() > 200, "{page}");
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", b"x");
    for args in [&["cat", "store/Note/n"][..], &["ls", "store"], &["stat", "--json", "store"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = sandbox.command(sandbox.dir.path()).args(args).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8(output.stderr).unwrap().starts_with("sepia: can't write the output: No space"));
    }
}

#[test]
fn every_exit_code_comes_when_the_help_says_so() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", b"x");
    let code = |args: &[&str]| sandbox.run_in(&sandbox.store, args, b"").code;
    assert_eq!(code(&["cat", "Note/n"]), 0);
    assert_eq!(code(&["put", "Note/n/below"]), 1);
    assert_eq!(code(&["cat", "Note/n", "--nonsense"]), 2);
    assert_eq!(code(&["cat", "Note/none"]), 3);
    assert_eq!(code(&["put", "Note/n", "--if-absent"]), 4);
    assert_eq!(code(&["status", "--store", "nowhere"]), 6);
    // A snapshot that can't be read.
    std::fs::create_dir_all(sandbox.store.join(".sepia/snapshots")).unwrap();
    std::fs::write(sandbox.store.join(".sepia/snapshots/damaged.jsonl"), "{").unwrap();
    assert_eq!(code(&["verify"]), 7);
    std::fs::remove_file(sandbox.store.join(".sepia/snapshots/damaged.jsonl")).unwrap();
    assert_eq!(code(&["verify"]), 0);
    std::fs::write(sandbox.store.join(".sepia/config.toml"), "[[rule]]\nclass = 'Class'\nid = 'x'\n").unwrap();
    assert_eq!(code(&["put", "Class/y"]), 8);
    // A process that holds the lock and never goes on, such as one that was stopped. This takes half a minute.
    let lock = std::fs::File::open(sandbox.store.join(".sepia/lock/tree")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    sandbox
        .run_in(&sandbox.store, &["rm", "Note/n"], b"")
        .fails(5, "Note/n: locked by another process; 'sepia status'");
    drop(lock);
    assert_eq!(code(&["rm", "Note/n"]), 0);
}
