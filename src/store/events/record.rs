//! An event as a line of the log.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Event, EventKind, Who};
use crate::backend::FileKind;
use crate::types::{Generation, Key, ObjectId, Timestamp};

/// How every line begins, so that one can be told behind another that was cut short.
const BEGINNING: &str = "{\"ts\":";

/// What a line may come to. Whoever logs an activity could write any amount.
pub const MOST: usize = 64 << 10;

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    ts: i64,
    #[serde(rename = "type")]
    kind: EventKind,
    key: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(default, rename = "kind", skip_serializing_if = "Option::is_none")]
    file_kind: Option<FileKind>,
    #[serde(default, rename = "gen", skip_serializing_if = "Option::is_none")]
    generation: Option<Generation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    program: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_empty")]
    meta: Cow<'a, Map<String, Value>>,
}

fn is_empty(meta: &Map<String, Value>) -> bool {
    meta.is_empty()
}

/// Appends the line of an event to `text`, with the newline.
pub fn write(event: &Event, text: &mut Vec<u8>) -> serde_json::Result<()> {
    let line = Line {
        ts: event.time.nanos(),
        kind: event.kind,
        key: event.key.escaped().into(),
        to: event.to.as_ref().map(Key::escaped),
        from: event.from.as_ref().map(Key::escaped),
        file_kind: event.file_kind,
        generation: event.generation,
        size: event.size,
        id: event.id.map(|id| id.to_string()),
        uid: event.who.uid,
        pid: event.who.pid,
        program: event.who.program.as_deref().map(Cow::Borrowed),
        meta: Cow::Borrowed(&event.meta),
    };
    serde_json::to_writer(&mut *text, &line)?;
    text.push(b'\n');
    Ok(())
}

/// Reads a line, without its newline. `None` for one that is damaged, or of a type that this version doesn't know.
pub fn read(text: &str) -> Option<Event> {
    parse(text).or_else(|| {
        // A writer that couldn't know that somebody else's line before was cut short.
        let at = text.rfind(BEGINNING).filter(|at| *at > 0)?;
        parse(&text[at..])
    })
}

fn parse(text: &str) -> Option<Event> {
    let line: Line = serde_json::from_str(text).ok()?;
    let key = |text: Option<String>| text.map(|text| Key::unescape(&text)).transpose();
    Some(Event {
        time: Timestamp::from_nanos(line.ts),
        kind: line.kind,
        key: Key::unescape(&line.key).ok()?,
        to: key(line.to).ok()?,
        from: key(line.from).ok()?,
        file_kind: line.file_kind,
        generation: line.generation,
        size: line.size,
        id: line.id.and_then(|id| u64::from_str_radix(&id, 16).ok()).and_then(ObjectId::from_raw),
        who: Who { uid: line.uid, pid: line.pid, program: line.program.map(|name| Arc::from(&*name)) },
        meta: line.meta.into_owned(),
    })
}

/// The form of the original library: whole seconds, always a generation (0 for none), always metadata.
pub fn original(event: &Event) -> String {
    #[derive(Serialize)]
    struct Original<'a> {
        ts: &'a str,
        r#type: EventKind,
        r#gen: u64,
        meta: &'a Map<String, Value>,
    }
    let mut meta = Cow::Borrowed(&event.meta);
    for (name, key) in [("to", &event.to), ("from", &event.from)] {
        if let Some(key) = key {
            meta.to_mut().insert(name.to_owned(), key.escaped().into());
        }
    }
    let time = event.time.rfc3339();
    let seconds = time.split('.').next().unwrap_or(&time);
    let line = Original {
        ts: &format!("{seconds}Z"),
        r#type: event.kind,
        r#gen: event.generation.map_or(0, Generation::get),
        meta: &meta,
    };
    // A map with names that are text can always be written.
    serde_json::to_string(&line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        use std::os::unix::ffi::OsStrExt;
        let key = Key::parse(std::ffi::OsStr::from_bytes(b"Note/a\xff\n \"b")).unwrap();
        let mut event = Event::new(EventKind::Renamed, &key).with("n", 1).with("text", "\u{e9}\n");
        event.to = Some(Key::parse("Note/b").unwrap());
        event.id = ObjectId::from_raw(0x1234);
        event.generation = Generation::new(3);
        event.size = Some(u64::MAX);
        event.who = Who { uid: Some(7), pid: Some(42), program: Some("tr\"ue".into()) };
        event
    }

    fn line(event: &Event) -> String {
        let mut text = Vec::new();
        write(event, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_line_comes_back() {
        let event = event();
        let text = line(&event);
        assert!(text.starts_with(BEGINNING) && text.ends_with("}\n") && text.lines().count() == 1, "{text}");
        assert_eq!(read(text.trim_end()), Some(event.clone()));
        let bare = Event { time: event.time, ..Event::new(EventKind::Created, &Key::parse("a").unwrap()) };
        assert_eq!(line(&bare), format!("{{\"ts\":{},\"type\":\"created\",\"key\":\"a\"}}\n", event.time.nanos()));
        let newer = line(&bare).replace("\"key\"", "\"colour\":\"red\",\"key\"");
        assert_eq!(read(&newer), Some(bare), "unknown fields are passed over");
    }

    #[test]
    fn what_is_damaged_is_passed_over_and_harms_nobody_else() {
        let event = event();
        let text = line(&event);
        let whole = text.trim_end();
        for cut in (0..whole.len()).filter(|cut| whole.is_char_boundary(*cut)) {
            assert_eq!(read(&whole[..cut]), None, "{cut}");
            assert_eq!(read(&format!("{}{whole}", &whole[..cut])), Some(event.clone()), "{cut}");
        }
        assert_eq!(read(&whole.replace("renamed", "painted")), None);
        assert_eq!(read(&whole.replace("Note/b", "../b")), None);
    }

    #[test]
    fn the_original_form() {
        let mut event = Event::new(EventKind::Activity, &Key::parse("Note/n").unwrap()).with("action", "viewed");
        event.time = Timestamp::from_nanos(1_795_397_725_999_999_999);
        let text = r#"{"ts":"2026-11-23T01:35:25Z","type":"activity","gen":0,"meta":{"action":"viewed"}}"#;
        assert_eq!(event.original(), text);
    }
}
