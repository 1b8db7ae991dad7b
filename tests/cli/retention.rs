//! `sepia gc`, `trash` and `pin`.

use crate::sandbox::{Sandbox, get};

fn policy(sandbox: &Sandbox, text: &str) {
    std::fs::write(sandbox.store.join(".sepia/config.toml"), text).unwrap();
}

fn numbers(sandbox: &Sandbox, key: &str) -> Vec<u64> {
    let json = sandbox.run_in(&sandbox.store, &["history", key, "--json"], b"").json();
    let kept = get(&json, "/generations").as_array().unwrap().iter().filter(|one| one["kept"] != "lost");
    kept.map(|one| one["generation"].as_u64().unwrap()).collect()
}

#[test]
fn gc_says_why_and_deletes_when_it_is_asked_to() {
    let sandbox = Sandbox::new();
    let init = std::fs::read_to_string(sandbox.store.join(".sepia/config.toml")).unwrap();
    assert!(init.contains("# keep_within = \"7d\""));
    for text in ["1", "2", "3", "4"] {
        sandbox.put("Note/n", text.as_bytes());
    }
    // A new store keeps all of the last week.
    assert!(sandbox.run(&["gc", "store", "--dry-run"]).ok().text().contains("0 generations go (0 bytes), 3 stay"));
    policy(&sandbox, "[retention]\nkeep_last = 1\n");
    let shown = sandbox.run(&["gc", "store", "--dry-run"]).ok();
    for part in
        ["Note/n\n", "goes: no rule keeps it", "stays: one of the last", "2 generations go", "nothing was changed"]
    {
        assert!(shown.text().contains(part), "{part}: {shown:?}");
    }
    let json = sandbox.run(&["gc", "store", "-n", "--json"]).json();
    assert_eq!(
        (get(&json, "/generations/0/key"), get(&json, "/generations/0/verdict/drop")),
        (&"Note/n".into(), &"no-rule".into())
    );
    assert_eq!(get(&json, "/generations/2/verdict/keep/0"), "last");
    assert_eq!(get(&json, "/conflicts"), &serde_json::Value::Array(Vec::new()));
    sandbox.run_in(&sandbox.store, &["pin", "Note/n@1"], b"").ok();
    let marked = sandbox.run(&["gc", "store"]).ok();
    assert!(marked.text().contains("marked 1 generation") && marked.text().contains("sepia gc --now"), "{marked:?}");
    assert_eq!(numbers(&sandbox, "Note/n"), [1, 2, 3, 4]);
    assert!(sandbox.run(&["status", "store"]).ok().text().contains("1 marked"));
    assert!(sandbox.run(&["gc", "store", "--now"]).ok().text().starts_with("deleted 1 generation: "));
    assert_eq!(numbers(&sandbox, "Note/n"), [1, 3, 4]);
    assert_eq!(get(&sandbox.run(&["status", "store", "--json"]).json(), "/collector/last/dropped"), 1);
    assert_eq!(sandbox.run(&["gc", "store", "--now"]).ok().text(), "nothing is to go\n");
    policy(&sandbox, "[retention]\nkeep_last = 0\n");
    sandbox.run(&["gc", "store", "--now"]).fails(1, "keeps nothing of the history");
    sandbox.run(&["gc", "store", "--now", "--dry-run"]).fails(2, "--dry-run changes nothing");
}

