//! Schedules of CronJobs. Follows github.com/robfig/cron/v3 (ParseStandard), with its error texts.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::errors::quoted;
use crate::schema::check::formats::parse_duration;

/// When a job is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At these minutes, hours, days of the month, months and days of the week (0 is Sunday), one bit each.
    Times(Times),
    /// At an interval, in nanoseconds.
    Every(i64),
}

/// The bits of a schedule. A day must match both kinds of days, or either of them if both are restricted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// 0 to 59.
    pub minutes: u64,
    /// 0 to 23.
    pub hours: u64,
    /// 1 to 31.
    pub days: u64,
    /// 1 to 12.
    pub months: u64,
    /// 0 to 6.
    pub weekdays: u64,
    /// The days of the month are unrestricted.
    pub any_day: bool,
    /// The days of the week are unrestricted.
    pub any_weekday: bool,
}

impl Schedule {
    /// The first scheduled time after `after` in a time zone; `None` if there is none in the next five years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(nanos) => {
                let seconds = (nanos / 1_000_000_000).max(1);
                Timestamp::from_second(after.as_second().checked_add(seconds)?).ok()
            }
            Schedule::Times(times) => times.next(after, zone),
        }
    }
}

impl Times {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let minute = after.as_second().div_euclid(60) + 1;
        let mut at = Timestamp::from_second(minute.checked_mul(60)?).ok()?;
        let last = at.as_second() + 5 * 366 * 86_400;
        while at.as_second() <= last {
            let there = zone.to_datetime(at);
            let (hour, minute) = (u32::from(there.hour().unsigned_abs()), there.minute());
            if !self.is_on(there.date()) {
                let tomorrow = there.date().tomorrow().ok()?;
                let start = tomorrow.to_zoned(zone.clone()).ok()?;
                at = start.start_of_day().ok()?.timestamp();
            } else if self.hours & 1 << hour == 0 {
                let rest = 60 - i64::from(minute);
                at = Timestamp::from_second(at.as_second() + rest * 60).ok()?;
            } else if self.minutes & 1 << minute == 0 {
                at = Timestamp::from_second(at.as_second() + 60).ok()?;
            } else {
                return Some(at);
            }
        }
        None
    }

    fn is_on(&self, date: Date) -> bool {
        let day = self.days & 1 << date.day() != 0;
        let weekday = self.weekdays & 1 << date.weekday().to_sunday_zero_offset() != 0;
        let both = self.any_day || self.any_weekday;
        self.months & 1 << date.month() != 0 && if both { day && weekday } else { day || weekday }
    }
}

/// The values of a field: least, most, and names numbered from the least.
struct Bounds(u32, u32, &'static [&'static str]);

const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Bounds; 5] = [
    Bounds(0, 59, &[]),
    Bounds(0, 23, &[]),
    Bounds(1, 31, &[]),
    Bounds(1, 12, MONTHS),
    Bounds(0, 6, WEEKDAYS),
];

/// Parses `*/5 * * * *`, `@daily` or `@every 1h30m`, optionally prefixed with `TZ=` or `CRON_TZ=` and a time zone.
///
/// # Errors
/// Upstream's message.
pub fn parse(text: &str) -> Result<Schedule, String> {
    if text.is_empty() {
        return Err("empty spec string".to_owned());
    }
    let mut spec = text;
    if let Some(rest) = ["TZ=", "CRON_TZ="]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))
    {
        // Upstream's parser panics here, and the panic is reported.
        let (zone, rest) = rest
            .split_once(' ')
            .ok_or("invalid schedule format: runtime error: slice bounds out of range [:-1]")?;
        time_zone(zone).map_err(|why| format!("provided bad location {zone}: {why}"))?;
        spec = rest.trim();
    }
    if spec.starts_with('@') {
        return descriptor(spec);
    }
    let fields: Vec<&str> = spec.split_whitespace().collect();
    let &[minutes, hours, days, months, weekdays] = fields.as_slice() else {
        return Err(format!(
            "expected exactly 5 fields, found {}: [{}]",
            fields.len(),
            fields.join(" ")
        ));
    };
    let mut sets = [(0, false); 5];
    for ((set, text), bounds) in sets
        .iter_mut()
        .zip([minutes, hours, days, months, weekdays])
        .zip(&FIELDS)
    {
        *set = field(text, bounds)?;
    }
    let [minutes, hours, days, months, weekdays] = sets;
    Ok(Schedule::Times(Times {
        minutes: minutes.0,
        hours: hours.0,
        days: days.0,
        months: months.0,
        weekdays: weekdays.0,
        any_day: days.1,
        any_weekday: weekdays.1,
    }))
}

