//! `sepia snapshot`.

use crate::sandbox::{Sandbox, get};

#[test]
fn the_commands_do_what_they_say() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/a", b"one\n");
    sandbox.put("Note/b", b"b\n");
    let run = |args: &[&str]| sandbox.run_in(&sandbox.store, args, b"");
    assert!(run(&["snapshot", "list"]).ok().text().starts_with("no snapshots"));
    assert!(run(&["snapshot", "create", "first"]).ok().text().starts_with("first: taken at "));
    run(&["snapshot", "create", "first"]).fails(4, "there is a snapshot first already; give another name");
    run(&["snapshot", "create", ".x"]).fails(2, "begin with a dot");
    let made = run(&["snapshot", "create", "--json"]).json();
    assert_eq!((get(&made, "/entries"), get(&made, "/bytes")), (&4.into(), &6.into()));
    let listed = run(&["snapshot", "list", "--json"]).json();
    assert_eq!((get(&listed, "/0/name"), get(&listed, "/1/name")), (&"first".into(), get(&made, "/name")));
    assert!(run(&["snapshot", "list"]).ok().text().contains("4 names"));
    assert_eq!(run(&["snapshot", "diff", "first", "--exit-code"]).ok().text(), "");
    sandbox.put("Note/a", b"two\n");
    sandbox.put("Note/c", b"c\n");
    run(&["rm", "Note/b"]).ok();
    let diff = run(&["snapshot", "diff", "first"]).ok();
    assert_eq!(diff.text(), "~ Note/a (bytes, generation 1 to 2, time)\n- Note/b\n+ Note/c\n");
    assert_eq!(run(&["snapshot", "diff", "first", "--exit-code"]).code, 1);
    let json = run(&["snapshot", "diff", "first", "--json"]).json();
    assert_eq!((get(&json, "/to"), get(&json, "/changes/0/what/0")), (&serde_json::Value::Null, &"bytes".into()));
    assert_eq!(get(&json, "/changes/1/generations"), &serde_json::json!([1, null]));
    assert_eq!(run(&["snapshot", "diff", "first", "--path", "Note/b"]).ok().text(), "- Note/b\n");
    let shown = run(&["snapshot", "show", "first", "Note/b"]).ok();
    assert!(shown.text().lines().nth(1).unwrap().ends_with("Note/b"), "{shown:?}");
    let json = run(&["snapshot", "show", "first", "--json"]).json();
    assert_eq!((get(&json, "/content/2/key"), get(&json, "/content/2/generation")), (&"Note/a".into(), &1.into()));
    run(&["snapshot", "show", "first", "Note/c"]).fails(3, "Note/c: not in the snapshot first");
    run(&["snapshot", "show", "none"]).fails(3, "there is no snapshot none; list them with");
    let plan = run(&["snapshot", "restore", "first", "--dry-run", "--delete"]).ok();
    let summary = "first: 1 to be brought back, 1 to be changed back, 1 to be removed, 6 bytes to be saved";
    assert_eq!(plan.text(), format!("{summary}\n~ Note/a (bytes, generation 2 to 1, time)\n+ Note/b\n- Note/c\n"));
    assert_eq!(run(&["cat", "Note/a"]).ok().out, b"two\n", "a dry run changes nothing");
    run(&["snapshot", "restore", "first", "Note/b"]).ok();
    assert_eq!(run(&["cat", "Note/b"]).ok().out, b"b\n");
    let done = run(&["snapshot", "restore", "first", "--delete", "--json"]).json();
    assert_eq!((get(&done, "/summary/removed"), get(&done, "/failed")), (&1.into(), &serde_json::json!([])));
    assert_eq!(run(&["cat", "Note/a"]).ok().out, b"one\n");
    assert_eq!(run(&["ls", "Note"]).ok().text(), "a\nb\n");
    assert!(run(&["snapshot", "restore", "first"]).ok().text().contains("nothing to do"));
    run(&["snapshot", "delete", "first"]).ok();
    run(&["snapshot", "delete", "first"]).fails(3, "there is no snapshot first");
    assert_eq!(run(&["cat", "Note/a", "-g", "1"]).ok().out, b"one\n");
}
