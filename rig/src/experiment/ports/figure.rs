//! The paper's curve, the model's and the kernel's in one plot, told apart by
//! dashes and marks, not by colour.

use anyhow::{Result, anyhow};
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use crate::report::Figure;

/// Pixels, at which the text is as large as that around the figure.
const SIZE: (u32, u32) = (760, 460);

/// The upper end of the scale, which leaves room for the legend above 100 %.
const TOP: f64 = 1.5;

/// One batch of processes: a value for each number of threads, from 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// What the model has predicted.
    pub model: Vec<f64>,
    /// How often the kernel refused a port.
    pub measured: Vec<f64>,
}

/// What the plot of one ABI shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    /// The paper's formula, evaluated.
    pub paper: Vec<f64>,
    /// Threads that do not allocate.
    pub plain: Option<Curve>,
    /// Threads that call malloc once each.
    pub malloc: Option<Curve>,
}

type Point = (f64, f64);

/// The figure of one ABI; its file is named after it.
///
/// # Errors
/// The library cannot draw it.
pub fn draw(abi: &str, curves: &Curves) -> Result<Figure> {
    let mut svg = String::new();
    plot(&mut svg, abi, curves).map_err(|err| anyhow!("cannot draw a figure: {err}"))?;
    Ok(Figure {
        file: format!("ports-{abi}.svg"),
        title: format!(
            "How often n threads of one process have duplicates by pthread_self() << 16 | getpid(), \
             on {abi}: by the paper's formula, by the model, and in the kernel"
        ),
        svg,
    })
}

fn plot(svg: &mut String, abi: &str, curves: &Curves) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(
            format!("Duplicates of pthread_self() << 16 | getpid(), {abi}"),
            ("sans-serif", 17),
        )
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(58)
        .build_cartesian_2d(0.5..20.5, 0.0..TOP)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc("threads")
        .y_desc("share of processes with duplicates")
        .x_labels(20)
        .y_labels(15)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| match *y {
            y if y < 1.01 => format!("{:.0} %", y * 100.0),
            _ => String::new(),
        })
        .draw()?;
    let grey = RGBColor(220, 220, 220);
    let line = |tenth: u32| f64::from(tenth) / 10.0;
    chart
        .draw_series((1..=10).map(|y| PathElement::new([(0.5, line(y)), (20.5, line(y))], grey)))?;
    let thin = BLACK.stroke_width(1);
    let dashed = |points: Vec<Point>, dash: u32| {
        DashedLineSeries::new(points, dash, dash.max(4), BLACK.stroke_width(2))
    };
    chart.draw_series(dashed(points(&curves.paper), 9))?.label("the paper's formula").legend(
        |(x, y)| DashedPathElement::new([(x, y), (x + 30, y)], 9, 9, BLACK.stroke_width(2)),
    );
    if let Some(curve) = &curves.malloc {
        chart
            .draw_series(LineSeries::new(points(&curve.model), thin))?
            .label("malloc in each thread: model")
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 30, y)], thin));
        let cross = |at, size| Cross::new(at, size, BLACK.stroke_width(2));
        chart
            .draw_series(points(&curve.measured).into_iter().map(|at| cross(at, 5)))?
            .label("malloc in each thread: measured")
            .legend(move |(x, y)| Cross::new((x + 15, y), 5, BLACK.stroke_width(2)));
    }
    if let Some(curve) = &curves.plain {
        chart.draw_series(dashed(points(&curve.model), 2))?.label("no malloc: model").legend(
            |(x, y)| DashedPathElement::new([(x, y), (x + 30, y)], 2, 4, BLACK.stroke_width(2)),
        );
        chart
            .draw_series(points(&curve.measured).into_iter().map(|at| Circle::new(at, 5, thin)))?
            .label("no malloc: measured")
            .legend(move |(x, y)| Circle::new((x + 15, y), 5, thin));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .legend_area_size(38)
        .background_style(WHITE)
        .border_style(RGBColor(160, 160, 160))
        .label_font(("sans-serif", 13))
        .draw()?;
    root.present()?;
    Ok(())
}

/// A value for each number of threads from 1, within what is drawn.
fn points(values: &[f64]) -> Vec<Point> {
    let values = values.iter().take(20).enumerate();
    values.map(|(at, value)| (at as f64 + 1.0, value.clamp(0.0, 1.0))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_svg_without_colour_and_takes_any_value() {
        let curve = Curve { model: vec![0.0, 0.5], measured: vec![2.0, -1.0] };
        let curves =
            Curves { paper: vec![0.0; 40], plain: Some(curve.clone()), malloc: Some(curve) };
        for curves in [Curves::default(), curves] {
            let figure = draw("x86_64", &curves).unwrap();
            assert!(figure.svg.starts_with("<svg") && figure.svg.trim_end().ends_with("</svg>"));
            let colours = figure.svg.split('#').skip(1).filter_map(|rest| rest.get(..6));
            for colour in colours {
                assert!(colour[..2] == colour[2..4] && colour[..2] == colour[4..], "{colour}");
            }
        }
    }
}
