//! How a command ends: its exit code, and what it says when it fails.

use std::io;

use crate::backend;
use crate::store::Error;
use crate::types::KeyError;

/// The exit codes that scripts can rely on. `sepia --help` lists them from [`ExitCode::TABLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// It was done.
    Done = 0,
    /// It failed for a reason that has no code of its own; with `diff --exit-code`: they differ.
    Error = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// There is no such object, generation, conflict or snapshot.
    NotFound = 3,
    /// A precondition didn't hold: the object exists already, or somebody else changed it meanwhile.
    Conflict = 4,
    /// Another process holds a lock for too long.
    Locked = 5,
    /// There is no store there, or not one that this version can use.
    StoreUnusable = 6,
    /// A verification has found damage that it didn't repair.
    Damaged = 7,
    /// A rule of the class has something against it.
    Rejected = 8,
}

impl ExitCode {
    /// What the help says about exit codes.
    pub const TABLE: &str = "\
Exit codes:
  0  done
  1  an error that has no code of its own
  2  the command line makes no sense
  3  no such object, generation, conflict or snapshot
  4  conflict: it exists already, or somebody else changed it meanwhile
  5  locked by another process for too long
  6  no store there, or not one that this version can use
  7  something in the store is damaged
  8  refused by a rule of the class";
}

impl ExitCode {
    /// The code with this number.
    pub fn from_number(number: i32) -> Option<Self> {
        use ExitCode as C;
        let all = [
            C::Done,
            C::Error,
            C::Usage,
            C::NotFound,
            C::Conflict,
            C::Locked,
            C::StoreUnusable,
            C::Damaged,
            C::Rejected,
        ];
        all.into_iter().find(|code| *code as i32 == number)
    }
}

/// How a helper of mount(8) or umount(8) ends, which they pass on as their own exit code (mount(8), EXIT STATUS).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum HelperExit {
    /// It was done.
    Done = 0,
    /// The helper was called wrongly.
    Usage = 1,
    /// It failed.
    Failure = 32,
}

impl ExitCode {
    /// The same for mount(8) and umount(8).
    pub fn of_mount_helper(self) -> HelperExit {
        match self {
            ExitCode::Done => HelperExit::Done,
            ExitCode::Usage => HelperExit::Usage,
            _ => HelperExit::Failure,
        }
    }
}

impl From<HelperExit> for std::process::ExitCode {
    fn from(code: HelperExit) -> Self {
        (code as u8).into()
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        (code as u8).into()
    }
}

/// Why a command ends early: the exit code and the text for people, without the `sepia: ` before it.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The exit code.
    pub code: ExitCode,
    /// What happened, to which object, what was kept, what to do next. Nothing is printed when it is empty.
    pub message: String,
}

impl Failure {
    /// A failure with a message.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Failure { code, message: message.into() }
    }

    /// Any error that has no exit code of its own.
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Error, message)
    }

    /// A command line that makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, message)
    }

    /// Ends with a code without saying anything.
    pub fn silent(code: ExitCode) -> Self {
        Self::new(code, "")
    }

    /// Standard output couldn't be written. A reader that has seen enough (`sepia cat … | head`) is no error.
    pub fn output(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::silent(ExitCode::Done);
        }
        Self::error(format!("can't write the output: {error}"))
    }

    /// The same, with what to do next behind the message.
    pub fn hint(mut self, hint: impl AsRef<str>) -> Self {
        self.message.push_str("; ");
        self.message.push_str(hint.as_ref());
        self
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Failure::usage(error.to_string())
    }
}

impl From<backend::Error> for Failure {
    fn from(error: backend::Error) -> Self {
        use backend::Error as E;
        let code = match &error {
            E::NotFound(_) | E::NoGeneration(..) | E::NoAttribute(_) => ExitCode::NotFound,
            E::Exists(_) | E::Stale { .. } => ExitCode::Conflict,
            E::Key(_) => ExitCode::Usage,
            E::Locked(_) => ExitCode::Locked,
            E::Unusable(_) => ExitCode::StoreUnusable,
            _ => ExitCode::Error,
        };
        let failure = Failure::new(code, error.to_string());
        match &error {
            E::Stale { .. } => failure.hint("nothing was changed, and 'sepia history' shows what is new"),
            E::NoGeneration(..) => failure.hint("'sepia history' shows those that are kept"),
            E::Locked(_) => failure.hint("'sepia status' shows who uses the store"),
            _ => failure,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Backend(error) => return error.into(),
            Error::VerificationEnded { source, .. } => return (*source).into(),
            Error::Conflict { .. } => ExitCode::Conflict,
            Error::Rejected { .. } => ExitCode::Rejected,
            Error::NoConflict(_) | Error::NotInTrash(_) => ExitCode::NotFound,
            Error::Collecting | Error::Verifying => ExitCode::Locked,
            Error::NoSnapshot(_) => ExitCode::NotFound,
            Error::NotInSnapshot { .. } | Error::SnapshotBytesLost { .. } => ExitCode::NotFound,
            Error::SnapshotExists(_) => ExitCode::Conflict,
            Error::AmbiguousConflict(_) | Error::SnapshotName { .. } => ExitCode::Usage,
            Error::Url { .. } => ExitCode::StoreUnusable,
            _ => ExitCode::Error,
        };
        let failure = Failure::new(code, error.to_string());
        match &error {
            Error::Conflict { kept, .. } => failure.hint(format!("compare with: sepia conflicts diff {kept}")),
            Error::Rejected { kept: Some(kept), .. } => failure.hint(format!(
                "show them with: sepia conflicts show {kept} --bytes, or mend the rule in .sepia/config.toml"
            )),
            Error::Rejected { kept: None, .. } => {
                failure.hint("nothing was changed; the rules are in .sepia/config.toml")
            }
            Error::NoConflict(_) | Error::AmbiguousConflict(_) => failure.hint("list them with: sepia conflicts"),
            Error::DeletionDisabled(_) => failure.hint("switch it on with: sepia gc --enable"),
            Error::Paused(_) => failure.hint("go on now with: sepia gc --resume"),
            Error::NotInTrash(_) => failure.hint("list what was removed with: sepia trash"),
            Error::NoSnapshot(_) => failure.hint("list them with: sepia snapshot list"),
            Error::SnapshotExists(_) => failure.hint("give another name, or delete it first"),
            _ => failure,
        }
    }
}
