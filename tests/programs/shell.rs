//! What one does with a shell.

use std::fs;

use crate::common::{Store, script, wait_for};

#[test]
fn tail_follows_what_another_process_appends() {
    let store = Store::new();
    let mount = store.mount();
    let seen = store.scratch().path().join("seen");
    fs::write(mount.join("log"), "line 0\n").unwrap();
    let mut tail = std::process::Command::new("tail")
        .args(["-n", "+1", "-f", "-s", "0.05"])
        .arg(mount.join("log"))
        .stdin(std::process::Stdio::null())
        .stdout(fs::File::create(&seen).unwrap())
        .spawn()
        .unwrap();
    let outcome = std::panic::catch_unwind(|| {
        let mut expected = String::from("line 0\n");
        for number in 1..=20 {
            mount.sh(&format!("echo 'line {number}' >> log"));
            expected += &format!("line {number}\n");
            wait_for(&format!("tail -f to show line {number}"), || {
                (fs::read_to_string(&seen).unwrap() == expected).then_some(())
            });
        }
        // The older generations are still what they were.
        let generations = store.generations("log");
        assert_eq!(generations, (1..=21).collect::<Vec<_>>());
        for number in generations {
            let expected: String = (0..number).map(|line| format!("line {line}\n")).collect();
            assert_eq!(String::from_utf8(store.cat("log", Some(number))).unwrap(), expected);
        }
    });
    tail.kill().unwrap();
    tail.wait().unwrap();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_redirection_is_one_generation() {
    let store = Store::new();
    let mount = store.mount();
    // Several processes write through one open file; whichever closes first, the save ends with the last one.
    mount.sh("for n in $(seq 50); do
           { echo a; /bin/echo b; ( /bin/echo c; sh -c 'echo d' ); printf '%s\\n' e | cat; } > f$n
         done
         for n in $(seq 50); do
           { /bin/echo again; sh -c 'echo and again'; } > f$n
         done
         for n in $(seq 50); do
           { /bin/echo more; ( sh -c 'echo and more' & wait ); } >> f$n
         done");
    for number in 1..=50 {
        let key = format!("f{number}");
        assert_eq!(store.generations(&key), [1, 2, 3], "{key} was redirected to three times");
        assert_eq!(store.cat(&key, Some(1)), b"a\nb\nc\nd\ne\n", "{key}");
        assert_eq!(store.cat(&key, Some(2)), b"again\nand again\n", "{key}");
        assert_eq!(store.cat(&key, Some(3)), b"again\nand again\nmore\nand more\n", "{key}");
    }
    mount.unmount();
    assert!(store.conflicts().is_empty(), "{:?}", store.conflicts());
}

#[test]
fn sepias_attributes_are_shown_and_do_no_harm() {
    let store = Store::new();
    let mount = store.mount();
    mount.sh("mkdir Note; echo one > Note/a; echo two > Note/a; setfattr -n user.mine -v kept Note/a");
    let shown = mount.sh("getfattr -d Note/a");
    for expected in [
        "user.sepia.id=",
        "user.sepia.class=\"Note\"",
        "user.sepia.generation=\"2\"",
        "user.sepia.committed=",
        "user.sepia.kind=",
        "user.mine=\"kept\"",
    ] {
        assert!(shown.contains(expected), "{expected} is not in\n{shown}");
    }
    assert!(!shown.contains("user.sepia="), "the packed record is Sepia's own:\n{shown}");
    let value = |name: &str, file: &str| mount.sh(&format!("getfattr --only-values -n user.sepia.{name} {file}"));
    let id = value("id", "Note/a");

    // Setting or removing what can't be changed is accepted, and changes nothing.
    mount.sh("setfattr -n user.sepia.generation -v 77 Note/a; setfattr -n user.sepia.id -v 1234 Note/a; setfattr -x user.sepia.id Note/a");
    assert_eq!((value("generation", "Note/a"), value("id", "Note/a")), ("2".to_owned(), id.clone()));

    // Copies are objects of their own, and keep the user's attributes.
    let outside = store.scratch().dir("outside");
    mount.sh(&format!(
        "cp -a Note/a Note/cp
         rsync -aX Note/a Note/rsync
         tar -c --xattrs --xattrs-include='user.*' Note/a | tar -x --xattrs --xattrs-include='user.*' --transform=s,Note/a,Note/tar,
         cp -a Note/a '{0}/cp'; rsync -aX Note/a '{0}/rsync'
         cp -a '{0}/cp' Note/back; rsync -aX '{0}/rsync' Note/rsync-back; rsync -aX '{0}/rsync' Note/rsync-back",
        outside.display()
    ));
    for copy in ["Note/cp", "Note/rsync", "Note/tar", "Note/back", "Note/rsync-back"] {
        assert_eq!(fs::read(mount.join(copy)).unwrap(), b"two\n", "{copy}");
        assert_eq!(mount.sh(&format!("getfattr --only-values -n user.mine {copy}")), "kept", "{copy}");
        assert_ne!(value("id", copy), id, "{copy} is another object");
        assert_eq!(store.generations(copy), [1], "{copy}");
        assert_eq!(value("generation", copy), "1", "{copy}");
    }
    assert_eq!(value("id", "Note/a"), id);
    // The precondition for scripts: a save that expects another generation is refused and kept.
    mount.sh("setfattr -n user.sepia.expect -v 2 Note/a && echo three > Note/a");
    assert_eq!(store.generations("Note/a"), [1, 2, 3]);
    let refused = crate::common::run_within(
        &mut script(
            mount.path(),
            "setfattr -n user.sepia.expect -v 2 Note/a
             python3 - <<'PY'
import errno, os, sys
fd = os.open('Note/a', os.O_WRONLY | os.O_TRUNC)
os.write(fd, b'late')
try:
    os.close(fd)
except OSError as e:
    sys.exit(0 if e.errno == errno.ESTALE else 'another error: %s' % e)
sys.exit('close said nothing')
PY",
        ),
        crate::common::LIMIT,
    );
    assert!(refused.status.success(), "{}", refused.stderr);
    assert_eq!(fs::read(mount.join("Note/a")).unwrap(), b"three\n");
    assert_eq!(store.conflicts().len(), 1);
}
