//! Several collectors at once, and collectors that are killed, while objects are saved.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use sepia::Error;

#[test]
fn one_collects_at_a_time() {
    let rig = Rig::on_disk("[retention]\nkeep_last = 1");
    for name in 0..50 {
        ["1", "2", "3"].iter().for_each(|text| rig.put(&format!("Note/{name}"), text));
    }
    let path = rig.dir.as_ref().unwrap().path().to_str().unwrap().to_owned();
    let (refused, dropped) = (AtomicBool::new(false), std::sync::atomic::AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // As four processes.
                let store = Store::open(&path).unwrap();
                for _ in 0..20 {
                    match collect(&store, true) {
                        Ok(done) => drop(dropped.fetch_add(done.dropped, Ordering::SeqCst)),
                        Err(Error::Collecting) => refused.store(true, Ordering::SeqCst),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(dropped.into_inner(), 50, "each is deleted once");
    assert!(refused.into_inner());
    (0..50).for_each(|name| assert_eq!(rig.kept(&format!("Note/{name}")), [2]));
}

/// What is current, and the last two before it, are whole at any moment, whenever the collector is killed.
#[test]
fn a_collector_that_is_killed_under_load_loses_nothing() {
    let rig = Rig::on_disk("[retention]\nkeep_last = 2");
    let path = rig.dir.as_ref().unwrap().path().to_owned();
    let ended = AtomicBool::new(false);
    let gc = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sepia"));
        command.args(["gc", "--now"]).arg(&path).env_remove("SEPIA_STORE");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (path, ended) = (path.to_str().unwrap().to_owned(), &ended);
                scope.spawn(move || {
                    let store = Store::open(&path).unwrap();
                    let object = key(&format!("Note/{writer}"));
                    let mut number = 0_u64;
                    while !ended.load(Ordering::SeqCst) {
                        number += 1;
                        let text = format!("{number} ").repeat(100);
                        let stat = store.put(&object, &mut text.as_bytes(), Precondition::Any).unwrap();
                        assert_eq!(stat.generation, Some(generation(number)));
                        for back in (0..3).filter(|back| *back < number) {
                            let expected = format!("{} ", number - back).repeat(100);
                            assert_eq!(read(&store, &object, generation(number - back)), expected.as_bytes());
                        }
                    }
                    number
                })
            })
            .collect();
        for round in 0..25_u64 {
            let mut children = [gc().spawn().unwrap(), gc().spawn().unwrap()];
            std::thread::sleep(Duration::from_millis(5 + round * 7 % 60));
            for child in &mut children {
                let _ = child.kill();
                child.wait().unwrap();
            }
        }
        ended.store(true, Ordering::SeqCst);
        let saved: Vec<u64> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        println!("{saved:?} saves");
    });
    assert!(gc().status().unwrap().success());
    assert_eq!((rig.kept("Note/0").len(), rig.kept("Note/1").len()), (2, 2));
    let left: Vec<_> = std::fs::read_dir(path.join(".sepia/gc/marks")).map_or(Vec::new(), |dir| dir.collect());
    assert!(left.is_empty(), "{left:?}");
}