#[test]
fn a_dry_run_names_the_conflicts_that_go() {
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", b"base");
    let id = sandbox.lose("Note/n", b"winner", b"loser").to_string();
    let dry_run = || sandbox.run(&["gc", "store", "--dry-run"]).ok().text().to_owned();
    assert!(!dry_run().contains("conflict"), "{}", dry_run());
    policy(&sandbox, "[retention]\nconflicts_keep = \"0s\"\n");
    let shown = dry_run();
    for part in
        [format!("Note/n: conflict {id} goes"), "0 generations go (0 bytes), 1 conflict goes (5 bytes), ".into()]
    {
        assert!(shown.contains(&part), "{part}: {shown}");
    }
    let json = sandbox.run(&["gc", "store", "--dry-run", "--json"]).json();
    assert_eq!((get(&json, "/conflicts/0/id"), get(&json, "/conflicts/0/size")), (&id.as_str().into(), &5.into()));
    assert_eq!(get(&json, "/generations/0/key"), "Note/n");
    sandbox.run(&["conflicts", "show", &id, "--store", "store"]).ok();
    assert!(sandbox.run(&["gc", "store", "--now"]).ok().text().contains("1 conflict"));
    sandbox.run(&["conflicts", "show", &id, "--store", "store"]).fails(3, "there is no conflict");
    for help in [sandbox.run(&["conflicts", "--help"]).ok(), sandbox.run(&["gc", "--help"]).ok()] {
        assert!(help.text().contains("conflict") && !help.text().contains("ever removed"), "{help:?}");
    }
}

#[test]
fn the_switch_stops_gc() {
    let sandbox = Sandbox::new();
    policy(&sandbox, "[retention]\nkeep_last = 1\n");
    for text in ["1", "2", "3"] {
        sandbox.put("n", text.as_bytes());
    }
    assert!(sandbox.run(&["gc", "store", "--disable", "moving house"]).ok().text().contains("--enable"));
    sandbox.run(&["gc", "store", "--now"]).fails(1, "switched off: moving house; switch it on with");
    assert!(sandbox.run(&["status", "store"]).ok().text().contains("switched off (moving house)"));
    sandbox.run(&["gc", "store", "--enable"]).ok();
    sandbox.run(&["gc", "store", "--pause", "2h"]).ok();
    sandbox.run(&["gc", "store", "--now"]).fails(1, "sepia gc --resume");
    sandbox.run(&["gc", "store", "--resume"]).ok();
    sandbox.run(&["gc", "store", "--enable", "--resume"]).fails(2, "cannot be used with");
    sandbox.run(&["gc", "store", "--pause", "2"]).fails(2, "span of time");
    sandbox.run(&["gc", "store", "--now"]).ok();
    assert_eq!(numbers(&sandbox, "n"), [2, 3]);
}

#[test]
fn what_was_removed_comes_back_from_the_trash() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    sandbox.put("Note/n", b"old");
    sandbox.put("Note/n", b"last");
    let path = sandbox.store.join("Note/n");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(sandbox.run(&["trash", "store"]).ok().text(), "the trash is empty\n");
    sandbox.run(&["rm", "store/Note/n"]).ok();
    let listed = sandbox.run(&["trash", "list", "store/Note"]).ok();
    assert!(listed.text().contains("Note/n") && listed.text().starts_with("removed"), "{listed:?}");
    assert_eq!(get(&sandbox.run(&["trash", "store", "--json"]).json(), "/0/generation"), 2);
    sandbox.run(&["trash", "restore", "store/Note/other"]).fails(3, "sepia trash");
    let said = sandbox.run(&["trash", "restore", "store/Note/n"]).ok();
    assert_eq!(said.text(), "Note/n: brought back as generation 3, 4 bytes\n");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read(&path).unwrap(), b"last");
    sandbox.run(&["rm", "store/Note/n"]).ok();
    sandbox.run(&["trash", "restore", "store/Note/n", "-g", "1", "--as", "store/Other/o"]).ok();
    assert_eq!(std::fs::read(sandbox.store.join("Other/o")).unwrap(), b"old");
    sandbox.run(&["trash", "empty", "store", "--older-than", "1d"]).ok();
    assert_eq!(get(&sandbox.run(&["trash", "store", "--json"]).json(), "/0/key"), "Note/n");
    assert!(sandbox.run(&["trash", "empty", "store"]).ok().text().starts_with("deleted 3 generations"));
    assert_eq!(sandbox.run(&["trash", "store"]).ok().text(), "the trash is empty\n");
}

