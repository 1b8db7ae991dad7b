//! A store whose records are cut short or scrambled: a clear error or a repair that is reported, never a panic, a
//! hang, or bytes that are gone.

mod common;
mod rig;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Mount, Store, run, run_within};
use rig::load::close;
use rig::{Dice, bounded, kill, refused, sepia};
use rustix::fs::XattrFlags;

fn mounted() -> (Store, Mount) {
    let store = Store::new();
    let mount = store.mount();
    fs::create_dir(mount.join("Note")).unwrap();
    (store, mount)
}

/// Cuts a file short or changes some of its bytes.
fn scramble(path: &Path, dice: &mut Dice) {
    let mut bytes = fs::read(path).unwrap();
    match dice.below(4) {
        0 => bytes.clear(),
        1 => bytes.truncate(dice.below(bytes.len() as u64 + 1) as usize),
        2 => bytes = (0..dice.below(300)).map(|_| dice.roll() as u8).collect(),
        _ if bytes.is_empty() => {}
        _ => {
            for _ in 0..=dice.below(8) {
                let at = dice.below(bytes.len() as u64) as usize;
                bytes[at] = dice.roll() as u8;
            }
        }
    }
    fs::write(path, bytes).unwrap();
}

/// Whatever a command says, it says it by itself and soon.
fn orderly(command: &mut Command) -> common::Output {
    let output = run_within(command, common::LIMIT);
    assert!(output.status.code().is_some_and(|code| code < 100), "{command:?}: {}\n{}", output.status, output.stderr);
    assert!(!output.stderr.contains("panicked"), "{command:?}: {}", output.stderr);
    assert!(output.status.success() || !output.stderr.trim().is_empty(), "{command:?} failed without a word");
    output
}

#[test]
fn a_scrambled_format_is_refused_and_harms_nothing() {
    let mut dice = Dice::from_env();
    let store = Store::new();
    run(&mut store.command(&["put", "Note/n", "/etc/hostname"]));
    let format = store.path().join(".sepia/format");
    let good = fs::read(&format).unwrap();
    let mount_point = store.scratch().dir("mnt");
    for _ in 0..12 {
        scramble(&format, &mut dice);
        let changed = fs::read(&format).unwrap() != good;
        let listed = orderly(&mut store.command(&["ls", "Note"]));
        // A changed byte can leave it readable, such as one of the time's digits.
        if changed && !listed.status.success() {
            let said = refused(sepia("mount").arg(store.path()).arg(&mount_point));
            assert!(said.contains("format"), "{said}");
            assert!(!common::is_mounted(&mount_point));
        }
        fs::write(&format, &good).unwrap();
    }
    for bad in [&b""[..], b"\0\0\0\0", b"{}", b"{\"format\":\"sepia\"}", b"sepia 1\n"] {
        fs::write(&format, bad).unwrap();
        let said = refused(&mut store.command(&["ls", "Note"]));
        assert!(said.contains("format"), "{said}");
    }
    fs::write(&format, &good).unwrap();
    assert_eq!(store.cat("Note/n", None), fs::read("/etc/hostname").unwrap());
}

#[test]
fn a_newer_format_is_refused_with_advice() {
    let store = Store::new();
    let format = store.path().join(".sepia/format");
    let text = fs::read_to_string(&format).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let version = value["version"].as_u64().unwrap();
    value["version"] = (version + 1).into();
    fs::write(&format, format!("{value}\n")).unwrap();
    let mount_point = store.scratch().dir("mnt");
    for command in [&mut store.command(&["ls"]), sepia("mount").arg(store.path()).arg(&mount_point)] {
        let said = refused(command);
        assert!(said.contains("version") && said.contains(&(version + 1).to_string()), "{said}");
    }
    assert_eq!(fs::read_to_string(&format).unwrap(), format!("{value}\n"), "it was changed");
}

/// The attribute says anything: then the file counts as changed from outside, and its bytes stay.
#[test]
fn a_scrambled_attribute_costs_no_bytes() {
    let mut dice = Dice::from_env();
    let (store, mount) = mounted();
    for round in 0..60 {
        let key = format!("Note/n{round}");
        fs::write(mount.join(&key), "first").unwrap();
        fs::write(mount.join(&key), "second").unwrap();
        let file = store.path().join(&key);
        let mut value = [0; 256];
        let n = rustix::fs::getxattr(&file, "user.sepia", &mut value).unwrap();
        let mut value = value[..n].to_vec();
        match dice.below(3) {
            0 => value.truncate(dice.below(n as u64) as usize),
            1 => value = (0..dice.below(120)).map(|_| dice.roll() as u8).collect(),
            _ => value[dice.below(n as u64) as usize] = dice.roll() as u8,
        }
        rustix::fs::setxattr(&file, "user.sepia", &value, XattrFlags::empty()).unwrap();
        let history = orderly(&mut store.command(&["history", "--json", &key]));
        assert!(history.status.success(), "{key} {value:?}: {}", history.stderr);
        let path = mount.join(&key);
        let (read, written) = bounded("a read", move || (fs::read(&path), fs::write(&path, "third")));
        assert_eq!(read.unwrap(), b"second", "{key} {value:?}");
        if let Err(error) = written {
            panic!("{key} {value:?}: {error}");
        }
        assert_eq!(fs::read(mount.join(&key)).unwrap(), b"third");
        assert_eq!(store.cat(&key, Some(1)), b"first", "{key} {value:?}");
        let numbers = store.generations(&key);
        let before = numbers[numbers.len() - 2];
        assert_eq!(store.cat(&key, Some(before)), b"second", "{key} {value:?}: {numbers:?}");
    }
    mount.unmount();
}

