//! The plot for the README, as SVG by hand: unread records over time with one slow consumer, and the
//! slowest hundredth of all records by scenario.

use crate::runs::Results;
use ottla_benches::steering::{Rule, Scenario, Setup};
use std::fmt::Write;

const COMMIT: f64 = 5.0;
const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 400.0;
/// The drawing areas: left, top, width, height.
const LEFT: (f64, f64, f64, f64) = (60.0, 70.0, 380.0, 270.0);
const RIGHT: (f64, f64, f64, f64) = (520.0, 70.0, 380.0, 270.0);

const SHOWN: [(Rule, &str, &str); 4] = [
    (Rule::Uniform, "uniform, as Kafka's own", "#9a9a9a"),
    (Rule::Threshold, "random among lag \u{2264} 500", "#d08a2e"),
    (Rule::TwoChoices, "two random choices", "#7a6bb5"),
    (Rule::LagAware, "Ottla", "#1f7a5c"),
];

const BARS: [Scenario; 5] = [
    Scenario::Healthy,
    Scenario::Slow,
    Scenario::Stall,
    Scenario::Random,
    Scenario::Mixed,
];

/// The height of a value on a logarithmic scale, 0 to 1.
fn log_part(value: f64, least: f64, most: f64) -> f64 {
    let value = value.clamp(least, most);
    (value / least).ln() / (most / least).ln()
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, size: u32, what: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{what}</text>"
    );
}

/// Horizontal lines at powers of ten.
fn grid(svg: &mut String, area: (f64, f64, f64, f64), least: f64, most: f64, unit: &str) {
    let (left, top, width, height) = area;
    let mut value = least;
    while value <= most * 1.001 {
        let y = top + height * (1.0 - log_part(value, least, most));
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {y:.1}h{width}\" stroke=\"#8884\" fill=\"none\"/>"
        );
        text(
            svg,
            left - 6.0,
            y + 4.0,
            "end",
            11,
            &format!("{value}{unit}"),
        );
        value *= 10.0;
    }
}

fn over_time(svg: &mut String, results: &Results) {
    let (left, top, width, height) = LEFT;
    let (least, most) = (10.0, 100_000.0);
    text(
        svg,
        left,
        top - 16.0,
        "start",
        13,
        "Unread records, one of 12 consumers five times slower",
    );
    grid(svg, LEFT, least, most, "");
    let setup = Setup::new(Scenario::Slow, COMMIT);
    for (rule, _, colour) in SHOWN {
        let Some(played) = results.of(&setup, rule) else {
            continue;
        };
        let mut points = String::new();
        for (at, lag) in (0u32..).zip(&played.lag) {
            let x = left + width * f64::from(at) / setup.length;
            let y = top + height * (1.0 - log_part(*lag, least, most));
            let _ = write!(points, "{x:.1},{y:.1} ");
        }
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"/>",
            points.trim_end()
        );
    }
    for seconds in [0.0, 100.0, 200.0, 300.0] {
        let x = left + width * seconds / setup.length;
        text(
            svg,
            x,
            top + height + 18.0,
            "middle",
            11,
            &format!("{seconds} s"),
        );
    }
}

fn by_scenario(svg: &mut String, results: &Results) {
    let (left, top, width, height) = RIGHT;
    let (least, most) = (0.01, 1_000.0);
    text(
        svg,
        left,
        top - 16.0,
        "start",
        13,
        "Time until 99 % of the records are read",
    );
    grid(svg, RIGHT, least, most, " s");
    let group = width / BARS.len() as f64;
    let bar = group / (SHOWN.len() as f64 + 1.0);
    for (at, scenario) in (0u32..).zip(BARS) {
        let x = left + group * f64::from(at);
        let setup = Setup::new(scenario, COMMIT);
        for (place, (rule, _, colour)) in (0u32..).zip(SHOWN) {
            let Some(figures) = results.figures(&setup, rule) else {
                continue;
            };
            let tall = height * log_part(figures.p99, least, most);
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" fill=\"{colour}\"/>",
                x + bar * (0.5 + f64::from(place)),
                top + height - tall,
                bar * 0.9,
            );
        }
        text(
            svg,
            x + group / 2.0,
            top + height + 18.0,
            "middle",
            11,
            scenario.name(),
        );
    }
}

/// The plot; a line or bar without a result is left out.
pub(crate) fn svg(results: &Results) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"system-ui, sans-serif\" fill=\"#666\">\n"
    );
    over_time(&mut svg, results);
    by_scenario(&mut svg, results);
    let mut x = LEFT.0;
    for (_, name, colour) in SHOWN {
        let y = HEIGHT - 22.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>",
            y - 10.0
        );
        text(&mut svg, x + 18.0, y, "start", 12, name);
        x += 205.0;
    }
    text(
        &mut svg,
        WIDTH / 2.0,
        20.0,
        "middle",
        12,
        "12 partitions, 80 % load, 4 producers that look every second, commits every 5 s; logarithmic scales",
    );
    svg.push_str("</svg>\n");
    svg
}
