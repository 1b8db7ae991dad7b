//! What the commands say where a rule of a class has something against it.

use serde_json::Value;

use crate::sandbox::{Sandbox, get};

fn sandbox(policy: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.store.join(".sepia/config.toml"), policy).unwrap();
    sandbox
}

#[test]
fn commands_say_which_rule_and_where_the_bytes_are() {
    let sandbox = sandbox("[[rule]]\nclass = 'Note'\nmax_size = 4\nid = '[a-z]+'\n");
    let run = |args: &[&str], input: &[u8]| sandbox.run_in(&sandbox.store, args, input);
    sandbox.put("Note/a", b"good");
    run(&["put", "Note/a"], b"too much")
        .fails(8, "in Note an object has at most 4 bytes (max_size); the bytes are kept");
    run(&["put", "Note/A1"], b"x").fails(8, "\"A1\" is no ID of this class: they match [a-z]+ (id)");
    sandbox.put("Free/b", b"too much");
    run(&["mv", "Free/b", "Note/b"], b"").fails(8, "(max_size); nothing was changed");
    assert_eq!(run(&["cat", "Note/a"], b"").ok().text(), "good");

    let list = run(&["conflicts"], b"").ok();
    let line = list.text().lines().next().unwrap();
    assert!(line.contains("refused by a rule") && line.contains("Note/a: it has 8 bytes, and in Note"), "{line}");
    let json = run(&["conflicts", "--json"], b"").json();
    assert_eq!((get(&json, "/0/reason"), get(&json, "/0/rule")), (&"rejected".into(), &"max_size".into()));
    assert_eq!((get(&json, "/1/key"), get(&json, "/1/rule")), (&"Note/A1".into(), &"id".into()));
    let id = get(&json, "/0/id").as_str().unwrap();
    let shown = run(&["conflicts", "show", id], b"").ok();
    assert!(shown.text().contains("rule:") && shown.text().contains("at most 4 bytes"), "{shown:?}");
    assert_eq!(run(&["conflicts", "show", id, "--bytes"], b"").ok().text(), "too much");
    assert!(run(&["conflicts", "diff", id], b"").ok().text().contains("too much"));
    let log = run(&["events", "Note/a", "--json"], b"").ok();
    assert!(log.text().contains("\"rule\":\"max_size\""), "{log:?}");

    run(&["conflicts", "resolve", id, "--take"], b"").fails(8, "at most 4 bytes (max_size)");
    run(&["conflicts", "resolve", id, "--as", "Free/c"], b"").ok();
    assert_eq!(run(&["cat", "Free/c"], b"").ok().text(), "too much");
    let other = get(&json, "/1/id").as_str().unwrap();
    run(&["conflicts", "resolve", other, "--keep"], b"").ok();
    assert_eq!(run(&["conflicts", "--json"], b"").json(), Value::Array(Vec::new()));
}

#[test]
fn what_breaks_a_rule_all_the_same_is_found() {
    let sandbox = sandbox("");
    sandbox.put("Note/a", b"words");
    sandbox.put("Note/B", b"{}");
    sandbox.put("Free/a", b"words");
    assert!(sandbox.run(&["rules", "store"]).ok().text().contains("nothing that a rule is for"));
    let policy = "[[rule]]\nclass = 'Note'\njson = true\nid = '[a-z]'\nmax_objects = 1\nmax_xattrs = 1\n";
    std::fs::write(sandbox.store.join(".sepia/config.toml"), policy).unwrap();
    for name in ["user.a", "user.b"] {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(sandbox.store.join("Note/B"), name, b"x", flags).unwrap();
    }
    let found = sandbox.run(&["rules", "store"]);
    assert_eq!((found.code, found.err.as_str()), (8, ""));
    for line in [
        "Note: Note has 2 objects, and may have 1 (max_objects)\n",
        "Note/B: \"B\" is no ID of this class: they match [a-z] (id)\n",
        "in all 2 attributes, at most 1 are allowed (max_xattrs)\n",
        "Note/a: it is no JSON: expected value at line 1 column 1 (json)\n",
        "2 objects looked at, rules are broken 4 times\n",
    ] {
        assert!(found.text().contains(line), "{line}: {found:?}");
    }
    let found = sandbox.run_in(&sandbox.store, &["rules", "Note/a", "--json"], b"");
    let found: Value = serde_json::from_slice(&found.out).unwrap();
    assert_eq!((get(&found, "/0/key"), get(&found, "/0/rule")), (&"Note/a".into(), &"json".into()));
    assert!(sandbox.run_in(&sandbox.store, &["rules", "Free"], b"").ok().text().contains("nothing"));
    std::fs::write(sandbox.store.join(".sepia/config.toml"), "[[rule]]\nclass = 'Note'\n").unwrap();
    sandbox.run(&["rules", "store"]).fails(1, "[[rule]] 1 (class \"Note\") says nothing");
}

#[test]
fn status_says_what_is_wrong_with_the_policy() {
    let sandbox = sandbox("[[rule]]\nclass = 'Note'\nid = '['\n");
    let status = sandbox.run(&["status", "store"]);
    assert!(status.text().contains("policy:") && status.text().contains("line 3"), "{status:?}");
    let json = sandbox.run(&["status", "store", "--json"]);
    let json: Value = serde_json::from_slice(&json.out).unwrap();
    assert!(get(&json, "/policy_fault").as_str().unwrap().contains("unclosed character class"));
    for (policy, why) in [
        ("[[rule]]\nclass = 'Note'\nmax_size = 0\n", "[[rule]] 1 (class \"Note\") has a limit of 0"),
        ("[[rule]]\nclass = 'Note'\nschema = 'schemas/x.json'\n", "the schema .sepia/schemas/x.json"),
    ] {
        std::fs::write(sandbox.store.join(".sepia/config.toml"), policy).unwrap();
        let status = sandbox.run(&["status", "store"]);
        assert!(status.text().contains(why), "{status:?}");
    }
    std::fs::write(sandbox.store.join(".sepia/config.toml"), "").unwrap();
    assert_eq!(get(&sandbox.run(&["status", "store", "--json"]).json(), "/policy_fault"), &Value::Null);
}
