//! The operations. Numbers in them are taken modulo what exists at that moment, so that every sequence is a valid
//! one, and stays one while it is being shrunk.

use proptest::prelude::*;

/// Which mount: 0 or 1.
pub type Side = usize;

/// A name in a directory: (directory, name), each modulo how many there are.
pub type At = (u8, u8);

#[derive(Debug, Clone)]
pub enum Op {
    Create {
        side: Side,
        at: At,
        mode: u8,
        excl: bool,
        append: bool,
        trunc: bool,
    },
    Mknod {
        side: Side,
        at: At,
        mode: u8,
    },
    Open {
        side: Side,
        file: u8,
        how: How,
        append: bool,
        trunc: bool,
    },
    Write {
        handle: u8,
        at: u8,
        length: u8,
        byte: u8,
    },
    Truncate {
        handle: u8,
        size: u8,
    },
    Flush {
        handle: u8,
    },
    Fsync {
        handle: u8,
    },
    Release {
        handle: u8,
    },
    Unlink {
        side: Side,
        entry: u8,
    },
    Mkdir {
        side: Side,
        at: At,
    },
    Rmdir {
        side: Side,
        dir: u8,
    },
    Rename {
        side: Side,
        from: u8,
        to: At,
        how: RenameHow,
    },
    /// Onto something that exists.
    Replace {
        side: Side,
        from: u8,
        to: u8,
        how: RenameHow,
    },
    Link {
        side: Side,
        file: u8,
        to: At,
    },
    Symlink {
        side: Side,
        at: At,
        target: u8,
    },
    SetMode {
        side: Side,
        entry: u8,
        mode: u8,
    },
    SetSize {
        side: Side,
        file: u8,
        size: u8,
    },
    SetMtime {
        side: Side,
        file: u8,
    },
    SetXattr {
        side: Side,
        entry: u8,
        name: u8,
        value: u8,
        flags: u8,
    },
    RemoveXattr {
        side: Side,
        entry: u8,
        name: u8,
    },
    /// `user.sepia.expect`: the current generation, or another one.
    Expect {
        side: Side,
        file: u8,
        right: bool,
    },
    /// The kernel looks up and remembers, or forgets.
    Remember {
        side: Side,
        entry: u8,
    },
    Forget {
        side: Side,
        which: u8,
    },
    /// From outside. `quiet`: nobody looks before the next operation.
    Overwrite {
        file: u8,
        length: u8,
        byte: u8,
        quiet: bool,
    },
    Extend {
        file: u8,
        length: u8,
        byte: u8,
    },
    PutOver {
        at: At,
        length: u8,
        byte: u8,
        quiet: bool,
    },
    Delete {
        entry: u8,
    },
    MkdirOutside {
        at: At,
    },
    Touch {
        file: u8,
        quiet: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Read,
    Write,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameHow {
    Plain,
    NoReplace,
    Exchange,
}

impl Op {
    pub fn is_outside(&self) -> bool {
        use Op::*;
        matches!(
            self,
            Overwrite { .. } | Extend { .. } | PutOver { .. } | Delete { .. } | MkdirOutside { .. } | Touch { .. }
        )
    }

    /// Whether the comparison after this one is left out, so that the next operation is the first to look.
    pub fn is_quiet(&self) -> bool {
        matches!(
            self,
            Op::Overwrite { quiet: true, .. } | Op::PutOver { quiet: true, .. } | Op::Touch { quiet: true, .. }
        )
    }
}

pub fn sequence(shared: bool) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(shared), 1..40)
}

