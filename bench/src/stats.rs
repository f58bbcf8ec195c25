//! Median and spread of a few measurements.

use serde::Serialize;

/// What is said of a series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Middle value; mean of the two middle ones for an even number.
    pub(crate) median: f64,
    /// Least.
    pub(crate) min: f64,
    /// Greatest.
    pub(crate) max: f64,
    /// Median of the absolute differences from the median.
    pub(crate) mad: f64,
}

impl Summary {
    /// Of at least one value.
    pub(crate) fn of(values: &[f64]) -> Self {
        let median = middle(values);
        let away: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
        Self {
            median,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            mad: middle(&away),
        }
    }
}

fn middle(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[half],
        _ => (sorted[half - 1] + sorted[half]) / 2.0,
    }
}

/// The value that `share` of all are not above (nearest rank).
pub(crate) fn quantile(series: &[f64], share: f64) -> f64 {
    let mut sorted = series.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_of_the_series() {
        let series = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!([0.0, 0.5, 0.9, 1.0].map(|share| quantile(&series, share)), [1.0, 3.0, 5.0, 5.0]);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn odd_even_and_outliers() {
        let odd = Summary::of(&[3.0, 1.0, 100.0]);
        assert_eq!((odd.median, odd.min, odd.max, odd.mad), (3.0, 1.0, 100.0, 2.0));
        assert_eq!(Summary::of(&[1.0, 2.0, 3.0, 4.0]).median, 2.5);
        assert_eq!(Summary::of(&[7.0]).mad, 0.0);
    }
}