/// Every byte that was staged when the daemon died is still somewhere in the store, whatever became of the journal.
#[test]
fn a_scrambled_journal_loses_no_bytes() {
    let mut dice = Dice::from_env();
    for round in 0..12 {
        let (store, mount) = mounted();
        let contents: Vec<String> = (0..4).map(|n| format!("staged bytes number {n} of round {round}")).collect();
        let open: Vec<File> = contents
            .iter()
            .enumerate()
            .map(|(n, text)| {
                let mut file = File::create(mount.join(format!("Note/n{n}"))).unwrap();
                file.write_all(text.as_bytes()).unwrap();
                file
            })
            .collect();
        kill(mount);
        drop(open);
        let journals = files_below(&store.path().join(".sepia"));
        let journals: Vec<_> = journals.iter().filter(|path| path.ends_with("journal")).collect();
        assert!(!journals.is_empty(), "where is the journal?");
        for journal in journals {
            scramble(journal, &mut dice);
        }
        let output = orderly(&mut store.command(&["recover"]));
        let found: Vec<Vec<u8>> = files_below(store.path()).iter().map(|path| fs::read(path).unwrap()).collect();
        for text in &contents {
            assert!(
                found.iter().any(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes())),
                "{text:?} is lost; recover said: {}{}",
                output.text(),
                output.stderr
            );
        }
        store.mount().unmount();
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            files.extend(files_below(&path));
        } else if kind.is_file() {
            files.push(path);
        }
    }
    files
}

/// A conflict's record that can't be read must not hide the others, nor its own bytes.
#[test]
fn a_scrambled_conflict_is_reported_and_hides_no_other() {
    let (store, mount) = mounted();
    for name in ["good", "bad"] {
        let file = File::create(mount.join("Note").join(name)).unwrap();
        (&file).write_all(b"by the mount").unwrap();
        fs::remove_file(store.path().join("Note").join(name)).unwrap();
        assert!(close(file).is_err());
    }
    let all = store.conflicts();
    assert_eq!(all.len(), 2, "{all:?}");
    let id = |name: &str| {
        let one = all.iter().find(|conflict| conflict["key"] == format!("Note/{name}")).unwrap();
        one["id"].as_str().unwrap().to_owned()
    };
    let record = files_below(&store.path().join(".sepia/conflicts"));
    let record = record.iter().find(|path| path.ends_with(format!("{}.json", id("bad")))).unwrap();
    for bad in [&b""[..], b"{\"key\":\"No", b"\xff\xff\xff", b"{\"key\":\"../../etc\",\"time\":1}", b"[]"] {
        fs::write(record, bad).unwrap();
        let listed = orderly(&mut store.command(&["conflicts"]));
        let said = listed.text() + &listed.stderr;
        assert!(said.contains("Note/good"), "{:?} hides the other conflict: {said}", bad.escape_ascii().to_string());
        assert!(said.contains(&id("bad")), "{:?} is not reported: {said}", bad.escape_ascii().to_string());
        let shown = orderly(&mut store.command(&["conflicts", "show", &id("good"), "--bytes"]));
        assert_eq!(shown.stdout, b"by the mount");
    }
    mount.unmount();
}

/// Things between the generations that Sepia never put there.
#[test]
fn foreign_files_in_the_history_do_no_harm() {
    let (store, mount) = mounted();
    fs::write(mount.join("Note/n"), "one").unwrap();
    fs::write(mount.join("Note/n"), "two").unwrap();
    let history = files_below(&store.path().join(".sepia/generations"));
    let one = history.iter().find(|path| fs::read(path).unwrap() == b"one").unwrap();
    let dir = one.parent().unwrap();
    let name = one.file_name().unwrap().to_string_lossy().into_owned();
    for foreign in ["notes.txt", "1", "2@", "99999999999999999999999@x-y", "0@", "\u{fffd}@-"] {
        fs::write(dir.join(foreign), "foreign").unwrap();
    }
    fs::write(dir.join(OsStr::from_bytes(b"\xff\xfe@")), "foreign").unwrap();
    fs::write(dir.join(name.replacen('1', "18446744073709551615", 1)), "the last number there is").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join(name.replacen('1', "7", 1))).unwrap();
    let output = orderly(&mut store.command(&["history", "Note/n"]));
    assert!(output.status.success(), "{}", output.stderr);
    assert_eq!(store.cat("Note/n", Some(1)), b"one");
    let seven = orderly(&mut store.command(&["cat", "--generation", "7", "Note/n"]));
    assert!(!seven.text().contains("root:"), "a link in the history led out of the store");
    assert_eq!(fs::read(mount.join("Note/n")).unwrap(), b"two");
    mount.unmount();
}
