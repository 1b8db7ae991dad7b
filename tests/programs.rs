//! Real programs with real trees, through a mount.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Mount, Scratch, Store, run, script, sh, tool, wait_for};

/// A real source tree (this crate and those it is built from, some hundreds of files at least) in a native directory,
/// with what archivers must not lose: links of both kinds, odd modes and times, attributes, ACLs, holes, a FIFO.
fn tree(scratch: &Scratch) -> PathBuf {
    let dir = scratch.dir("tree");
    let crates = scratch.path().join("crates");
    // Where cargo keeps the sources of what this crate depends on. They are there, since they were just built; those
    // for other platforms need not be.
    let host = sh(&dir, "rustc -vV | sed -n 's/^host: //p'");
    let metadata = run(std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--format-version", "1", "--filter-platform", host.trim(), "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let sources: Vec<&str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| ["rustix", "serde_core", "clap_builder", "fuser"].iter().any(|name| package["name"] == *name))
        .map(|package| package["manifest_path"].as_str().unwrap())
        .collect();
    assert!(sources.len() >= 3, "{sources:?}");
    fs::create_dir(&crates).unwrap();
    for manifest in sources {
        let from = Path::new(manifest).parent().unwrap();
        run(std::process::Command::new("cp").arg("-r").arg(from).arg(&crates));
    }
    run(std::process::Command::new("cp").arg("-r").args([concat!(env!("CARGO_MANIFEST_DIR"), "/src")]).arg(&crates));
    sh(
        &dir,
        "mv ../crates .
         find crates -type f | awk 'NR % 7 == 0' | while read -r f; do touch -d '2001-02-03 04:05:06.789012345' \"$f\"; done
         find crates -type f | awk 'NR % 11 == 0' | while read -r f; do chmod 640 \"$f\"; done
         mkdir odd odd/empty odd/closed
         ln -s ../crates odd/link; ln -s /nowhere/at/all odd/dangling
         echo linked > odd/one; ln odd/one odd/two; ln odd/one odd/empty.txt
         mkfifo odd/fifo
         echo x > odd/attributes; setfattr -n user.note -v 'a note' odd/attributes
         setfattr -n user.binary -v 0x00ff0a odd/attributes
         setfattr -n user.on-dir -v yes odd/empty
         echo x > odd/acl; setfacl -m u:games:rwx odd/acl; setfacl -d -m g:games:rx odd/empty
         truncate -s 3M odd/sparse; printf end | dd of=odd/sparse bs=1 seek=2M conv=notrunc status=none
         : > odd/nothing
         echo x > $'odd/new\\nline'; echo x > $'odd/invalid\\xff'; echo x > 'odd/ spaces and \"quotes\"'
         chmod 500 odd/closed; chmod 4755 odd/one
         # Times of long ago, so that keeping them can be told from setting them anew.
         find . -depth -not -type f -exec touch -h -d '2005-06-07 08:09:10.111213141' {} +
         touch -d '1999-12-31 23:59:59.999999999' odd",
    );
    assert!(sh(&dir, "find . -type f | wc -l").trim().parse::<usize>().unwrap() > 500, "that is no real tree");
    dir
}

/// Everything about a tree that must be the same after a copy; Sepia's own attributes are not part of it.
fn description(dir: &Path) -> String {
    // Directory sizes and inode numbers are the filesystem's own business. `%T+` has the nanoseconds.
    let list = sh(
        dir,
        "find . -mindepth 1 -type d -printf '%P d %m %U %G %T+\\0' , -mindepth 1 -type l -printf '%P l %l %T+\\0' , -mindepth 1 -not -type d -not -type l -printf '%P %y %m %U %G %s %n %T+\\0' | sort -z | tr '\\0' '\\n'",
    );
    let sums = sh(dir, "find . -type f -print0 | sort -z | xargs -0 sha256sum -b --");
    let acls = sh(dir, "getfacl -Rnp .");
    let attributes = sh(
        dir,
        "find . -mindepth 1 -not -type l -print0 | sort -z | xargs -0 getfattr -dhe hex -m '^user\\.' -- |
         { grep -av '^user\\.sepia[.=]' || true; } | awk '/^# file/ { held = $0; next } NF { if (held) print held; held = \"\"; print }'",
    );
    assert!(!list.is_empty() && !sums.is_empty());
    [list, sums, acls, attributes].concat()
}

