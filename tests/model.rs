//! `fs::Fs` against a small reference model: two mounts of one store, and changes from outside, mixed at random.
//!
//! After every step the whole tree is compared as both mounts and the store directory show it, with every open
//! handle, every key's history and the conflicts. `PROPTEST_CASES` says how many sequences are tried; what failed
//! once is tried first, from `model.proptest-regressions`.

#[path = "model/compare.rs"]
mod compare;
#[path = "model/driver.rs"]
mod driver;
#[path = "model/files.rs"]
mod files;
#[path = "model/history.rs"]
mod history;
#[path = "model/metadata.rs"]
mod metadata;
#[path = "model/names.rs"]
mod names;
#[path = "model/ops.rs"]
mod ops;
#[path = "model/outside.rs"]
mod outside;
#[path = "model/sessions.rs"]
mod sessions;
#[path = "model/tree.rs"]
mod tree;

use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngSeed};

use driver::{Driver, Medium};
use ops::Op;

/// Enough for CI to take seconds. `PROPTEST_CASES` overrides it.
const CASES: u32 = 256;

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES);
    let default = ProptestConfig::default();
    // The same cases on every machine, so that a change is judged by what it does; `PROPTEST_RNG_SEED=N` tries others,
    // and what they find stays in the regression file.
    let explores = std::env::var_os("PROPTEST_RNG_SEED").is_some();
    ProptestConfig {
        cases,
        rng_seed: if explores { default.rng_seed } else { RngSeed::Fixed(20_261_123) },
        max_shrink_iters: 20_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/model.proptest-regressions"))),
        ..default
    }
}

fn run(medium: Medium, ops: &[Op]) -> Result<(), TestCaseError> {
    // In one line, which proptest's own report isn't.
    Driver::new(medium).run(ops).map_err(|error| TestCaseError::fail(format!("{error}\nafter {ops:?}")))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn two_mounts_and_the_outside(ops in ops::sequence(true)) {
        run(Medium::File, &ops)?;
    }

    #[test]
    fn one_mount_of_a_flat_space(ops in ops::sequence(false)) {
        run(Medium::Memory, &ops)?;
    }
}