/// Who was killed while bringing something back leaves at most an empty name, and a copy.
#[test]
fn what_was_interrupted_on_its_way_out_of_the_trash_is_still_in_it() {
    let sandbox = Sandbox::new();
    let key = sepia::Key::parse("Note/n").unwrap();
    let listed = || sandbox.run(&["trash", "store", "--json"]).json();
    sandbox.put("Note/n", b"removed");
    let path = sandbox.store.join("Note/n");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    sandbox.run(&["rm", "store/Note/n"]).ok();
    {
        let store = sandbox.open();
        let stat = store.reserve(&key, 0o644, &sepia::backend::Creator::current()).unwrap();
        let intent = sepia::backend::Intent {
            key: key.clone(),
            expect: stat.precondition(),
            append_from: None,
            base: None,
            acknowledged: false,
            in_place: false,
            sum: None,
            copied: true,
        };
        let staged = store.backend().staging().stage(&intent).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&**staged.file(), b"remo", 0).unwrap();
        drop((staged, store));
    }
    assert_eq!(get(&listed(), "/0/key"), "Note/n");
    let recovered = sandbox.run_in(&sandbox.store, &["recover", "--json"], b"").json();
    assert_eq!(get(&recovered, "/0/outcome"), "copied");
    assert_eq!(sandbox.run(&["conflicts", "store", "--json"]).json(), serde_json::json!([]));
    assert_eq!(get(&listed(), "/0/key"), "Note/n");
    // Under another name, what is there is not touched.
    sandbox.run(&["trash", "restore", "store/Note/n", "--as", "store/Note/n2"]).ok();
    sandbox.run(&["trash", "restore", "store/Note/n", "--as", "store/Note/n2"]).fails(4, "Note/n2");
    sandbox.run(&["trash", "empty", "store/Other"]).ok();
    sandbox.run(&["trash", "restore", "store/Note/n"]).ok();
    assert_eq!(std::fs::read(&path).unwrap(), b"removed");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap()) & 0o777, 0o600);
    assert_eq!(listed(), serde_json::json!([]));
}

/// A file that somebody has made and is about to write to is theirs as soon as they have.
#[test]
fn what_is_written_to_a_name_meanwhile_is_not_replaced_from_the_trash() {
    let sandbox = Sandbox::new();
    let key = sepia::Key::parse("n").unwrap();
    sandbox.put("n", b"removed");
    sandbox.run(&["rm", "store/n"]).ok();
    let store = sandbox.open();
    let mut session = store.open_session(&key, &Default::default()).unwrap();
    assert_eq!(get(&sandbox.run(&["trash", "store", "--json"]).json(), "/0/key"), "n");
    session.write_at(b"new", 0).unwrap();
    session.publish(&key, true).unwrap();
    session.close(&key);
    sandbox.run(&["trash", "restore", "store/n"]).fails(3, "sepia trash");
    assert_eq!(std::fs::read(sandbox.store.join("n")).unwrap(), b"new");
    // Who loses to the trash loses nothing.
    sandbox.run(&["rm", "store/n"]).ok();
    let mut session = store.open_session(&key, &Default::default()).unwrap();
    session.write_at(b"late", 0).unwrap();
    sandbox.run(&["trash", "restore", "store/n"]).ok();
    session.publish(&key, true).unwrap_err();
    session.close(&key);
    assert_eq!(std::fs::read(sandbox.store.join("n")).unwrap(), b"new");
    assert_eq!(get(&sandbox.run(&["conflicts", "store", "--json"]).json(), "/0/size"), 4);
}

#[test]
fn pins_are_made_listed_and_removed() {
    let sandbox = Sandbox::new();
    sandbox.put("a@b", b"1");
    assert_eq!(sandbox.run(&["pin", "store/a@b@1"]).ok().text(), "a@b@1: pinned\n");
    assert!(sandbox.run(&["pin", "--list", "store"]).ok().text().starts_with("a@b@1  pinned "));
    assert_eq!(get(&sandbox.run(&["pin", "--list", "store", "--json"]).json(), "/0/key"), "a@b");
    sandbox.run(&["pin", "store/a@b"]).fails(2, "name the generation too");
    sandbox.run(&["pin", "store/a@b@2"]).fails(3, "has no generation 2");
    sandbox.run(&["pin", "store/a@b@1", "--remove"]).ok();
    assert_eq!(sandbox.run(&["pin", "--list", "store"]).ok().text(), "nothing is pinned\n");
}