#[track_caller]
fn assert_same(one: &Path, two: &Path) {
    let (left, right) = (description(one), description(two));
    if left != right {
        let (left, right): (BTreeSet<_>, BTreeSet<_>) = (left.lines().collect(), right.lines().collect());
        let only =
            |a: &BTreeSet<&str>, b: &BTreeSet<&str>| a.difference(b).take(20).copied().collect::<Vec<_>>().join("\n  ");
        panic!(
            "{} and {} differ\nonly in the first:\n  {}\nonly in the second:\n  {}",
            one.display(),
            two.display(),
            only(&left, &right),
            only(&right, &left)
        );
    }
}

/// A new store, its mount, and a tree beside them.
fn with_tree() -> (PathBuf, Store, Mount) {
    let store = Store::new();
    let tree = tree(store.scratch());
    let mount = store.mount();
    (tree, store, mount)
}

/// The history of each of these objects is just one generation: they were written once.
#[track_caller]
fn assert_written_once(store: &Store, keys: &[&str]) {
    for key in keys {
        assert_eq!(store.generations(key), [1], "{key} was written once");
    }
}

#[test]
fn git_works_on_a_mounted_tree() {
    let (tree, store, mount) = with_tree();
    run(std::process::Command::new("cp").arg("-r").arg(tree.join("crates")).arg(mount.join("repo")));
    let repo = mount.join("repo");
    sh(
        &repo,
        "git init -q -b main
         git add -Af
         git commit -qm first
         test -z \"$(git status --porcelain)\"
         git checkout -qb work
         find . -name '*.rs' -not -path './.git/*' | awk 'NR % 3 == 0' | xargs sed -i '1s/^/\\/\\/ changed\\n/'
         find . -name '*.md' -not -path './.git/*' | head -5 | xargs git rm -q
         mkdir -p new/deep; echo new > new/deep/file; git add -A; git commit -qm second
         git checkout -q main
         test ! -e new
         test -z \"$(git status --porcelain)\"
         git checkout -q work
         git checkout -q main
         git merge -q --no-ff -m merged work
         git gc -q --aggressive --prune=now
         git fsck --full --strict
         git stash list
         git log --oneline | wc -l
         git worktree add -q ../worktree work
         git -C ../worktree status --porcelain
         git clone -q . ../clone
         git -C ../clone fsck --full",
    );
    // A clone to the outside has the same commits and trees.
    let outside = store.scratch().path().join("outside");
    sh(&repo, &format!("git clone -q --no-local . '{}'", outside.display()));
    sh(&outside, "git fsck --full --strict");
    assert_eq!(sh(&repo, "git rev-parse HEAD^{tree}"), sh(&outside, "git rev-parse HEAD^{tree}"));
    sh(&repo, "diff -r --exclude .git . ../clone");
    mount.unmount();
    // And what lies in the store is a repository too, without any Sepia.
    sh(&store.path().join("repo"), "test -z \"$(git status --porcelain)\"; git fsck --full --strict");
    assert!(store.conflicts().is_empty(), "{:?}", store.conflicts());
}

