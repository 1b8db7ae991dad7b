//! Locks among the processes of a mount.

use super::read_write;
use crate::common::{self, Store, script, sh_fails};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

#[test]
fn locks_exclude_processes_of_a_mount() {
    let store = Store::new();
    let mount = store.mount();
    let path = mount.join("lock");
    let file = read_write(&path);
    rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
    let said = common::run_within(&mut script(mount.path(), "flock -n lock true"), common::LIMIT);
    assert_eq!(said.status.code(), Some(1), "flock -n while another process holds it: {}", said.stderr);
    assert_eq!(rustix::fs::flock(read_write(&path), FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK));
    rustix::fs::flock(&file, FlockOperation::Unlock).unwrap();
    mount.sh("flock -n lock true");

    // Counting under the lock loses nothing.
    mount.sh("echo 0 > count
         for p in 1 2 3 4; do
           ( for i in $(seq 25); do flock lock sh -c 'echo $(($(cat count) + 1)) > count'; done ) &
         done; wait
         test \"$(cat count)\" = 100");

    // fcntl locks of ranges, which a process can ask about.
    mount.sh(r#"python3 - <<'PY'
import fcntl, os, struct, sys
f = open("ranges", "w+b"); f.write(b"x" * 100); f.flush()
fcntl.lockf(f, fcntl.LOCK_EX, 10, 0)
r, w = os.pipe()
pid = os.fork()
if pid == 0:
    g = open("ranges", "r+b")
    try:
        fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
        os._exit(1)
    except BlockingIOError:
        pass
    fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 50)
    os.write(w, b"1")
    # Waits until the parent lets go.
    fcntl.lockf(g, fcntl.LOCK_EX, 10, 0)
    os._exit(0)
os.read(r, 1)
fcntl.lockf(f, fcntl.LOCK_UN, 10, 0)
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
PY"#);
    // A waiting lock can be interrupted.
    rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
    let said = common::run_within(&mut script(mount.path(), "timeout -s TERM 0.3 flock lock true"), common::LIMIT);
    assert_eq!(said.status.code(), Some(124), "a blocked flock ends when it is told to");
}

#[test]
fn closing_releases_locks() {
    let store = Store::new();
    let mount = store.mount();
    let file = read_write(&mount.join("lock"));
    rustix::fs::fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
    let try_lock = "python3 -c 'import fcntl; fcntl.lockf(open(\"lock\", \"r+b\"), fcntl.LOCK_EX | fcntl.LOCK_NB)'";
    sh_fails(mount.path(), try_lock);
    drop(file);
    mount.sh(try_lock);
}
