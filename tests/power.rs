//! The power goes at random moments under load: the store is on a filesystem in a loop file that is shut down without
//! flushing its log. What fsync had acknowledged is there afterwards, and nothing is torn.
//!
//! `SEPIA_POWER_CUTS` says how often on ext4 (30); xfs has a third of that. `SEPIA_SEED` repeats a run's dice.

mod common;
mod rig;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use common::library::key;
use common::{LoopFs, Mount, Scratch, Store};
use rig::check::{Crash, Met, Seen, check, check_all_again, check_set_aside};
use rig::disk::cut_power;
use rig::load::{Fate, LogAccount, Style, Writer};
use rig::{Dice, kill, number_from_env, record};
use sepia::store::SessionOptions;

const WRITERS: u64 = 4;
const STYLE: Style = Style { sync_one_in: 2, longest: 100_000 };

fn cuts() -> u64 {
    number_from_env("SEPIA_POWER_CUTS").unwrap_or(30)
}

#[test]
fn as_root_what_fsync_acknowledged_survives_power_cuts_on_ext4() {
    power_cuts("ext4", 256 << 20, cuts());
}

#[test]
fn as_root_what_fsync_acknowledged_survives_power_cuts_on_xfs() {
    power_cuts("xfs", 400 << 20, cuts().div_ceil(3));
}

fn power_cuts(kind: &str, size: u64, cuts: u64) {
    let mut dice = Dice::from_env();
    let scratch = Scratch::new();
    let mut disk = LoopFs::new(&scratch, kind, size);
    let store = Store::at(scratch, disk.path().join("store"));
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    let (mut seen, mut met) = (Seen::default(), Met::default());
    for round in 0..cuts {
        let mount = store.mount();
        for writer in &mut writers {
            fs::create_dir_all(mount.join(writer.dir())).unwrap();
            if round % 10 == 0 {
                writer.log = LogAccount { name: format!("log{round}"), ..Default::default() };
            }
        }
        sync(disk.path());
        load_until_cut(mount, &mut writers, &mut dice, &disk);
        disk.unmount();
        disk.mount();
        let mut recovered = Vec::new();
        let by_command = dice.one_in(2);
        if by_command {
            met.count_json(&rig::json(&store.sepia(&["recover", "--json"])));
        }
        let library = sepia::Store::open(store.path().to_str().unwrap()).unwrap();
        if !by_command {
            recovered = library.recover().unwrap();
            met.count(&recovered);
        }
        assert_eq!(library.recover().unwrap(), [], "the second recovery found something to do");
        check_set_aside(&mut writers, &library, Crash::Power, &recovered);
        for writer in &mut writers {
            check(writer, &library, Crash::Power, &mut seen, &mut met);
        }
        // What was found is what the next round begins with.
        sync(disk.path());
    }
    let library = sepia::Store::open(store.path().to_str().unwrap()).unwrap();
    check_all_again(&library, &seen);
    println!("{kind}: {cuts} power cuts: {met:?}");
    assert!(met.set_aside + met.finished > 0, "recovery never met a session under way: this run has shown nothing");
    rig::assert_all_could_be_killed();
    assert!(met.generations > cuts, "hardly anything was saved: {met:?}");
}

fn load_until_cut(mount: Mount, writers: &mut [Writer], dice: &mut Dice, disk: &LoopFs) {
    let fate = Fate::default();
    let pause = Duration::from_micros(dice.below(400_000) + 20_000);
    std::thread::scope(|scope| {
        for writer in writers.iter_mut() {
            let mut dice = Dice::new(dice.roll());
            let (fate, path) = (&fate, mount.path().to_owned());
            scope.spawn(move || writer.work(&path, &mut dice, STYLE, fate));
        }
        std::thread::sleep(pause);
        fate.dying();
        cut_power(disk.path());
        // What is still acknowledged now must be true all the more.
        std::thread::sleep(Duration::from_millis(20));
        fate.dead();
        kill(mount);
    });
    for writer in writers {
        writer.held.clear();
    }
}

/// syncfs
fn sync(dir: &Path) {
    rustix::fs::syncfs(File::open(dir).unwrap()).unwrap();
}

