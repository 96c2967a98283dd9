//! Numbers for the report.

/// The middle one.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    percentile(values, 50.0)
}

/// The value that so many per cent do not exceed.
pub(crate) fn percentile(values: impl IntoIterator<Item = f64>, percent: f64) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    assert!(!sorted.is_empty(), "nothing was measured");
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// `met` or `missed`, beside the bar.
pub(crate) fn bar(value: f64, at_most: f64) -> String {
    format!("bar {at_most:.2}: {}", if value <= at_most { "met" } else { "missed" })
}

/// A headline.
pub(crate) fn section(title: &str) {
    println!("\n== {title}");
}
