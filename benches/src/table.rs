//! The table of medians, and the ratios of each candidate to the other candidates of its cell.

use crate::job::{Candidate, Job};
use crate::measure::{Figures, PERCENTILES, grouped, median};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// The rounds of one candidate at one job, and their medians.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) job: Job,
    /// The job in words.
    pub(crate) work: String,
    pub(crate) candidate: Candidate,
    /// Calls, deliveries or items a second.
    pub(crate) rate: f64,
    /// The lowest and the highest of all rounds.
    pub(crate) rate_range: (f64, f64),
    /// Latencies in microseconds; none where nothing is awaited.
    pub(crate) p50_us: Option<f64>,
    pub(crate) p90_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) p999_us: Option<f64>,
    /// Processor time a call, in microseconds.
    pub(crate) client_cpu_us: f64,
    pub(crate) server_cpu_us: f64,
    /// The peak memory of all processes of the server side together.
    pub(crate) server_memory_kib: f64,
    /// Medians of the latencies at [`PERCENTILES`].
    pub(crate) latencies_us: Vec<f64>,
    /// The rate of this candidate by the rate of each other candidate of its job. Where calls come by chance and all rates are equal, its
    /// processor time for each call by that of the other candidate. Candidates that poll are compared only with each other, and so are
    /// candidates that do not poll.
    pub(crate) ratios: Vec<(Candidate, f64)>,
}

impl Row {
    pub(crate) fn new(job: Job, candidate: Candidate, rounds: &[Figures]) -> Self {
        let of = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure));
        let latency = |percentile| {
            let values: Vec<_> = rounds.iter().filter_map(|round| round.latency_us(percentile)).collect();
            (!values.is_empty()).then(|| median(values))
        };
        let rates = || rounds.iter().map(Figures::rate);
        Self {
            job,
            work: job.to_string(),
            candidate,
            rate: of(Figures::rate),
            rate_range: (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max)),
            p50_us: latency(50.0),
            p90_us: latency(90.0),
            p99_us: latency(99.0),
            p999_us: latency(99.9),
            client_cpu_us: of(|figures| figures.client_cpu_us),
            server_cpu_us: of(|figures| figures.server_cpu_us),
            server_memory_kib: of(|figures| figures.server_memory_kib as f64),
            latencies_us: PERCENTILES.iter().filter_map(|percentile| latency(*percentile)).collect(),
            ratios: Vec::new(),
        }
    }

    /// Processor time a call of all processes together, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.client_cpu_us + self.server_cpu_us
    }

    /// The figure that candidates are compared by.
    fn measure(&self) -> f64 {
        match self.job {
            Job::Call { .. } | Job::Publish { .. } | Job::Stream { .. } => self.rate,
            Job::Open { .. } => self.cpu_us(),
        }
    }
}

/// Fills in the ratios of all rows to the other rows of their job.
pub(crate) fn compare(rows: &mut [Row]) {
    let measures: Vec<_> = rows.iter().map(|row| (row.job, row.candidate, row.measure())).collect();
    for row in rows {
        let measure = row.measure();
        row.ratios = measures
            .iter()
            .filter(|(job, candidate, _)| *job == row.job && *candidate != row.candidate)
            .filter(|(_, candidate, _)| candidate.busy_poll() == row.candidate.busy_poll())
            .map(|(_, candidate, other)| (*candidate, measure / other))
            .collect();
    }
}

/// The row of a candidate at a job, if it was measured.
pub(crate) fn find(rows: &[Row], job: Job, candidate: Candidate) -> Option<&Row> {
    rows.iter().find(|row| row.job == job && row.candidate == candidate)
}

/// The table for people.
pub(crate) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "work",
        "candidate",
        "a second",
        "p50 us",
        "p90 us",
        "p99 us",
        "p99.9 us",
        "cpu us client",
        "cpu us server",
        "server MiB",
        "ratio to",
    ]);
    for column in 2..10 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut last = None;
    for row in rows {
        let work = if last == Some(row.job) { String::new() } else { row.work.clone() };
        last = Some(row.job);
        let latency = |value: Option<f64>| value.map_or_else(String::new, |us| format!("{us:.0}"));
        let ratios: Vec<_> =
            row.ratios.iter().map(|(candidate, ratio)| format!("{candidate} {}", short(*ratio))).collect();
        let of_what = if matches!(row.job, Job::Open { .. }) { "cpu us: " } else { "" };
        table.add_row([
            work,
            row.candidate.to_string(),
            grouped(row.rate),
            latency(row.p50_us),
            latency(row.p90_us),
            latency(row.p99_us),
            latency(row.p999_us),
            format!("{:.2}", row.client_cpu_us),
            format!("{:.2}", row.server_cpu_us),
            format!("{:.1}", row.server_memory_kib / 1024.0),
            // Only the ratios of meshwork are of interest; those of its peers follow from them.
            if row.candidate.is_ours() && !ratios.is_empty() {
                format!("{of_what}{}", ratios.join(", "))
            } else {
                String::new()
            },
        ]);
    }
    table
}

/// A ratio as people read it.
pub(crate) fn short(ratio: f64) -> String {
    if ratio < 10.0 { format!("{ratio:.2}") } else { format!("{ratio:.0}") }
}