#[test]
fn rsync_goes_in_and_out() {
    let (tree, store, mount) = with_tree();
    let from = tree.display();
    let first = mount.sh(&format!("rsync -@-1 -aHAX --stats '{from}/' copy"));
    assert_same(&tree, &mount.join("copy"));
    assert_written_once(&store, &["copy/crates/src/lib.rs", "copy/odd/one", "copy/odd/attributes"]);
    assert!(!first.contains("Number of regular files transferred: 0\n"), "{first}");

    // The second run has nothing to do, whether it looks at times or at bytes.
    for options in ["-aHAX", "-aHAXc"] {
        let again = mount.sh(&format!("rsync -@-1 {options} --stats --itemize-changes '{from}/' copy"));
        assert!(again.contains("Number of regular files transferred: 0\n"), "rsync {options}:\n{again}");
        assert!(again.contains("Number of created files: 0\n"), "rsync {options}:\n{again}");
    }
    // Without attributes, which Sepia has some of its own of, there isn't even anything to mention.
    let again = mount.sh(&format!("rsync -@-1 -aHA --itemize-changes '{from}/' copy"));
    assert_eq!(again, "", "rsync -@-1 -aHA has something to do:\n{again}");
    assert_written_once(&store, &["copy/crates/src/lib.rs", "copy/odd/one", "copy/odd/attributes"]);

    let out = store.scratch().path().join("out");
    mount.sh(&format!("rsync -@-1 -aHAX copy/ '{}'", out.display()));
    assert_same(&tree, &out);
    let differences = sh(&out, &format!("rsync -@-1 -aHAnci --filter='-x user.sepia.*' ./ '{from}/'"));
    assert_eq!(differences, "");
    sh(&out, &format!("diff -r --no-dereference crates '{from}/crates'"));

    // Updates in all of rsync's ways: by renaming, in place, by appending, with deletions.
    sh(&tree, "echo more >> crates/src/lib.rs; sed -i 1d crates/src/main.rs; rm -r odd/empty odd/two");
    mount.sh(&format!("rsync -@-1 -aHAX --delete '{from}/' copy"));
    assert_same(&tree, &mount.join("copy"));
    sh(&tree, "echo in place >> crates/src/lib.rs; head -c 300000 /dev/urandom > odd/nothing");
    mount.sh(&format!("rsync -@-1 -aHAX --inplace --no-whole-file '{from}/' copy"));
    sh(&tree, "echo appended >> odd/nothing");
    mount.sh(&format!("rsync -@-1 -aHAX --append-verify '{from}/' copy"));
    assert_same(&tree, &mount.join("copy"));
    assert_eq!(store.generations("copy/crates/src/lib.rs"), [1, 2, 3]);
    mount.unmount();
    assert_same(&tree, &store.path().join("copy"));
    assert!(store.conflicts().is_empty(), "{:?}", store.conflicts());
}

#[test]
fn tar_goes_in_and_out() {
    let (tree, store, mount) = with_tree();
    let archive = store.scratch().path().join("in.tar");
    let options = "--xattrs --xattrs-include='user.*' --acls --numeric-owner --sparse --format=posix";
    sh(&tree, &format!("tar -cf '{}' {options} .", archive.display()));
    mount.sh(&format!("mkdir copy; tar -xpf '{}' -C copy {options} --same-permissions", archive.display()));
    assert_same(&tree, &mount.join("copy"));
    // Tar makes an empty file with mknod first of what has attributes; that is no save.
    assert_written_once(&store, &["copy/crates/src/lib.rs", "copy/odd/one", "copy/odd/attributes"]);

    // Out again; what the archive says about Sepia's attributes is harmless where it is unpacked, here or there.
    let second = store.scratch().path().join("out.tar");
    mount.sh(&format!("tar -cf '{}' {options} -C copy .", second.display()));
    let out = store.scratch().dir("out");
    sh(&out, &format!("tar -xpf '{}' {options}", second.display()));
    assert_same(&tree, &out);
    mount.sh(&format!("mkdir back; tar -xpf '{}' -C back {options}", second.display()));
    assert_same(&tree, &mount.join("back"));
    mount.sh(&format!("tar -df '{}' -C copy", second.display()));
    // An archive that lies in the mount, unpacked over what is there.
    mount.sh(&format!("tar -cf in-here.tar {options} -C copy . && tar -xpf in-here.tar -C copy {options}"));
    assert_same(&tree, &mount.join("copy"));
    mount.unmount();
    assert_same(&tree, &store.path().join("copy"));
}

#[test]
fn sqlite_keeps_its_databases_whole() {
    let store = Store::new();
    let mount = store.mount();
    tool("sqlite3");
    for mode in ["delete", "truncate", "persist", "wal"] {
        // Several processes at a time, which relies on its locks and, with WAL, on shared memory.
        mount.sh(&format!(
            "sqlite3 {mode}.db 'pragma journal_mode={mode}; create table t (process, n, filler); create index i on t (n);' >/dev/null
             for p in 1 2 3; do (
               for n in $(seq 40); do
                 sqlite3 -cmd '.log stderr' -cmd '.timeout 60000' {mode}.db \"begin immediate; insert into t values ($p, $n, hex(randomblob(500))); commit;\"
               done ) &
             done
             failed=0; for job in $(jobs -p); do wait $job || failed=1; done; test $failed = 0
             test \"$(sqlite3 {mode}.db 'select count(*), count(distinct process * 1000 + n) from t')\" = '120|120'
             test \"$(sqlite3 {mode}.db 'pragma integrity_check')\" = ok
             sqlite3 {mode}.db 'begin; delete from t where n % 2; rollback; begin; delete from t where n % 2; commit; vacuum;'
             test \"$(sqlite3 {mode}.db 'select count(*) from t; pragma integrity_check' | tr '\\n' ' ')\" = '60 ok '"
        ));
    }
    mount.unmount();
    for mode in ["delete", "truncate", "persist", "wal"] {
        let said = sh(store.path(), &format!("sqlite3 {mode}.db 'select count(*) from t; pragma integrity_check'"));
        assert_eq!(said, "60\nok\n", "{mode}");
    }
    assert!(store.conflicts().is_empty(), "{:?}", store.conflicts());
}

