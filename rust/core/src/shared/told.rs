//! What a client is told of its limits, wherever they are counted: the six `x-ratelimit-*` headers.

use super::rate::Level;

/// For requests, then for tokens.
pub const NAMES: [[&str; 3]; 2] = [
    ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
    ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
];
const MICRO: f64 = 1e3;

/// A rate as Redis counts it.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// So many per period.
    pub limit: u64,
    /// So many at once.
    pub burst: u64,
    /// In microseconds.
    pub period: u64,
    /// What is owed: microseconds times the limit, so that one costs a whole period.
    pub owed: f64,
}

impl Counted {
    /// What is left.
    pub fn level(&self) -> Level {
        let capacity = self.burst as f64 * self.period as f64;
        // Saturates at 0 where more is owed than fits.
        let remaining = ((capacity - self.owed) / self.period.max(1) as f64).floor() as u64;
        Level { limit: self.limit, remaining, reset: (self.owed / self.limit.max(1) as f64 * MICRO) as u64 }
    }
}

/// The level with less left.
pub fn tighter(one: Option<Level>, other: Level) -> Level {
    one.filter(|one| one.remaining <= other.remaining).unwrap_or(other)
}

/// The values of the three headers of one unit.
pub fn values(level: Level) -> [String; 3] {
    [level.limit.to_string(), level.remaining.to_string(), go_duration(level.reset)]
}

/// As Go writes durations: `12ms`, `1.5s`, `6m0s`, `1h0m0s`; rounded up to the millisecond.
pub fn go_duration(nanoseconds: u64) -> String {
    let millis = nanoseconds.div_ceil(1_000_000);
    if millis < 1000 {
        return if millis == 0 { "0s".to_owned() } else { format!("{millis}ms") };
    }
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let mut seconds = format!("{}.{:03}", millis / 1000 % 60, millis % 1000);
    seconds.truncate(seconds.trim_end_matches('0').trim_end_matches('.').len());
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        let cases = [
            (0, "0s"),
            (1, "1ms"),
            (12_000_000, "12ms"),
            (999_000_001, "1s"),
            (1_500_000_000, "1.5s"),
            (360_000_000_000, "6m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_661_250_000_000, "1h1m1.25s"),
            (10_000_000_000, "10s"),
        ];
        for (nanoseconds, shown) in cases {
            assert_eq!(go_duration(nanoseconds), shown);
        }
    }

    #[test]
    fn what_is_owed_to_redis_is_a_level() {
        let counted = |owed| Counted { limit: 60, burst: 10, period: 60_000_000, owed }.level();
        assert_eq!((counted(0.0).remaining, counted(0.0).reset), (10, 0));
        assert_eq!((counted(60_000_000.0).remaining, counted(60_000_000.0).reset), (9, 1_000_000_000));
        assert_eq!(counted(60_000_001.0).remaining, 8);
        assert_eq!(counted(1e12).remaining, 0);
    }

    #[test]
    fn the_tighter_level_is_told() {
        let level = Level { limit: 5, remaining: 4, reset: 1_000_000 };
        assert_eq!(values(level), ["5", "4", "1ms"]);
        assert_eq!(tighter(Some(level), Level { remaining: 3, ..level }).remaining, 3);
        assert_eq!(tighter(Some(Level { remaining: 3, ..level }), level).remaining, 3);
    }
}
