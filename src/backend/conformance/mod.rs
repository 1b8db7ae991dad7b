//! What every [`Backend`] must do, as a list of cases that run over any of them.
//!
//! Written against the documentation of the trait. What a backend says that it can't do ([`Capabilities`]) it must
//! refuse with [`Error::Unsupported`]; no case is ever skipped. This is a test suite: it panics where a promise is
//! broken, with the name of the case.
//!
//! ```
//! use std::sync::Arc;
//! use sepia::backend::{Backend, conformance, memory::MemoryBackend};
//! let case = conformance::CASES.iter().find(|(name, _)| *name == "odd_names").unwrap();
//! (case.1)(&MemoryBackend::new());
//! ```

mod appends;
mod commits;
mod drops;
mod entries;
mod history;
mod links;
mod metadata;
mod numbering;
mod races;
mod records;
mod renames;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use super::{
    Backend, Capabilities, Commit, Creator, Error, GenerationInfo, Intent, Kept, Rename, Result, Staged, Stat,
};
use crate::types::{Generation, Key, Precondition};

/// A case: its name, and the function that panics when the backend, with an empty store, breaks a promise.
pub type Case = (&'static str, fn(&dyn Backend));

macro_rules! cases {
    ($($module:ident: $($case:ident),+;)+) => { &[$($((stringify!($case), $module::$case as fn(&dyn Backend)),)+)+] };
}

/// All cases. Each wants an empty store of its own.
pub const CASES: &[Case] = cases! {
    entries: the_root_always_exists, directories_are_made_listed_and_removed, missing_and_not_directory,
        names_are_exclusive, creators_and_setgid_directories, directory_times_and_links, odd_names,
        the_reserved_name_is_not_listed, the_rest_of_the_house;
    links: symlinks, hard_links, special_files;
    metadata: attributes_are_set, ownership_clears_suid, extended_attributes, attribute_name_spaces,
        metadata_makes_no_generation, metadata_survives_a_commit;
    commits: a_commit_makes_a_generation, a_fresh_precondition_holds, a_stale_commit_changes_nothing,
        commits_where_no_file_is, a_commit_takes_the_staged_modification_time, reservations,
        an_amendment_is_the_same_generation, durable_commits,
        what_a_commit_makes_has_the_mode,
        open_files_keep_their_bytes, removal_under_a_precondition;
    appends: an_append_makes_a_generation, an_append_at_a_stale_base_fails, appends_merge,
        an_append_grows_no_further_than_it_may,
        an_append_does_not_merge_with_a_rewrite, an_append_does_not_merge_with_an_amendment,
        appends_merge_under_several_names, prefixes_stay_readable, an_amended_append,
        an_amendment_leaves_the_prefix_alone, what_a_prefix_needs_is_not_dropped;
    history: generations_are_listed_in_order, histories_are_found_level_by_level, deleted_generations_stay, missing_generations,
        generations_are_dropped, histories_are_found, generations_keep_their_metadata;
    drops: several_are_dropped_at_once, a_beginning_outlives_the_drop_of_a_longer_one, only_the_very_generation_is_dropped, what_came_back_is_left_alone,
        any_beginning_can_be_dropped, what_is_not_kept_leaves_nothing, a_key_is_forgotten,
        attributes_of_older_generations, a_name_is_locked_once;
    numbering: numbers_go_on_after_a_removal, numbers_go_on_after_a_rename_over, numbers_go_on_after_there_and_back,
        numbers_go_on_where_something_left, numbers_go_on_where_something_young_left, numbers_go_on_when_all_is_dropped, numbers_go_on_at_an_older_name;
    renames: a_rename_takes_the_history_along, a_rename_over_is_a_commit, an_older_history_stays,
        renames_under_preconditions, refused_renames, a_directory_moves_with_its_members,
        histories_of_members_are_joined, a_member_without_history_counts_on, histories_of_members_stay_where_a_directory_was, a_rename_to_itself,
        an_exchange, prefixes_survive_a_rename_over, prefixes_survive_where_something_left;
    races: held_still_nothing_changes, one_reserves, one_commits, names_of_one_object_take_turns,
        increments_add_up, appends_add_up, one_name_one_kind,
        removal_of_a_directory_against_creation;
    records: records_are_stored_and_listed, records_are_appended_to, appends_to_a_record_follow_each_other,
        staged_bytes_become_a_record;
};

/// Runs every case over a store of its own, made by `make`.
///
/// # Panics
/// When a promise is broken; the message on standard error before it names the case.
pub fn run(make: &dyn Fn() -> Arc<dyn Backend>) {
    for (name, case) in CASES {
        let backend = make();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(&*backend))) {
            eprintln!("conformance: the case {name} failed");
            resume_unwind(panic);
        }
    }
}

