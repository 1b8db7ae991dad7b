//! `sepia mount` and `sepia umount` as commands: what returns when, what is refused, who may.

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{
    LoopFs, Store, is_mounted, need_root, run, run_within, sepia_binary, sh, sh_as_ordinary_user, sh_fails, wait_for,
};
use rustix::process::Signal;

#[test]
fn a_mount_in_the_background_answers_when_the_command_returns() {
    let store = Store::new();
    let dir = store.scratch().dir("background");
    for round in 0..5 {
        sh(
            store.scratch().path(),
            &format!(
                "sepia mount store background
                 trap 'sepia umount background || umount -l background || fusermount3 -uz background' EXIT
                 mountpoint -q background
                 echo {round} > background/file
                 test \"$(cat background/file)\" = {round}
                 trap - EXIT
                 sepia umount background
                 ! mountpoint -q background
                 test \"$(cat store/file)\" = {round}"
            ),
        );
        assert!(!is_mounted(&dir));
    }
    assert_eq!(store.generations("file"), [1, 2, 3, 4, 5]);
}

/// Nothing of Sepia's own may be in the way, such as a daemon that is looking at its mount.
#[test]
fn a_mount_can_be_taken_down_as_soon_as_it_answers() {
    let store = Store::new();
    for _ in 0..30 {
        store.mount().unmount();
    }
}

#[test]
fn a_signal_ends_the_daemon_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let store = Store::new();
        let mount = store.mount();
        fs::write(mount.join("file"), b"saved").unwrap();
        let pid = mount.pid();
        rustix::process::kill_process(pid, signal).unwrap();
        wait_for("the mount to be taken down after a signal", || (!is_mounted(mount.path())).then_some(()));
        assert_eq!(fs::read(store.path().join("file")).unwrap(), b"saved");
        // The daemon was told to end by us, so `sepia umount` has nothing left to do.
        mount.ended();
    }
}

#[test]
fn umount_waits_for_what_is_under_way() {
    let store = Store::new();
    let mount = store.mount();
    let held = fs::File::create(mount.join("file")).unwrap();
    let said = run_within(Command::new(sepia_binary()).arg("umount").arg(mount.path()), common::LIMIT);
    assert_eq!(said.status.code(), Some(5), "a mount in use is not taken down");
    assert!(said.stderr.contains("use") || said.stderr.contains("busy"), "{}", said.stderr);
    drop(held);
    mount.unmount();
}

/// A process that is stopped, until this is dropped.
struct Stopped(rustix::process::Pid);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, Signal::CONT);
    }
}

/// Whoever asks it waits, so nobody does.
#[test]
fn commands_find_the_store_of_a_mount_that_does_not_answer() {
    let store = Store::new();
    let mount = store.mount();
    fs::create_dir_all(mount.join("Note/deep")).unwrap();
    std::os::unix::fs::symlink("Note/deep", mount.join("link")).unwrap();
    let (scratch, point) = (store.scratch().path().to_owned(), mount.path().to_owned());
    let name = point.file_name().unwrap().to_str().unwrap().to_owned();
    std::os::unix::fs::symlink(&point, scratch.join("to-it")).unwrap();
    rustix::process::kill_process(mount.pid(), Signal::STOP).unwrap();
    let stopped = Stopped(mount.pid());
    let run = |args: &str| {
        let mut command = Command::new(sepia_binary());
        command.args(args.split(' ')).current_dir(&scratch).env_remove("SEPIA_STORE");
        run_within(&mut command, Duration::from_secs(20))
    };
    let ok = |args: &str| {
        let said = run(args);
        assert!(said.status.success(), "{args}: {}", said.stderr);
        said.text()
    };
    for place in [name.as_str(), "to-it", &format!("{name}/Note"), &format!("{name}/nothing/here")] {
        let status: serde_json::Value = serde_json::from_str(&ok(&format!("status --json {place}"))).unwrap();
        assert_eq!(status["store"], store.path().to_str().unwrap(), "{place}");
    }
    ok(&format!("put {name}/link/n Cargo.toml").replace("Cargo.toml", env!("CARGO_MANIFEST_PATH")));
    assert_eq!(ok(&format!("ls {name}/link/../deep")).trim(), "n");
    assert!(run(&format!("status --store {name}")).stderr.contains("is a mount, of the store"));
    assert!(run(&format!("mount store {name}")).stderr.contains("is mounted on"));
    let mut umount = Command::new(sepia_binary());
    umount.arg("umount").arg(&point).stderr(std::process::Stdio::piped());
    let mut umount = umount.spawn().unwrap();
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(umount.stderr.take().unwrap()), &mut said).unwrap();
    assert!(said.contains(&format!("kill -CONT {}", mount.pid().as_raw_nonzero())), "{said}");
    assert!(umount.try_wait().unwrap().is_none(), "it waits for what is under way");
    drop(stopped);
    assert!(umount.wait().unwrap().success());
    mount.ended();
}

