//! The conformance suite over every backend.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sepia::backend::conformance::CASES;
use sepia::backend::file::FileBackend;
use sepia::backend::memory::MemoryBackend;
use sepia::backend::{Backend, Capabilities};

/// Runs all cases, and names those that failed.
fn conforms(make: impl Fn() -> (Box<dyn Backend>, Option<tempfile::TempDir>)) {
    let mut failed = Vec::new();
    for (name, case) in CASES {
        let (backend, _dir) = make();
        if catch_unwind(AssertUnwindSafe(|| case(&*backend))).is_err() {
            eprintln!("=== the case {name} failed ===");
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "{} of {} cases failed: {failed:?}", failed.len(), CASES.len());
}

#[test]
fn memory() {
    conforms(|| (Box::new(MemoryBackend::new()), None));
}

#[test]
fn file() {
    conforms(|| {
        let dir = tempfile::tempdir().unwrap();
        (Box::new(FileBackend::init(dir.path()).unwrap()), Some(dir))
    });
}

#[test]
fn memory_says_what_it_is() {
    let nothing = Capabilities {
        hard_links: false,
        special_files: false,
        atomic_rename: false,
        exchange: false,
        changes_from_outside: false,
        persistent: false,
        system_xattrs: false,
        appends: false,
    };
    let (a, b) = (MemoryBackend::new(), MemoryBackend::default());
    assert_eq!(a.capabilities(), nothing);
    assert_ne!(a.store_id(), b.store_id());
    assert!(a.watch(Box::new(|_| {})).unwrap().is_none());
}
