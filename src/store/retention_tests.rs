//! Of the judgement: examples, and properties of any judgement.

use proptest::prelude::*;

use super::*;

const DAY: i64 = 86_400;
const NOW: i64 = 20_000 * DAY;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

/// Generation `number`, committed and superseded so many seconds before [`NOW`].
fn info(number: u64, committed: i64, superseded: i64, kept: Kept) -> GenerationInfo {
    GenerationInfo {
        generation: Generation::new(number).unwrap(),
        committed: at(NOW - committed),
        superseded: Some(at(NOW - superseded)),
        deleted: false,
        size: number,
        mtime: at(NOW - committed),
        kept,
    }
}

/// One after the other, each committed so many seconds before [`NOW`]; the last is superseded now.
fn saved(ages: &[i64]) -> Vec<GenerationInfo> {
    let until = ages.iter().skip(1).chain(&[0]);
    ages.iter().zip(until).zip(1..).map(|((from, to), number)| info(number, *from, *to, Kept::Whole)).collect()
}

fn policy(keep: Keep) -> Policy {
    Policy { keep, trash: Age::days(30) }
}

fn stays(infos: &[GenerationInfo], current: bool, keep: Keep) -> Vec<u64> {
    let verdicts = judge(infos, current, &policy(keep), &Held::default(), at(NOW));
    let kept = infos.iter().zip(&verdicts).filter(|(_, verdict)| !verdict.drops());
    kept.map(|(info, _)| info.generation.get()).collect()
}

#[test]
fn each_rule_keeps_what_it_says() {
    let infos = saved(&[400 * DAY, 40 * DAY, 39 * DAY, 3 * DAY, 2 * DAY + 10, 2 * DAY, 3_600, 60]);
    let none = Keep::default();
    assert_eq!(stays(&infos, true, Keep { keep_last: Some(2), ..none.clone() }), [7, 8]);
    assert_eq!(stays(&infos, true, Keep { keep_all: true, ..none.clone() }), [1, 2, 3, 4, 5, 6, 7, 8]);
    // 3 was current until three days ago, and 6 until an hour ago.
    assert_eq!(stays(&infos, true, Keep { keep_within: Some(Age::days(4)), ..none.clone() }), [3, 4, 5, 6, 7, 8]);
    assert_eq!(stays(&infos, true, Keep { keep_within: "1h".parse().ok(), ..none.clone() }), [6, 7, 8]);
    // NOW is midnight: an hour and a minute before were yesterday, and 5 ten seconds before the day of 6.
    assert_eq!(stays(&infos, true, Keep { keep_daily: Some(3), ..none.clone() }), [5, 6, 8]);
    assert_eq!(stays(&infos, true, Keep { keep_yearly: Some(9), ..none.clone() }), [1, 8]);
    assert_eq!(stays(&infos, true, Keep { keep_last: Some(1), keep_yearly: Some(2), ..none }), [1, 8]);
}

#[test]
fn periods_are_those_of_the_calendar() {
    // 1970-01-05 was a Monday.
    let week = |day: i64| Period::Week.of(at(day * DAY));
    assert_eq!((week(3), week(4), week(10), week(11)), (0, 1, 1, 2));
    assert_eq!(Period::Month.of(at(30 * DAY)) + 1, Period::Month.of(at(31 * DAY)));
    assert_eq!(Period::Year.of(at(-1)) + 1, Period::Year.of(at(0)));
    assert_eq!(Period::Hour.of(at(-1)), -1);
}

#[test]
fn a_beginning_keeps_what_holds_its_bytes() {
    let infos = [
        info(1, 400 * DAY, 50 * DAY, Kept::Prefix(1)),
        info(2, 50 * DAY, 45 * DAY, Kept::Prefix(2)),
        info(3, 45 * DAY, 40 * DAY, Kept::Whole),
        info(4, 40 * DAY, 20 * DAY, Kept::Whole),
    ];
    let yearly = policy(Keep { keep_yearly: Some(2), ..Keep::default() });
    let mut held = Held::default();
    let verdicts = judge(&infos, true, &yearly, &held, at(NOW));
    assert_eq!(verdicts[0], Verdict::Keep(vec![Reason::NewestOf(Period::Year)]));
    assert!(verdicts[1].drops());
    assert_eq!(verdicts[2], Verdict::Keep(vec![Reason::HoldsBytesOf(Generation::FIRST)]));
    held.hold(Generation::new(2).unwrap(), HeldBy::Pin);
    let only_pinned = policy(Keep { keep_last: Some(1), ..Keep::default() });
    let verdicts = judge(&infos, true, &only_pinned, &held, at(NOW));
    assert_eq!(verdicts[1], Verdict::Keep(vec![Reason::Pinned]));
    assert_eq!(verdicts[2], Verdict::Keep(vec![Reason::HoldsBytesOf(Generation::new(2).unwrap())]));
    assert!(verdicts[0].drops());
}

#[test]
fn trash_goes_as_a_whole_when_it_is_old() {
    let removed = |age: i64| {
        let mut infos = saved(&[400 * DAY, 300 * DAY]);
        infos[1].superseded = Some(at(NOW - age));
        infos[1].deleted = true;
        infos
    };
    let last = Keep { keep_last: Some(1), ..Keep::default() };
    let verdict = |infos: &[GenerationInfo], held: &Held| judge(infos, false, &policy(last.clone()), held, at(NOW));
    let young = verdict(&removed(29 * DAY), &Held::default());
    assert_eq!(young[1], Verdict::Keep(vec![Reason::Last, Reason::Trash]));
    let old = verdict(&removed(31 * DAY), &Held::default());
    assert_eq!(old, [Verdict::Drop(Cause::TrashExpired), Verdict::Drop(Cause::TrashExpired)]);
    let mut held = Held::default();
    held.hold(Generation::FIRST, HeldBy::Snapshot);
    assert_eq!(verdict(&removed(31 * DAY), &held)[0], Verdict::Keep(vec![Reason::Snapshot]));
    // Made again: it is history like any other.
    assert_eq!(stays(&removed(31 * DAY), true, last.clone()), [2]);
    // Nobody has removed it, and yet it is gone.
    let vanished = saved(&[400 * DAY, 300 * DAY]);
    let within = Keep { keep_within: "1s".parse().ok(), ..Keep::default() };
    let mut old = vanished.clone();
    old[1].superseded = Some(at(NOW - 200 * DAY));
    assert_eq!(stays(&old, false, within), [2]);
}

