//! `sepia verify`.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use sepia::Key;

use crate::sandbox::{Ran, Sandbox, get};

/// Changes a bit of the first byte in the store's file, and leaves its times.
fn flip(sandbox: &Sandbox, key: &str) {
    let file = File::options().read(true).write(true).open(sandbox.store.join(key)).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 0).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
}

fn verify(sandbox: &Sandbox, args: &[&str]) -> Ran {
    sandbox.run_in(&sandbox.store, &[&["verify"], args].concat(), b"")
}

/// Ended with the exit code for damage, and nothing on standard error.
#[track_caller]
fn damaged(ran: Ran) -> Ran {
    assert_eq!((ran.code, ran.err.as_str()), (7, ""), "{ran:?}");
    ran
}

#[test]
fn verify_names_what_is_damaged_and_brings_back_what_is_not() {
    let sandbox = Sandbox::new();
    let status = || sandbox.run(&["status", "store"]).ok().text().to_owned();
    assert!(status().contains("verified:   never"), "{}", status());
    for text in ["one", "two"] {
        sandbox.put("Note/n", text.as_bytes());
    }
    sandbox.put("Note/other", b"bytes");
    let first = verify(&sandbox, &[]).ok();
    for part in [
        "verified 2 objects with 3 generations (11 bytes read)\n",
        "3 generations had no checksum yet",
        "nothing is damaged\n",
    ] {
        assert!(first.text().contains(part), "{part}: {first:?}");
    }
    assert!(status().contains("verified:   2 objects, 2"), "{}", status());
    flip(&sandbox, "Note/n");
    let shown = damaged(verify(&sandbox, &[]));
    for part in [
        "Note/n\n  generation 2 of ",
        " UTC, current: its bytes are not those that were saved\n",
        "  the newest intact generation is 1 of ",
        "bring back the intact generations with: sepia verify --bring-back\n",
        "damaged: 1 object\n",
    ] {
        assert!(shown.text().contains(part), "{part}: {shown:?}");
    }
    assert!(status().contains("1 object damaged; name them with: sepia verify"), "{}", status());
    assert_eq!(get(&sandbox.run(&["status", "store", "--json"]).json(), "/verification/damaged"), 1);
    // A path names an object or a directory; another one is not affected.
    verify(&sandbox, &["Note/other"]).ok();
    damaged(verify(&sandbox, &["Note"]));
    verify(&sandbox, &["Note", "--level", "existence"]).ok();
    verify(&sandbox, &["Nothing"]).fails(3, "no such object");
    let json = damaged(verify(&sandbox, &["--json"]));
    let json = serde_json::from_slice(&json.out).unwrap();
    for (pointer, value) in [
        ("/damaged", true.into()),
        ("/objects/0/key", "Note/n".into()),
        ("/objects/0/generations/0/generation", 2.into()),
        ("/objects/0/generations/0/current", true.into()),
        ("/objects/0/intact/generation", 1.into()),
        ("/objects/0/mended", serde_json::Value::Null),
        ("/checked/generations", 3.into()),
        ("/checked/new", 0.into()),
        ("/records", serde_json::json!([])),
    ] {
        assert_eq!(get(&json, pointer), &value, "{pointer}");
    }
    assert_eq!(get(&json, "/objects/0/generations/0/harm/content/expected").as_str().unwrap().len(), 64);
    verify(&sandbox, &["--bring-back", "--level", "existence"]).fails(2, "needs --level content");
    let mended = verify(&sandbox, &["--bring-back"]).ok();
    assert!(mended.text().contains("  brought back as generation 3\n"), "{mended:?}");
    assert!(mended.text().ends_with("1 object was brought back\nnothing is damaged any more\n"), "{mended:?}");
    assert_eq!(fs::read(sandbox.store.join("Note/n")).unwrap(), b"one");
    let after = verify(&sandbox, &[]).ok();
    assert!(after.text().contains("1 older generation is damaged and was replaced"), "{after:?}");
}

