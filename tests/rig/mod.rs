//! What the tests of crashes add to `common`: dice whose seed is printed, records that show when they are torn, a load
//! that keeps account of what was acknowledged, the check after the crash, and disks that lose their power.

#![allow(dead_code, reason = "each test file uses a part")]

pub mod check;
pub mod disk;
pub mod load;
pub mod record;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::common::{self, Mount, wait_for};

/// SplitMix64: enough for tests, and the same everywhere.
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    /// From `SEPIA_SEED`, or from the clock; prints what makes the run repeatable.
    pub fn from_env() -> Self {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = number_from_env("SEPIA_SEED").unwrap_or_else(now);
        println!("SEPIA_SEED={seed}");
        Dice(seed)
    }

    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

pub fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// How many daemons could not be killed, see [`kill`].
static UNKILLABLE: AtomicU64 = AtomicU64::new(0);

/// kill -9; what the daemon said is searched for panics.
///
/// A daemon that is telling the kernel of a change may wait there, unkillably, for a lock of somebody who waits for
/// the daemon: then nothing ends before the connection is aborted. That is counted, for
/// [`assert_all_could_be_killed`], so that the rest of the test still means something.
pub fn kill(mount: Mount) -> String {
    let log = mount.path().with_extension("log");
    rustix::process::kill_process(mount.pid(), rustix::process::Signal::KILL).unwrap();
    let tasks = format!("/proc/{}/task", mount.pid().as_raw_nonzero());
    let start = Instant::now();
    // Its dead leader stays as a zombie until it is waited for.
    while std::fs::read_dir(&tasks).is_ok_and(|tasks| tasks.count() > 1) {
        if start.elapsed() > Duration::from_secs(3) {
            UNKILLABLE.fetch_add(1, Ordering::SeqCst);
            eprintln!("a daemon outlived kill -9: {}", mount.path().display());
            abort(mount.path());
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    mount.kill();
    let log = String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned();
    assert!(!log.contains("panicked"), "the daemon panicked:\n{log}");
    log
}

/// Has the kernel answer all requests of a mount by itself. `umount -f` would do the same, but first asks the mount.
fn abort(dir: &std::path::Path) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(4) == dir.to_str()).expect("the mount");
    let minor = line.split(' ').nth(2).and_then(|device| device.strip_prefix("0:")).expect("the mount's number");
    let control = tempfile::tempdir().unwrap();
    // The system calls themselves, for mount(8) looks at what is mounted already, and would wait for it.
    rustix::mount::mount("none", control.path(), "fusectl", rustix::mount::MountFlags::empty(), None).unwrap();
    let aborted = std::fs::write(control.path().join(minor).join("abort"), "1");
    rustix::mount::unmount(control.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    aborted.unwrap();
}

pub fn assert_all_could_be_killed() {
    let unkillable = UNKILLABLE.load(Ordering::SeqCst);
    assert_eq!(unkillable, 0, "daemons outlived kill -9 and held everybody up until their connection was aborted");
}

/// Runs `work` on a thread of its own, so that a request that never returns fails the test instead of hanging it.
pub fn bounded<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(work);
    wait_for(what, || thread.is_finished().then_some(()));
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// `sepia COMMAND`, to be completed.
pub fn sepia(command: &str) -> std::process::Command {
    let mut sepia = std::process::Command::new(common::sepia_binary());
    sepia.arg(command).env_remove("SEPIA_STORE");
    sepia
}

/// Runs a command that must refuse: it fails by itself, not by a signal or a panic, and says why.
#[track_caller]
pub fn refused(command: &mut std::process::Command) -> String {
    let output = common::run_within(command, common::LIMIT);
    let said = output.stderr;
    assert!(!output.status.success(), "{command:?} succeeded");
    assert!(output.status.code().is_some_and(|code| code < 100), "{command:?}: {}\n{said}", output.status);
    assert!(!said.contains("panicked"), "{command:?}: {said}");
    assert!(!said.trim().is_empty(), "{command:?} failed without a word");
    said
}

/// The current value of a line such as `VmRSS:` in /proc/PID/status, in bytes.
pub fn proc_status(mount: &Mount, what: &str) -> u64 {
    let path = format!("/proc/{}/status", mount.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// The daemon's open descriptors.
pub fn descriptors(mount: &Mount) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", mount.pid().as_raw_nonzero())).unwrap().count()
}

/// The directories in which the daemon watches for changes: one each that the kernel knows.
pub fn watched_directories(mount: &Mount) -> usize {
    let infos = std::fs::read_dir(format!("/proc/{}/fdinfo", mount.pid().as_raw_nonzero())).unwrap();
    let texts = infos.filter_map(|info| std::fs::read_to_string(info.unwrap().path()).ok());
    texts.map(|text| text.lines().filter(|line| line.starts_with("inotify ")).count()).sum()
}

/// The array that a command printed with `--json`.
#[track_caller]
pub fn json(printed: &[u8]) -> Vec<serde_json::Value> {
    serde_json::from_slice(printed)
        .unwrap_or_else(|error| panic!("no JSON array ({error}): {}", String::from_utf8_lossy(printed)))
}

/// `sepia conflicts SUBCOMMAND …` on a store.
pub fn conflicts(store: &common::Store, args: &[&str]) -> std::process::Command {
    let mut command = sepia("conflicts");
    command.args(args).arg("--store").arg(store.path()).current_dir(store.scratch().path());
    command
}
