//! Real trees, by programs that copy, archive, version and build them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Mount, Scratch, Store, run, script, sh};

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
