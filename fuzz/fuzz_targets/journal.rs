//! The journal of a process that died: recovery ends, and finds nothing more to do.
#![no_main]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sepia::Store;
use sepia_fuzz::Place;

static PLACE: LazyLock<(Place, Store)> = LazyLock::new(|| {
    let place = Place::new();
    let store = place.open();
    (place, store)
});

fuzz_target!(|data: &[u8]| {
    let (place, store) = &*PLACE;
    let dead = place.path.join(".sepia/staging/1-00000000000000ff");
    let _ = fs::remove_dir_all(&dead);
    fs::create_dir_all(&dead).expect("the dead process's directory");
    fs::write(dead.join("lock"), "").expect("its lock");
    fs::write(dead.join("1"), "staged bytes").expect("a staged file");
    // The journal names the file's inode: "@" in the input stands for it.
    let inode = fs::metadata(dead.join("1")).expect("the staged file").ino().to_string();
    let journal: Vec<u8> =
        data.iter().flat_map(|&b| if b == b'@' { inode.as_bytes().to_vec() } else { vec![b] }).collect();
    fs::write(dead.join("journal"), journal).expect("the journal");
    if store.recover().is_ok() {
        assert_eq!(store.recover().expect("a second recovery"), []);
    }
    for dir in ["conflicts", "generations", "staging"] {
        let dir = place.path.join(".sepia").join(dir);
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            // The own instance of this process stays: its lock is held.
            if !entry.file_name().to_string_lossy().starts_with(&format!("{}-", std::process::id())) {
                let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
            }
        }
    }
});