/// Names, one kind of change at a time: what fsync of the directory acknowledged is so after the cut.
#[test]
fn as_root_names_that_a_directory_fsync_acknowledged_survive() {
    for kind in ["ext4", "xfs"] {
        let scratch = Scratch::new();
        let mut disk = LoopFs::new(&scratch, kind, 400 << 20);
        let store = Store::at(scratch, disk.path().join("store"));
        let mount = store.mount();
        let dir = mount.join("Note");
        fs::create_dir(&dir).unwrap();
        for name in ["moved", "gone", "over", "target", "from-other"] {
            fs::write(dir.join(name), name).unwrap();
        }
        fs::create_dir(mount.join("Other")).unwrap();
        sync(disk.path());
        let saved = |name: &str| {
            let mut file = File::create(dir.join(name)).unwrap();
            file.write_all(name.as_bytes()).unwrap();
            file.sync_all().unwrap();
            file
        };
        // A new object and its name: fsync of the object alone is enough in Sepia.
        let still_open = saved("new-by-file-fsync");
        drop(saved("new"));
        fs::rename(dir.join("moved"), dir.join("moved-to")).unwrap();
        fs::remove_file(dir.join("gone")).unwrap();
        fs::rename(dir.join("over"), dir.join("target")).unwrap();
        fs::rename(dir.join("from-other"), mount.join("Other/arrived")).unwrap();
        fs::create_dir(dir.join("sub")).unwrap();
        std::os::unix::fs::symlink("new", dir.join("link")).unwrap();
        fs::hard_link(dir.join("new"), dir.join("second-name")).unwrap();
        File::open(mount.join("Other")).unwrap().sync_all().unwrap();
        File::open(&dir).unwrap().sync_all().unwrap();
        cut_power(disk.path());
        kill(mount);
        drop(still_open);
        disk.unmount();
        disk.mount();

        let mount = store.mount();
        let dir = mount.join("Note");
        let read = |name: &str| fs::read_to_string(dir.join(name)).map_err(|error| error.kind());
        let missing = Err(std::io::ErrorKind::NotFound);
        assert_eq!(read("new-by-file-fsync"), Ok("new-by-file-fsync".into()), "{kind}");
        assert_eq!(read("new"), Ok("new".into()), "{kind}");
        assert_eq!((read("moved"), read("moved-to")), (missing.clone(), Ok("moved".into())), "{kind}");
        assert_eq!(read("gone"), missing, "{kind}");
        assert_eq!((read("over"), read("target")), (missing.clone(), Ok("over".into())), "{kind}");
        assert_eq!(read("from-other"), missing, "{kind}");
        assert_eq!(fs::read_to_string(mount.join("Other/arrived")).unwrap(), "from-other", "{kind}");
        assert!(dir.join("sub").is_dir(), "{kind}");
        assert_eq!(fs::read_link(dir.join("link")).unwrap().as_os_str(), "new", "{kind}");
        assert_eq!(read("second-name"), Ok("new".into()), "{kind}");
        assert_eq!(store.cat("Note/target", Some(1)), b"target", "{kind}: what was renamed over");
        mount.unmount();
    }
}

/// The power goes a second time, while who recovers the store has taken over what was acknowledged and not come to it yet.
#[test]
fn as_root_what_is_being_recovered_survives_another_power_cut() {
    for kind in ["ext4", "xfs"] {
        let scratch = Scratch::new();
        let mut disk = LoopFs::new(&scratch, kind, 400 << 20);
        let path = disk.path().join("store");
        let dead = sepia::Store::init(path.to_str().unwrap()).unwrap();
        let open = || sepia::Store::open(path.to_str().unwrap()).unwrap();
        let mut session = dead.open_session(&key("f"), &SessionOptions::default()).unwrap();
        for text in ["first", "second"] {
            session.write_at(text.as_bytes(), 0).unwrap();
            session.sync(&key("f")).unwrap();
        }
        drop((session, dead));
        for instance in fs::read_dir(path.join(".sepia/staging")).unwrap() {
            // Another test may be about to start a process, which has a copy of its descriptor for a moment.
            let lock = instance.unwrap().path().join("lock");
            fs::remove_file(&lock).unwrap();
            File::create(&lock).unwrap();
        }
        sync(disk.path());
        let recovering = open();
        let taken = recovering.backend().take_abandoned().unwrap();
        assert_eq!(taken.len(), 1, "{kind}");
        // Of anything else: with it goes the log of the filesystem, with the names in it.
        File::create(disk.path().join("another")).unwrap().sync_all().unwrap();
        cut_power(disk.path());
        drop((taken, recovering));
        disk.unmount();
        disk.mount();
        let done = open().recover().unwrap();
        assert_eq!(fs::read_to_string(path.join("f")).unwrap(), "second", "{kind}: {done:?}");
    }
}

/// One session with many fsyncs, as a database's: each holds by itself, though none but the first publishes.
#[test]
fn as_root_every_fsync_of_an_open_object_holds() {
    let mut dice = Dice::from_env();
    let scratch = Scratch::new();
    let mut disk = LoopFs::new(&scratch, "ext4", 256 << 20);
    let store = Store::at(scratch, disk.path().join("store"));
    for round in 0..8 {
        let mount = store.mount();
        let path = mount.join(format!("base{round}"));
        let file = OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
        let turns = 1 + round;
        for seq in 0..turns {
            let page = record::page(record::Tag { seq, writer: round }, 0);
            std::os::unix::fs::FileExt::write_all_at(&file, &page, 0).unwrap();
            if dice.one_in(2) { file.sync_all().unwrap() } else { file.sync_data().unwrap() }
        }
        cut_power(disk.path());
        kill(mount);
        drop(file);
        disk.unmount();
        disk.mount();
        let mount = store.mount();
        let pages = record::read_pages(&fs::read(mount.join(format!("base{round}"))).unwrap()).unwrap();
        assert_eq!(pages.iter().map(|tag| tag.seq).collect::<Vec<_>>(), [turns - 1]);
        mount.unmount();
    }
}
