//! The record of a conflict: it is listed or refused, and resolving it keeps to the store.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sepia::Store;
use sepia::store::Resolution;
use sepia_fuzz::Place;

static PLACE: LazyLock<(Place, Store)> = LazyLock::new(|| {
    let place = Place::new();
    let store = place.open();
    (place, store)
});

fuzz_target!(|data: &[u8]| {
    let (place, store) = &*PLACE;
    let dir = place.path.join(".sepia/conflicts");
    let _ = fs::create_dir(&dir);
    let id = "20261123T100000.000000000Z-00000001";
    fs::write(dir.join(format!("{id}.json")), data).expect("the record");
    fs::write(dir.join(format!("{id}.bytes")), "lost bytes").expect("the bytes");
    let _ = store.conflicts();
    if let Ok(conflict) = store.conflict(id) {
        let _ = store.open_conflict(&conflict.id);
        let _ = store.resolve_conflict(&conflict.id, &Resolution::Take);
    }
    let outside = place.path.parent().expect("a directory");
    assert_eq!(fs::read_dir(outside).expect("it").count(), 1, "something was written outside of the store");
});
