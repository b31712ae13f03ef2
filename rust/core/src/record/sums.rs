//! Records as additions to the hours: few rows, however many records.

use super::fields::{Field, Fields};
use std::collections::HashMap;

/// What the requests of one hour that are alike have used together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum<'a> {
    /// Since 1970.
    pub hour: u64,
    /// What they have in common.
    pub of: Vec<Field<'a>>,
    /// How many they are.
    pub requests: i64,
    /// Of each field that is summed.
    pub totals: Vec<i64>,
}

impl Sum<'_> {
    fn is_of(&self, fields: &Fields<'_>, hour: u64, dimensions: &[usize]) -> bool {
        self.hour == hour && self.of.iter().zip(dimensions).all(|(value, number)| *value == fields.get(*number))
    }
}

/// By the hour and the fields `dimensions`, of the fields `summed`; in the order in which they come up.
pub fn sums<'a>(records: impl IntoIterator<Item = Fields<'a>>, dimensions: &[usize], summed: &[usize]) -> Vec<Sum<'a>> {
    let mut found: Vec<Sum<'a>> = Vec::new();
    let mut places = HashMap::new();
    let mut last = 0;
    for fields in records {
        let hour = fields.hour();
        // Requests that follow each other are mostly alike.
        if !found.get(last).is_some_and(|sum| sum.is_of(&fields, hour, dimensions)) {
            let of: Vec<Field<'a>> = dimensions.iter().map(|number| fields.get(*number)).collect();
            last = *places.entry((hour, of.clone())).or_insert_with(|| {
                found.push(Sum { hour, of, requests: 0, totals: vec![0; summed.len()] });
                found.len() - 1
            });
        }
        if let Some(sum) = found.get_mut(last) {
            sum.requests += 1;
            for (total, number) in sum.totals.iter_mut().zip(summed) {
                *total = total.saturating_add(fields.number(*number));
            }
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::record::Closed;

    const HOUR: u64 = 3_600_000_000_000;

    fn written(hour: u64, model: &str, micros: u64) -> Vec<u8> {
        let mut payload = Vec::new();
        let id = format!("req_{:016x}000000000000", hour * HOUR + 5);
        let closed = Closed { id: &id, model, micros, source: "counted", ..Closed::default() };
        closed.encode_into(&mut payload);
        payload
    }

    #[test]
    fn alike_are_those_of_an_hour_with_the_same_fields() {
        let written: Vec<Vec<u8>> = [(1, "a", 1), (1, "b", 10), (1, "a", 100), (2, "a", 1000), (1, "b", 1)]
            .into_iter()
            .map(|(hour, model, micros)| written(hour, model, micros))
            .collect();
        let records = written.iter().map(|payload| Fields::read(payload).unwrap());
        let found: Vec<_> = sums(records, &[5], &[19, 10])
            .into_iter()
            .map(|sum| (sum.hour, sum.of, sum.requests, sum.totals))
            .collect();
        let text = |text| vec![Field::Text(text)];
        assert_eq!(
            found,
            [(1, text("a"), 2, vec![101, 0]), (1, text("b"), 2, vec![11, 0]), (2, text("a"), 1, vec![1000, 0])]
        );
    }

    #[test]
    fn what_is_too_much_for_a_number_stays_the_largest() {
        let one = written(1, "a", u64::MAX);
        let fields = Fields::read(&one).unwrap();
        let many = std::iter::repeat_n(fields, 3);
        assert_eq!(sums(many, &[], &[19]).first().map(|sum| sum.totals.clone()), Some(vec![3 << 44]));
        assert!(sums([], &[1], &[2]).is_empty());
    }
}
