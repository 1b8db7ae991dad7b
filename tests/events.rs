//! The event log in detail: several writers at once, recovery and adoption, one event a generation, earlier names, threads,
//! a policy that changes under a mount.

mod common;
mod rig;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::{LIMIT, Mount, Store, wait_for};
use rig::load::close;
use sepia::store::{Event, EventKind, SessionOptions};
use sepia::{Generation, Key, Precondition};
use serde_json::Value;

use EventKind::{Activity, Adopted, Conflict, Created, Deleted, Read, Recovered, Renamed, Restored, Updated};

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn library(store: &Store) -> sepia::Store {
    sepia::Store::open(store.path().to_str().unwrap()).unwrap()
}

/// All events of the store, and that every line of its log is one.
fn events(store: &Store) -> Vec<Event> {
    let mut events = Vec::new();
    library(store).events(None).read(&mut |event| events.push(event)).unwrap();
    let Ok(files) = fs::read_dir(store.path().join(".sepia/events")) else { return events };
    let lines: usize = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap().lines().count()).sum();
    assert_eq!(lines, events.len(), "a line is damaged");
    events
}

/// What has happened to a key, by the numbers of the generations.
fn of(events: &[Event], name: &str) -> Vec<(EventKind, u64)> {
    let about = events.iter().filter(|event| event.is_about(&key(name), None));
    about.map(|event| (event.kind, event.generation.map_or(0, Generation::get))).collect()
}

#[track_caller]
fn only<'a>(events: &'a [Event], kind: EventKind, name: &str) -> &'a Event {
    let mut found = events.iter().filter(|event| event.kind == kind && event.key == key(name));
    let first = found.next().unwrap_or_else(|| panic!("no such event: {events:#?}"));
    assert_eq!(found.next(), None);
    first
}

/// close(2) with its result, which is where a mount acknowledges a save.
fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    close(file)
}

#[test]
fn a_store_writes_down_what_the_library_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = sepia::Store::init(dir.path().to_str().unwrap()).unwrap();
    let (a, b) = (key("Note/a"), key("Note/b"));
    let put = |key: &Key, bytes: &[u8], expect| store.put(key, &mut &bytes[..], expect).unwrap();
    let id = put(&a, b"one", Precondition::Absent).id;
    put(&a, b"two!", Precondition::Any);
    assert!(store.put(&a, &mut &b"late"[..], Precondition::Absent).is_err(), "what was not done is not written down");
    put(&b, b"other", Precondition::Any);
    store.rename(&a, &b, Precondition::Any).unwrap();
    store.remove(&b, Precondition::Any).unwrap();
    store.restore(&b, Generation::FIRST, Precondition::Absent).unwrap();
    store.log_activity(&b, "viewed", serde_json::Map::new(), sepia::store::Actor::current()).unwrap();
    let mut events = Vec::new();
    store.events(None).read(&mut |event| events.push(event)).unwrap();
    let seen: Vec<_> =
        events.iter().map(|e| (e.kind, e.key.to_string(), e.generation.map_or(0, Generation::get))).collect();
    let is = |kind, key: &str, generation| (kind, key.to_owned(), generation);
    assert_eq!(
        seen,
        [
            is(Created, "Note", 0),
            is(Created, "Note/a", 1),
            is(Updated, "Note/a", 2),
            is(Created, "Note/b", 1),
            is(Renamed, "Note/a", 2),
            is(Deleted, "Note/b", 2),
            is(Restored, "Note/b", 3),
            is(Activity, "Note/b", 3),
        ]
    );
    assert_eq!((events[2].size, events[2].id), (Some(4), Some(id)));
    assert_eq!((events[4].to.as_ref(), &events[4].meta["replaced"]), (Some(&b), &Value::from(1)));
    assert_eq!(events[6].meta["restored"], 1);
    assert!(events.iter().all(|e| e.who.pid == Some(std::process::id()) && e.who.program.is_some()));
    assert!(events.is_sorted_by_key(|event| event.time));

    let about_b = store.events_of(&b).unwrap();
    assert_eq!(about_b.iter().map(|e| e.kind).collect::<Vec<_>>(), [Created, Renamed, Deleted, Restored, Activity]);
    let original: Value = serde_json::from_str(&about_b.last().unwrap().original()).unwrap();
    assert_eq!((&original["type"], &original["gen"]), (&Value::from("activity"), &Value::from(3)));
    assert_eq!(original["meta"], serde_json::json!({"action": "viewed"}));
    assert_eq!(original["ts"].as_str().unwrap().len(), "2026-11-23T01:35:25Z".len());
}

