//! The one table from errors to the numbers that programs see.

use rustix::io::Errno;

use crate::types::KeyError;
use crate::{backend, store};

/// The errno for an error of the store. What hints at a broken medium is logged, since an errno says so little.
pub fn errno(error: store::Error) -> Errno {
    match error {
        store::Error::Backend(error) => from_backend(error),
        store::Error::Conflict { .. } => {
            log::warn!("{error}");
            Errno::STALE
        }
        store::Error::Rejected { ref breach, .. } => {
            log::warn!("{error}");
            from_limit(breach.rule)
        }
        store::Error::NoConflict(_) | store::Error::AmbiguousConflict(_) | store::Error::NotInTrash(_) => Errno::NOENT,
        store::Error::VerificationEnded { .. } => Errno::IO,
        store::Error::Collecting | store::Error::Verifying | store::Error::Paused(_) => Errno::AGAIN,
        store::Error::DeletionDisabled(_) => Errno::PERM,
        store::Error::Url { .. } | store::Error::LongEvent { .. } => Errno::INVAL,
        store::Error::NoEvents => Errno::OPNOTSUPP,
        store::Error::Records { ref source, .. } | store::Error::Source(ref source) => {
            log::error!("{error}");
            from_io(source)
        }
        store::Error::NoSnapshot(_) | store::Error::NotInSnapshot { .. } => Errno::NOENT,
        store::Error::SnapshotExists(_) => Errno::EXIST,
        store::Error::SnapshotName { .. } => Errno::INVAL,
        store::Error::SnapshotDamaged { .. } | store::Error::SnapshotBytesLost { .. } => {
            log::error!("{error}");
            Errno::IO
        }
        store::Error::Config(_) => {
            log::error!("{error}");
            Errno::INVAL
        }
    }
}

/// The errno for what a rule of a class limits.
fn from_limit(limit: store::Limit) -> Errno {
    use store::Limit;
    match limit {
        Limit::MaxSize => Errno::FBIG,
        // As when the number of a user's files is limited (quotactl(2)).
        Limit::MaxObjects => Errno::DQUOT,
        // As setxattr(2) has it.
        Limit::MaxXattrSize => Errno::TOOBIG,
        Limit::MaxXattrs | Limit::MaxXattrsSize => Errno::NOSPC,
        // Programs that link or rename then copy.
        Limit::Links => Errno::XDEV,
        Limit::Id | Limit::ContentType | Limit::Json | Limit::Schema | Limit::Unknown => Errno::INVAL,
    }
}

/// The errno for an error of the medium.
pub fn from_backend(error: backend::Error) -> Errno {
    use backend::Error;
    match error {
        Error::NotFound(_) | Error::NoGeneration(..) => Errno::NOENT,
        Error::Exists(_) => Errno::EXIST,
        Error::NotDirectory(_) => Errno::NOTDIR,
        Error::IsDirectory(_) => Errno::ISDIR,
        Error::NotEmpty(_) => Errno::NOTEMPTY,
        Error::Stale { .. } => Errno::STALE,
        Error::NoAttribute(_) => Errno::NODATA,
        Error::Key(KeyError::TooLong) => Errno::NAMETOOLONG,
        Error::Key(KeyError::Reserved) => Errno::PERM,
        Error::Key(_) | Error::Invalid(..) => Errno::INVAL,
        Error::Unsupported(..) => Errno::OPNOTSUPP,
        Error::Locked(_) => {
            log::error!("{error}");
            Errno::AGAIN
        }
        Error::Unusable(_) => {
            log::error!("{error}");
            Errno::IO
        }
        Error::Io { ref source, .. } => {
            let errno = from_io(source);
            if matches!(errno, Errno::IO | Errno::NOSPC | Errno::ROFS | Errno::MFILE | Errno::NFILE | Errno::STALE) {
                log::error!("{error}");
            }
            errno
        }
    }
}

/// The errno in an I/O error.
pub fn from_io(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
