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
