//! What bytes may be, through the library.

use std::time::Duration;

use sepia::store::{Limit, Reason, Resolution, SessionOptions};
use sepia::{Error, Generation, Key, Precondition, Size};

use crate::{Place, everywhere, key, read, read_conflict, refused};

const SMALL: &str = "[[rule]]\nclass = 'Note'\nmax_size = 10\n";
const JSON: &str = "[[rule]]\nclass = 'Note'\njson = true\n";

#[test]
fn what_is_too_large_is_kept_and_what_was_there_stays() {
    everywhere(SMALL, |place| {
        place.write("Note/a", "0123456789", false).unwrap();
        place.write("Other/a", "0123456789 and more", false).unwrap();
        let said = refused(place.write("Note/a", "0123456789x", false), Limit::MaxSize);
        assert_eq!(said, "it has 11 bytes, and in Note an object has at most 10 bytes");
        assert_eq!(place.read("Note/a"), b"0123456789");
        let (conflict, bytes) = place.last_rejected();
        assert_eq!((conflict.key, conflict.base), (key("Note/a"), Some(Generation::FIRST)));
        assert_eq!((bytes.as_slice(), conflict.breach.unwrap().message), (&b"0123456789x"[..], said));

        // What it comes to counts, not what was written.
        refused(place.write("Note/a", "x", true), Limit::MaxSize);
        assert_eq!(place.last_rejected().1, b"0123456789x", "with what it was appended to");
        let mut session = place.store.open_session(&key("Note/a"), &SessionOptions::default()).unwrap();
        refused(session.truncate(11), Limit::MaxSize);
        assert!(!session.is_dirty(), "without bytes nothing is lost by that");
        session.write_at(b"z", 10).unwrap();
        refused(session.publish(&key("Note/a"), true), Limit::MaxSize);
        refused(session.sync(&key("Note/a")), Limit::MaxSize);
        session.close(&key("Note/a"));
        assert_eq!(place.last_rejected().1, b"0123456789z");
        refused(place.put("Note/a", "0123456789y"), Limit::MaxSize);
        assert_eq!(place.last_rejected().1, b"0123456789y");
        assert_eq!(place.read("Note/a"), b"0123456789");
        assert_eq!((place.store.history(&key("Note/a")).unwrap().len(), place.rejected().len()), (1, 4));
        place.write("Note/a", "short", false).unwrap();
    });
}

#[test]
fn a_session_that_is_not_done_goes_on() {
    everywhere(JSON, |place| {
        place.write("Note/a", "{}", false).unwrap();
        let key = key("Note/a");
        let options = SessionOptions { truncate: true, ..SessionOptions::default() };
        let mut session = place.store.open_session(&key, &options).unwrap();
        session.write_at(b"{\"a\":", 0).unwrap();
        for _ in 0..2 {
            assert!(refused(session.publish(&key, false), Limit::Json).contains("EOF"));
            assert!(session.is_rejected());
        }
        assert_eq!(read(&place.other(), "Note/a"), b"{}");
        session.append(b"1}").unwrap();
        session.publish(&key, false).unwrap().unwrap();
        assert!(!session.is_rejected());
        session.close(&key);
        assert_eq!((place.read("Note/a"), place.rejected().len()), (b"{\"a\":1}".to_vec(), 0));
    });
}

/// Nobody's disk is filled up by what can't be saved anyway.
#[test]
fn what_goes_much_too_far_fails_at_the_write() {
    everywhere(SMALL, |place| {
        place.write("Note/a", "old", false).unwrap();
        let (key, far) = (key("Note/a"), 10 + (64 << 20));
        let mut session = place.store.open_session(&key, &SessionOptions::default()).unwrap();
        session.write_at(b"new", 0).unwrap();
        refused(session.write_at(b"xy", far - 1), Limit::MaxSize);
        // The rest is small enough, but not what was meant.
        refused(session.publish(&key, false), Limit::MaxSize);
        refused(session.write_at(b"z", u64::MAX), Limit::MaxSize);
        session.close(&key);
        assert_eq!((place.read("Note/a"), place.last_rejected().1), (b"old".to_vec(), b"new".to_vec()));

        let mut session = place.store.open_session(&key, &SessionOptions::default()).unwrap();
        refused(session.truncate(11), Limit::MaxSize);
        refused(session.allocate(rustix::fs::FallocateFlags::empty(), 0, 11), Limit::MaxSize);
        session.close(&key);
        assert_eq!(place.rejected().len(), 1, "nothing was written");
    });
}