#[test]
fn parts_of_a_store_come_in_turn() {
    let sandbox = Sandbox::new();
    let names: Vec<String> = (0..30).map(|number| format!("n{number}")).collect();
    names.iter().for_each(|name| drop(sandbox.put(name, name.as_bytes())));
    let mut objects = 0;
    for part in 1..=3 {
        let json = verify(&sandbox, &["--part", "34%", "--json"]).json();
        assert_eq!((get(&json, "/part"), get(&json, "/parts")), (&part.into(), &3.into()));
        objects += get(&json, "/checked/objects").as_u64().unwrap();
    }
    assert_eq!(objects, 30);
    assert!(verify(&sandbox, &["--part", "daily/month"]).ok().text().contains(", part 1 of 30\n"));
    assert!(sandbox.run(&["status", "store"]).ok().text().contains("(part 1 of 30)"));
    verify(&sandbox, &["--part", "0%"]).fails(2, "is no part");
}

#[test]
fn an_interrupted_run_is_gone_on_with() {
    let sandbox = Sandbox::new();
    sandbox.put("a", b"the first");
    // Large enough to be busy with when the signal comes, and nothing on the disk.
    let big = File::create(sandbox.store.join("z")).unwrap();
    big.set_len(64 << 30).unwrap();
    sandbox.open().get(&Key::parse("z").unwrap()).unwrap();
    let interrupt = |signal| {
        let mut command = sandbox.command(&sandbox.store);
        let mut child = command.arg("verify").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let fds = format!("/proc/{}/fd", child.id());
        let reads = |_: &()| {
            let links =
                fs::read_dir(&fds).into_iter().flatten().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
            links.into_iter().any(|path| path.ends_with("store/z"))
        };
        let began = Instant::now();
        while !reads(&()) {
            assert!(began.elapsed() < Duration::from_secs(120), "it never came to the large file");
            assert!(child.try_wait().unwrap().is_none(), "it ended");
            std::thread::sleep(Duration::from_millis(1));
        }
        rustix::process::kill_process(Pid::from_child(&child), signal).unwrap();
        child.wait_with_output().unwrap()
    };
    let ended = interrupt(Signal::INT);
    assert_eq!(ended.status.signal(), Some(Signal::INT.as_raw()));
    assert!(String::from_utf8(ended.stdout).unwrap().ends_with("interrupted; the next run goes on from there\n"));
    // Nobody is left who verifies; a kill takes nothing away of what was noted.
    assert_eq!(interrupt(Signal::KILL).status.signal(), Some(Signal::KILL.as_raw()));
    fs::remove_file(sandbox.store.join("z")).unwrap();
    let ended = verify(&sandbox, &[]).ok();
    assert!(ended.text().contains("went on with the run of "), "{ended:?}");
    assert!(ended.text().contains("verified 1 object with 1 generation"), "{ended:?}");
    assert!(!verify(&sandbox, &[]).ok().text().contains("went on with"));
}

#[test]
fn records_are_repaired_when_asked_for() {
    let sandbox = Sandbox::new();
    sandbox.put("n", b"bytes");
    verify(&sandbox, &[]).ok();
    fs::write(sandbox.store.join("n"), b"changed outside").unwrap();
    let lines = fs::read_dir(sandbox.store.join(".sepia/checksums")).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&lines).unwrap();
    fs::write(&lines, [&whole[..], b"{\"comm\n"].concat()).unwrap();
    let shown = damaged(verify(&sandbox, &[]));
    assert!(shown.text().contains("checksums: 1 lines that can't be read"), "{shown:?}");
    assert!(shown.text().contains("1 object was made or changed outside Sepia\n"), "{shown:?}");
    let repaired = verify(&sandbox, &["--repair"]).ok();
    assert!(repaired.text().contains("2 records were repaired"), "{repaired:?}");
    assert!(repaired.text().contains("1 generation had no checksum yet and has one now"), "{repaired:?}");
    let now = fs::read(&lines).unwrap();
    assert!(now.starts_with(&whole) && !now.ends_with(b"{\"comm\n"));
    verify(&sandbox, &[]).ok();
}