/// Its process serves the other one, and doesn't end.
#[test]
fn as_root_umount_does_not_wait_while_the_mount_is_bound_elsewhere() {
    need_root();
    let store = Store::new();
    let mount = store.mount();
    let bound = store.scratch().dir("bound");
    let umount = |dir: &Path| run_within(Command::new(sepia_binary()).arg("umount").arg(dir), common::LIMIT);
    sh(store.scratch().path(), &format!("mount --bind {} bound", mount.path().display()));
    let said = umount(&bound);
    assert_eq!(said.status.code(), Some(0), "{}", said.stderr);
    assert!(said.stderr.contains("goes on"), "{}", said.stderr);
    assert!(!is_mounted(&bound) && is_mounted(mount.path()));
    fs::write(mount.join("file"), b"served").unwrap();
    mount.unmount();
}

#[test]
fn what_makes_no_sense_is_refused_in_plain_words() {
    let store = Store::new();
    let scratch = store.scratch();
    let dir = scratch.dir("dir");
    fs::write(scratch.path().join("plain"), b"").unwrap();
    let cases = [
        ("sepia mount nowhere dir", "nowhere"),
        ("sepia mount store nowhere", "nowhere"),
        ("sepia mount store plain", "plain"),
        ("sepia mount dir store", "dir"),
        ("sepia umount dir", "dir"),
        ("mkdir store/inside; sepia mount store store/inside", "inside"),
        ("sepia mount store store", "store"),
    ];
    for (command, mentions) in cases {
        let said = sh_fails(scratch.path(), command);
        assert!(said.contains(mentions), "`{command}` says: {said}");
        assert!(!said.contains("panicked"), "`{command}` says: {said}");
        assert!(!is_mounted(&dir) && !is_mounted(store.path()), "`{command}` left a mount");
    }
}

#[test]
fn an_ordinary_user_mounts_with_fusermount() {
    let scratch = common::Scratch::new();
    let home = scratch.dir("home");
    let said = sh_as_ordinary_user(
        &home,
        "id -u
         sepia init store
         mkdir mnt
         sepia mount store mnt
         trap 'sepia umount mnt || fusermount3 -uz mnt' EXIT
         mkdir mnt/Note
         echo one > mnt/Note/a
         echo two > mnt/Note/a
         sepia cat --generation 1 mnt/Note/a
         cat mnt/Note/a
         touch mnt/Note/b; rm mnt/Note/b; ln mnt/Note/a mnt/Note/c; chmod 600 mnt/Note/a
         trap - EXIT
         sepia umount mnt
         cat store/Note/c",
    );
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[lines.len() - 3..], ["one", "two", "two"], "{said}");
    if common::is_root() {
        assert_eq!(lines[0], "65534", "the script should have run as nobody");
    }
}

#[test]
fn the_name_in_the_mount_table_can_be_chosen() {
    let store = Store::new();
    let mount = store.mount_with(&["-o", "fsname=a-name-of-its-own"]);
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = table.lines().find(|line| line.contains(mount.path().to_str().unwrap())).unwrap();
    assert!(line.starts_with("a-name-of-its-own ") && line.contains(" fuse.sepia "), "{line}");
    run(Command::new("findmnt").args(["-n", "-t", "fuse.sepia"]).arg(mount.path()));
}