/// Finds a time zone by name, case-sensitively.
///
/// # Errors
/// `unknown time zone X`
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    match name {
        "" | "UTC" => return Ok(TimeZone::UTC),
        "Local" => return Ok(TimeZone::system()),
        _ => {}
    }
    TimeZone::get(name)
        .ok()
        .filter(|zone| zone.iana_name().is_none_or(|known| known == name))
        .ok_or_else(|| format!("unknown time zone {name}"))
}

fn descriptor(text: &str) -> Result<Schedule, String> {
    let standard = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other => {
            let wait = other
                .strip_prefix("@every ")
                .ok_or_else(|| format!("unrecognized descriptor: {other}"))?;
            return parse_duration(wait)
                .map(Schedule::Every)
                .map_err(|why| format!("failed to parse duration {other}: {why}"));
        }
    };
    parse(standard)
}

/// Parses a field: its bits, and whether it is unrestricted.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let (mut bits, mut open) = (0, false);
    for range in text.split(',').filter(|range| !range.is_empty()) {
        let (more, star) = self::range(range, bounds)?;
        bits |= more;
        open |= star;
    }
    Ok((bits, open))
}

fn range(text: &str, Bounds(least, most, names): &Bounds) -> Result<(u64, bool), String> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let star = matches!(ends[0], "*" | "?");
    let named = |text: &str| -> Result<u32, String> {
        let lower = text.to_lowercase();
        match names.iter().position(|name| *name == lower) {
            Some(at) => Ok(least + at as u32),
            None => number(text),
        }
    };
    let (start, mut end) = match ends.as_slice() {
        _ if star => (*least, *most),
        [one] => {
            let one = named(one)?;
            (one, one)
        }
        [start, end] => (named(start)?, named(end)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match parts.as_slice() {
        [_] => 1,
        [_, step] => {
            let step = number(step)?;
            // `N/step` is `N-most/step`.
            if ends.len() == 1 {
                end = *most;
            }
            step
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    if start < *least {
        return Err(format!(
            "beginning of range ({start}) below minimum ({least}): {text}"
        ));
    }
    if end > *most {
        return Err(format!(
            "end of range ({end}) above maximum ({most}): {text}"
        ));
    }
    if start > end {
        return Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {text}"
        ));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let bits = (start..=end)
        .step_by(step as usize)
        .fold(0, |bits, n| bits | 1 << n);
    Ok((bits, star && step == 1))
}

fn number(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {}: invalid syntax",
            quoted(text)
        ));
    }
    let number: i64 = text.parse().map_err(|_| {
        format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {}: value out of range",
            quoted(text)
        )
    })?;
    if number < 0 {
        return Err(format!("negative number ({number}) not allowed: {text}"));
    }
    // All bounds are far lower: a number that does not fit is reported as the largest `u32`.
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_bits() {
        let Ok(Schedule::Times(times)) = parse("*/20 9-17/4 1,15 jan-MAR ?") else {
            panic!("a schedule");
        };
        assert_eq!(times.minutes, 1 | 1 << 20 | 1 << 40);
        assert_eq!(times.hours, 1 << 9 | 1 << 13 | 1 << 17);
        assert_eq!(times.days, 1 << 1 | 1 << 15);
        assert_eq!(times.months, 0b1110);
        assert_eq!(times.weekdays, 0b111_1111);
        assert!(!times.any_day && times.any_weekday);
        assert_eq!(parse("@every 90s"), Ok(Schedule::Every(90_000_000_000)));
        assert_eq!(parse("@weekly"), parse("0 0 * * sun"));
        assert_eq!(parse("CRON_TZ=Europe/Rome 5 4 * * *"), parse("5 4 * * *"));
    }

    #[test]
    fn what_is_no_schedule_is_refused_in_the_parsers_words() {
        for (text, wrong) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            (
                "5-3 * * * *",
                "beginning of range (5) beyond end of range (3): 5-3",
            ),
            (
                "*/0 * * * *",
                "step of range should be a positive number: */0",
            ),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            (
                "x * * * *",
                r#"failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax"#,
            ),
            ("@never", "unrecognized descriptor: @never"),
            (
                "@every 5",
                r#"failed to parse duration @every 5: time: missing unit in duration "5""#,
            ),
            (
                "@every 5x",
                r#"failed to parse duration @every 5x: time: unknown unit "x" in duration "5x""#,
            ),
            (
                "TZ=Nowhere 0 0 * * *",
                "provided bad location Nowhere: unknown time zone Nowhere",
            ),
            (
                "TZ=UTC",
                "invalid schedule format: runtime error: slice bounds out of range [:-1]",
            ),
        ] {
            assert_eq!(parse(text), Err(wrong.to_owned()), "{text}");
        }
    }

    #[test]
    fn zones_are_known_by_their_exact_names() {
        assert!(time_zone("Europe/Rome").is_ok());
        assert!(time_zone("europe/rome").is_err());
        assert!(time_zone("Nowhere").is_err());
    }

    #[test]
    fn the_next_moment_is_found_by_the_clocks_of_a_zone() {
        for (schedule, zone, after, wanted) in [
            (
                "* * * * *",
                "UTC",
                "2026-01-01T00:00:00Z",
                "2026-01-01T00:01:00Z",
            ),
            (
                "*/15 3 * * *",
                "UTC",
                "2026-01-01T03:45:01Z",
                "2026-01-02T03:00:00Z",
            ),
            (
                "0 0 29 2 *",
                "UTC",
                "2026-01-01T00:00:00Z",
                "2028-02-29T00:00:00Z",
            ),
            // Either kind of day if both are restricted, else both.
            (
                "0 0 13 * 5",
                "UTC",
                "2026-02-02T00:00:00Z",
                "2026-02-06T00:00:00Z",
            ),
            (
                "0 0 * * 5",
                "UTC",
                "2026-02-06T00:00:00Z",
                "2026-02-13T00:00:00Z",
            ),
            (
                "0 9 * * *",
                "Europe/Berlin",
                "2026-07-01T00:00:00Z",
                "2026-07-01T07:00:00Z",
            ),
            // Times skipped by the clock change are skipped, and repeated ones are due twice.
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-03-28T12:00:00Z",
                "2026-03-30T00:30:00Z",
            ),
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:30:00Z",
            ),
            (
                "@every 90s",
                "UTC",
                "2026-01-01T00:00:00.7Z",
                "2026-01-01T00:01:30Z",
            ),
            (
                "@hourly",
                "UTC",
                "2026-01-01T00:00:00Z",
                "2026-01-01T01:00:00Z",
            ),
        ] {
            let parsed = parse(schedule).unwrap();
            let next = parsed.next(after.parse().unwrap(), &time_zone(zone).unwrap());
            assert_eq!(
                next,
                Some(wanted.parse().unwrap()),
                "{schedule} {zone} {after}"
            );
        }
        let never = parse("0 0 31 2 *").unwrap();
        assert_eq!(never.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }
}
