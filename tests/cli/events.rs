//! `sepia events` and `sepia log`.

use crate::sandbox::{Sandbox, get};

#[test]
fn events_are_listed_for_people_and_for_programs() {
    let sandbox = Sandbox::new();
    sandbox.run(&["events", "store"]).ok();
    sandbox.put("Note/n", b"one");
    sandbox.put("Note/n", b"two!");
    sandbox.put("Other/o", b"o");
    sandbox.run(&["mv", "store/Note/n", "store/Note/m"]).ok();
    sandbox.run(&["log", "store/Note/m", "viewed", "--meta", "by=me", "--meta", "n=1"]).ok();
    let text = sandbox.run(&["events", "store/Note/m"]).ok();
    let lines: Vec<_> = text.text().lines().collect();
    assert_eq!(lines.len(), 4, "under its earlier name too: {lines:?}");
    assert!(lines[0].contains(" UTC  created    Note/n  generation 1, 3 bytes, by sepia process "), "{lines:?}");
    assert!(lines[1].contains("updated    Note/n  generation 2, 4 bytes"), "{lines:?}");
    assert!(lines[2].contains("renamed    Note/n -> Note/m  generation 2"), "{lines:?}");
    assert!(lines[3].contains("activity   Note/m  generation 2, 4 bytes, action=viewed, by=me, n=1"), "{lines:?}");
    let below = sandbox.run_in(&sandbox.store.join("Note"), &["events", "--json"], b"").ok();
    let events: Vec<serde_json::Value> = below.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["created", "created", "updated", "renamed", "activity"]);
    assert_eq!(get(&events[3], "/to/key"), "Note/m");
    assert_eq!(get(&events[4], "/meta"), &serde_json::json!({"action": "viewed", "by": "me", "n": "1"}));
    assert_eq!(get(&events[0], "/kind"), "directory");
    assert_eq!(sandbox.run(&["events", "--store", "store"]).ok().text().lines().count(), 7);
    assert_eq!(sandbox.run(&["events", "--store", "store", "--since", "2h"]).ok().text().lines().count(), 7);
    assert_eq!(sandbox.run(&["events", "--store", "store", "--since", "2100-01-01"]).ok().text(), "");
    let original = sandbox.run(&["events", "--original", "store/Note/m"]).ok();
    assert!(original.text().lines().nth(1).unwrap().ends_with(r#"Z","type":"updated","gen":2,"meta":{}}"#));
    sandbox.run(&["events", "store", "--since", "tomorrow"]).fails(2, "neither a time nor a span");
    sandbox.run(&["events", "elsewhere"]).fails(6, "elsewhere");
}

#[test]
fn an_activity_needs_an_object_and_events() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", b"one");
    sandbox.run(&["log", "store/Note/none", "viewed"]).fails(3, "Note/none: no such object");
    sandbox.run(&["log", "store/Note/n", "viewed", "--meta", "by"]).fails(2, "NAME=VALUE");
    std::fs::write(sandbox.store.join(".sepia/config.toml"), "[events]\nenabled = false\n").unwrap();
    sandbox.run(&["log", "store/Note/n", "viewed"]).fails(1, "switched off");
    std::fs::write(sandbox.store.join(".sepia/config.toml"), "[events]\nkeep = \"90\"\n").unwrap();
    sandbox.run(&["log", "store/Note/n", "viewed"]).ok();
}
