//! Two mounts of one store: no update is lost, no line, nobody sees half an object, and after a close on one mount an
//! open on the other sees the bytes.

mod common;
mod rig;

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{LIMIT, Mount, Store, run, run_within, wait_for};
use rig::load::close;
use rig::record::{self, Tag, read_object};
use rustix::fs::{FlockOperation, XattrFlags, flock};
use rustix::io::Errno;

struct Pair {
    a: Mount,
    b: Mount,
    store: Store,
}

fn pair() -> Pair {
    let store = Store::new();
    let (a, b) = (store.mount(), store.mount());
    fs::create_dir(a.join("Note")).unwrap();
    Pair { a, b, store }
}

fn is_stale(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::STALE.raw_os_error())
}

// Increments, each in a process of its own kind: the test runs itself again

const PROCESSES: u64 = 4;

#[test]
fn increments_by_write_and_retry_add_up() {
    increments("in place", 1000);
}

#[test]
fn increments_by_rename_and_expectation_add_up() {
    increments("rename", 250);
}

fn increments(how: &str, each: u64) {
    let pair = pair();
    fs::write(pair.a.join("Note/counter"), "0").unwrap();
    let mut children: Vec<Child> = (0..PROCESSES)
        .map(|number| {
            let mount = if number % 2 == 0 { &pair.a } else { &pair.b };
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "helper_that_increments", "--ignored", "--nocapture"])
                .env("SEPIA_TEST_COUNTER", mount.join("Note/counter"))
                .env("SEPIA_TEST_NUMBER", number.to_string())
                .env("SEPIA_TEST_HOW", how)
                .env("SEPIA_TEST_INCREMENTS", each.to_string())
                // Sepia detects conflicts between mounts; within a mount POSIX has its own locks.
                .env("SEPIA_TEST_LOCK", pair.store.scratch().path().join(format!("lock{}", number % 2)))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut stale = 0;
    for child in &mut children {
        let status = wait_for("the increments", || child.try_wait().unwrap());
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(status.success(), "{said}");
        let count = said.split("stale: ").nth(1).and_then(|rest| rest.split_whitespace().next());
        stale += count.unwrap_or_else(|| panic!("{said}")).parse::<u64>().unwrap();
    }
    let total = PROCESSES * each;
    for mount in [&pair.a, &pair.b] {
        assert_eq!(fs::read_to_string(mount.join("Note/counter")).unwrap(), total.to_string());
    }
    assert!(stale > 0, "no increment ever met another: this run has shown nothing");
    let library = sepia::Store::open(pair.store.path().to_str().unwrap()).unwrap();
    let history = library.history(&sepia::Key::parse("Note/counter").unwrap()).unwrap();
    assert_eq!(history.len() as u64, total + 1, "each increment is a generation");
    if how == "in place" {
        assert_eq!(library.conflicts().unwrap().len() as u64, stale, "each loser's bytes are kept");
    }
    println!("{total} increments {how}, {stale} of them retried");
}

