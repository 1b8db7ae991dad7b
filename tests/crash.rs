//! kill -9 of the daemon at random moments under load, again and again on one store: after recovery every byte that
//! close or fsync had acknowledged is there in its generation, nothing is torn, and what was under way is set aside.
//!
//! `SEPIA_KILLS` says how often (100), `SEPIA_SEED` repeats a run's dice; the kernel's scheduling has its own.

mod common;
mod rig;

use std::fs;
use std::io::Write;
use std::time::Duration;

use common::{Mount, run};
use rig::check::{Crash, Met, Seen, check, check_all_again, check_set_aside};
use rig::load::{Fate, State, Style, Writer, close};
use rig::{Dice, kill, number_from_env, record};

const WRITERS: u64 = 4;
const STYLE: Style = Style { sync_one_in: 3, longest: 300_000 };

#[test]
fn killed_at_random_moments_nothing_acknowledged_is_lost() {
    let kills = number_from_env("SEPIA_KILLS").unwrap_or(100);
    let mut dice = Dice::from_env();
    let (mut met, mut requests) = (Met::default(), 0);
    let mut round = 0;
    while round < kills {
        // A new store now and then, so that checking the histories doesn't become the work.
        let rounds = (kills - round).min(50);
        let store = common::Store::new();
        let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
        let mut seen = Seen::default();
        for _ in 0..rounds {
            one_kill(&store, &mut writers, &mut dice, &mut seen, &mut met, round);
            round += 1;
        }
        let library = sepia::Store::open(store.path().to_str().unwrap()).unwrap();
        check_all_again(&library, &seen);
        requests += writers.iter().map(|writer| writer.requests).sum::<u64>();
    }
    println!("{kills} kills among {requests} requests: {met:?}");
    assert!(met.set_aside + met.finished > 0, "recovery never met a session under way: this run has shown nothing");
    rig::assert_all_could_be_killed();
    if kills >= 50 {
        assert!(met.set_aside > 0 && met.finished > 0, "recovery met only one kind of session: {met:?}");
        assert!(met.generations > kills, "hardly anything was saved: {met:?}");
    }
}

fn one_kill(
    store: &common::Store,
    writers: &mut [Writer],
    dice: &mut Dice,
    seen: &mut Seen,
    met: &mut Met,
    round: u64,
) {
    let mount = store.mount();
    read_through(&mount, writers);
    for writer in writers.iter_mut() {
        fs::create_dir_all(mount.join(writer.dir())).unwrap();
        if round.is_multiple_of(10) {
            writer.log = rig::load::LogAccount { name: format!("log{round}"), ..Default::default() };
        }
    }
    let fate = Fate::default();
    let pause = Duration::from_micros(dice.below(250_000) + 2_000);
    let log = std::thread::scope(|scope| {
        for writer in writers.iter_mut() {
            let mut dice = Dice::new(dice.roll());
            let (fate, path) = (&fate, mount.path().to_owned());
            scope.spawn(move || writer.work(&path, &mut dice, STYLE, fate));
        }
        std::thread::sleep(pause);
        fate.dying();
        let log = kill(mount);
        fate.dead();
        log
    });
    let error = log.lines().find(|line| line.contains("ERROR"));
    assert_eq!(error, None, "the daemon met an error before it was killed");
    let library = sepia::Store::open(store.path().to_str().unwrap()).unwrap();
    let mut recovered = Vec::new();
    match dice.below(3) {
        0 => met.count_json(&rig::json(&store.sepia(&["recover", "--json"]))),
        1 => drop(store.mount()),
        _ => {
            recovered = library.recover().unwrap();
            met.count(&recovered);
        }
    }
    assert_eq!(library.recover().unwrap(), [], "the second recovery found something to do");
    check_set_aside(writers, &library, Crash::Kill, &recovered);
    for writer in writers {
        check(writer, &library, Crash::Kill, seen, met);
    }
}

/// What recovery left is what a new mount shows.
fn read_through(mount: &Mount, writers: &[Writer]) {
    for writer in writers {
        for (name, account) in &writer.files {
            let found = fs::read(mount.join(writer.dir()).join(name));
            match account.events[0].0 {
                State::Absent => assert!(found.as_ref().map_or(true, Vec::is_empty), "{name}: {found:?}"),
                State::Record(seq) => assert_eq!(record::read_object(&found.unwrap()).unwrap().seq, seq, "{name}"),
            }
        }
    }
}

/// What a session has left behind when it is done must not be done again: neither as an empty save nor twice.
#[test]
fn what_is_done_is_not_done_again_by_recovery() {
    let store = common::Store::new();
    let mount = store.mount();
    // Several names, for then commits copy in place; and fsync in the middle, so that close amends.
    fs::write(mount.join("linked"), "one").unwrap();
    fs::hard_link(mount.join("linked"), mount.join("other")).unwrap();
    fs::write(mount.join("log"), "one\n").unwrap();
    let mut linked = fs::OpenOptions::new().write(true).truncate(true).open(mount.join("linked")).unwrap();
    let mut log = fs::OpenOptions::new().append(true).open(mount.join("log")).unwrap();
    for text in ["two\n", "three\n"] {
        linked.write_all(text.as_bytes()).unwrap();
        linked.sync_all().unwrap();
        log.write_all(text.as_bytes()).unwrap();
        log.sync_all().unwrap();
    }
    close(linked).unwrap();
    close(log).unwrap();
    kill(mount);
    run(&mut store.command(&["recover"]));
    for (name, text) in [("linked", "two\nthree\n"), ("other", "two\nthree\n"), ("log", "one\ntwo\nthree\n")] {
        assert_eq!(String::from_utf8_lossy(&store.cat(name, None)), text, "{name}");
    }
    // The history of an object with several names is kept under one of them.
    let mut numbers = [store.generations("linked"), store.generations("other")].concat();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 2]);
    assert_eq!(store.generations("log"), [1, 2]);
    assert!(store.conflicts().is_empty());
}
