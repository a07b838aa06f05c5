//! Numbers for tables: exact where they are counted, `f64` where they are shown.

use std::time::Duration;

/// A count as a fraction can be made of it. Exact up to 2^53.
pub(crate) fn float(count: u64) -> f64 {
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & 0xffff_ffff).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

/// A length as a count.
pub(crate) fn len(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// `count` a second.
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    float(count) / time.as_secs_f64().max(1e-9)
}

/// Milliseconds with fractions.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The middle of the values (the mean of the two in the middle where they are even in number).
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len(), sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
        (0, ..) => None,
        (count, Some(below), Some(above)) if count % 2 == 0 => Some(f64::midpoint(*below, *above)),
        (_, _, middle) => middle.copied(),
    }
}

/// The smallest value that at least `percent` of the values do not exceed (nearest rank).
pub(crate) fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// 1234567.8 → `1,234,568`.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if value <= -0.5 { format!("-{out}") } else { out }
}

/// Bytes as MiB with one digit.
pub(crate) fn mib(bytes: u64) -> f64 {
    float(bytes) / 1_048_576.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middles_and_ranks() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&values, 50), Some(100.0));
        assert_eq!(percentile(&values, 99), Some(198.0));
        assert_eq!(percentile(&values, 100), Some(200.0));
        assert_eq!(percentile(&[7.0], 1), Some(7.0));
    }

    #[test]
    fn counts_survive_and_are_grouped() {
        assert!((float((1 << 53) - 1) - 9_007_199_254_740_991.0).abs() < 0.5);
        assert_eq!(grouped(1_234_567.8), "1,234,568");
        assert_eq!(grouped(999.4), "999");
        assert_eq!(grouped(0.0), "0");
    }
}
