//! Days, weeks and months in UTC: the periods of budgets.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400_000;

/// Milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wall(pub u64);

impl Wall {
    /// Now.
    pub fn read() -> Wall {
        Wall(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64)
    }
}

/// How often a budget begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// At midnight.
    Day,
    /// On Monday.
    Week,
    /// On the first.
    Month,
    /// Never.
    Total,
}

impl Every {
    /// The number of the period, from 1 on.
    pub fn ordinal(self, wall: Wall) -> u64 {
        let day = wall.0 / DAY;
        match self {
            Every::Day => day + 1,
            // 1970 began on a Thursday.
            Every::Week => (day + 3) / 7 + 1,
            Every::Month => month_of(day) + 1,
            Every::Total => 1,
        }
    }

    /// Milliseconds to the next period.
    pub fn left(self, wall: Wall) -> Option<u64> {
        let day = wall.0 / DAY;
        let next = match self {
            Every::Day => day + 1,
            Every::Week => (day + 3) / 7 * 7 + 4,
            Every::Month => first_day(month_of(day) + 1),
            Every::Total => return None,
        };
        Some(next * DAY - wall.0)
    }
}

/// Months since January 1970.
fn month_of(day: u64) -> u64 {
    // By the average length, and then at most one off.
    let guess = day * 100 / 3044;
    let near = guess.saturating_sub(1)..guess + 3;
    near.rev().find(|month| first_day(*month) <= day).unwrap_or(0)
}

/// The day, since 1970, on which a month begins.
fn first_day(month: u64) -> u64 {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let (year, month) = (1970 + month / 12, (month % 12) as usize);
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let is_leap = leaps(year) != leaps(year - 1);
    let leap_days = leaps(year - 1) - leaps(1969);
    let this_year = BEFORE.get(month).copied().unwrap_or(0) + u64::from(is_leap && month > 1);
    (year - 1970) * 365 + leap_days + this_year
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_where_the_calendar_says() {
        // 2024-02-29, a leap day and a Thursday.
        let leap = Wall(19_782 * DAY + 1);
        assert_eq!(Every::Month.ordinal(leap), 54 * 12 + 2);
        assert_eq!(Every::Month.left(leap), Some(DAY - 1));
        assert_eq!(Every::Week.left(leap), Some(4 * DAY - 1));
        assert_eq!(Every::Day.left(leap), Some(DAY - 1));
        assert_eq!(Every::Total.left(leap), None);
        // 2100 is no leap year: March the 1st follows February the 28th.
        assert_eq!(first_day(130 * 12 + 2) - first_day(130 * 12 + 1), 28);
    }

    #[test]
    fn every_day_has_the_month_that_begins_before_it() {
        for day in 0..60_000 {
            let month = month_of(day);
            assert!(first_day(month) <= day && day < first_day(month + 1), "{day}");
            for every in [Every::Day, Every::Week, Every::Month] {
                let wall = Wall(day * DAY + 5);
                let left = every.left(wall).unwrap();
                assert_eq!(every.ordinal(Wall(wall.0 + left)), every.ordinal(wall) + 1);
                assert_eq!(every.ordinal(Wall(wall.0 + left - 1)), every.ordinal(wall));
            }
        }
    }
}
