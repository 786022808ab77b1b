//! When a feed is polled again. Pure; times are seconds since 1970.

use std::time::{Duration, UNIX_EPOCH};

/// A feed that fails is tried again at least so often, unless the interval is longer.
pub(super) const BACK_OFF_MAX_SECONDS: u64 = 24 * 60 * 60;

/// How long to wait after so many errors in a row: twice as long for each, and up to as
/// much again, as `unit` in [0, 1) says, so that those who failed together part.
pub(super) fn back_off_seconds(errors: u32, interval_seconds: u64, unit: f64) -> u64 {
    let doubled = 1_u64.checked_shl(errors.saturating_sub(1)).unwrap_or(u64::MAX);
    let wait = interval_seconds.saturating_mul(doubled);
    let wait = wait.saturating_add((wait as f64 * unit) as u64);
    wait.min(BACK_OFF_MAX_SECONDS).max(interval_seconds)
}

/// What a `Retry-After` asks for, as seconds or as a date; `None` if it says neither.
pub(super) fn retry_after_seconds(header: &str, now: u64) -> Option<u64> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(seconds);
    }
    let date = httpdate::parse_http_date(header).ok()?;
    let now = UNIX_EPOCH + Duration::from_secs(now);
    Some(date.duration_since(now).unwrap_or_default().as_secs())
}

/// How long a feed waits that failed and perhaps asked for a time: for no less than it
/// asked, up to the longest back-off.
pub(super) fn after_error_seconds(back_off: u64, retry_after: Option<u64>) -> u64 {
    back_off.max(retry_after.unwrap_or(0).min(BACK_OFF_MAX_SECONDS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3_600;

    #[test]
    fn waits_double_up_to_a_day() {
        let waits: Vec<u64> =
            (1..=8).map(|errors| back_off_seconds(errors, HOUR, 0.0) / HOUR).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 24, 24, 24]);
        assert_eq!(back_off_seconds(2, HOUR, 0.5), 3 * HOUR);
        assert_eq!(back_off_seconds(1, 48 * HOUR, 0.9), 48 * HOUR);
    }

    #[test]
    fn a_feed_may_ask_for_a_time() {
        assert_eq!(retry_after_seconds(" 120 ", 0), Some(120));
        let date = "Thu, 01 Jan 1970 01:00:00 GMT";
        assert_eq!(retry_after_seconds(date, 600), Some(3_000));
        assert_eq!(retry_after_seconds(date, 7_200), Some(0));
        for nonsense in ["", "soon", "-1", "1.5", "99999999999999999999"] {
            assert_eq!(retry_after_seconds(nonsense, 0), None, "{nonsense}");
        }
        assert_eq!(after_error_seconds(60, None), 60);
        assert_eq!(after_error_seconds(60, Some(30)), 60);
        assert_eq!(after_error_seconds(60, Some(120)), 120);
        assert_eq!(after_error_seconds(60, Some(u64::MAX)), BACK_OFF_MAX_SECONDS);
    }

    proptest! {
        #[test]
        fn no_wait_is_shorter_than_the_interval_or_longer_than_a_day(
            errors in any::<u32>(), interval in 1..1_000_000_u64, unit in 0.0..1.0,
        ) {
            let wait = back_off_seconds(errors, interval, unit);
            prop_assert!(wait >= interval);
            prop_assert!(wait <= BACK_OFF_MAX_SECONDS.max(interval));
            prop_assert!(wait <= back_off_seconds(errors.saturating_add(1), interval, unit));
        }
    }
}
