//! What `wrk` tells.

use super::Result;

/// How many requests were answered.
pub(super) fn requests(told: &str) -> Result<u64> {
    let mut lines = told.lines();
    lines
        .find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())
        .filter(|requests| *requests > 0)
        .ok_or_else(|| format!("wrk did not say how many requests it sent:\n{told}"))
}

/// The 99th percentile, as `     99%    1.23ms`.
pub(super) fn p99_ms(told: &str) -> Result<f64> {
    let line = told
        .lines()
        .find_map(|line| line.trim().strip_prefix("99%"));
    let text = line.map(str::trim).unwrap_or_default();
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0)];
    let read = units.iter().find_map(|(unit, factor)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(number * factor)
    });
    read.ok_or_else(|| format!("wrk did not tell its latencies:\n{told}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_tells_is_read() {
        let told = "  Latency Distribution\n     50%  100.00us\n     99%    1.25ms\n  \
                    1234 requests in 4.00s, 1.00MB read\n";
        assert_eq!(requests(told), Ok(1234));
        assert_eq!(p99_ms(told), Ok(1.25));
        assert!(p99_ms("").is_err());
    }
}
