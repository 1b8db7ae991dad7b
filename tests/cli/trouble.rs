//! Conflicts and crashes.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

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
    let start = Instant::now();
    let staged = |store: &Path| {
        let mut dirs = vec![store.join(".sepia/staging")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(meta) if meta.is_dir() => dirs.push(entry.path()),
                    Ok(meta) if meta.len() == 10_000 => return true,
                    _ => {}
                }
            }
        }
        false
    };
    while !staged(&sandbox.store) {
        assert!(start.elapsed() < Duration::from_secs(20), "nothing was staged");
        std::thread::sleep(Duration::from_millis(5));
    }
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