// What the cases are written in.

/// A commit without anything special.
const fn when(expect: Precondition) -> Commit {
    Commit { expect, durable: false, amend: false, merge: None, sum: None, keep: true, max_size: None, mode: 0o666 }
}

const ANY: Precondition = Precondition::Any;
const RENAME: Rename = Rename { expect_from: ANY, expect_to: ANY, exchange: false };

fn key(path: &str) -> Key {
    Key::parse(path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn generation(number: u64) -> Generation {
    Generation::new(number).unwrap_or_else(|| panic!("0 is no generation"))
}

/// The value of something that must succeed.
#[track_caller]
fn good<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("should have succeeded: {error}"))
}

/// Fails unless `result` is an error that matches the pattern.
macro_rules! refused {
    ($result:expr, $pattern:pat $(if $guard:expr)?) => {
        match $result {
            Err($pattern) $(if $guard)? => {}
            Err(other) => panic!("the wrong error: {other:?}"),
            Ok(value) => panic!("should have been refused: {value:?}"),
        }
    };
}
use refused;

/// Fails unless `result` is refused because `current` is current. Where nothing was to be there, [`Error::Exists`]
/// says as much.
#[track_caller]
fn stale<T: std::fmt::Debug>(result: Result<T>, expect: Precondition, current: Option<Generation>) {
    match result {
        Err(Error::Stale { current: told, .. }) if told == current => {}
        Err(Error::Exists(_)) if expect == Precondition::Absent => {}
        other => panic!("{expect:?} should have been stale, {current:?} being current: {other:?}"),
    }
}

/// Fails unless `result` is refused, as what this medium can't do.
#[track_caller]
fn unsupported<T: std::fmt::Debug>(result: Result<T>) {
    refused!(result, Error::Unsupported(..));
}

fn can(backend: &dyn Backend) -> Capabilities {
    backend.capabilities()
}

fn mkdir(backend: &dyn Backend, path: &str) -> Stat {
    good(backend.create_dir(&key(path), 0o755, &Creator::current()))
}

/// Staged bytes from an offset on.
fn stage_at(backend: &dyn Backend, path: &Key, from: u64, bytes: &[u8]) -> Staged {
    let append_from = (from > 0).then_some(from);
    let intent = Intent {
        key: path.clone(),
        expect: ANY,
        append_from,
        base: None,
        acknowledged: false,
        in_place: false,
        sum: None,
        copied: false,
    };
    let staged = backend.staging().stage(&intent).unwrap_or_else(|e| panic!("can't stage: {e}"));
    staged.file().write_all_at(bytes, from).unwrap_or_else(|e| panic!("can't write what is staged: {e}"));
    staged
}

/// Commits bytes; staged bytes that come back must be unharmed.
fn commit(backend: &dyn Backend, path: &Key, bytes: &[u8], how: &Commit) -> Result<Stat> {
    let staged = stage_at(backend, path, 0, bytes);
    backend.commit(path, staged, how, &Creator::current()).map_err(|(error, staged)| {
        assert_eq!(read_all(staged.file()), bytes, "the staged bytes were harmed");
        assert!(staged.path().exists(), "the staged file is gone");
        staged.discard();
        error
    })
}

