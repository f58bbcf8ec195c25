//! A moment as year, month, day and time of day in UTC: for names of files and for syslog. Nothing of time zones.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// A moment, to the microsecond.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    year: u64,
    month: u64,
    day: u64,
    second_of_day: u64,
    micros: u64,
}

impl Stamp {
    /// At this time; before 1970 it is 1970.
    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::since_1970(since)
    }

    /// So long after the beginning of 1970.
    pub fn since_1970(since: Duration) -> Self {
        let (days, second_of_day) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        // Days since 1 March of year 0 of the Gregorian calendar, which repeats after 400 years of 146,097 days.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // Months from March on.
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = year_of_era + era * 400 + next;
        Self { year, month, day, second_of_day, micros: u64::from(since.subsec_micros()) }
    }

    /// `20260102T03Z`: its hour, for file names.
    pub fn hour(self) -> String {
        let Self { year, month, day, second_of_day, .. } = self;
        format!("{year:04}{month:02}{day:02}T{:02}Z", second_of_day / 3600)
    }

    /// `20260102T030405.678Z`: sorts as time does, and is a file name everywhere.
    pub fn compact(self) -> String {
        let Self { year, month, day, second_of_day: s, micros } = self;
        let (hour, minute, second, milli) = (s / 3600, s / 60 % 60, s % 60, micros / 1000);
        format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{milli:03}Z")
    }

    /// Whether text is in the form of [`Stamp::compact`].
    pub fn is_compact(text: &str) -> bool {
        const FORM: &[u8] = b"00000000T000000.000Z";
        text.len() == FORM.len()
            && text
                .bytes()
                .zip(FORM)
                .all(|(byte, form)| if *form == b'0' { byte.is_ascii_digit() } else { byte == *form })
    }
}

impl fmt::Display for Stamp {
    /// RFC 3339 with microseconds, as RFC 5424 (section 6.2.3) wants it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, second_of_day: s, micros } = self;
        let (hour, minute, second) = (s / 3600, s / 60 % 60, s % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, micros: u64) -> Stamp {
        Stamp::since_1970(Duration::from_secs(seconds) + Duration::from_micros(micros))
    }

    #[test]
    fn days_of_leap_years_and_of_others() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_767_323_045, "2026-01-02T03:04:05.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(at(seconds, 0).to_string(), text);
        }
    }

    #[test]
    fn the_compact_form_is_known_again() {
        let text = at(1_767_323_045, 678_901).compact();
        assert_eq!(text, "20260102T030405.678Z");
        assert!(Stamp::is_compact(&text));
        for other in ["", "20260102T030405.678", "2026010xT030405.678Z", "20260102T030405.678ZZ"] {
            assert!(!Stamp::is_compact(other), "{other}");
        }
    }
}
