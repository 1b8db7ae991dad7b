//! The format file: a store opens or is refused.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sepia::Store;
use sepia_fuzz::Place;

static PLACE: LazyLock<Place> = LazyLock::new(Place::new);

fuzz_target!(|data: &[u8]| {
    std::fs::write(PLACE.path.join(".sepia/format"), data).expect("the format file");
    if let Err(error) = Store::open(PLACE.url()) {
        assert!(!error.to_string().is_empty());
    }
});