/// Makes bytes the current generation, whatever is there.
#[track_caller]
fn put(backend: &dyn Backend, path: &str, bytes: &str) -> Stat {
    good(commit(backend, &key(path), bytes.as_bytes(), &when(ANY)))
}

/// Appends bytes behind the first `from`.
fn append(backend: &dyn Backend, path: &str, from: u64, bytes: &str, how: &Commit) -> Result<Stat> {
    let staged = stage_at(backend, &key(path), from, bytes.as_bytes());
    let result = backend.append(&key(path), &staged, from, how);
    staged.discard();
    result
}

fn read_all(file: &File) -> Vec<u8> {
    let size = file.metadata().unwrap_or_else(|e| panic!("can't stat: {e}")).len();
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, 0).unwrap_or_else(|e| panic!("can't read: {e}"));
    bytes
}

/// The current bytes, of which `stat` must tell the truth.
#[track_caller]
fn read(backend: &dyn Backend, path: &str) -> String {
    let opened = good(backend.open(&key(path)));
    let stat = good(backend.stat(&key(path)));
    let bytes = read_all(&opened.file);
    assert_eq!((opened.stat.size, stat.size), (bytes.len() as u64, bytes.len() as u64), "{path}: size");
    assert_eq!(opened.stat.generation, stat.generation, "{path}: generation");
    assert!(opened.stat.same_bytes(&stat), "{path}: opened other bytes than it says");
    text(bytes)
}

/// The bytes of a generation.
#[track_caller]
fn read_generation(backend: &dyn Backend, path: &str, number: u64) -> String {
    let opened = good(backend.open_generation(&key(path), generation(number)));
    assert_eq!(opened.stat.generation, Some(generation(number)), "{path}: says that it is another generation");
    // A generation that is the beginning of another may be opened as that file.
    let mut bytes = read_all(&opened.file);
    assert!(bytes.len() as u64 >= opened.stat.size, "{path}: generation {number} is cut off");
    bytes.truncate(opened.stat.size as usize);
    text(bytes)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| panic!("other bytes than were written: {e}"))
}

/// The generations whose bytes are kept. A backend may list others as [`Kept::Lost`], to say what became of them.
#[track_caller]
fn kept(backend: &dyn Backend, path: &str) -> Vec<GenerationInfo> {
    let mut infos = good(backend.generations(&key(path)));
    for info in &infos {
        assert_eq!(
            good(backend.generation(&key(path), info.generation)).as_ref(),
            Some(info),
            "asked for by its number"
        );
    }
    assert!(infos.is_sorted_by(|a, b| a.generation < b.generation), "{path}: oldest first, and each once");
    infos.retain(|info| !matches!(info.kept, Kept::Lost(_)));
    infos
}

/// The keys at or below `dir` of which bytes are kept.
#[track_caller]
fn histories(backend: &dyn Backend, dir: &str) -> Vec<Key> {
    let mut keys = good(backend.histories(&key(dir)));
    keys.retain(|key| good(backend.generations(key)).iter().any(|info| !matches!(info.kept, Kept::Lost(_))));
    keys.sort_unstable();
    keys
}

/// The numbers of what is kept.
#[track_caller]
fn numbers(backend: &dyn Backend, path: &str) -> Vec<u64> {
    kept(backend, path).iter().map(|info| info.generation.get()).collect()
}

/// The names in a directory, sorted.
#[track_caller]
fn names(backend: &dyn Backend, dir: &str) -> Vec<String> {
    let entries = good(backend.list(&key(dir)));
    let mut names: Vec<_> = entries.into_iter().map(|entry| entry.name.to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

/// The generation that is current, which must be one.
#[track_caller]
fn current(backend: &dyn Backend, path: &str) -> u64 {
    good(backend.stat(&key(path))).generation.map_or_else(|| panic!("{path}: has no generation"), Generation::get)
}