#[test]
fn as_root_mount_and_fstab_know_the_type() {
    need_root();
    let store = Store::new();
    let dir = store.scratch().dir("dir");
    let fstab = store.scratch().path().join("fstab");
    let line =
        format!("{} {} fuse.sepia noauto,nosuid,x-systemd.automount 0 0\n", store.path().display(), dir.display());
    fs::write(&fstab, line).unwrap();
    run(&mut common::script_with_mount_helper(
        store.scratch().path(),
        "mount -t fuse.sepia -o nodev,noatime store dir
         trap 'umount dir || umount -l dir' EXIT
         echo one > dir/file
         findmnt -no OPTIONS -t fuse.sepia dir | grep -w nodev | grep -qw noatime
         mount -o remount,ro dir
         ! echo two > dir/file
         mount -o remount,rw dir
         echo two > dir/file
         umount dir
         mount -T fstab \"$PWD/dir\"
         findmnt -no OPTIONS -t fuse.sepia dir | grep -qw nosuid
         echo three > dir/file
         umount dir
         trap - EXIT
         test \"$(cat store/file)\" = three",
    ));
    assert!(!is_mounted(&dir));
    assert_eq!(store.generations("file"), [1, 2, 3]);
}

/// `mount -a` knows what is mounted by the source that the kernel lists, which is another one with fsname.
#[test]
fn as_root_what_is_mounted_by_another_name_is_mounted_once() {
    need_root();
    let store = Store::new();
    let dir = store.scratch().dir("dir");
    for options in ["defaults", "fsname=notes"] {
        let line = format!("{} {} fuse.sepia {options} 0 0\n", store.path().display(), dir.display());
        fs::write(store.scratch().path().join("fstab"), line).unwrap();
        run(&mut common::script_with_mount_helper(
            store.scratch().path(),
            "mount -a -T fstab
             trap 'umount dir || umount -l dir' EXIT
             echo one > dir/file
             mount -a -T fstab
             test \"$(findmnt -no TARGET dir | wc -l)\" = 1
             test \"$(cat dir/file)\" = one",
        ));
        assert!(!is_mounted(&dir));
    }
}

