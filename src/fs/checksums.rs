//! The checksums of a mount: when to ask the store to compute some. Which, and how fast, the store decides.

use std::sync::{Arc, Weak};

use super::Fs;
use super::collector::spawn_patient;
use crate::store::checksums::{Summed, Summing};

impl Fs {
    /// Starts to compute the checksums of what is saved.
    pub(super) fn start_checksums(self: &Arc<Self>) {
        let (fs, background) = (Arc::downgrade(self), self.summing.clone());
        let (every, quiet) = (self.options.checksums_every, self.options.checksums_after);
        let summer = move || {
            // A cause that stays is told once.
            let mut told = None;
            loop {
                background.rest(every);
                let Some(_busy) = background.begin() else { return };
                let Some(store) = Weak::upgrade(&fs).map(|fs| fs.store.clone()) else { return };
                let failed = match store.sum_in_background(&Summing { quiet, stop: &|| background.has_ended() }) {
                    Ok(Summed { generations, bytes }) => {
                        if generations > 0 {
                            log::debug!("computed the checksums of {generations} generations from {bytes} bytes");
                        }
                        None
                    }
                    Err(error) => Some(error.to_string()),
                };
                if let Some(error) = &failed
                    && failed != told
                {
                    log::warn!("no checksums are computed: {error}");
                }
                told = failed;
            }
        };
        if let Err(error) = spawn_patient("sepia-checksums", summer) {
            log::warn!("this mount computes no checksums: {error}");
        }
    }
}