/// Programs make them. What counts is the text of the link, whatever the store was called on the command line.
#[test]
fn absolute_links_into_the_store_are_references() {
    let sandbox = Sandbox::new();
    for key in ["Board/b/data.json", "Task/one", "Task/two", "Task/three"] {
        sandbox.put(key, b"x");
    }
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(to, sandbox.store.join("Board/b").join(name)).unwrap();
    };
    link(sandbox.store.join("Task/./one").to_str().unwrap(), "0_one");
    link("../../../store/Task/two", "1_two");
    link("/nowhere/Task/three", "2_three");
    std::os::unix::fs::symlink(&sandbox.store, sandbox.dir.path().join("alias")).unwrap();
    for (dir, store) in [(sandbox.dir.path(), "store"), (sandbox.dir.path(), "alias"), (&sandbox.store, ".")] {
        let args = ["gc", "--orphans", "--root", "Board", "-n"];
        let shown = sandbox.run_in(dir, &[&args[..], &[store]].concat(), b"").ok();
        assert_eq!(shown.text(), "Task/three\n1 orphan would be removed; 3 are reached\n", "{store}");
        let shown = sandbox.run_in(dir, &[&args[..], &["--store", store]].concat(), b"").ok();
        assert_eq!(shown.text(), "Task/three\n1 orphan would be removed; 3 are reached\n", "--store {store}");
    }
}

#[test]
fn links_that_name_the_store_as_it_is_named_are_references() {
    let sandbox = Sandbox::new();
    sandbox.put("Task/one", b"x");
    sandbox.put("Board/b/data.json", b"x");
    let alias = sandbox.dir.path().join("alias");
    std::os::unix::fs::symlink(&sandbox.store, &alias).unwrap();
    std::os::unix::fs::symlink(alias.join("Task/one"), sandbox.store.join("Board/b/0_one")).unwrap();
    for named in [&["alias"][..], &["--store", "alias"]] {
        let shown = sandbox.run(&[&["gc", "--orphans", "--root", "Board", "-n"], named].concat()).ok();
        assert_eq!(shown.text(), "0 orphans would be removed; 2 are reached\n", "{named:?}");
    }
}

#[test]
fn orphans_go_to_the_trash_and_come_back() {
    let sandbox = Sandbox::new();
    for key in ["Board/b/data.json", "Task/used", "Task/lost", "Old/o/data.json"] {
        sandbox.put(key, b"x");
    }
    std::os::unix::fs::symlink("../../Task/used", sandbox.store.join("Board/b/0_used")).unwrap();
    std::os::unix::fs::symlink("../../Task/lost", sandbox.store.join("Old/o/0_lost")).unwrap();
    sandbox.run(&["gc", "store", "--orphans"]).fails(2, "--root");
    sandbox.run(&["gc", "store", "--orphans", "--root", "Nix"]).fails(3, "Nix");
    let shown = sandbox.run(&["gc", "store", "--orphans", "--root", "Board", "--dry-run"]).ok();
    assert_eq!(shown.text(), "Old/o/\nTask/lost\n2 orphans would be removed; 2 are reached\n");
    assert!(sandbox.store.join("Old/o/0_lost").is_symlink());
    sandbox.run(&["gc", "store", "--orphans", "--root", "Board"]).ok();
    assert!(!sandbox.store.join("Old/o").exists() && !sandbox.store.join("Task/lost").exists());
    sandbox.run(&["trash", "restore", "store/Old/o"]).ok();
    assert_eq!(std::fs::read_link(sandbox.store.join("Old/o/0_lost")).unwrap().to_str(), Some("../../Task/lost"));
    assert_eq!(std::fs::read(sandbox.store.join("Old/o/data.json")).unwrap(), b"x");
}