#[test]
#[ignore = "no test: `increments` runs it as a process of its own"]
fn helper_that_increments() {
    let path = PathBuf::from(std::env::var_os("SEPIA_TEST_COUNTER").unwrap());
    let lock = File::create(std::env::var_os("SEPIA_TEST_LOCK").unwrap()).unwrap();
    let number = std::env::var("SEPIA_TEST_NUMBER").unwrap();
    let step: fn(&Path, &str) -> io::Result<()> = match &*std::env::var("SEPIA_TEST_HOW").unwrap() {
        "rename" => increment_by_rename,
        _ => increment_in_place,
    };
    let mut stale = 0;
    for _ in 0..rig::number_from_env("SEPIA_TEST_INCREMENTS").unwrap() {
        loop {
            flock(&lock, FlockOperation::LockExclusive).unwrap();
            let result = step(&path, &number);
            flock(&lock, FlockOperation::Unlock).unwrap();
            match result {
                Ok(()) => break,
                Err(error) if is_stale(&error) => stale += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }
    println!("stale: {stale} ");
}

fn increment_in_place(path: &Path, _number: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let next = text.parse::<u64>().unwrap_or_else(|e| panic!("{e}: {text:?}")) + 1;
    file.write_all_at(next.to_string().as_bytes(), 0)?;
    close(file)
}

fn increment_by_rename(path: &Path, number: &str) -> io::Result<()> {
    // The generation first: if the bytes are newer than it, the rename refuses.
    let generation = get_xattr(path, "user.sepia.generation")?;
    let next = fs::read_to_string(path)?.parse::<u64>().unwrap() + 1;
    let new = path.with_file_name(format!(".counter.{number}"));
    fs::write(&new, next.to_string())?;
    rustix::fs::setxattr(path, "user.sepia.expect", generation.as_bytes(), XattrFlags::empty())?;
    fs::rename(new, path)
}

fn get_xattr(path: &Path, name: &str) -> io::Result<String> {
    let mut value = [0; 64];
    let n = rustix::fs::getxattr(path, name, &mut value)?;
    Ok(String::from_utf8(value[..n].to_vec()).unwrap())
}

/// A lost session must not drag in those who open the object after it has lost.
#[test]
fn who_opens_after_a_loss_is_not_lost() {
    let pair = pair();
    let (a, b) = (pair.a.join("Note/n"), pair.b.join("Note/n"));
    fs::write(&a, "one").unwrap();
    let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path).unwrap();
    let (loser, witness) = (open(&a), open(&a));
    loser.write_all_at(b"lost", 0).unwrap();
    fs::write(&b, "two").unwrap();
    assert!(is_stale(&close(loser).unwrap_err()));
    // The witness still holds the lost session open.
    let mut fresh = open(&a);
    let mut text = String::new();
    fresh.read_to_string(&mut text).unwrap();
    assert_eq!(text, "two");
    fresh.write_all_at(b"2+1", 0).unwrap();
    close(fresh).unwrap();
    assert_eq!(fs::read_to_string(&b).unwrap(), "2+1");
    drop(witness);
    assert_eq!(fs::read_to_string(&b).unwrap(), "2+1");
}

#[test]
fn appends_from_both_sides_lose_no_line() {
    let pair = pair();
    let log = "Note/log";
    fs::write(pair.a.join(log), "").unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4u64 {
            let path = if writer % 2 == 0 { pair.a.join(log) } else { pair.b.join(log) };
            scope.spawn(move || {
                for seq in 0..250 {
                    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
                    file.write_all(&record::line(Tag { seq, writer }, 40)).unwrap();
                    close(file).unwrap_or_else(|e| panic!("writer {writer}, line {seq}: {e}"));
                }
            });
        }
    });
    // The store first: it tells bytes that are wrong from bytes that a mount shows wrongly.
    for path in [pair.store.path().join(log), pair.a.join(log), pair.b.join(log)] {
        let wrong = |e| panic!("{}: {e}", path.display());
        let lines = record::read_lines(&fs::read(&path).unwrap()).unwrap_or_else(wrong);
        for writer in 0..4 {
            let of_one: Vec<u64> = lines.iter().filter(|tag| tag.writer == writer).map(|tag| tag.seq).collect();
            assert_eq!(of_one, (0..250).collect::<Vec<_>>(), "{}: writer {writer}", path.display());
        }
    }
    assert_eq!(pair.store.conflicts(), Vec::<serde_json::Value>::new());
}

#[test]
fn exclusive_creation_excludes_across_mounts() {
    let pair = pair();
    let (inside, entered) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..4 {
            let lock = if number % 2 == 0 { pair.a.join("Note/lock") } else { pair.b.join("Note/lock") };
            let (inside, entered) = (&inside, &entered);
            scope.spawn(move || {
                for _ in 0..50 {
                    let file =
                        wait_for("the lock", || match OpenOptions::new().write(true).create_new(true).open(&lock) {
                            Ok(file) => Some(file),
                            Err(error) if error.kind() == ErrorKind::AlreadyExists => None,
                            Err(error) => panic!("{error}"),
                        });
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two hold the lock");
                    (&file).write_all(number.to_string().as_bytes()).unwrap();
                    drop(file);
                    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                    entered.fetch_add(1, Ordering::SeqCst);
                    fs::remove_file(&lock).unwrap();
                }
            });
        }
    });
    assert_eq!(entered.into_inner(), 200);
}

