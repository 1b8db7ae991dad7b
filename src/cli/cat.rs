//! `sepia cat`.

use std::ffi::OsString;
use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::fs::FileExt;

use super::Failure;
use super::output::Output;
use super::progress::Progress;
use super::target::StoreArg;
use crate::types::{Generation, Key};

/// Print an object's bytes
#[derive(Debug, clap::Args)]
pub struct CatArgs {
    /// The object
    #[arg(value_name = "KEY")]
    key: OsString,
    /// This generation rather than the current one
    #[arg(short, long, value_name = "N")]
    generation: Option<Generation>,
}

/// Runs `sepia cat`.
pub fn run(args: &CatArgs, store: &StoreArg) -> Result<(), Failure> {
    let target = store.object(&args.key)?;
    let opened = match args.generation {
        Some(generation) => target.store.get_generation(&target.key, generation)?,
        None => target.store.get(&target.key)?,
    };
    let mut out = Output::new();
    copy(&target.key, &opened.file, opened.stat.size, &mut out)?;
    out.finish()
}

/// Prints the first `size` bytes of a file: an older generation may be the beginning of a longer one.
pub fn copy(key: &Key, file: &File, size: u64, out: &mut Output) -> Result<(), Failure> {
    // On a terminal the bytes themselves show that it goes on.
    let mut progress = (!std::io::stdout().is_terminal()).then(|| Progress::new(key.to_string(), Some(size)));
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    while at < size {
        let most = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
        let n = match file.read_at(&mut buffer[..most], at) {
            Ok(0) => return Err(Failure::error(format!("{key}: ends after {at} of {size} bytes"))),
            Ok(n) => n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::error(format!("{key}: can't read: {error}"))),
        };
        out.raw(&buffer[..n])?;
        at += n as u64;
        if let Some(progress) = &mut progress {
            progress.add(n as u64);
        }
    }
    Ok(())
}
