//! Names in the history: what is read is written the same way again.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use sepia::backend::GenerationName;
use sepia::{Generation, Timestamp};

fuzz_target!(|data: &[u8]| {
    let name = OsStr::from_bytes(data);
    if let Some(parsed) = GenerationName::parse(name) {
        assert_eq!(OsStr::new(&parsed.to_string()), name);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(time) = text.parse::<Timestamp>() {
        assert_eq!(time.to_string(), text);
    }
    if let Ok(generation) = text.parse::<Generation>() {
        assert!(generation.get() > 0 && generation.next() >= generation);
    }
    if let Ok(bytes) = <[u8; 8]>::try_from(&data[..data.len().min(8)]) {
        let time = Timestamp::from_nanos(i64::from_le_bytes(bytes));
        assert_eq!(time.to_string().parse(), Ok(time));
        let _ = (time.human(), time.rfc3339());
    }
});