#[test]
fn content_types_hold_for_all_ways_of_saving() {
    everywhere("[[rule]]\nclass = 'Photo'\ncontent_type = ['image/*', 'text/plain; charset=utf-8']\n", |place| {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        place.write("Photo/a", png, false).unwrap();
        place.put("Photo/a", "words").unwrap();
        refused(place.write("Photo/a", b"%PDF-1.7\n\xff", false), Limit::ContentType);
        let said = refused(place.put("Photo/a", b"\xff"), Limit::ContentType);
        assert!(said.contains("image/* or text/plain; charset=utf-8"), "{said}");
        assert_eq!(place.read("Photo/a"), b"words");
        assert_eq!(place.rejected().len(), 2);
        // Made and not written to: nothing was saved.
        place.store.open_session(&key("Photo/empty"), &SessionOptions::default()).unwrap().close(&key("Photo/empty"));
        assert_eq!(place.rejected().len(), 2);
    });
}

const SCHEMA: &str = r##"{
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["title"],
    "properties": {"title": {"type": "string", "minLength": 1}, "parts": {"$ref": "#/$defs/parts"}},
    "unevaluatedProperties": false,
    "$defs": {"parts": {"type": "array", "prefixItems": [{"type": "integer"}], "items": {"$ref": "#/$defs/parts"}}}
}"##;
const BY_SCHEMA: &str = "[[rule]]\nclass = 'Note'\nschema = 'schemas/note.json'\n";

