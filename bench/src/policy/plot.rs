//! How costs grow with the number of pods: both axes logarithmic, so that what is linear has a slope of one.

use std::{collections::BTreeMap, path::Path};

use plotters::prelude::*;

use super::report::Row;

/// Height of one panel, pixels.
const HEIGHT: u32 = 360;
const WIDTH: u32 = 900;

/// Draws the full compile above, the slowest change below; a line for each shape and number of policies.
pub(super) fn draw(path: &Path, rows: &[Row]) -> anyhow::Result<()> {
    let total: fn(&Row) -> f64 = |row| row.found.total_ms;
    let change: fn(&Row) -> f64 = |row| row.found.events.iter().map(|event| event.p99_ms).fold(0.0, f64::max);
    let root = SVGBackend::new(path, (WIDTH, 2 * HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    let panels = root.split_evenly((2, 1));
    let titles = ["full compile, ms", "slowest kind of change on a node, p99, ms"];
    for ((panel, title), value) in panels.iter().zip(titles).zip([total, change]) {
        let mut lines: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for row in rows {
            let name = format!("{}, {} policies", row.shape, row.policies);
            lines.entry(name).or_default().push((row.pods as f64, value(row).max(0.001)));
        }
        let points = || lines.values().flatten();
        let least = |pick: fn(&(f64, f64)) -> f64| points().map(pick).fold(f64::INFINITY, f64::min) * 0.8;
        let most = |pick: fn(&(f64, f64)) -> f64| points().map(pick).fold(0.0, f64::max) * 1.25;
        let (x, y) = (least(|p| p.0)..most(|p| p.0), least(|p| p.1)..most(|p| p.1));
        let mut chart = ChartBuilder::on(panel)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(32)
            .y_label_area_size(64)
            .build_cartesian_2d(x.log_scale(), y.log_scale())?;
        chart.configure_mesh().x_desc("pods").draw()?;
        for (at, (name, line)) in lines.iter().enumerate() {
            let colour = Palette99::pick(at).to_rgba();
            let series = LineSeries::new(line.iter().copied(), colour.stroke_width(2)).point_size(3);
            let legend = move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour);
            chart.draw_series(series)?.label(name).legend(legend);
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
    }
    root.present()?;
    Ok(())
}
