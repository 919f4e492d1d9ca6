//! Figures of one measurement, and where they come from: the clock, and what the kernel says of a process.

use serde::{Deserialize, Serialize};
use std::fs;
use std::time::Duration;

/// The percentiles that are kept of each measurement.
pub(crate) const PERCENTILES: [f64; 15] =
    [0.0, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 99.99, 100.0];

/// What one run of one candidate at one piece of work gave. The line that a client prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Calls that were answered, events that were delivered, or items that were read.
    pub(crate) count: u64,
    /// How long that took, in seconds.
    pub(crate) seconds: f64,
    /// Processor time of the client, in microseconds a call.
    pub(crate) client_cpu_us: f64,
    /// Processor time of all processes on the other side together, in microseconds a call.
    pub(crate) server_cpu_us: f64,
    /// Latencies in microseconds at [`PERCENTILES`]; none where nothing is awaited.
    pub(crate) latencies_us: Vec<f64>,
    /// The peak memory of the server or broker, in KiB. Filled in by the process that started it.
    #[serde(default)]
    pub(crate) server_memory_kib: u64,
}

impl Figures {
    /// How many a second.
    pub(crate) fn rate(&self) -> f64 {
        self.count as f64 / self.seconds
    }

    /// The latency at one of [`PERCENTILES`], in microseconds.
    pub(crate) fn latency_us(&self, percentile: f64) -> Option<f64> {
        let index = PERCENTILES.iter().position(|known| *known == percentile)?;
        self.latencies_us.get(index).copied()
    }
}

/// Latencies in nanoseconds, in any order, as microseconds at [`PERCENTILES`].
pub(crate) fn percentiles_us(mut nanoseconds: Vec<u32>) -> Vec<f64> {
    if nanoseconds.is_empty() {
        return Vec::new();
    }
    nanoseconds.sort_unstable();
    let last = nanoseconds.len() - 1;
    PERCENTILES
        .iter()
        .map(|percentile| {
            f64::from(nanoseconds[(last as f64 * percentile / 100.0).round() as usize]) / 1000.0
        })
        .collect()
}

/// The median; of an even number, the mean of the two in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The processor time that all threads of a process have had. A process that is gone has had none.
pub(crate) fn cpu_time(pid: u32) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Duration::ZERO;
    };
    // The first number of `schedstat` is the time on a processor in nanoseconds; `stat` counts in hundredths of a second.
    let nanoseconds = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    Duration::from_nanos(nanoseconds)
}

/// A line of `/proc/PID/status` that is given in kB, such as `VmHWM` or `VmRSS`.
pub(crate) fn memory_kib(pid: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_are_those_of_the_sorted_values() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        let figures = percentiles_us((0..=1000).rev().map(|us| us * 1000).collect());
        assert_eq!(figures.len(), PERCENTILES.len());
        assert_eq!((figures[0], figures[5], figures[10], figures[14]), (0.0, 500.0, 990.0, 1000.0));
    }

    #[test]
    fn a_process_has_time_and_memory_and_one_that_is_not_there_has_none() {
        let me = std::process::id();
        while cpu_time(me) == Duration::ZERO {
            std::hint::spin_loop();
        }
        assert!(memory_kib(me, "VmHWM") > 100);
        assert_eq!((cpu_time(u32::MAX), memory_kib(u32::MAX, "VmHWM")), (Duration::ZERO, 0));
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(grouped(1_234_567.4), "1,234,567");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(1000.0), "1,000");
    }
}
