//! Conflicts and crashes.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use sepia::store::Resolution;
use serde_json::Value;

use crate::sandbox::{Sandbox, get};

#[test]
fn conflicts_are_listed_shown_and_resolved() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.run_in(&sandbox.store, &["conflicts"], b"").ok().text(), "no conflicts\n");
    sandbox.put("Note/n", b"base\n");
    sandbox.put("Task/t", b"base\n");
    let id = sandbox.lose("Note/n", b"winner\n", b"loser\n").to_string();
    let other = sandbox.lose("Task/t", b"w", b"l").to_string();
    let run = |args: &[&str]| sandbox.run_in(&sandbox.store, args, b"");

    let list = run(&["conflicts", "--json"]).json();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(get(&list, "/0/id"), id.as_str());
    assert_eq!(get(&list, "/0/key"), "Note/n");
    assert_eq!(get(&list, "/0/reason"), "stale");
    assert_eq!((get(&list, "/0/base"), get(&list, "/0/current")), (&Value::from(1), &Value::from(2)));
    assert_eq!(run(&["conflicts", "Task", "--json"]).json().as_array().unwrap().len(), 1);
    assert!(run(&["conflicts"]).ok().text().contains("2 conflicts; compare with"));
    assert_eq!(get(&run(&["status", "--json"]).json(), "/conflicts"), 2);

    assert_eq!(run(&["conflicts", "show", &id, "--bytes"]).ok().out, b"loser\n");
    assert!(run(&["conflicts", "show", &id]).ok().text().contains("came too late"));
    // As much of the name as is unique is enough; what both begin with is not.
    let unique = id.len() - 1;
    assert_eq!(get(&run(&["conflicts", "show", &id[..unique], "--json"]).json(), "/id"), id.as_str());
    run(&["conflicts", "show", &id[..2]]).fails(2, "several conflicts begin with 20");
    run(&["conflicts", "show", "nothing"]).fails(3, "there is no conflict nothing");
    run(&["conflicts", "show", ""]).fails(3, "there is no conflict");
    run(&["conflicts", "show", "../x"]).fails(3, "there is no conflict");

    let diff = run(&["conflicts", "diff", &id]).ok();
    assert!(diff.text().contains("-winner\n+loser\n"), "{diff:?}");
    assert_eq!(run(&["conflicts", "diff", &id, "--exit-code"]).code, 1);

    run(&["conflicts", "resolve", &id]).fails(2, "--take");
    run(&["conflicts", "resolve", &id, "--take", "--keep"]).fails(2, "cannot be used with");
    run(&["conflicts", "resolve", &id, "--as", "n"]).fails(4, "the conflict stays");
    run(&["conflicts", "resolve", &id, "--as", ".."]).fails(2, "not names of objects");
    let saved = run(&["conflicts", "resolve", &id, "--as", "n-mine", "--json"]).json();
    assert_eq!(get(&saved, "/saved/key"), "Note/n-mine");
    assert_eq!(run(&["cat", "Note/n-mine"]).ok().out, b"loser\n");
    assert_eq!(run(&["cat", "Note/n"]).ok().out, b"winner\n");
    run(&["conflicts", "resolve", &id, "--keep"]).fails(3, "there is no conflict");

    run(&["conflicts", "resolve", &other, "--take"]).ok();
    assert_eq!(run(&["cat", "Task/t"]).ok().out, b"l");
    assert_eq!(get(&run(&["history", "Task/t", "--json"]).json(), "/current"), 3);
    let third = sandbox.lose("Task/t", b"W", b"L").to_string();
    run(&["conflicts", "resolve", &third, "--keep"]).ok();
    assert_eq!(run(&["cat", "Task/t"]).ok().out, b"W");
    assert_eq!(run(&["conflicts", "--json"]).json(), serde_json::json!([]));
}

/// A conflict's bytes become nobody else's by being saved: they have the mode of what they were for, or are private.
#[test]
fn what_is_made_of_a_conflict_can_be_read_by_nobody_more() {
    let sandbox = Sandbox::new();
    let run = |args: &[&str]| sandbox.run_in(&sandbox.store, args, b"").ok();
    let path = |key: &str| sandbox.store.join(key);
    let mode = |key: &str| path(key).metadata().unwrap().permissions().mode() & 0o7777;
    let set = |key: &str, mode| std::fs::set_permissions(path(key), std::fs::Permissions::from_mode(mode)).unwrap();
    let resolve = |id: &str, how: &[&str]| drop(run(&[&["conflicts", "resolve", id], how].concat()));

    sandbox.put("private", b"base");
    set("private", 0o640);
    let id = sandbox.lose("private", b"w", b"l").to_string();
    // Another object has the name by now, for all to read.
    run(&["rm", "private"]);
    sandbox.put("private", b"public");
    resolve(&id, &["--as", "mine"]);
    assert_eq!((mode("mine"), mode("private")), (0o640, 0o644));

    let id = sandbox.lose("mine", b"w", b"l").to_string();
    run(&["rm", "mine"]);
    resolve(&id, &["--take"]);
    assert_eq!((mode("mine"), std::fs::read(path("mine")).unwrap()), (0o640, b"l".to_vec()));

    // One of an older version, which says nothing of it: by the history, if there is one.
    for (key, made, expected) in [("mine", "new", 0o640), ("Never/was", "Never/new", 0o600)] {
        let id = sandbox.lose("mine", key.as_bytes(), b"l").to_string();
        let record = sandbox.store.join(format!(".sepia/conflicts/{id}.json"));
        let mut json: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
        for field in ["mode", "uid", "gid"] {
            json.as_object_mut().unwrap().remove(field).unwrap();
        }
        json["key"] = key.into();
        std::fs::write(&record, json.to_string()).unwrap();
        resolve(&id, &["--as", "new"]);
        assert_eq!(mode(made), expected);
    }
}

