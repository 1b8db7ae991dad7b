//! Two mounts of one store that is being collected, while directories are renamed and snapshots come and go.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::common;

const WRITERS: u64 = 4;
const SAVES: u64 = 150;

/// Saves one number after the other, now as a whole and now by renaming, and looks after each for what the policy
/// promises: what is current, and the last two before it.
fn save_and_look(dir: &std::path::Path, number: u64) {
    let (own, view) = (format!("own{number}"), dir.join(".sepia/generations"));
    let directories = [PathBuf::from(format!("{own}/a")), PathBuf::from(format!("{own}/b"))];
    fs::create_dir_all(dir.join(&directories[0])).unwrap();
    for save in 1..=SAVES {
        let at = directories[usize::from(save % 20 >= 10)].clone();
        if save % 10 == 0 {
            let other = &directories[usize::from(save % 20 < 10)];
            fs::rename(dir.join(other), dir.join(&at)).unwrap();
        }
        let (object, text) = (at.join("n"), format!("{save} ").repeat(50));
        if save % 3 == 0 {
            fs::write(dir.join(at.join("new.tmp")), &text).unwrap();
            fs::rename(dir.join(at.join("new.tmp")), dir.join(&object)).unwrap();
        } else {
            fs::write(dir.join(&object), &text).unwrap();
        }
        assert_eq!(fs::read_to_string(dir.join(&object)).unwrap(), text);
        for back in (0..3).filter(|back| *back < save) {
            let kept = view.join(&object).join((save - back).to_string());
            let text = format!("{} ", save - back).repeat(50);
            assert_eq!(fs::read_to_string(&kept).unwrap(), text, "{}", kept.display());
        }
    }
}

/// Goes on until a count is reached that others add to as well, through either mount.
fn increment(counter: &std::path::Path, times: u64) {
    for _ in 0..times {
        loop {
            let file = fs::File::options().read(true).write(true).open(counter).unwrap();
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, 0).unwrap();
            let next = u64::from_le_bytes(bytes) + 1;
            let written = file.write_all_at(&next.to_le_bytes(), 0).and_then(|()| file.sync_all());
            match written {
                Ok(()) => break,
                Err(error) => assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::STALE.raw_os_error())),
            }
        }
    }
}

#[test]
fn two_mounts_and_a_collector_lose_nothing() {
    let store = common::Store::new();
    fs::write(store.path().join(".sepia/config.toml"), "[retention]\nkeep_last = 2").unwrap();
    let mounts = [store.mount(), store.mount()];
    fs::write(mounts[0].join("counter"), 0_u64.to_le_bytes()).unwrap();
    let (ended, mut runs, mut snapshots) = (AtomicBool::new(false), 0, 0);
    std::thread::scope(|scope| {
        let savers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let dir = mounts[number as usize % 2].path();
                scope.spawn(move || save_and_look(dir, number))
            })
            .collect();
        // Within a mount there are locks for this; the two mounts have only the generation to go by.
        let counters = mounts.each_ref().map(|mount| {
            let counter = mount.join("counter");
            scope.spawn(move || increment(&counter, 100))
        });
        let ended = &ended;
        let collector = scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                store.sepia(&["gc", "--now"]);
                runs += 1;
            }
        });
        let photographer = scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                let name = format!("s{snapshots}");
                store.sepia(&["snapshot", "create", &name]);
                let seen = mounts[snapshots % 2].join(".sepia/snapshots").join(&name);
                let files = common::sh(&seen, "find . -type f -name n | xargs -r cat | wc -w");
                assert_eq!(files.trim().parse::<usize>().unwrap() % 50, 0, "{name} has a torn file");
                if snapshots % 2 == 0 {
                    store.sepia(&["snapshot", "delete", &name]);
                }
                snapshots += 1;
            }
        });
        let done =
            savers.into_iter().map(|saver| saver.join()).chain(counters.into_iter().map(|counter| counter.join()));
        let done: Vec<_> = done.collect();
        ended.store(true, Ordering::SeqCst);
        collector.join().unwrap();
        photographer.join().unwrap();
        done.into_iter().for_each(|done| done.unwrap());
    });
    println!("{runs} collections, {snapshots} snapshots");
    assert!(runs > 2 && snapshots > 2);
    for mount in &mounts {
        assert_eq!(fs::read(mount.join("counter")).unwrap(), 200_u64.to_le_bytes());
    }
    let library = Store::open(store.path().to_str().unwrap()).unwrap();
    for snapshot in library.snapshots().unwrap() {
        library.delete_snapshot(&snapshot.name).unwrap();
    }
    assert!(library.recover().unwrap().is_empty());
    store.sepia(&["gc", "--now"]);
    for number in 0..WRITERS {
        let object = key(&format!("own{number}/{}/n", ["a", "b"][usize::from(SAVES % 20 >= 10)]));
        let kept = library.history(&object).unwrap();
        let kept: Vec<u64> =
            kept.iter().filter(|info| !matches!(info.kept, Kept::Lost(_))).map(|info| info.generation.get()).collect();
        assert_eq!(kept, [SAVES - 2, SAVES - 1, SAVES]);
    }
    mounts.into_iter().for_each(common::Mount::unmount);
}