/// mount(8), EXIT STATUS: 1 is a wrong call, 32 a failure. Scripts and systemd go by them.
#[test]
fn as_root_the_helper_ends_with_the_exit_codes_of_mount() {
    need_root();
    let store = Store::new();
    store.scratch().dir("dir");
    run(&mut common::script_with_mount_helper(
        store.scratch().path(),
        "ends() { local code=$1 status=0; shift; \"$@\" || status=$?; test $status = $code || { echo \"$*: $status\" >&2; exit 1; }; }
         helper() { (exec -a mount.fuse.sepia sepia \"$@\"); }
         unhelper() { (exec -a umount.fuse.sepia sepia \"$@\"); }
         ends 1 mount -t fuse.sepia -o nonsense store dir
         ends 1 helper store
         ends 1 helper store dir -x
         ends 1 unhelper
         ends 32 mount -t fuse.sepia nowhere dir
         ends 32 helper store nowhere
         ends 32 unhelper dir
         ends 0 mount -t fuse.sepia store dir
         trap 'umount -l dir' EXIT
         ends 32 helper store dir
         exec 3> dir/file
         ends 32 unhelper dir
         exec 3>&-
         ends 0 unhelper dir
         trap - EXIT
         ends 0 helper -f store dir",
    ));
}

#[test]
fn as_root_a_read_only_mount_can_be_made_writable() {
    need_root();
    let scratch = common::Scratch::new();
    let disk = LoopFs::new(&scratch, "ext4", 64 << 20);
    let store = Store::at(scratch, disk.path().join("store"));
    std::os::unix::fs::symlink(store.path(), store.scratch().path().join("store")).unwrap();
    store.scratch().dir("dir");
    run(&mut common::script_with_mount_helper(
        store.scratch().path(),
        "trap 'umount -l dir || true' EXIT
         refused() { local status=0; \"$@\" 2> said || status=$?; test $status = 32; }
         mount -t fuse.sepia -o ro,noatime store dir
         ! echo x > dir/file
         ! touch dir/file
         mount -o remount,rw dir
         findmnt -no OPTIONS dir | grep -w rw | grep -qw noatime
         echo one > dir/file
         mount -o remount,ro dir
         ! echo x > dir/file
         # What the daemon would have to know is refused, and says what to do.
         refused mount -o remount,rw,atime dir
         grep -q 'was mounted with noatime.*unmount it' said
         sepia umount dir
         # So is what the medium can't do.
         mount -o remount,ro ext4.dir
         mount -t fuse.sepia -o ro store dir
         refused mount -o remount,rw dir
         grep -q \"can't write to the store\" said
         findmnt -no OPTIONS dir | grep -qw ro
         # A mount that nobody could be told of doesn't become one that changes things.
         mount -o remount,rw ext4.dir
         refused mount -o remount,rw dir
         grep -q \"couldn't be written to when it was mounted\" said
         sepia umount dir
         refused mount -t fuse.sepia -o remount,rw store dir
         grep -q 'no Sepia store is mounted there' said",
    ));
    assert_eq!(store.generations("file"), [1]);
}

/// Changes a bit of a file's first byte, and leaves its times, as a disk does that loses what it was given.
fn flip(path: &std::path::Path) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 0).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(modified)).unwrap();
}

/// A laptop runs on its battery while nobody uses the mount.
#[test]
fn a_mount_that_nobody_uses_sleeps() {
    let store = Store::new();
    let mount = store.mount();
    fs::write(mount.join("note"), "one").unwrap();
    let wakes = || {
        let threads = fs::read_dir(format!("/proc/{}/task", mount.pid())).unwrap().flatten();
        let waits = threads.filter_map(|thread| {
            let status = fs::read_to_string(thread.path().join("status")).ok()?;
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok())
        });
        waits.sum::<u64>()
    };
    // What it does with what was saved comes first.
    wait_for("three seconds in which none of its threads wakes more than now and then", || {
        let before = wakes();
        std::thread::sleep(std::time::Duration::from_secs(3));
        (wakes() - before < 12).then_some(())
    });
    mount.unmount();
}

#[test]
fn checksums_come_by_themselves_and_damage_is_served_until_it_is_repaired() {
    let store = Store::new();
    let mount = store.mount();
    for text in ["one", "two"] {
        fs::write(mount.join("note"), text).unwrap();
    }
    let lines = || {
        let records = fs::read_dir(store.path().join(".sepia/checksums")).into_iter().flatten();
        let texts = records
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
        texts.map(|path| fs::read_to_string(path).unwrap().lines().count()).sum::<usize>()
    };
    wait_for("the checksums of both generations", || (lines() == 2).then_some(()));
    flip(&store.path().join("note"));
    // The mount refuses nothing.
    wait_for("the byte as it is on the disk", || (fs::read(mount.join("note")).unwrap() == b"uwo").then_some(()));
    let stats =
        || -> serde_json::Value { serde_json::from_slice(&fs::read(mount.join(".sepia/stats")).unwrap()).unwrap() };
    assert!(stats()["verification"]["last"].is_null());
    let verify = |argument: &str| {
        let said =
            run_within(Command::new(sepia_binary()).arg("verify").arg(mount.path()).args([argument]), common::LIMIT);
        (said.status.code(), said.text())
    };
    let (code, text) = verify("--level=content");
    assert_eq!(code, Some(7), "{text}");
    assert!(text.contains("the newest intact generation is 1 of"), "{text}");
    assert_eq!(stats()["verification"]["damaged"], 1);
    assert_eq!(fs::read(mount.join("note")).unwrap(), b"uwo");
    // Somebody has it open meanwhile.
    let open = fs::File::open(mount.join("note")).unwrap();
    let (code, text) = verify("--bring-back");
    assert_eq!(code, Some(0), "{text}");
    wait_for("the intact bytes", || (fs::read(mount.join("note")).unwrap() == b"one").then_some(()));
    open.read_exact_at(&mut [0; 3], 0).unwrap();
    drop(open);
    assert_eq!(fs::read(mount.join(".sepia/generations/note/2")).unwrap(), b"uwo");
    assert_eq!(stats()["verification"]["damaged"], 0);
    mount.unmount();
}

#[test]
fn as_root_a_store_that_can_only_be_read_is_verified_all_the_same() {
    need_root();
    let store = Store::new();
    store.sepia(&["verify"]);
    fs::create_dir(store.scratch().path().join("read-only")).unwrap();
    let text = sh(
        store.scratch().path(),
        "echo one | sepia put note --store store
         sepia verify --store store
         echo two | sepia put note --store store
         rm -f store/.sepia/lock/verify store/.sepia/lock/collector
         unshare --mount bash -e -c '
             mount --bind store read-only
             mount -o remount,ro,bind read-only
             sepia status read-only
             sepia verify --store read-only
         '",
    );
    assert!(text.contains("verified:   1 object, 2"), "{text}");
    assert!(text.contains("1 generation has no checksum, and gets none"), "{text}");
    flip(&store.path().join(".sepia/generations/note").join(first_name(&store.path().join(".sepia/generations/note"))));
    let text = sh(
        store.scratch().path(),
        "unshare --mount bash -e -c '
             mount --bind store read-only
             mount -o remount,ro,bind read-only
             sepia verify --store read-only && exit 1 || test $? = 7
         '",
    );
    assert!(text.contains("generation 1 of"), "{text}");
}

fn first_name(dir: &std::path::Path) -> std::ffi::OsString {
    fs::read_dir(dir).unwrap().next().unwrap().unwrap().file_name()
}

/// What root makes in the store of somebody else must not be in the owner's way.
#[test]
fn as_root_a_store_of_somebody_else_stays_theirs() {
    need_root();
    let store = Store::new();
    let dir = store.scratch().path();
    sh(
        dir,
        "mkdir bin && cp \"$(command -v sepia)\" bin/ && chmod 755 . bin
         mkdir theirs && chown nobody:nogroup theirs && mkdir at
         owner() { setpriv --reuid=nobody --regid=nogroup --clear-groups env PATH=\"$PWD/bin:$PATH\" \"$@\"; }
         owner sepia init theirs/store
         for n in a b c d; do echo first | owner sepia put theirs/store/$n; done
         owner mkdir theirs/store/dir
         export SEPIA_STORE=$PWD/theirs/store
         echo second | sepia put a
         sepia rm b; sepia trash restore b; sepia mv c dir/c; sepia mv dir other
         sepia history a; sepia snapshot create one; sepia pin a@1; sepia verify --repair; sepia gc --now
         sepia mount theirs/store at
         trap 'sepia umount at || umount -l at' EXIT
         for n in $(seq 70); do echo $n > at/new-$n; echo again > at/new-$n; chown nobody:nogroup at/new-$n; done
         echo third > at/a; mkdir at/deep; echo x > at/deep/x; echo y > at/deep/x; rm at/d
         trap - EXIT
         sepia umount at
         chown -R nobody:nogroup theirs/store/deep
         roots=$(find theirs/store/.sepia ! -type l ! -path '*/generations/*@*' ! -name log -uid 0)
         test -z \"$roots\" || { echo \"$roots\"; exit 1; }
         for n in $(seq 70); do echo more | owner sepia put new-$n; done
         owner sepia mv other dir
         owner sepia rm a
         owner sepia snapshot create two
         owner sepia verify",
    );
}

/// That its mode forbids its owner to write to an object matters to who opens it, not to a save.
#[test]
fn as_root_an_ordinary_user_saves_what_is_read_only_and_has_two_names() {
    need_root();
    let store = Store::new();
    sh(
        store.scratch().path(),
        "mkdir bin && cp \"$(command -v sepia)\" bin/ && chmod 755 . bin
         mkdir theirs && chown nobody:nogroup theirs && cd theirs
         owner() { setpriv --reuid=nobody --regid=nogroup --clear-groups env PATH=\"$PWD/../bin:$PATH\" \"$@\"; }
         owner sepia init store
         export SEPIA_STORE=$PWD/store
         for mode in 444 400; do
             n=f$mode
             echo first | owner sepia put $n
             owner ln store/$n store/also-$n
             chmod $mode store/$n
             echo second | owner sepia put $n
             test \"$(owner sepia cat also-$n)\" = second
             test \"$(owner sepia cat $n --generation 1)\" = first
             test $(stat -c %a store/also-$n) = $mode
         done",
    );
}