#[test]
fn an_object_is_known_under_its_earlier_names() {
    let dir = tempfile::tempdir().unwrap();
    let store = sepia::Store::init(dir.path().to_str().unwrap()).unwrap();
    store.put(&key("old/n"), &mut &b"one"[..], Precondition::Any).unwrap();
    store.put(&key("old/other"), &mut &b"other"[..], Precondition::Any).unwrap();
    store.rename(&key("old"), &key("new"), Precondition::Any).unwrap();
    store.put(&key("new/n"), &mut &b"two"[..], Precondition::Any).unwrap();
    let kinds: Vec<_> = store.events_of(&key("new/n")).unwrap().iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [Created, Updated]);
}

#[test]
fn an_amended_generation_is_one_event() {
    let dir = tempfile::tempdir().unwrap();
    let store = sepia::Store::init(dir.path().to_str().unwrap()).unwrap();
    let n = key("n");
    let mut session = store.open_session(&n, &SessionOptions::default()).unwrap();
    for _ in 0..3 {
        session.append(b"line\n").unwrap();
        session.publish(&n, false).unwrap();
    }
    session.seal();
    session.append(b"line\n").unwrap();
    session.publish(&n, false).unwrap();
    session.close(&n);
    store.open_session(&key("empty"), &SessionOptions::default()).unwrap().close(&key("empty"));
    let kinds: Vec<_> = store.events_of(&n).unwrap().iter().map(|e| (e.kind, e.generation.unwrap().get())).collect();
    assert_eq!(kinds, [(Created, 1), (Updated, 2)]);
    let empty = store.events_of(&key("empty")).unwrap();
    assert_eq!((empty.len(), empty[0].kind, empty[0].generation), (1, Created, None));
}

#[test]
fn a_mount_writes_down_who_did_what() {
    let store = Store::new();
    let mount = store.mount();
    let pids = mount.sh(
        r#"mkdir Note
        printf hello > Note/n
        sh -c 'echo $$; exec dd if=/dev/zero of=Note/zeros bs=1000 count=3 2> /dev/null'
        cp Note/n Note/copy
        printf ', world' >> Note/n
        mv Note/n Note/m
        mv Note/copy Note/m
        ln -s m Note/link
        ln Note/m Note/also
        touch Note/empty
        : > Note/zeros
        rm Note/link
        { printf a; sh -c 'printf b'; printf c; } > Note/three
        python3 -c 'import threading; t = threading.Thread(target=lambda: print("x", file=open("Note/t", "w"))); t.start(); t.join()'
        echo $$"#,
    );
    mount.unmount();
    let events = events(&store);
    let (child, shell) = pids.trim().split_once('\n').unwrap();
    let uid = rustix::process::geteuid().as_raw();
    for event in &events {
        assert_eq!(event.who.uid, Some(uid), "{event:?}");
        assert!(event.who.pid.is_some() && event.who.program.is_some(), "{event:?}");
    }
    let who = |event: &Event| event.who.program.as_deref().unwrap().to_owned();
    let note = only(&events, Created, "Note");
    assert_eq!((who(note).as_str(), note.generation, note.size), ("mkdir", None, None));
    let n = only(&events, Created, "Note/n");
    assert_eq!((who(n).as_str(), n.generation.unwrap().get(), n.size), ("bash", 1, Some(5)));
    assert_eq!(n.who.pid, Some(shell.parse().unwrap()));
    let zeros = only(&events, Created, "Note/zeros");
    assert_eq!((who(zeros).as_str(), zeros.who.pid, zeros.size), ("dd", Some(child.parse().unwrap()), Some(3000)));
    assert_eq!(of(&events, "Note/zeros"), [(Created, 1), (Updated, 2)]);
    assert_eq!(only(&events, Updated, "Note/zeros").size, Some(0));
    assert_eq!(who(only(&events, Created, "Note/copy")), "cp");
    let appended = only(&events, Updated, "Note/n");
    assert_eq!((appended.generation.unwrap().get(), appended.size, appended.id), (2, Some(12), n.id));
    let renamed = only(&events, Renamed, "Note/n");
    assert_eq!((who(renamed).as_str(), renamed.to.as_ref(), renamed.id), ("mv", Some(&key("Note/m")), n.id));
    let over = only(&events, Renamed, "Note/copy");
    assert_eq!((over.generation.unwrap().get(), &over.meta["replaced"]), (3, &Value::from(2)));
    assert_eq!(only(&events, Created, "Note/also").from, Some(key("Note/m")));
    let empty = only(&events, Created, "Note/empty");
    assert_eq!((who(empty).as_str(), empty.generation, empty.size), ("touch", None, Some(0)));
    assert_eq!(of(&events, "Note/link"), [(Created, 0), (Deleted, 0)]);
    assert_eq!(of(&events, "Note/three"), [(Created, 1)]);
    // The process, not its thread.
    let threaded = only(&events, Created, "Note/t");
    assert!(who(threaded).starts_with("python3"), "{threaded:?}");
}

