// SPDX-License-Identifier: MIT OR Apache-2.0
//! Turns rows of benches (`--json`) into a page: `just bench-report` reads `benches/results/*.json`
//! and writes `docs/BENCHMARKS.md`, with a plot of all rounds for each file.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use plotters::backend::SVGBackend;
use plotters::chart::ChartBuilder;
use plotters::drawing::IntoDrawingArea;
use plotters::element::Circle;
use plotters::series::LineSeries;
use plotters::style::{BLACK, Color, RED, RGBColor};
use serde::Deserialize;
use serde_json::Value;
use supernode_benches::{median, significant};

const RESULTS: &str = "benches/results";
const PAGE: &str = "docs/BENCHMARKS.md";
const PLOTS: &str = "docs/benchmarks";
const PLOT_WIDTH: u32 = 760;
const LANE_HEIGHT: u32 = 34;
/// The plot's frame and its axis.
const MARGIN_HEIGHT: u32 = 70;
const OURS: RGBColor = RGBColor(0x1f, 0x77, 0xb4);

/// A row as a bench wrote it.
#[derive(Debug, Deserialize)]
struct Row {
    id: String,
    question: String,
    ours: f64,
    against: f64,
    unit: String,
    ratio: f64,
    raw: Value,
}

impl Row {
    /// The rounds of one side, as parts of the baseline's figure.
    fn rounds(&self, side: &str) -> Vec<f64> {
        let rounds = self.raw[side].as_array().map(Vec::as_slice).unwrap_or_default();
        let values: Vec<f64> = rounds.iter().filter_map(Value::as_f64).collect();
        let base = if self.against > 0.0 { self.against } else { median(&[self.ours]) };
        values.into_iter().map(|value| value / base).collect()
    }
}

fn main() -> ExitCode {
    match report() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stderr(), "error: {error}").expect("somebody reads errors");
            ExitCode::FAILURE
        }
    }
}

fn report() -> Result<(), Box<dyn Error>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(RESULTS)?.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|name| name == "json"));
    files.sort();
    fs::create_dir_all(PLOTS)?;
    let mut page = String::from(HEAD);
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file)?;
        let rows = text.lines().map(serde_json::from_str).collect::<Result<Vec<Row>, _>>();
        let rows = rows.map_err(|error| format!("{}: {error}", file.display()))?;
        plot(&Path::new(PLOTS).join(format!("{name}.svg")), &rows)?;
        section(&mut page, &name, &rows)?;
    }
    fs::write(PAGE, page)?;
    Ok(())
}

const HEAD: &str = "# Benchmarks

Written by `just bench-report` from the rows in `benches/results/`; do not edit. Each row compares
two things that were measured in turn in one run (`ours` and `against`, medians), so the ratio means
more than either figure. The plots show every round as a part of the baseline's median: dots are
ours, circles the baseline's. `cargo bench -p supernode-benches --bench NAME -- --json OUT` measures
again.
";

fn section(page: &mut String, name: &str, rows: &[Row]) -> std::fmt::Result {
    writeln!(page, "\n## {name}\n")?;
    if let Some(machine) = rows.first().and_then(|row| row.raw["machine"].as_str()) {
        writeln!(page, "{machine}.\n")?;
    }
    writeln!(page, "| id | ours | against | unit | ratio | question |")?;
    writeln!(page, "|---|---:|---:|---|---:|---|")?;
    for row in rows {
        let Row { id, question, unit, ratio, .. } = row;
        let (ours, against) = (significant(row.ours), significant(row.against));
        writeln!(page, "| {id} | {ours} | {against} | {unit} | {ratio:.2} | {question} |")?;
    }
    let notes = rows.iter().filter_map(|row| Some((&row.id, row.raw["note"].as_str()?)));
    for (number, (id, note)) in notes.enumerate() {
        let gap = if number == 0 { "\n" } else { "" };
        writeln!(page, "{gap}- {id}: {note}.")?;
    }
    writeln!(page, "\n![rounds of {name}](benchmarks/{name}.svg)")
}

/// A lane for each row: every round of both sides.
fn plot(path: &Path, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    let lanes = u32::try_from(rows.len())?;
    let size = (PLOT_WIDTH, MARGIN_HEIGHT + LANE_HEIGHT * lanes);
    let area = SVGBackend::new(path, size).into_drawing_area();
    let all = rows.iter().flat_map(|row| [row.rounds("ours_rounds"), row.rounds("against_rounds")]);
    let far = all.flatten().fold(2.0, f64::max).min(4.0);
    let mut chart = ChartBuilder::on(&area)
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(170)
        .build_cartesian_2d(0.0..far, -0.5..f64::from(lanes) - 0.5)?;
    let label = |lane: &f64| {
        let mut numbered = (0..).map(f64::from).zip(rows.iter().rev());
        let row = numbered.find(|(number, _)| (number - lane).abs() < 0.01);
        row.map(|(_, row)| row.id.clone()).unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(rows.len() * 2)
        .y_label_formatter(&label)
        .x_desc("part of the baseline")
        .draw()?;
    let line = [(1.0, -0.5), (1.0, f64::from(lanes) - 0.5)];
    chart.draw_series(LineSeries::new(line, BLACK.mix(0.4)))?;
    for (lane, row) in (0..).zip(rows.iter().rev()) {
        let lane = f64::from(lane);
        let against = row.rounds("against_rounds").into_iter().filter(|value| *value <= far);
        chart.draw_series(against.map(|value| Circle::new((value, lane), 4, RED.mix(0.7))))?;
        let ours = row.rounds("ours_rounds").into_iter().filter(|value| *value <= far);
        chart.draw_series(ours.map(|value| Circle::new((value, lane), 4, OURS.filled())))?;
    }
    area.present()?;
    Ok(())
}
