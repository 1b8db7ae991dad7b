//! The options after `-o`, as mount(8), fstab(5) and other filesystems write them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::mount::MountFlags;

use super::Failure;

/// What options ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// Flags as for mount(2).
    pub flags: MountFlags,
    /// Other users may use the mount.
    pub allow_other: bool,
    /// What is shown as the source.
    pub source: Option<OsString>,
    /// An existing mount is to be changed.
    pub remount: bool,
}

/// Options that set a flag, or with the second name clear it.
const FLAGS: [(&str, &str, MountFlags); 8] = [
    ("ro", "rw", MountFlags::RDONLY),
    ("nosuid", "suid", MountFlags::NOSUID),
    ("nodev", "dev", MountFlags::NODEV),
    ("noexec", "exec", MountFlags::NOEXEC),
    ("noatime", "atime", MountFlags::NOATIME),
    ("nodiratime", "diratime", MountFlags::NODIRATIME),
    ("sync", "async", MountFlags::SYNCHRONOUS),
    ("dirsync", "", MountFlags::DIRSYNC),
];

/// Options for mount(8), systemd and other tools, or for what is so anyway; and those that the kernel lists for a
/// mount, which mount(8) repeats when it is to be changed. Of those with a value only the name.
const MEANINGLESS: [&str; 34] = [
    "_netdev",
    "auto",
    "comment",
    "default_permissions",
    "defaults",
    "group",
    "group_id",
    "helper",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "max_read",
    "noauto",
    "nofail",
    "nogroup",
    "noiversion",
    "nolazytime",
    "nomand",
    "noowner",
    "norelatime",
    "nouser",
    "nousers",
    "owner",
    "relatime",
    "rootmode",
    "silent",
    "nostrictatime",
    "strictatime",
    "subtype",
    "uhelper",
    "user",
    "user_id",
    "users",
];

impl MountOptions {
    /// What holds when nothing is asked for. Root mounts as any local filesystem is mounted: other users may enter,
    /// and the permissions of the objects say what they may do. Ordinary users mount for themselves, and what they
    /// mount grants nobody rights: no device nodes, no suid.
    pub fn defaults(as_root: bool) -> Self {
        let flags = if as_root { MountFlags::empty() } else { MountFlags::NOSUID | MountFlags::NODEV };
        MountOptions { flags, allow_other: as_root, source: None, remount: false }
    }

    /// Takes the options of one `-o`; a later one overrides an earlier one. With `sloppy`, unknown ones are passed over
    /// (mount -s).
    pub fn parse(&mut self, list: &OsStr, sloppy: bool) -> Result<(), Failure> {
        for option in split(list.as_bytes()) {
            let (name, value) = match option.iter().position(|&b| b == b'=') {
                Some(at) => (&option[..at], Some(&option[at + 1..])),
                None => (&option[..], None),
            };
            let known = self.take(&String::from_utf8_lossy(name), value)?;
            if !(known || sloppy) {
                return Err(Failure::usage(format!(
                    "unknown mount option '{}'; see: sepia mount --help",
                    String::from_utf8_lossy(&option)
                )));
            }
        }
        Ok(())
    }

    fn take(&mut self, name: &str, value: Option<&[u8]>) -> Result<bool, Failure> {
        let tool = name.starts_with("x-") || name.starts_with("X-") || MEANINGLESS.contains(&name);
        match (name, value) {
            ("", None) => {}
            _ if tool => {}
            ("fsname", Some(value)) if !value.is_empty() && !value.contains(&0) => {
                self.source = Some(OsString::from_vec(value.to_vec()));
            }
            ("fsname", _) => return Err(Failure::usage("the mount option fsname needs a name: fsname=NAME")),
            (_, Some(_)) => return Ok(false),
            ("allow_other", None) => self.allow_other = true,
            ("noallow_other", None) => self.allow_other = false,
            ("remount", None) => self.remount = true,
            (name, None) => {
                let Some(&(set, _, flag)) = FLAGS.iter().find(|(set, clear, _)| [*set, *clear].contains(&name)) else {
                    return Ok(false);
                };
                self.flags.set(flag, name == set);
            }
        }
        Ok(true)
    }

    /// The same as arguments for `-o`, to be parsed over the [`MountOptions::defaults`].
    pub fn to_list(&self) -> OsString {
        let mut list = Vec::new();
        for (set, clear, flag) in FLAGS {
            let name = if self.flags.contains(flag) { set } else { clear };
            if !name.is_empty() {
                list.extend_from_slice(name.as_bytes());
                list.push(b',');
            }
        }
        list.extend_from_slice(if self.allow_other { b"allow_other" } else { b"noallow_other" });
        if let Some(source) = &self.source {
            list.extend_from_slice(b",fsname=");
            for &byte in source.as_bytes() {
                if matches!(byte, b',' | b'\\') {
                    list.push(b'\\');
                }
                list.push(byte);
            }
        }
        OsString::from_vec(list)
    }
}

/// Parts at commas. A backslash takes away the meaning of the next character.
fn split(list: &[u8]) -> Vec<Vec<u8>> {
    let (mut parts, mut part) = (Vec::new(), Vec::new());
    let mut bytes = list.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b',' => parts.push(std::mem::take(&mut part)),
            b'\\' => part.push(*bytes.next().unwrap_or(&byte)),
            _ => part.push(byte),
        }
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(list: &str) -> MountOptions {
        let mut options = MountOptions::defaults(true);
        options.parse(list.as_ref(), false).unwrap();
        options
    }

    #[test]
    fn what_fstab_writes() {
        let options = parsed("defaults,nofail,_netdev,x-systemd.automount,user=joe,ro,nosuid,comment=a,,noatime");
        assert_eq!(options.flags, MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOATIME);
        assert!(options.allow_other && !options.remount);
    }

    #[test]
    fn later_ones_win() {
        assert_eq!(parsed("ro,rw,nodev,dev,noexec").flags, MountFlags::NOEXEC);
        let mut user = MountOptions::defaults(false);
        assert_eq!((user.flags, user.allow_other), (MountFlags::NOSUID | MountFlags::NODEV, false));
        user.parse("suid,allow_other".as_ref(), false).unwrap();
        assert_eq!((user.flags, user.allow_other), (MountFlags::NODEV, true));
    }

    #[test]
    fn names_with_commas() {
        assert_eq!(parsed(r"fsname=a\,ro\\=b,noexec").source.unwrap(), r"a,ro\=b");
    }

    #[test]
    fn the_list_says_the_same() {
        for text in ["", "ro,nodev", r"fsname=a\,b\\c,sync,noallow_other,dirsync"] {
            let options = parsed(text);
            for as_root in [true, false] {
                let mut again = MountOptions::defaults(as_root);
                again.parse(&options.to_list(), false).unwrap();
                assert_eq!(again, options);
            }
        }
    }

    #[test]
    fn unknown_ones_are_refused() {
        let mut options = MountOptions::defaults(true);
        for wrong in ["rox", "allow_root", "ro=1", "blksize=1", "fsname=", "fsname", "fd=3"] {
            let failure = options.parse(wrong.as_ref(), false).unwrap_err();
            assert_eq!(failure.code, super::super::ExitCode::Usage, "{wrong}");
        }
        options.parse("whatever,ro".as_ref(), true).unwrap();
        assert_eq!(options.flags, MountFlags::RDONLY);
    }
}