fn op(shared: bool) -> BoxedStrategy<Op> {
    let side = move || if shared { (0usize..2).boxed() } else { Just(0usize).boxed() };
    let at = || (0u8..4, 0u8..4);
    let how = prop_oneof![1 => Just(How::Read), 2 => Just(How::Write), 2 => Just(How::Both)];
    let rename = move || match shared {
        true => {
            prop_oneof![3 => Just(RenameHow::Plain), 1 => Just(RenameHow::NoReplace), 1 => Just(RenameHow::Exchange)]
                .boxed()
        }
        false => prop_oneof![3 => Just(RenameHow::Plain), 1 => Just(RenameHow::NoReplace)].boxed(),
    };
    let rarely = || prop::bool::weighted(0.25);
    let bytes = prop_oneof![
        8 => (side(), at(), 0u8..4, rarely(), rarely(), rarely())
            .prop_map(|(side, at, mode, excl, append, trunc)| Op::Create { side, at, mode, excl, append, trunc }),
        8 => (side(), 0u8..8, how, any::<bool>(), rarely())
            .prop_map(|(side, file, how, append, trunc)| Op::Open { side, file, how, append, trunc }),
        14 => (0u8..6, 0u8..10, 1u8..7, b'a'..=b'z')
            .prop_map(|(handle, at, length, byte)| Op::Write { handle, at, length, byte }),
        2 => (0u8..6, 0u8..8).prop_map(|(handle, size)| Op::Truncate { handle, size }),
        5 => (0u8..6).prop_map(|handle| Op::Flush { handle }),
        3 => (0u8..6).prop_map(|handle| Op::Fsync { handle }),
        7 => (0u8..6).prop_map(|handle| Op::Release { handle }),
    ];
    let names = prop_oneof![
        1 => (side(), at(), 0u8..4).prop_map(|(side, at, mode)| Op::Mknod { side, at, mode }),
        4 => (side(), 0u8..8).prop_map(|(side, entry)| Op::Unlink { side, entry }),
        3 => (side(), at()).prop_map(|(side, at)| Op::Mkdir { side, at }),
        1 => (side(), 0u8..4).prop_map(|(side, dir)| Op::Rmdir { side, dir }),
        4 => (side(), 0u8..8, at(), rename()).prop_map(|(side, from, to, how)| Op::Rename { side, from, to, how }),
        3 => (side(), 0u8..8, 0u8..8, rename()).prop_map(|(side, from, to, how)| Op::Replace { side, from, to, how }),
        1 => (side(), at(), 0u8..2).prop_map(|(side, at, target)| Op::Symlink { side, at, target }),
    ];
    let metadata = prop_oneof![
        1 => (side(), 0u8..8, 0u8..4).prop_map(|(side, entry, mode)| Op::SetMode { side, entry, mode }),
        2 => (side(), 0u8..8, 0u8..8).prop_map(|(side, file, size)| Op::SetSize { side, file, size }),
        1 => (side(), 0u8..8).prop_map(|(side, file)| Op::SetMtime { side, file }),
        2 => (side(), 0u8..8, 0u8..2, any::<u8>(), 0u8..3)
            .prop_map(|(side, entry, name, value, flags)| Op::SetXattr { side, entry, name, value, flags }),
        1 => (side(), 0u8..8, 0u8..2).prop_map(|(side, entry, name)| Op::RemoveXattr { side, entry, name }),
        2 => (side(), 0u8..8, any::<bool>()).prop_map(|(side, file, right)| Op::Expect { side, file, right }),
        1 => (side(), 0u8..8).prop_map(|(side, entry)| Op::Remember { side, entry }),
        1 => (side(), 0u8..8).prop_map(|(side, which)| Op::Forget { side, which }),
    ];
    if !shared {
        return prop_oneof![5 => bytes, 2 => names, 1 => metadata].boxed();
    }
    let quiet = any::<bool>;
    let outside = prop_oneof![
        2 => (0u8..8, 1u8..9, b'A'..=b'Z', quiet())
            .prop_map(|(file, length, byte, quiet)| Op::Overwrite { file, length, byte, quiet }),
        1 => (0u8..8, 1u8..9, b'A'..=b'Z').prop_map(|(file, length, byte)| Op::Extend { file, length, byte }),
        2 => (at(), 0u8..9, b'A'..=b'Z', quiet())
            .prop_map(|(at, length, byte, quiet)| Op::PutOver { at, length, byte, quiet }),
        1 => (0u8..8).prop_map(|entry| Op::Delete { entry }),
        1 => at().prop_map(|at| Op::MkdirOutside { at }),
        1 => (0u8..8, quiet()).prop_map(|(file, quiet)| Op::Touch { file, quiet }),
    ];
    let link = (side(), 0u8..8, at()).prop_map(|(side, file, to)| Op::Link { side, file, to });
    prop_oneof![20 => bytes, 8 => names, 4 => metadata, 3 => outside, 1 => link].boxed()
}
