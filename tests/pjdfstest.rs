//! POSIX conformance: what passes on the ext4 below must pass on a mount of a store on that same ext4.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{LoopFs, Scratch, Store, need_root, run_within, script_with_mount_helper, tool};

/// Of the 398 cases of version 0.2.2, so many pass on ext4 at least; fewer means that the suite didn't run as it
/// should, and a comparison with it would prove nothing.
const NATIVE_AT_LEAST: usize = 390;

/// Users that every Debian has, each with its own group.
const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}

[settings]
naptime = 0.02
allow_remount = true

[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"]]
"#;

/// What the suite can't try on any FUSE filesystem: it asks the C library for the greatest number of links, which
/// answers by the filesystem's type and knows nothing of FUSE's. `as_root_there_are_as_many_links_as_below` tries it.
const ELSEWHERE: &[&str] = &["link::link_count_max"];

#[derive(Debug, Clone, PartialEq, Eq)]
struct Case {
    outcome: String,
    detail: String,
}

/// Runs the suite in `dir` and returns the outcome of each case.
fn conformance(configuration: &Path, dir: &Path, secondary: &Path) -> BTreeMap<String, Case> {
    let shown = |path: &Path| format!("'{}'", path.display());
    let suite = tool("pjdfstest");
    let text =
        [suite.as_path(), Path::new("-c"), configuration, Path::new("-p"), dir, Path::new("-s"), secondary].map(shown);
    // It remounts the filesystem read-only in between, which takes Sepia's helper for mount(8). Its exit code only says
    // whether all passed.
    let mut command = script_with_mount_helper(dir.parent().unwrap(), &format!("{} || true", text.join(" ")));
    command.env("NO_COLOR", "1").env_remove("RUST_BACKTRACE");
    let output = run_within(&mut command, common::LIMIT * 2);
    let text = output.text();
    assert!(text.contains("\nSummary: "), "pjdfstest did not come to its end:\n{text}\n{}", output.stderr);
    let mut cases: BTreeMap<String, Case> = BTreeMap::new();
    let mut last = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [name, outcome @ ("ok" | "FAILED" | "skipped")] if name.contains("::") => {
                let case = Case { outcome: outcome.to_owned(), detail: String::new() };
                assert!(cases.insert(name.to_owned(), case).is_none(), "{name} ran twice");
                last = Some(name.to_owned());
            }
            _ => {
                if let Some(case) = last.as_ref().and_then(|name| cases.get_mut(name)) {
                    case.detail.push_str(line);
                    case.detail.push('\n');
                }
            }
        }
    }
    cases
}

fn count(cases: &BTreeMap<String, Case>, outcome: &str) -> usize {
    cases.values().filter(|case| case.outcome == outcome).count()
}

#[test]
fn as_root_what_passes_on_ext4_passes_on_the_mount() {
    need_root();
    let scratch = Scratch::new();
    let disk = LoopFs::new(&scratch, "ext4", 1 << 30);
    let other = LoopFs::new(&scratch, "xfs", 512 << 20);
    let configuration = scratch.path().join("pjdfstest.toml");
    fs::write(&configuration, CONFIGURATION).unwrap();

    let native_dir = disk.path().join("native");
    fs::create_dir(&native_dir).unwrap();
    let native = conformance(&configuration, &native_dir, other.path());
    let native_passed = count(&native, "ok");
    assert!(
        native_passed >= NATIVE_AT_LEAST,
        "only {native_passed} of {} cases passed on ext4 itself, so there is nothing to compare with: {:#?}",
        native.len(),
        native.iter().filter(|(_, case)| case.outcome != "ok").collect::<Vec<_>>()
    );

    let store = Store::at(scratch.clone(), disk.path().join("store"));
    let mount = store.mount_with(&["--allow-other"]);
    let mounted = conformance(&configuration, mount.path(), other.path());
    println!("{native_passed} cases pass on ext4, {} on the mount, of {}", count(&mounted, "ok"), mounted.len());

    let regressions: Vec<String> = native
        .iter()
        .filter(|(name, case)| case.outcome == "ok" && !ELSEWHERE.contains(&name.as_str()))
        .filter_map(|(name, _)| match mounted.get(name) {
            Some(case) if case.outcome == "ok" => None,
            Some(case) => Some(format!("{name}: {}\n{}", case.outcome, case.detail)),
            None => Some(format!("{name}: did not run\n")),
        })
        .collect();
    assert!(
        regressions.is_empty(),
        "{} cases pass on ext4 and not on the mount:\n{}",
        regressions.len(),
        regressions.concat()
    );
    mount.unmount();
}