#[test]
fn notes_go_from_the_oldest_on() {
    let lost = |number, age| info(number, age, age, Kept::Lost("dropped".into()));
    let infos = [lost(1, 90 * DAY), info(2, 80 * DAY, 70 * DAY, Kept::Whole), lost(3, 70 * DAY), lost(4, 60 * DAY)];
    assert_eq!(stays(&infos, true, Keep { keep_last: Some(1), ..Keep::default() }), [2, 3, 4]);
    assert_eq!(stays(&infos[2..], true, Keep { keep_last: Some(1), ..Keep::default() }), [4]);
}

prop_compose! {
    fn generations()(
        steps in prop::collection::vec((0i64..40 * DAY, 0u8..8), 0..40),
        gap in 0i64..100 * DAY,
        deleted: bool,
    ) -> Vec<GenerationInfo> {
        let mut until = gap;
        let mut infos: Vec<_> = steps.iter().rev().zip(0..).map(|((step, kind), back)| {
            let from = until + step;
            let kept = match kind {
                0..=2 => Kept::Prefix(1),
                3 => Kept::Lost("dropped".into()),
                _ => Kept::Whole,
            };
            let made = info(steps.len() as u64 - back, from, until, kept);
            until = from;
            made
        }).collect();
        infos.reverse();
        if let Some(last) = infos.last_mut() {
            last.deleted = deleted;
        }
        infos
    }
}

prop_compose! {
    fn keeps()(
        keep_last in prop::option::of(0u32..5),
        within in prop::option::of(0u32..60),
        daily in prop::option::of(0u32..5),
        monthly in prop::option::of(0u32..5),
    ) -> Keep {
        Keep {
            keep_last,
            keep_within: within.map(Age::days),
            keep_daily: daily,
            keep_monthly: monthly,
            ..Keep::default()
        }
    }
}

proptest! {
    #[test]
    fn what_any_rule_promises_stays(infos in generations(), keep in keeps(), current: bool, pinned in 0usize..40) {
        let mut held = Held::default();
        if let Some(info) = infos.get(pinned) {
            held.hold(info.generation, HeldBy::Pin);
        }
        let policy = policy(keep.clone());
        let verdicts = judge(&infos, current, &policy, &held, at(NOW));
        prop_assert_eq!(verdicts.len(), infos.len());
        let stays = |at: usize| !verdicts[at].drops();
        let has_bytes = |at: &usize| !matches!(infos[*at].kept, Kept::Lost(_));
        let bytes: Vec<usize> = (0..infos.len()).filter(has_bytes).collect();
        let removed = !current && infos.last().is_some_and(|last| last.deleted);
        let removed_for = infos.last().map_or(0, |last| NOW - last.superseded.unwrap().seconds());
        let expired = removed && removed_for > 30 * DAY;
        if !expired {
            for at in bytes.iter().rev().take(keep.keep_last.unwrap_or(0) as usize) {
                prop_assert!(stays(*at), "one of the last goes: {:?}", verdicts);
            }
            if let Some(within) = keep.keep_within {
                for at in &bytes {
                    let ended = NOW - infos[*at].superseded.unwrap().seconds();
                    prop_assert!(ended > within.seconds() as i64 || stays(*at));
                }
            }
            // Of each of the last days that have one, one stays that is the newest.
            let mut days: Vec<i64> = bytes.iter().map(|at| infos[*at].committed.seconds().div_euclid(DAY)).collect();
            days.dedup();
            for day in days.iter().rev().take(keep.keep_daily.unwrap_or(0) as usize) {
                let of_day = bytes.iter().rev().find(|at| infos[**at].committed.seconds().div_euclid(DAY) == *day);
                prop_assert!(stays(*of_day.unwrap()));
            }
        }
        if removed && !expired && let Some(last) = bytes.last() {
            prop_assert!(stays(*last), "trash goes too early");
        }
        if pinned < infos.len() {
            prop_assert!(stays(pinned));
        }
        // The next whole one after a beginning that stays.
        for at in bytes.iter().filter(|at| matches!(infos[**at].kept, Kept::Prefix(_)) && stays(**at)) {
            let holder = (at + 1..infos.len()).find(|later| infos[*later].kept == Kept::Whole);
            prop_assert!(holder.is_none_or(stays), "the bytes of a beginning go: {:?}", verdicts);
        }
        if let Some(last) = infos.len().checked_sub(1).filter(|last| !has_bytes(last)) {
            prop_assert!(stays(last), "the number would be forgotten");
        }
        // What is judged again when that has gone goes no further by it: no second run deletes what the first left.
        let left: Vec<_> = infos.iter().zip(&verdicts).filter(|(_, v)| !v.drops()).map(|(info, _)| info.clone()).collect();
        let again = judge(&left, current, &policy, &held, at(NOW));
        if !expired {
            for (info, verdict) in left.iter().zip(&again) {
                let holder_only = matches!(info.kept, Kept::Lost(_));
                prop_assert!(!verdict.drops() || holder_only, "{:?} goes in a second run", info.generation);
            }
        }
    }
}