#[test]
fn objects_conform_to_their_schema() {
    everywhere(BY_SCHEMA, |place| {
        place.store.backend().put_record(&key("schemas/note.json"), SCHEMA.as_bytes()).unwrap();
        place.store.check_rules().unwrap();
        place.put("Note/a", r#"{"title": "x", "parts": [1, [2, [3]]]}"#).unwrap();
        for (bad, why) in [
            (r#"{"title": ""}"#, "/title"),
            ("{}", "\"title\" is a required property"),
            (r#"{"title": "secret words", "parts": ["secret words"]}"#, "/parts/0"),
            (r#"{"title": "x", "more": 1}"#, "Unevaluated"),
            ("[", "EOF"),
            ("", "empty"),
            ("\"\u{e4}\" x", "trailing"),
        ] {
            let said = refused(place.put("Note/a", bad), Limit::Schema);
            assert!(said.contains(why) && said.contains(".sepia/schemas/note.json"), "{said}");
            assert!(!said.contains("secret words"), "what somebody writes is not for the log: {said}");
        }
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(refused(place.put("Note/a", format!("{{\"title\":{deep}}}")), Limit::Schema).contains("127 levels"));
        let nested = "[1,".repeat(120) + "[1]" + &"]".repeat(120);
        place.put("Note/a", format!("{{\"title\":\"x\",\"parts\":{nested}}}")).unwrap();
        // A value takes far more memory than its text.
        let large = format!("{{\"title\": \"{}\"}}", "x".repeat(1 << 20));
        assert!(refused(place.put("Note/a", large), Limit::MaxSize).contains("1048576 bytes"));
        assert_eq!(Size::new(1 << 20), sepia::store::rules::SCHEMA_SIZE);
    });
}

#[test]
fn a_schema_stays_within_the_store() {
    for (schema, why) in [
        (r#"{"$ref": "https://example.org/other.json"}"#, "https://example.org/other.json"),
        (r#"{"$ref": "file:///etc/passwd"}"#, "file:///etc/passwd"),
        (r#"{"$schema": "https://example.org/draft", "type": "object"}"#, "https://example.org/draft"),
        (r#"{"type": "nonsense"}"#, "nonsense"),
        ("{", "EOF"),
    ] {
        everywhere(BY_SCHEMA, |place| {
            place.store.backend().put_record(&key("schemas/note.json"), schema.as_bytes()).unwrap();
            let said = place.store.check_rules().unwrap_err().to_string();
            assert!(said.contains("the schema .sepia/schemas/note.json") && said.contains(why), "{said}");
            // It holds up nobody's work.
            place.put("Note/a", "no JSON").unwrap();
        });
    }
    everywhere(BY_SCHEMA, |place| {
        assert!(place.store.check_rules().unwrap_err().to_string().contains("no such object"), "there is none");
    });
}

#[test]
fn a_schema_that_refers_to_itself_ends() {
    everywhere(BY_SCHEMA, |place| {
        let schema = br##"{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}"##;
        place.store.backend().put_record(&key("schemas/note.json"), schema).unwrap();
        let _ = place.put("Note/a", "{}");
        let _ = place.put("Note/a", "{}");
    });
}

/// Nobody may be held up, or get around a rule, because somebody edits the policy.
#[test]
fn what_can_not_be_understood_any_more_holds_as_it_was() {
    everywhere(&format!("{BY_SCHEMA}max_size = 100\n"), |place| {
        let backend = place.store.backend();
        backend.put_record(&key("schemas/note.json"), SCHEMA.as_bytes()).unwrap();
        place.put("Note/a", r#"{"title": "x"}"#).unwrap();
        backend.put_record(&key("config.toml"), b"[[rule]]\nclas = 'Note'\n").unwrap();
        backend.put_record(&key("schemas/note.json"), b"{").unwrap();
        // As long as what was read is not looked at again.
        std::thread::sleep(Duration::from_millis(2100));
        refused(place.put("Note/a", "{}"), Limit::Schema);
        refused(place.put("Note/a", vec![b' '; 101]), Limit::MaxSize);
        assert!(matches!(place.store.config(), Err(Error::Config(_))));
        place.put("Note/a", r#"{"title": "y"}"#).unwrap();
        // Who has never understood it has no rules; but nothing is lost.
        if let Place { dir: Some(_), .. } = place {
            let other = place.other();
            other.put(&key("Note/b"), &mut &b"anything"[..], Precondition::Any).unwrap();
        }
        backend.put_record(&key("config.toml"), b"").unwrap();
        std::thread::sleep(Duration::from_millis(2100));
        place.put("Note/a", "anything").unwrap();
    });
}

#[test]
fn an_older_generation_comes_back_only_if_it_is_good() {
    everywhere(JSON, |place| {
        place.store.backend().put_record(&key("config.toml"), b"").unwrap();
        place.put("Note/a", "words").unwrap();
        place.put("Note/gone", "words").unwrap();
        place.put("Note/a", "{}").unwrap();
        place.store.remove(&key("Note/gone"), Precondition::Any).unwrap();
        place.store.backend().put_record(&key("config.toml"), JSON.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(2100));
        refused(place.store.restore(&key("Note/a"), Generation::FIRST, Precondition::Any), Limit::Json);
        refused(place.store.untrash(&key("Note/gone"), None, &key("Note/gone")), Limit::Json);
        assert_eq!(place.read("Note/a"), b"{}");
        assert!(place.store.stat(&key("Note/gone")).is_err());
        assert!(place.store.conflicts().unwrap().is_empty(), "their bytes are in the history");
        place.store.untrash(&key("Note/gone"), None, &key("Draft/gone")).unwrap();
        assert_eq!(place.read("Draft/gone"), b"words");
    });
}

#[test]
fn a_snapshot_brings_back_only_what_is_good() {
    everywhere("", |place| {
        for name in ["Note/a", "Note/b", "Free/a"] {
            place.put(name, "words").unwrap();
        }
        place.store.create_snapshot(Some("then")).unwrap();
        place.put("Note/a", "{}").unwrap();
        place.put("Free/a", "others").unwrap();
        place.store.remove(&key("Note/b"), Precondition::Any).unwrap();
        place.store.backend().put_record(&key("config.toml"), JSON.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(2100));
        let snapshot = place.store.snapshot("then").unwrap();
        let plan = place.store.plan_restoration(&snapshot, &Key::root(), false).unwrap();
        let restored = plan.apply(&place.store, &mut |_| {});
        let failed: Vec<_> = restored.failed.iter().map(|(key, _)| key.to_string()).collect();
        assert_eq!(failed, ["Note/a", "Note/b"]);
        for (_, error) in restored.failed {
            refused::<()>(Err(error), Limit::Json);
        }
        assert_eq!((place.read("Note/a"), place.read("Free/a")), (b"{}".to_vec(), b"words".to_vec()));
        assert!(place.store.stat(&key("Note/b")).is_err() && place.store.conflicts().unwrap().is_empty());
    });
}

#[test]
fn a_rejected_save_is_resolved_like_a_conflict() {
    everywhere(JSON, |place| {
        place.put("Note/a", "{}").unwrap();
        refused(place.put("Note/a", "words"), Limit::Json);
        let (conflict, _) = place.last_rejected();
        refused(place.store.resolve_conflict(&conflict.id, &Resolution::Take), Limit::Json);
        refused(place.store.resolve_conflict(&conflict.id, &Resolution::As(key("Note/b"))), Limit::Json);
        assert!(place.store.stat(&key("Note/b")).is_err());
        assert_eq!(place.rejected().len(), 1, "it stays, and is not doubled");
        place.store.resolve_conflict(&conflict.id, &Resolution::As(key("Draft/b"))).unwrap();
        assert_eq!((place.read("Draft/b"), place.rejected().len()), (b"words".to_vec(), 0));
        refused(place.put("Note/a", "words"), Limit::Json);
        place.store.resolve_conflict(&place.last_rejected().0.id, &Resolution::Keep).unwrap();
        assert_eq!((place.read("Note/a"), place.rejected().len()), (b"{}".to_vec(), 0));
    });
}

#[test]
fn it_is_in_the_events_why() {
    everywhere(SMALL, |place| {
        refused(place.write("Note/a", "0123456789x", false), Limit::MaxSize);
        let events = place.store.events_of(&key("Note/a")).unwrap();
        let event = events.iter().find(|event| event.kind.name() == "conflict").unwrap();
        assert_eq!((&event.meta["reason"], &event.meta["rule"]), (&"rejected".into(), &"max_size".into()));
        assert!(event.meta["message"].as_str().unwrap().contains("at most 10 bytes"));
    });
}

/// Appends of two sessions, each good by itself.
#[test]
fn others_appends_count() {
    everywhere(&format!("{SMALL}[[rule]]\nclass = 'Log'\ncontent_type = 'application/json'\n"), |place| {
        let append = |path: &str, bytes: [&[u8]; 2]| {
            let (key, other) = (key(path), place.other());
            let mut first = place.store.open_session(&key, &SessionOptions::default()).unwrap();
            let mut second = other.open_session(&key, &SessionOptions::default()).unwrap();
            first.append(bytes[0]).unwrap();
            second.append(bytes[1]).unwrap();
            first.publish(&key, false).unwrap();
            let saved = second.publish(&key, false);
            first.close(&key);
            second.close(&key);
            saved
        };
        place.put("Note/a", "012").unwrap();
        append("Note/a", [b"345", b"678"]).unwrap();
        assert_eq!(place.read("Note/a"), b"012345678");
        place.put("Note/a", "012").unwrap();
        refused(append("Note/a", [b"3456", b"789a"]), Limit::MaxSize);
        assert_eq!((place.read("Note/a"), place.last_rejected().1), (b"0123456".to_vec(), b"012789a".to_vec()));
        // Both are JSON, but one behind the other would be none.
        place.put("Log/a", "").unwrap_err();
        place.put("Log/a", "1").unwrap();
        assert!(matches!(append("Log/a", [b"2", b"3"]), Err(Error::Conflict { .. })));
        assert_eq!(place.read("Log/a"), b"12");
        // An empty file has no generation that could be appended to.
        assert!(append("Log/new", [b"2", b"3"]).is_err());
        assert_eq!(place.read("Log/new"), b"2");
    });
}

#[test]
fn a_crash_does_not_bring_in_what_is_refused() {
    use std::process::{Command, Stdio};
    let place = Place::on_disk(JSON);
    place.put("Note/a", "{}").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "bytes::helper_that_dies", "--ignored"])
        .env("SEPIA_TEST_STORE", place.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert!(!child.wait().unwrap().success());
    let recovered = place.other().recover().unwrap();
    assert_eq!(recovered.len(), 1, "{recovered:?}");
    assert_eq!(place.read("Note/a"), b"[1]", "what had been published by then");
    let (conflict, bytes) = place.last_rejected();
    assert_eq!((conflict.reason, bytes.as_slice()), (Reason::Rejected, &b"[2,"[..]));
    assert_eq!(read_conflict(&place.other(), &conflict), bytes);
}

#[test]
#[ignore = "no test: `a_crash_does_not_bring_in_what_is_refused` runs it as a process of its own"]
fn helper_that_dies() {
    let store = sepia::Store::open(&std::env::var("SEPIA_TEST_STORE").unwrap()).unwrap();
    let key = key("Note/a");
    let options = SessionOptions { truncate: true, ..SessionOptions::default() };
    let mut session = store.open_session(&key, &options).unwrap();
    session.write_at(b"[1]", 0).unwrap();
    session.sync(&key).unwrap();
    session.write_at(b"[2]", 0).unwrap();
    session.sync(&key).unwrap();
    session.write_at(b",", 2).unwrap();
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
}