#[test]
fn a_reader_never_sees_a_mix() {
    let pair = pair();
    let name = "Note/big";
    let object = |seq: u64| record::object(Tag { seq, writer: 7 }, 1000 + (seq as usize * 7919) % 400_000);
    fs::write(pair.a.join(name), object(0)).unwrap();
    let done = AtomicBool::new(false);
    let reads = AtomicU64::new(0);
    let seen_changes = AtomicU64::new(0);
    std::thread::scope(|scope| {
        // Two through the other mount, one through the writer's own, one past Sepia.
        for path in [pair.b.join(name), pair.b.join(name), pair.store.path().join(name)] {
            let (done, reads, seen_changes) = (&done, &reads, &seen_changes);
            scope.spawn(move || {
                let mut newest = 0;
                while !done.load(Ordering::SeqCst) {
                    let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                    let tag = read_object(&bytes).unwrap_or_else(|e| panic!("{}: torn: {e}", path.display()));
                    assert!(tag.seq >= newest, "{}: went back from {newest} to {}", path.display(), tag.seq);
                    if tag.seq > newest {
                        seen_changes.fetch_add(1, Ordering::SeqCst);
                    }
                    newest = tag.seq;
                    reads.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let _stop = Stop(&done);
        for seq in 1..=400 {
            let path = pair.a.join(name);
            if seq % 2 == 0 {
                let new = pair.a.join("Note/.big.new");
                fs::write(&new, object(seq)).unwrap();
                fs::rename(new, path).unwrap();
            } else {
                let file = OpenOptions::new().write(true).truncate(true).open(path).unwrap();
                for piece in object(seq).chunks(50_000) {
                    (&file).write_all(piece).unwrap();
                }
                close(file).unwrap();
            }
        }
    });
    assert!(seen_changes.into_inner() > 20 && reads.into_inner() > 100, "the readers saw too little");
}

/// Ends the readers, also when the writer fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn after_a_close_the_other_mount_opens_the_new_bytes() {
    let pair = pair();
    let mut dice = rig::Dice::from_env();
    let mut writers = [&pair.a, &pair.b];
    for round in 0..1000u64 {
        if dice.one_in(2) {
            writers.swap(0, 1);
        }
        let [here, there] = writers;
        let (name, other) = (format!("Note/n{}", dice.below(5)), format!("Note/m{}", dice.below(5)));
        // What the other side has cached is what may be wrong.
        let _ = fs::read(there.join(&name));
        let _ = fs::metadata(there.join(&other));
        let bytes = record::object(Tag { seq: round, writer: 1 }, dice.below(20_000) as usize);
        let saw = |name: &str| fs::read(there.join(name)).map_err(|error| error.kind());
        match dice.below(4) {
            0 => {
                let _ = fs::remove_file(here.join(&name));
                assert_eq!(saw(&name), Err(ErrorKind::NotFound), "round {round}: {name} was removed");
            }
            1 => {
                fs::write(here.join(&name), &bytes).unwrap();
                fs::rename(here.join(&name), here.join(&other)).unwrap();
                assert_eq!(saw(&name), Err(ErrorKind::NotFound), "round {round}: {name} was renamed to {other}");
                assert!(saw(&other) == Ok(bytes), "round {round}: {other} was {name}");
            }
            2 => {
                let name = format!("Note/new{round}");
                assert_eq!(saw(&name), Err(ErrorKind::NotFound));
                fs::write(here.join(&name), &bytes).unwrap();
                assert!(saw(&name) == Ok(bytes), "round {round}: {name} is new");
            }
            _ => {
                let file = OpenOptions::new().write(true).create(true).truncate(true).open(here.join(&name)).unwrap();
                (&file).write_all(&bytes).unwrap();
                close(file).unwrap();
                assert!(saw(&name) == Ok(bytes), "round {round}: {name} was written");
            }
        }
    }
}

/// A conflict at `name`, whose loser wrote `lost`; returns its ID.
fn conflict(pair: &Pair, name: &str, lost: &[u8]) -> String {
    fs::write(pair.a.join(name), "base").unwrap();
    let loser = OpenOptions::new().write(true).truncate(true).open(pair.a.join(name)).unwrap();
    (&loser).write_all(lost).unwrap();
    fs::write(pair.b.join(name), "winner").unwrap();
    assert!(is_stale(&close(loser).unwrap_err()));
    assert_eq!(fs::read(pair.a.join(name)).unwrap(), b"winner");
    let conflicts = pair.store.conflicts();
    let of_this: Vec<_> = conflicts.iter().filter(|conflict| conflict["key"] == name).collect();
    assert_eq!(of_this.len(), 1, "{conflicts:?}");
    assert_eq!(of_this[0]["reason"], "stale");
    assert_eq!(of_this[0]["size"], lost.len());
    let id = of_this[0]["id"].as_str().unwrap().to_owned();
    let kept = run(&mut rig::conflicts(&pair.store, &["show", &id, "--bytes"])).stdout;
    assert!(kept == lost, "the loser's bytes are whole");
    id
}

#[test]
fn a_conflict_keeps_the_loser_and_can_be_resolved() {
    let pair = pair();
    let lost = record::object(Tag { seq: 1, writer: 1 }, 200_000);
    let resolve = |id: &str, how: &[&str]| {
        run(&mut rig::conflicts(&pair.store, &[&["resolve", id], how].concat()));
    };
    let id = conflict(&pair, "Note/take", &lost);
    resolve(&id, &["--take"]);
    assert!(fs::read(pair.b.join("Note/take")).unwrap() == lost);
    assert_eq!(pair.store.generations("Note/take"), [1, 2, 3]);
    assert_eq!(pair.store.cat("Note/take", Some(2)), b"winner");

    let id = conflict(&pair, "Note/keep", &lost);
    resolve(&id, &["--keep"]);
    assert_eq!(fs::read(pair.b.join("Note/keep")).unwrap(), b"winner");

    let id = conflict(&pair, "Note/as", &lost);
    resolve(&id, &["--as", "loser"]);
    assert_eq!(fs::read(pair.b.join("Note/as")).unwrap(), b"winner");
    assert!(fs::read(pair.b.join("Note/loser")).unwrap() == lost);

    let id = conflict(&pair, "Note/taken", &lost);
    let output = run_within(&mut rig::conflicts(&pair.store, &["resolve", &id, "--as", "as"]), LIMIT);
    assert_eq!(output.status.code(), Some(4), "{}", output.stderr);
    assert_eq!(pair.store.conflicts().len(), 1, "it stays as it was");
    resolve(&id, &["--keep"]);
    assert!(pair.store.conflicts().is_empty());
}

#[test]
fn expectations_make_the_shell_compare_and_swap() {
    let store = Store::new();
    let mount = store.mount();
    mount.sh(r#"
        mkdir Note; cd Note
        stale() { if "$@" 2> ../said; then echo "succeeded: $*"; exit 1; fi; grep -q 'Stale file handle' ../said; }
        expect() { setfattr -n user.sepia.expect -v "$1" "$2"; }
        put() { printf '%s' "$1" | dd status=none of="$2"; }

        put one f; put two f
        [ "$(getfattr --only-values -n user.sepia.generation f)" = 2 ]
        expect 1 f; stale put lost f
        [ "$(cat f)" = two ]
        # It was for one save: the next one is free again.
        put three f; [ "$(cat f)" = three ]
        expect 3 f; put four f; [ "$(cat f)" = four ]

        put new g
        expect 3 f; stale mv g f
        [ "$(cat f)" = four ]; [ "$(cat g)" = new ]
        expect 4 f; mv g f; [ "$(cat f)" = new ]

        expect 4 f; stale rm f
        [ "$(cat f)" = new ]
        expect 5 f; rm f; [ ! -e f ]
    "#);
    assert_eq!(store.generations("Note/f"), [1, 2, 3, 4, 5]);
    mount.unmount();
}

// What the kernel was told while there was one mount only

#[test]
fn what_a_kernel_believed_when_its_mount_was_alone_is_not_believed_any_more() {
    let store = Store::new();
    let a = store.mount();
    for dir in ["kept", "moved", "replaced"] {
        fs::create_dir(a.join(dir)).unwrap();
        for file in ["changed", "gone", "moved", "new owner", "replaced"] {
            fs::write(a.join(dir).join(file), "before").unwrap();
        }
        std::os::unix::fs::symlink("before", a.join(dir).join("link")).unwrap();
    }
    let everything = || run(Command::new("ls").args(["-lRi"]).arg(a.path())).text();
    assert_eq!(everything(), everything());

    let b = store.mount();
    let kept = b.join("kept");
    fs::write(kept.join("changed"), "after it").unwrap();
    fs::remove_file(kept.join("gone")).unwrap();
    fs::rename(kept.join("moved"), kept.join("elsewhere")).unwrap();
    fs::write(kept.join("new"), "another").unwrap();
    fs::rename(kept.join("new"), kept.join("replaced")).unwrap();
    fs::remove_file(kept.join("new owner")).unwrap();
    fs::write(kept.join("new owner"), "not the same").unwrap();
    fs::remove_file(kept.join("link")).unwrap();
    std::os::unix::fs::symlink("after", kept.join("link")).unwrap();
    fs::rename(b.join("moved"), b.join("elsewhere")).unwrap();
    fs::rename(b.join("replaced"), b.join("old")).unwrap();
    fs::create_dir(b.join("replaced")).unwrap();

    // At once, and without a listing that would tell the kernel.
    let kept = a.join("kept");
    assert_eq!(fs::metadata(kept.join("changed")).unwrap().len(), 8);
    assert_eq!(fs::read_to_string(kept.join("changed")).unwrap(), "after it");
    for gone in ["kept/gone", "kept/moved", "moved", "moved/changed", "replaced/changed", "replaced/link"] {
        assert_eq!(fs::symlink_metadata(a.join(gone)).unwrap_err().kind(), ErrorKind::NotFound, "{gone}");
        assert_eq!(File::open(a.join(gone)).unwrap_err().kind(), ErrorKind::NotFound, "{gone}");
    }
    assert_eq!(fs::read_link(kept.join("link")).unwrap(), Path::new("after"));
    assert_eq!(fs::read_to_string(kept.join("replaced")).unwrap(), "another");
    assert_eq!(fs::read_to_string(a.join("elsewhere/replaced")).unwrap(), "before");
    // A change by name reaches what has the name now.
    fs::set_permissions(kept.join("new owner"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(fs::read_to_string(kept.join("new owner")).unwrap(), "not the same");
    assert_eq!(
        everything(),
        run(Command::new("ls").args(["-lRi"]).arg(b.path()))
            .text()
            .replace(&b.path().display().to_string(), &a.path().display().to_string())
    );
    a.unmount();
    b.unmount();
}

#[test]
fn a_name_that_another_mount_moved_away_is_free() {
    let store = Store::new();
    let a = store.mount();
    for name in ["sa", "ta"] {
        fs::write(store.path().join(name), "before").unwrap();
        wait_for("the name", || fs::metadata(a.join(name)).is_ok().then_some(()));
    }
    let b = store.mount();
    for (old, new) in [("sa", "sb"), ("ta", "tb")] {
        fs::rename(b.join(old), b.join(new)).unwrap();
        assert_eq!(fs::metadata(a.join(new)).unwrap().len(), 6);
    }
    for (old, new) in [("sa", "sb"), ("ta", "tb")] {
        fs::write(a.join(old), "new").unwrap();
        for mount in [&a, &b] {
            assert_eq!(fs::read_to_string(mount.join(old)).unwrap(), "new", "{old}");
            assert_eq!(fs::read_to_string(mount.join(new)).unwrap(), "before", "{new}");
        }
    }
    a.unmount();
    b.unmount();
}
