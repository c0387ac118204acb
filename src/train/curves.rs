//! A run's curves as SVG: losses above, the share of elements answered rightly below.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::fit::StepLog;
use crate::error::{Error, Result};

/// Width and height in pixels.
const SIZE: (u32, u32) = (900, 640);

/// Points per curve: each is the mean of as many steps as it takes.
const POINTS: usize = 300;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One curve: its name, its colour and the value of a step, if it has one.
struct Curve {
    name: &'static str,
    color: RGBColor,
    of: fn(&StepLog) -> Option<f32>,
}

const LOSSES: [Curve; 2] = [
    Curve { name: "answers", color: RGBColor(31, 95, 191), of: |log| log.answer_loss },
    Curve { name: "auxiliary", color: RGBColor(196, 106, 27), of: |log| log.auxiliary_loss },
];

const ACCURACY: [Curve; 1] =
    [Curve { name: "elements right", color: RGBColor(46, 125, 80), of: |log| log.element_accuracy }];

/// The curves of a run as an SVG document.
///
/// # Errors
/// Where the plotting library fails.
pub fn curves(log: &[StepLog]) -> Result<String> {
    let mut svg = String::new();
    draw(log, &mut svg)
        .map_err(|error| Error::internal("cannot draw the curves").with_source(error.to_string()))?;
    Ok(svg)
}

fn draw(log: &[StepLog], svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (losses, accuracy) = root.split_vertically(SIZE.1 / 2);
    panel(&losses, "loss", log, &LOSSES, None)?;
    panel(&accuracy, "accuracy", log, &ACCURACY, Some(1.0))?;
    root.present()?;
    Ok(())
}

fn panel(
    area: &Area<'_>,
    title: &str,
    log: &[StepLog],
    curves: &[Curve],
    most: Option<f32>,
) -> Result<(), Box<dyn std::error::Error>> {
    let series: Vec<Vec<(f64, f64)>> = curves.iter().map(|curve| means(log, curve.of)).collect();
    let highest = series.iter().flatten().map(|point| point.1).fold(0.0, f64::max);
    let top = most.map_or(highest * 1.05 + 1e-6, f64::from);
    let steps = log.last().map_or(1, |last| last.step + 1) as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..steps, 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .axis_style(BLACK.mix(0.5))
        .x_desc("step")
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_desc(title)
        .draw()?;
    for (curve, points) in curves.iter().zip(series).filter(|(_, points)| !points.is_empty()) {
        let color = curve.color;
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.85)).draw()?;
    Ok(())
}

/// Means over runs of steps that have the value, at the middle of each run.
fn means(log: &[StepLog], of: fn(&StepLog) -> Option<f32>) -> Vec<(f64, f64)> {
    let run = log.len().div_ceil(POINTS).max(1);
    let mean = |logs: &[StepLog]| {
        let known: Vec<(f64, f64)> =
            logs.iter().filter_map(|log| Some((log.step as f64, f64::from(of(log)?)))).collect();
        let sum = |of: fn(&(f64, f64)) -> f64| known.iter().map(of).sum::<f64>() / known.len() as f64;
        (!known.is_empty()).then(|| (sum(|point| point.0), sum(|point| point.1)))
    };
    log.chunks(run).filter_map(mean).collect()
}