/// Of several who end one conflict, one does, and the others are told.
#[test]
fn a_conflict_is_resolved_once() {
    let sandbox = Sandbox::new();
    sandbox.put("n", b"base");
    for round in 0..30 {
        let id = sandbox.lose("n", format!("winner {round}").as_bytes(), b"loser");
        let start = std::sync::Barrier::new(2);
        let resolve = |how: Resolution| {
            let store = sandbox.open();
            start.wait();
            store.resolve_conflict(&id, &how)
        };
        let (kept, taken) = std::thread::scope(|scope| {
            let keep = scope.spawn(|| resolve(Resolution::Keep));
            (resolve(Resolution::Take), keep.join().unwrap())
        });
        assert!(kept.is_ok() != taken.is_ok(), "{kept:?} {taken:?}");
        let lost = kept.and(taken).unwrap_err();
        assert!(matches!(lost, sepia::Error::NoConflict(_)), "{lost}");
    }
}

#[test]
fn recover_sets_aside_what_a_killed_save_had_written() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", b"old");
    let run = |args: &[&str]| sandbox.run_in(&sandbox.store, args, b"");
    assert!(run(&["recover"]).ok().text().starts_with("nothing to recover"));
    let mut child =
        sandbox.command(&sandbox.store).args(["put", "Note/n"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let child = child.as_mut().unwrap();
    child.stdin.as_mut().unwrap().write_all(&[b'x'; 10_000]).unwrap();
    wait_until_staged(&sandbox.store, 10_000);
    let users = run(&["status", "--json"]).json();
    assert_eq!(get(&users, "/users/0/pid"), child.id());
    assert_eq!(get(&users, "/users/0/activity"), "put Note/n");
    assert_eq!(run(&["recover", "--json"]).json(), serde_json::json!([]), "the living are left alone");
    child.kill().unwrap();
    child.wait().unwrap();
    let recovered = run(&["recover", "--json"]).json();
    assert_eq!(get(&recovered, "/0/key"), "Note/n");
    assert_eq!(get(&recovered, "/0/outcome"), "set-aside");
    assert_eq!(get(&recovered, "/0/size"), 10_000);
    let id = get(&recovered, "/0/conflict").as_str().unwrap();
    assert_eq!(run(&["conflicts", "show", id, "--bytes"]).ok().out, [b'x'; 10_000]);
    assert_eq!(run(&["cat", "Note/n"]).ok().out, b"old");
    assert_eq!(run(&["recover", "--json"]).json(), serde_json::json!([]));
}

/// Who ends a save by Ctrl-C knows that it was not saved: nothing is kept, and nothing was made.
#[test]
fn an_interrupted_put_leaves_nothing() {
    use std::os::unix::process::ExitStatusExt;
    let sandbox = Sandbox::new();
    let run = |args: &[&str]| sandbox.run_in(&sandbox.store, args, b"");
    sandbox.put("Note/n", b"old");
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        for key in ["Note/n", "New/dir/n"] {
            let mut command = sandbox.command(&sandbox.store);
            command.args(["put", key]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            input.write_all(&[b'x'; 10_000]).unwrap();
            wait_until_staged(&sandbox.store, 10_000);
            rustix::process::kill_process(Pid::from_child(&child), signal).unwrap();
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.signal(), Some(signal.as_raw()), "{key}: {output:?}");
            assert!(output.stdout.is_empty(), "{key}: {output:?}");
            assert_eq!(std::fs::read_dir(sandbox.store.join(".sepia/staging")).unwrap().count(), 0);
            assert_eq!(run(&["recover", "--json"]).json(), serde_json::json!([]), "{key}");
            assert_eq!(run(&["conflicts", "--json"]).json(), serde_json::json!([]), "{key}");
        }
    }
    assert!(!sandbox.store.join("New").exists(), "the directories above what was not saved");
    assert_eq!(run(&["cat", "Note/n"]).ok().out, b"old");
    // One that was started to ignore it goes on, such as in the background of a script.
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", "trap '' INT; exec \"$0\" put Note/n --store .", env!("CARGO_BIN_EXE_sepia")]);
    shell.current_dir(&sandbox.store).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = shell.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&[b'y'; 10_000]).unwrap();
    wait_until_staged(&sandbox.store, 10_000);
    rustix::process::kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
    assert_eq!(run(&["cat", "Note/n"]).ok().out, [b'y'; 10_000]);
}

/// Waits until a file in the staging area has so many bytes.
fn wait_until_staged(store: &Path, size: u64) {
    let start = Instant::now();
    let staged = || {
        let mut dirs = vec![store.join(".sepia/staging")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(meta) if meta.is_dir() => dirs.push(entry.path()),
                    Ok(meta) if meta.len() == size => return true,
                    _ => {}
                }
            }
        }
        false
    };
    while !staged() {
        assert!(start.elapsed() < Duration::from_secs(20), "nothing was staged");
        std::thread::sleep(Duration::from_millis(5));
    }
}
