//! Keys from records and from people: never a panic, and what is accepted comes back as itself.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use sepia::Key;

fuzz_target!(|data: &[u8]| {
    if let Ok(key) = Key::parse(OsStr::from_bytes(data)) {
        assert!(key.escaped().is_ascii());
        assert_eq!(Key::unescape(&key.escaped()).as_ref(), Ok(&key));
        assert_eq!(Key::parse(OsStr::from_bytes(key.as_bytes())).as_ref(), Ok(&key));
        assert!(!key.to_string().contains('\n'));
        assert!(key.components().all(|name| name != ".." && name != "." && !name.is_empty()));
        assert!(key.parent().is_none_or(|parent| key.is_within(&parent)));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(key) = Key::unescape(text)
    {
        assert_eq!(Key::unescape(&key.escaped()), Ok(key));
    }
});
