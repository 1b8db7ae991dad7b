//! Stores, by the commands of the real program.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use super::commands::environment;
use super::{Mount, Scratch, run, sepia_binary};

/// A store in a scratch directory.
pub struct Store {
    path: PathBuf,
    scratch: Arc<Scratch>,
}

impl Store {
    /// A new, empty store.
    #[track_caller]
    pub fn new() -> Self {
        let scratch = Scratch::new();
        let path = scratch.path().join("store");
        Self::at(scratch, path)
    }

    /// A new, empty store at `path`, which keeps `scratch` alive.
    #[track_caller]
    pub fn at(scratch: Arc<Scratch>, path: PathBuf) -> Self {
        run(Command::new(sepia_binary()).arg("init").arg(&path));
        Self { path, scratch }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that everything of this test lies in.
    pub fn scratch(&self) -> &Arc<Scratch> {
        &self.scratch
    }

    /// Mounts the store at a new directory.
    #[track_caller]
    pub fn mount(&self) -> Mount {
        self.mount_with(&[])
    }

    /// Mounts the store with further arguments.
    #[track_caller]
    pub fn mount_with(&self, arguments: &[&str]) -> Mount {
        Mount::new(&self.scratch, &self.path, arguments)
    }

    /// `sepia COMMAND --store STORE …`, which must succeed; what it printed.
    #[track_caller]
    pub fn sepia<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Vec<u8> {
        run(&mut self.command(arguments)).stdout
    }

    /// `sepia COMMAND --store STORE …`, not yet run.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(sepia_binary());
        environment(&mut command);
        command.arg(&arguments[0]).arg("--store").arg(&self.path).args(&arguments[1..]);
        command.current_dir(self.scratch.path());
        command
    }

    /// The numbers of all generations of an object, oldest first, with the current one.
    #[track_caller]
    pub fn generations<S: AsRef<OsStr>>(&self, key: S) -> Vec<u64> {
        let printed = self.sepia(&[OsStr::new("history"), OsStr::new("--json"), OsStr::new("--"), key.as_ref()]);
        let history: Value = serde_json::from_slice(&printed)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", String::from_utf8_lossy(&printed)));
        let listed = history["generations"].as_array().unwrap_or_else(|| panic!("no generations in {history}"));
        let mut numbers: Vec<u64> = listed
            .iter()
            .map(|item| item["generation"].as_u64().unwrap_or_else(|| panic!("a generation without number: {item}")))
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// The bytes of a generation of an object.
    #[track_caller]
    pub fn cat(&self, key: &str, generation: Option<u64>) -> Vec<u8> {
        match generation {
            Some(number) => self.sepia(&["cat", "--generation", &number.to_string(), key]),
            None => self.sepia(&["cat", key]),
        }
    }

    /// What `sepia conflicts --json` lists.
    #[track_caller]
    pub fn conflicts(&self) -> Vec<Value> {
        let printed = self.sepia(&["conflicts", "--json"]);
        serde_json::from_slice(&printed)
            .unwrap_or_else(|error| panic!("no list ({error}): {}", String::from_utf8_lossy(&printed)))
    }
}
