//! Editors, each with its own way to save.

use std::fs;

use crate::common::{Store, tool};

/// Edits a file with vim three times; all four texts must be in its history.
#[track_caller]
fn edit_with_vim(options: &str) {
    let store = Store::new();
    let mount = store.mount();
    tool("vim");
    mount.sh("printf 'one\\ntwo\\n' > text; chmod 640 text");
    for (from, to) in [("one", "1"), ("two", "2"), ("1", "uno")] {
        mount.sh(&format!(
            "vim -es -u NONE -N -i NONE -c 'set {options} swapfile fsync' -c '%s/{from}/{to}/' -c 'wq' text"
        ));
    }
    assert_eq!(fs::read_to_string(mount.join("text")).unwrap(), "uno\n2\n");
    assert_eq!(mount.sh("stat -c %a text"), "640\n");
    mount.sh("test -z \"$(ls -A | grep swp)\"");
    let generations = store.generations("text");
    let contents: Vec<Vec<u8>> = generations.iter().map(|number| store.cat("text", Some(*number))).collect();
    for expected in ["one\ntwo\n", "1\ntwo\n", "1\n2\n", "uno\n2\n"] {
        assert!(
            contents.iter().any(|content| content == expected.as_bytes()),
            "{options}: {expected:?} is not among the generations {generations:?} of the file"
        );
    }
}

#[test]
fn vim_saves_in_place() {
    edit_with_vim("backupcopy=yes");
    edit_with_vim("nowritebackup");
}

#[test]
fn vim_saves_by_renaming_the_old_file_away() {
    // What vim does unless told otherwise: the file becomes `text~`, a new one is written, `text~` is removed.
    edit_with_vim("backupcopy=auto");
    edit_with_vim("backupcopy=no");
    // And with a backup that stays.
    edit_with_vim("backupcopy=no backup");
}

#[test]
fn sed_and_others_save_new_generations() {
    let store = Store::new();
    let mount = store.mount();
    mount.sh("printf 'a\\nb\\n' > edited; for n in 1 2 3; do sed -i \"s/^a.*/a $n/\" edited; done");
    assert_eq!(fs::read_to_string(mount.join("edited")).unwrap(), "a 3\nb\n");
    assert_eq!(store.generations("edited"), [1, 2, 3, 4]);
    assert_eq!(store.cat("edited", Some(2)), b"a 1\nb\n");
    mount.sh("perl -pi -e 's/b/c/' edited && grep -q c edited");
    // dd into the middle, and the copies of coreutils.
    mount.sh("printf X | dd of=edited bs=1 seek=1 conv=notrunc,fsync status=none && head -1 edited | grep -qx 'aX3'");
    mount.sh("cp --reflink=auto --sparse=always edited copy && cmp edited copy");
    mount.sh("install -m 600 copy installed && cmp copy installed && test \"$(stat -c %a installed)\" = 600");
    mount.sh("sed -i.bak s/c/d/ edited && grep -q c edited.bak && grep -q d edited");
    assert_eq!(fs::read_to_string(mount.join("edited")).unwrap(), "aX3\nd\n");
    mount.unmount();
    assert!(store.conflicts().is_empty(), "{:?}", store.conflicts());
}