/// `sepia events --follow --json`, line by line.
struct Follower {
    child: Child,
    lines: Receiver<Value>,
}

impl Follower {
    fn new(store: &Store, arguments: &[&str]) -> Self {
        let mut command = store.command(&[&["events", "--follow", "--json"], arguments].concat());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (send, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = send.send(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")));
            }
        });
        Self { child, lines }
    }

    #[track_caller]
    fn next(&self) -> Value {
        self.lines.recv_timeout(LIMIT).unwrap()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn follow_shows_changes_through_any_mount_or_command_within_a_second() {
    let store = Store::new();
    let (a, b) = (store.mount(), store.mount());
    a.sh("mkdir Note; echo first > Note/first; mkdir Other");
    let follower = Follower::new(&store, &["Note", "--since", "1h"]);
    assert_eq!((follower.next()["key"].as_str(), follower.next()["key"].as_str()), (Some("Note"), Some("Note/first")));
    let outside = || fs::write(store.path().join("Note/outside"), "outside").unwrap();
    let command = || drop(store.sepia(&["rm", "Note/a"]));
    let log = || drop(store.sepia(&["log", "Note/b", "looked at it", "--meta", "by=me", "--meta", "a=b=c"]));
    let steps: [(&str, &str, &dyn Fn()); 5] = [
        ("created", "Note/a", &|| save(&a.join("Note/a"), b"a").unwrap()),
        ("created", "Note/b", &|| save(&b.join("Note/b"), b"b").unwrap()),
        ("deleted", "Note/a", &command),
        ("activity", "Note/b", &log),
        ("adopted", "Note/outside", &|| {
            outside();
            assert_eq!(fs::read(a.join("Note/outside")).unwrap(), b"outside");
        }),
    ];
    for (kind, key, step) in steps {
        save(&a.join("Other/unrelated"), key.as_bytes()).unwrap();
        step();
        let done = Instant::now();
        let event = follower.next();
        let took = done.elapsed();
        assert_eq!((event["type"].as_str(), event["key"].as_str()), (Some(kind), Some(key)), "{event}");
        assert!(took < Duration::from_secs(1), "{kind}: {took:?}");
        if kind == "activity" {
            assert_eq!(event["meta"], serde_json::json!({"action": "looked at it", "by": "me", "a": "b=c"}));
            assert_eq!(event["program"], "sepia");
        }
    }
}

#[test]
fn without_since_follow_begins_now() {
    let store = Store::new();
    store.mount().sh("echo before > before");
    let follower = Follower::new(&store, &[]);
    let library = library(&store);
    // Until it has begun to look, which nothing tells.
    let number = wait_for("the follower", || {
        let number = library.events_of(&key("now")).unwrap().len();
        // The same bytes again would be no event.
        library.put(&key("now"), &mut number.to_string().as_bytes(), Precondition::Any).unwrap();
        follower.lines.recv_timeout(Duration::from_millis(300)).ok().map(|event| (event, number))
    });
    assert_eq!(number.0["key"], "now");
}

#[test]
fn two_mounts_and_a_command_write_one_log() {
    const EACH: usize = 200;
    let store = Store::new();
    let (a, b) = (store.mount(), store.mount());
    a.sh("mkdir a b c");
    thread::scope(|scope| {
        for (name, mount) in [("a", &a), ("b", &b)] {
            scope.spawn(move || {
                (0..EACH).for_each(|number| save(&mount.join(format!("{name}/{number}")), b"bytes").unwrap());
            });
        }
        let library = library(&store);
        (0..EACH).for_each(|number| {
            library.put(&key(&format!("c/{number}")), &mut &b"bytes"[..], Precondition::Absent).unwrap();
        });
    });
    let events = events(&store);
    for name in ["a", "b", "c"] {
        let saved = |event: &&Event| event.key.parent() == Some(key(name)) && event.kind == Created;
        assert_eq!(events.iter().filter(saved).count(), EACH, "{name}");
        let numbers =
            events.iter().filter(saved).map(|event| event.key.name().unwrap().to_str().unwrap().parse::<usize>());
        assert!(numbers.map(Result::unwrap).eq(0..EACH), "in the order in which they happened");
    }
}

#[test]
fn a_killed_daemon_loses_no_event_of_what_close_acknowledged() {
    let store = Store::new();
    for round in 0..5 {
        let mount = store.mount();
        let path = mount.path().to_owned();
        let (started, wait) = channel();
        let writer = thread::spawn(move || {
            let mut saved = 0;
            while save(&path.join(format!("{round}-{saved}")), b"bytes").is_ok() {
                saved += 1;
                let _ = started.send(());
            }
            saved
        });
        (0..20 * (round + 1)).for_each(|_| wait.recv_timeout(LIMIT).unwrap());
        mount.kill();
        let saved: usize = writer.join().unwrap();
        let events = events(&store);
        for number in 0..saved {
            assert_eq!(of(&events, &format!("{round}-{number}")), [(Created, 1)]);
        }
    }
}

#[test]
fn conflicts_recoveries_and_adoptions_are_events() {
    let store = Store::new();
    let (a, b) = (store.mount(), store.mount());
    save(&a.join("n"), b"one").unwrap();
    let mut late = File::options().write(true).open(a.join("n")).unwrap();
    late.write_all(b"late").unwrap();
    save(&b.join("n"), b"other").unwrap();
    assert!(close(late).is_err());
    let conflict = only(&events(&store), Conflict, "n").clone();
    let kept = store.conflicts();
    assert_eq!((&conflict.meta["conflict"], &conflict.meta["reason"]), (&kept[0]["id"], &Value::from("stale")));
    assert_eq!((conflict.generation.unwrap().get(), conflict.size), (1, Some(4)));
    assert_eq!(conflict.who.pid, Some(std::process::id()));

    fs::write(store.path().join("outside"), "put there").unwrap();
    fs::write(store.path().join("n"), "changed there").unwrap();
    fs::read(a.join("outside")).unwrap();
    save(&a.join("n"), b"on top").unwrap();
    let so_far = events(&store);
    assert_eq!(of(&so_far, "outside"), [(Adopted, 1)]);
    assert_eq!(of(&so_far, "n"), [(Created, 1), (Updated, 2), (Conflict, 1), (Adopted, 3), (Updated, 4)]);
    assert_eq!(only(&so_far, Adopted, "n").size, Some(13));

    let mut interrupted = File::create(b.join("interrupted")).unwrap();
    interrupted.write_all(b"half").unwrap();
    let mut synced = File::create(b.join("synced")).unwrap();
    synced.write_all(b"one").unwrap();
    synced.sync_all().unwrap();
    synced.write_all_at(b"two", 0).unwrap();
    synced.sync_all().unwrap();
    b.kill();
    drop((interrupted, synced));
    store.sepia(&["recover"]);
    let after = events(&store);
    let recovered = only(&after, Recovered, "interrupted");
    assert_eq!((&recovered.meta["outcome"], recovered.size), (&Value::from("set-aside"), Some(4)));
    assert_eq!(recovered.meta["conflict"], only(&after, Conflict, "interrupted").meta["conflict"]);
    assert_eq!(recovered.who.program.as_deref(), Some("sepia"));
    assert_eq!(of(&after, "synced"), [(Created, 1), (Recovered, 2)]);
    assert_eq!(only(&after, Recovered, "synced").meta["outcome"], "finished");
}

#[test]
fn reads_are_audited_where_the_policy_asks_for_it() {
    let store = Store::new();
    let mount: Mount = store.mount();
    mount.sh("echo one > n; cat n > /dev/null");
    assert_eq!(of(&events(&store), "n"), [(Created, 1)]);
    fs::write(store.path().join(".sepia/config.toml"), "[events]\naudit_reads = true\n").unwrap();
    let read = wait_for("the new policy", || {
        mount.sh("cat n > /dev/null");
        events(&store).into_iter().find(|event| event.kind == Read)
    });
    assert_eq!((read.key.to_string().as_str(), read.generation.unwrap().get()), ("n", 1));
    assert_eq!(read.who.program.as_deref(), Some("cat"));
    let before = events(&store).len();
    mount.sh("echo two > n");
    assert_eq!(events(&store).len(), before + 1, "a write is no read");
    fs::write(store.path().join(".sepia/config.toml"), "[events]\nenabled = false\n").unwrap();
    wait_for("the new policy", || {
        let before = events(&store).len();
        mount.sh("echo three > n");
        (events(&store).len() == before).then_some(())
    });
}
