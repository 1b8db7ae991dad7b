//! The event log on real mounts: who did what, seen by everybody, and complete whatever dies.

mod common;
mod rig;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::{LIMIT, Store, run, sh};
use rig::load::close;
use serde_json::Value;

fn events(store: &Store, arguments: &[&str]) -> Vec<Value> {
    let command: Vec<&str> = ["events", "--json"].into_iter().chain(arguments.iter().copied()).collect();
    let printed = String::from_utf8(store.sepia(&command)).unwrap();
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

#[test]
fn what_programs_do_in_a_mount_is_written_down_with_who_did_it() {
    let store = Store::new();
    let mount = store.mount();
    sh(
        mount.path(),
        "mkdir Note; echo one > Note/a; echo two >> Note/a; touch Note/empty; ln -s a Note/link; mv Note/a Note/b; \
         cp Note/b Note/c; rm Note/b; rm Note/link; :",
    );
    let all = events(&store, &["Note"]);
    let said: Vec<String> = all
        .iter()
        .map(|event| {
            let text = |name: &str| event[name].as_str().unwrap_or("-").to_owned();
            format!("{} {} {} {} {}", text("type"), text("key"), event["gen"], event["size"], text("program"))
        })
        .collect();
    let expected = [
        "created Note null null mkdir",
        "created Note/a 1 4 sh",
        "updated Note/a 2 8 sh",
        "created Note/empty null 0 touch",
        "created Note/link null null ln",
        "renamed Note/a 2 8 mv",
        "created Note/c 1 8 cp",
        "deleted Note/b 2 8 rm",
        "deleted Note/link null null rm",
    ];
    // Which shell `sh` is, is the system's business.
    let shell = |line: &String| line.replace(" dash", " sh").replace(" bash", " sh");
    assert_eq!(said.iter().map(shell).collect::<Vec<_>>(), expected);
    let me = rustix::process::getuid().as_raw();
    assert!(all.iter().all(|event| event["uid"] == me && event["pid"].as_u64().is_some_and(|pid| pid > 1)), "{all:?}");
    assert!(all.iter().all(|event| event["pid"] != u64::from(std::process::id())), "{all:?}");
    mount.unmount();
}

/// `sepia events --follow`, whose lines come in as they are printed.
struct Follower {
    child: Child,
    lines: Receiver<Value>,
}

impl Follower {
    fn new(store: &Store, arguments: &[&str]) -> Self {
        let command: Vec<&str> = ["events", "--json", "--follow"].iter().chain(arguments).copied().collect();
        let mut child = store.command(&command).stdout(Stdio::piped()).spawn().unwrap();
        let (line, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for text in output.lines().map_while(Result::ok) {
                let _ = line.send(serde_json::from_str(&text).unwrap());
            }
        });
        Follower { child, lines }
    }

    /// The next event of this key.
    #[track_caller]
    fn sees(&self, key: &str) -> Value {
        let start = Instant::now();
        loop {
            let left = LIMIT.saturating_sub(start.elapsed());
            let event = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("{key} was not reported"));
            if event["key"] == key {
                return event;
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn who_follows_sees_what_is_done_through_any_mount_and_command() {
    let store = Store::new();
    let (a, b) = (store.mount(), store.mount());
    let follower = Follower::new(&store, &["--since", "1h"]);
    fs::write(a.join("by-a"), "a").unwrap();
    assert_eq!(follower.sees("by-a")["type"], "created");
    fs::write(b.join("by-a"), "b").unwrap();
    assert_eq!(follower.sees("by-a")["gen"], 2);
    store.sepia(&["mv", "by-a", "by-command"]);
    let renamed = follower.sees("by-a");
    assert_eq!((&renamed["type"], &renamed["program"]), (&Value::from("renamed"), &Value::from("sepia")));
    assert_eq!(renamed["to"]["key"], "by-command");
    fs::remove_file(a.join("by-command")).unwrap();
    assert_eq!(follower.sees("by-command")["type"], "deleted");
    // From outside: written down when somebody comes across it.
    fs::write(store.path().join("outside"), "x").unwrap();
    fs::read(b.join("outside")).unwrap();
    assert_eq!(follower.sees("outside")["type"], "adopted");
    drop(follower);
    a.unmount();
    b.unmount();
}

#[test]
fn a_conflict_and_a_restored_generation_are_written_down() {
    let store = Store::new();
    let (a, b) = (store.mount(), store.mount());
    fs::write(a.join("n"), "one").unwrap();
    let mut late = OpenOptions::new().write(true).open(a.join("n")).unwrap();
    late.write_all(b"AAA").unwrap();
    fs::write(b.join("n"), "BBB").unwrap();
    close(late).unwrap_err();
    store.sepia(&["restore", "n", "--generation", "1"]);
    let seen = events(&store, &["n"]);
    assert_eq!(kinds(&seen), ["created", "updated", "conflict", "restored"], "{seen:?}");
    a.unmount();
    b.unmount();
}

#[test]
fn a_killed_daemon_loses_no_event_of_what_close_acknowledged() {
    let store = Store::new();
    let mount = store.mount();
    let (saved, saves) = channel();
    let dir = mount.path().to_owned();
    let writer = std::thread::spawn(move || {
        for number in 0.. {
            let name = format!("n{number}");
            // The close reports nothing in fs::write, but afterwards a killed mount has no file.
            let path = dir.join(&name);
            if fs::write(&path, "bytes").is_err() || fs::metadata(&path).is_err() || saved.send(name).is_err() {
                return;
            }
        }
    });
    std::thread::sleep(Duration::from_millis(500));
    mount.kill();
    writer.join().unwrap();
    let acknowledged: BTreeSet<String> = saves.try_iter().collect();
    assert!(acknowledged.len() > 10, "the daemon was killed too early: this run has shown nothing");
    let written: BTreeSet<String> = events(&store, &[])
        .iter()
        .filter(|event| event["type"] == "created")
        .map(|event| event["key"].as_str().unwrap().to_owned())
        .collect();
    let lost: Vec<_> = acknowledged.difference(&written).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn reads_are_written_down_where_the_policy_asks_for_it() {
    let store = Store::new();
    fs::write(store.path().join(".sepia/config.toml"), "[events]\naudit_reads = true\n").unwrap();
    let mount = store.mount();
    fs::write(mount.join("n"), "bytes").unwrap();
    run(Command::new("cat").arg(mount.join("n")));
    let seen = events(&store, &["n"]);
    assert_eq!(kinds(&seen), ["created", "read"]);
    assert_eq!((&seen[1]["program"], &seen[1]["gen"]), (&Value::from("cat"), &Value::from(1)));
    mount.unmount();
}
