//! Runs the real binary on a store in a temporary directory.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sepia::store::{ConflictId, SessionOptions};
use sepia::{Key, Store};
use serde_json::Value;

/// A store in a directory of its own; both go with it.
pub struct Sandbox {
    pub dir: tempfile::TempDir,
    pub store: PathBuf,
}

/// What a run of the command came to.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Ran {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    pub fn ok(self) -> Self {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{self:?}");
        self
    }

    pub fn json(self) -> Value {
        serde_json::from_slice(&self.ok().out).unwrap()
    }

    #[track_caller]
    pub fn fails(self, code: i32, message: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.starts_with("sepia: ") || self.err.starts_with("error: "), "{self:?}");
        assert!(self.err.contains(message), "{self:?}");
        assert!(self.out.is_empty(), "{self:?}");
    }
}

impl Sandbox {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let sandbox = Sandbox { dir, store };
        sandbox.run(&["init", "store"]).ok();
        sandbox
    }

    pub fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sepia"));
        command.current_dir(dir).env_remove("SEPIA_STORE").env_remove("SEPIA_LOG");
        command
    }

    pub fn run_in(&self, dir: &Path, args: &[impl AsRef<OsStr>], input: &[u8]) -> Ran {
        let mut child = self
            .command(dir)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that fails early doesn't read its input.
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        Ran { code: output.status.code().unwrap(), out: output.stdout, err }
    }

    /// Runs beside the store's directory.
    pub fn run(&self, args: &[impl AsRef<OsStr>]) -> Ran {
        self.run_in(self.dir.path(), args, b"")
    }

    pub fn put(&self, key: &str, bytes: &[u8]) -> Value {
        self.run_in(&self.store, &["put", key, "--json"], bytes).json()
    }

    pub fn open(&self) -> Store {
        Store::open(self.store.to_str().unwrap()).unwrap()
    }

    /// Two sessions on one generation: the second one loses.
    pub fn lose(&self, key: &str, winner: &[u8], loser: &[u8]) -> ConflictId {
        let (store, key) = (self.open(), Key::parse(key).unwrap());
        let mut first = store.open_session(&key, &SessionOptions::default()).unwrap();
        let mut second = store.open_session(&key, &SessionOptions::default()).unwrap();
        for (session, bytes) in [(&mut first, winner), (&mut second, loser)] {
            session.truncate(0).unwrap();
            session.write_at(bytes, 0).unwrap();
        }
        first.publish(&key, true).unwrap();
        first.close(&key);
        let error = second.publish(&key, true).unwrap_err();
        second.close(&key);
        match error {
            sepia::Error::Conflict { kept, .. } => kept,
            other => panic!("{other}"),
        }
    }
}

/// What `pointer` (RFC 6901) points to.
#[track_caller]
pub fn get<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {value}"))
}
