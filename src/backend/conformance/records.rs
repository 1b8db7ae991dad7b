//! The records of the layers above.

use super::*;

pub fn records_are_stored_and_listed(b: &dyn Backend) {
    let read_record = |path: &str| read_all(&good(b.open_record(&key(path))));
    assert_eq!(good(b.list_records(&key("conflicts"))), []);
    refused!(b.open_record(&key("conflicts/x.json")), Error::NotFound(_));
    good(b.put_record(&key("conflicts/x.json"), b"{1}"));
    good(b.put_record(&key("conflicts/x.json"), b"{}"));
    good(b.put_record(&key("conflicts/deep/er/y"), b""));
    good(b.put_record(&key("conflicts2/z"), b"z"));
    assert_eq!((read_record("conflicts/x.json"), read_record("conflicts/deep/er/y")), (b"{}".to_vec(), vec![]));
    let mut listed = good(b.list_records(&key("conflicts")));
    listed.sort_unstable();
    assert_eq!(listed, [key("conflicts/deep/er/y"), key("conflicts/x.json")]);
    let open = good(b.open_record(&key("conflicts/x.json")));
    good(b.remove_record(&key("conflicts/x.json")));
    good(b.remove_record(&key("conflicts/x.json")));
    assert_eq!(read_all(&open), b"{}", "who has it open keeps it");
    refused!(b.open_record(&key("conflicts/x.json")), Error::NotFound(_));
    assert_eq!(good(b.list_records(&key("conflicts"))), [key("conflicts/deep/er/y")]);
    // They are no objects.
    refused!(b.stat(&key("conflicts2/z")), Error::NotFound(_));
    assert_eq!(names(b, ""), [""; 0]);
    assert_eq!(good(b.histories(&Key::root())), []);
}

pub fn records_are_appended_to(b: &dyn Backend) {
    let (path, read_record) = (key("events/day"), || read_all(&good(b.open_record(&key("events/day")))));
    assert_eq!((good(b.append_record(&path, b"one\n")), read_record()), (4, b"one\n".to_vec()));
    let open = good(b.open_record(&path));
    good(b.append_record(&key("events/other"), b"other"));
    assert_eq!((good(b.append_record(&path, b"two")), read_record()), (7, b"one\ntwo".to_vec()));
    assert!(read_all(&open).starts_with(b"one\n"), "who has it open keeps it");
    assert_eq!(good(b.list_records(&key("events"))), [key("events/day"), key("events/other")]);
    // One that was removed, or replaced, is not what was appended to before.
    good(b.remove_record(&path));
    assert_eq!((good(b.append_record(&path, b"new")), read_record()), (3, b"new".to_vec()));
    good(b.put_record(&path, b"put, "));
    assert_eq!((good(b.append_record(&path, b"appended")), read_record()), (13, b"put, appended".to_vec()));
}

pub fn appends_to_a_record_follow_each_other(b: &dyn Backend) {
    const EACH: usize = 100;
    let path = key("events/day");
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = &path;
            scope.spawn(move || {
                for number in 0..EACH {
                    good(b.append_record(path, format!("{writer} {number:03}\n").as_bytes()));
                }
            });
        }
    });
    let text = String::from_utf8(read_all(&good(b.open_record(&path)))).unwrap_or_default();
    let mut next = [0; 4];
    for line in text.lines() {
        let (writer, number) = line.split_once(' ').unwrap_or_else(|| panic!("torn: {line:?}"));
        let next = &mut next[writer.parse::<usize>().unwrap_or_else(|e| panic!("{line:?}: {e}"))];
        assert_eq!(number, format!("{next:03}"), "{line:?}");
        *next += 1;
    }
    assert_eq!(next, [EACH; 4]);
}

pub fn staged_bytes_become_a_record(b: &dyn Backend) {
    let staged = stage_at(b, &key("f"), 0, b"lost");
    let path = staged.path();
    good(b.keep_staged(&key("conflicts/a.bytes"), staged).map_err(|(error, _)| error));
    assert!(!path.exists() || std::fs::metadata(&path).is_ok_and(|meta| meta.len() == 0), "not kept twice");
    assert_eq!(read_all(&good(b.open_record(&key("conflicts/a.bytes")))), b"lost");
    let staged = stage_at(b, &key("f"), 0, b"other");
    good(b.keep_staged(&key("conflicts/b.bytes"), staged).map_err(|(error, _)| error));
    assert_eq!(read_all(&good(b.open_record(&key("conflicts/a.bytes")))), b"lost");
    assert_eq!(good(b.list_records(&key("conflicts"))).len(), 2);
}