#[test]
fn sqlite_holds_one_connection_open_for_long() {
    let store = Store::new();
    let mount = store.mount();
    mount.sh("for mode in delete wal; do
           { echo \"pragma journal_mode=$mode; create table t (n);\"
             for n in $(seq 300); do echo \"insert into t values ($n);\"; done
             echo 'select count(*) from t; pragma integrity_check;'
           } | sqlite3 $mode.db | tail -2 | tr '\\n' ' ' | grep -qx '300 ok '
         done");
    mount.unmount();
    for mode in ["delete", "wal"] {
        assert_eq!(sh(store.path(), &format!("sqlite3 {mode}.db 'select sum(n) from t'")), "45150\n");
    }
}

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

#[test]
fn python_copies_a_tree() {
    let (tree, store, mount) = with_tree();
    let copy = |from: &Path, to: &Path| {
        run(std::process::Command::new("python3")
            .arg("-c")
            .arg(
                "import filecmp, shutil, sys\n\
                 shutil.copytree(sys.argv[1], sys.argv[2], symlinks=True)\n\
                 def same(c):\n\
                 \x20   assert not (c.left_only or c.right_only or c.funny_files), (c.left, c.left_only, c.right_only, c.funny_files)\n\
                 \x20   _, wrong, failed = filecmp.cmpfiles(c.left, c.right, c.common_files, shallow=False)\n\
                 \x20   assert not wrong and not failed, (wrong, failed)\n\
                 \x20   for sub in c.subdirs.values(): same(sub)\n\
                 same(filecmp.dircmp(sys.argv[1], sys.argv[2]))",
            )
            .arg(from)
            .arg(to));
    };
    let source = tree.join("crates");
    copy(&source, &mount.join("copy"));
    copy(&mount.join("copy"), &mount.join("again"));
    let out = store.scratch().path().join("out");
    copy(&mount.join("again"), &out);
    assert_same(&source, &out);
    run(std::process::Command::new("python3")
        .args(["-c", "import shutil, sys; shutil.move(sys.argv[1] + '/copy', sys.argv[1] + '/moved'); shutil.rmtree(sys.argv[1] + '/moved')"])
        .arg(mount.path()));
    assert!(!mount.join("moved").exists() && !mount.join("copy").exists());
    mount.unmount();
    assert_same(&source, &store.path().join("again"));
}

#[test]
fn cargo_builds_in_the_mount() {
    let store = Store::new();
    let mount = store.mount();
    let project = mount.join("project");
    let mut build = script(
        mount.path(),
        "mkdir -p project/src && cd project
         printf '[package]\\nname = \"small\"\\nversion = \"0.1.0\"\\nedition = \"2021\"\\n' > Cargo.toml
         echo 'pub fn answer() -> u32 { 41 }' > src/lib.rs
         echo 'fn main() { println!(\"{}\", small::answer()); }' > src/main.rs
         cargo build --offline 2>&1
         test \"$(target/debug/small)\" = 41
         cargo build --offline -v 2>&1 | grep -q Fresh
         echo 'pub fn answer() -> u32 { 42 }' > src/lib.rs
         cargo run --offline -q
         cargo test --offline -q
         cargo build --offline -v 2>&1 | tee built; grep -q Fresh built",
    );
    build.env_remove("CARGO_TARGET_DIR").env_remove("CARGO_BUILD_TARGET_DIR").env_remove("RUSTFLAGS");
    let said = run(&mut build).text();
    assert!(said.contains("42\n"), "{said}");
    assert_eq!(store.generations("project/src/lib.rs"), [1, 2]);
    mount.unmount();
    drop(project);
    assert_eq!(sh(&store.path().join("project"), "target/debug/small"), "42\n");
}

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
    let refused = common::run_within(
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
        common::LIMIT,
    );
    assert!(refused.status.success(), "{}", refused.stderr);
    assert_eq!(fs::read(mount.join("Note/a")).unwrap(), b"three\n");
    assert_eq!(store.conflicts().len(), 1);
}
