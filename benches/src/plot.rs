//! Diagrams: the distribution of latencies, and calls a second against calls in flight.

use crate::job::{Candidate, Form, Job, RATES_PER_SECOND, Route, Work};
use crate::measure::PERCENTILES;
use crate::table::Row;
use anyhow::{Context as _, anyhow};
use plotters::prelude::*;
use std::fs;
use std::path::Path;

/// One line of a diagram.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// The name of an axis, and the labels of its values.
struct Axis {
    name: &'static str,
    label: fn(f64) -> String,
}

const SIZE: (u32, u32) = (900, 540);

/// Writes every diagram that the rows give into a folder, which is made.
pub(crate) fn write(folder: &Path, rows: &[Row]) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for route in [Route::Direct, Route::Relayed] {
        for in_flight in [1, 64, 1024] {
            let job = Job::call(Work::Add, route, in_flight);
            let lines: Vec<_> = rows.iter().filter(|row| row.job == job).map(latencies).collect();
            let path = folder.join(format!("latency-{route}-{in_flight}.svg"));
            draw(
                &path,
                &format!("add, {route}, {in_flight} in flight"),
                &lines,
                percentile(),
                microseconds(),
            )?;
        }
        for rate_per_second in RATES_PER_SECOND {
            let job = Job::Open { rate_per_second, route };
            let lines: Vec<_> = rows.iter().filter(|row| row.job == job).map(latencies).collect();
            let path = folder.join(format!("latency-{route}-by-chance-{rate_per_second}.svg"));
            draw(&path, &job.to_string(), &lines, percentile(), microseconds())?;
        }
        let lines = rates(rows, route);
        let path = folder.join(format!("rate-{route}.svg"));
        draw(&path, &format!("add, {route}"), &lines, in_flight(), rate())?;
    }
    Ok(())
}

/// Latencies by the logarithm of the number of calls that took longer, so that the few slow calls have room.
fn latencies(row: &Row) -> Line {
    let points = PERCENTILES
        .iter()
        .zip(&row.latencies_us)
        .filter(|(percentile, _)| **percentile < 100.0)
        .map(|(percentile, us)| (-(1.0 - percentile / 100.0).log10(), us.log10()))
        .collect();
    Line { name: row.candidate.to_string(), points }
}

fn rates(rows: &[Row], wanted: Route) -> Vec<Line> {
    let mut lines: Vec<(Candidate, Line)> = Vec::new();
    for row in rows {
        let Job::Call { work: Work::Add, route, form: Form::Single, in_flight, connections: 1, arbiters: 1 } =
            row.job
        else {
            continue;
        };
        if route != wanted {
            continue;
        }
        let point = ((in_flight as f64).log10(), row.rate.log10());
        match lines.iter_mut().find(|(candidate, _)| *candidate == row.candidate) {
            Some((_, line)) => line.points.push(point),
            None => {
                let line = Line { name: row.candidate.to_string(), points: vec![point] };
                lines.push((row.candidate, line));
            }
        }
    }
    lines.into_iter().map(|(_, line)| line).collect()
}

fn percentile() -> Axis {
    let label =
        |nines: f64| format!("{:.4}", 100.0 - 100.0 / 10_f64.powf(nines)).trim_end_matches('0').to_owned();
    Axis { name: "percentile", label }
}

fn microseconds() -> Axis {
    Axis { name: "latency, us", label: power_of_ten }
}

fn in_flight() -> Axis {
    Axis { name: "calls in flight", label: power_of_ten }
}

fn rate() -> Axis {
    Axis { name: "calls a second", label: power_of_ten }
}

fn power_of_ten(exponent: f64) -> String {
    format!("{:.0}", 10_f64.powf(exponent))
}

fn draw(path: &Path, title: &str, lines: &[Line], x: Axis, y: Axis) -> anyhow::Result<()> {
    let points = || lines.iter().flat_map(|line| line.points.iter());
    if points().next().is_none() {
        return Ok(());
    }
    let span = |values: Vec<f64>| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (low - 0.1)..(high + 0.1)
    };
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d(
            span(points().map(|point| point.0).collect()),
            span(points().map(|point| point.1).collect()),
        )?;
    chart
        .configure_mesh()
        .x_desc(x.name)
        .y_desc(y.name)
        .x_label_formatter(&|value| (x.label)(*value))
        .y_label_formatter(&|value| (y.label)(*value))
        .draw()?;
    for (index, line) in lines.iter().enumerate() {
        let style = Palette99::pick(index).stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), style).point_size(3))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    area.present().map_err(|error| anyhow!("cannot write {}: {error}", path.display()))
}
