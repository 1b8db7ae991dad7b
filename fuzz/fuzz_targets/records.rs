//! The records of a store, of which one holds something else: whatever reads them ends with an answer or an error, and what
//! is current is there all the same. The first byte says which record.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sepia::store::checksums::Summing;
use sepia::store::policy::Percent;
use sepia::store::verify::Verify;
use sepia::store::Collect;
use sepia::{Key, Store};
use sepia_fuzz::{Place, note};

/// A store with one of each record, and what is in them.
static FILLED: LazyLock<(Place, Vec<(PathBuf, Vec<u8>)>)> = LazyLock::new(|| {
    let place = Place::new();
    let store = place.open();
    store.create_snapshot(Some("s")).expect("a snapshot");
    store.pin(&note(), "1".parse().expect("a number")).expect("a pin");
    store.sum_in_background(&Summing { quiet: Duration::ZERO, stop: &|| false }).expect("checksums");
    store.verify(&Verify::all()).expect("a verification");
    collect(&store);
    let mut records = Vec::new();
    for dir in ["", "snapshots", "pins", "events", "checksums", "gc", "verify"] {
        let Ok(entries) = std::fs::read_dir(place.path.join(".sepia").join(dir)) else { continue };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.is_file() && path.file_name() != Path::new("format").file_name() {
                records.push((path.clone(), std::fs::read(&path).expect("a record")));
            }
        }
    }
    records.sort();
    (place, records)
});

fn collect(store: &Store) {
    let _ = store.collect(&Collect { now: true, load: Percent::ALL, stop: &|| false });
}

fuzz_target!(|data: &[u8]| {
    let (place, records) = &*FILLED;
    let Some((which, bytes)) = data.split_first() else { return };
    for (path, was) in records {
        std::fs::write(path, was).expect("a record");
    }
    std::fs::write(&records[usize::from(*which) % records.len()].0, bytes).expect("a record");
    let store = place.open();
    let _ = store.config();
    let _ = store.check_rules();
    for info in store.snapshots().unwrap_or_default() {
        if let Ok(snapshot) = store.snapshot(&info.name) {
            for entry in snapshot.entries() {
                let _ = snapshot.open(&store, &entry.key);
            }
            let _ = store.plan_restoration(&snapshot, &Key::root(), true);
        }
    }
    let _ = (store.pins(), store.collector_status(), store.verification_status(), store.conflicts());
    let _ = store.events_of(&note());
    let _ = store.judge_history(&Key::root(), &mut |_| Ok(()));
    let _ = store.verify(&Verify::all());
    collect(&store);
    let current = store.get(&note()).expect("the current generation");
    assert_eq!(std::io::read_to_string(&*current.file).expect("its bytes"), "two");
});
