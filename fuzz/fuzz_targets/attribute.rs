//! The packed attribute of a current file: whatever it says, the bytes are there, and a save makes a later generation.
#![no_main]

use std::io::Read;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sepia::{Precondition, Store};
use sepia_fuzz::{Place, note};

static PLACE: LazyLock<(Place, Store)> = LazyLock::new(|| {
    let place = Place::new();
    let store = place.open();
    (place, store)
});

fuzz_target!(|data: &[u8]| {
    let (place, store) = &*PLACE;
    let file = place.path.join("Note/n");
    let _ = std::fs::remove_dir_all(place.path.join(".sepia/generations/Note"));
    std::fs::write(&file, "bytes").expect("the file");
    if rustix::fs::setxattr(&file, "user.sepia", data, rustix::fs::XattrFlags::empty()).is_err() {
        return;
    }
    let opened = store.get(&note()).expect("a file with a scrambled attribute");
    let mut text = String::new();
    (&*opened.file).read_to_string(&mut text).expect("its bytes");
    assert_eq!(text, "bytes");
    let before = opened.stat.generation.expect("a generation");
    let _ = store.history(&note());
    // The last number there is can't be followed by another.
    if before.get() < u64::MAX - 2 {
        let after = store.put(&note(), &mut &b"more"[..], Precondition::Any).expect("a save");
        assert!(after.generation.expect("a generation") > before);
        let kept = store.get_generation(&note(), before).expect("the generation before");
        assert_eq!(kept.stat.size, 5);
    }
});
