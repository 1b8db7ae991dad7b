//! Random reads, writes, maps, truncations, holes and copies on one file, each compared with what must be there.
//!
//! `SEPIA_FSX_SEEDS` and `SEPIA_FSX_OPS` make it longer than 5 seeds of 20,000 operations; `SEPIA_FSX_FIRST_SEED`
//! starts elsewhere. More than 20,000 operations, or `SEPIA_FSX_RUN`, are several runs of fsx, one after the other on the same
//! file, the later ones with seeds of their own: fsx 0.3.2 never unmaps what it has mapped for writing, gets slower with
//! that, and ends at the kernel's limit of mappings.

mod common;

use std::fs;
use std::process::Command;
use std::time::Duration;

use common::{Store, run_within, tool};

/// Between the seeds of the runs.
const STRIDE: u64 = 1_000_000;

const CONFIGURATION: &str = r#"
flen = 262144

[opsize]
# fsx takes the error of a posix_fallocate of nothing, which POSIX asks for, for "not supported".
min = 1
max = 65536

[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 4
fsync = 1
fdatasync = 1
posix_fallocate = 2
punch_hole = 4
sendfile = 4
posix_fadvise = 1
copy_file_range = 4
"#;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => default,
    }
}

#[test]
fn random_operations_read_back_what_was_written() {
    let operations = number("SEPIA_FSX_OPS", 20_000);
    let first = number("SEPIA_FSX_FIRST_SEED", 1);
    let seeds = number("SEPIA_FSX_SEEDS", 5);
    let most = number("SEPIA_FSX_RUN", 20_000);
    assert!(operations > 0 && seeds > 0 && most > 0);
    for seed in first..first + seeds {
        // A store each: the history of a million operations need not be kept.
        let store = Store::new();
        let mount = store.mount();
        let artifacts = store.scratch().dir("artifacts");
        let configuration = store.scratch().path().join("fsx.toml");
        fs::write(&configuration, CONFIGURATION).unwrap();
        let file = mount.join("file");
        for run in 0..operations.div_ceil(most) {
            let (seed, operations) = (seed + run * STRIDE, most.min(operations - run * most));
            let mut command = Command::new(tool("fsx"));
            command.arg("-f").arg(&configuration).arg("-P").arg(&artifacts);
            command.args(["-S", &seed.to_string(), "-N", &operations.to_string()]).arg(&file);
            // Not a measure: a millisecond and a half an operation is many times what it takes.
            let output = run_within(&mut command, common::LIMIT + Duration::from_micros(1_500) * operations as u32);
            let said = format!("{}{}", output.text(), output.stderr);
            assert!(output.status.success(), "fsx failed with seed {seed} ({}):\n{said}", output.status);
        }
        println!("seed {seed}: {operations} operations");

        // What the mount showed last is what the store holds, and what the next mount shows.
        let last = fs::read(&file).unwrap();
        mount.unmount();
        assert!(last == fs::read(store.path().join("file")).unwrap(), "seed {seed}: the store holds other bytes");
        let again = store.mount();
        assert!(last == fs::read(again.join("file")).unwrap(), "seed {seed}: the next mount shows other bytes");
        again.unmount();
    }
}
