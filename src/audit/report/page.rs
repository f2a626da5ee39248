//! The report as one page that needs nothing else: no script, no font, no image from elsewhere. It prints.

use jiff::Timestamp;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, context};

use super::{Judged, Report};
use crate::cluster::view::View;

const PAGE: &str = include_str!("page.html");
/// Size of a chart in units of its own.
const WIDTH: u64 = 600;
const HEIGHT: u64 = 120;

/// One bar of a chart.
#[derive(serde::Serialize)]
struct Bar {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    bad: bool,
}

/// The page.
///
/// # Panics
/// Never: the template is part of the program, and a test renders it.
pub fn page(report: &Report, view: Option<&View>) -> String {
    let mut environment = Environment::empty();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_filter("span", |seconds: Option<u64>| seconds.map_or_else(|| "–".to_owned(), span));
    environment.add_filter("minute", |time: Value| minute(&time));
    environment.add_filter("count", |list: Value| list.len().unwrap_or(0));
    environment.add_template("page", PAGE).expect("the page's template is sound");
    let template = environment.get_template("page").expect("it was added");
    let oldest: Vec<u64> = (0..report.rotations.len())
        .map(|part| report.targets.iter().filter_map(|t| t.course.ages.get(part).copied().flatten()).max().unwrap_or(0))
        .collect();
    let lines: Vec<Vec<Bar>> = report.targets.iter().map(spark).collect();
    let values = context! {
        report => value(report),
        view => value(&view),
        rotations => value(&stacked(&report.rotations, &report.failures)),
        most => report.rotations.iter().zip(&report.failures).map(|(a, b)| a + b).max().unwrap_or(0),
        ages => value(&bars(&oldest, WIDTH, HEIGHT)),
        oldest => oldest.iter().copied().max().unwrap_or(0),
        sparks => value(&lines),
    };
    template.render(values).expect("the page takes every report") + "\n"
}

/// What serde makes of it, as the template's language has it.
fn value(shown: &impl serde::Serialize) -> Value {
    of_json(serde_json::to_value(shown).expect("a report has nothing that JSON cannot say"))
}

fn of_json(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(truth) => truth.into(),
        Json::Number(number) => number.as_u64().map_or_else(|| number.as_f64().unwrap_or_default().into(), Into::into),
        Json::String(text) => text.into(),
        Json::Array(list) => list.into_iter().map(of_json).collect(),
        Json::Object(map) => Value::from_pairs(map.into_iter().map(|(key, json)| (key, of_json(json)))),
    }
}

fn spark(judged: &Judged) -> Vec<Bar> {
    let ages: Vec<u64> = judged.course.ages.iter().map(|age| age.unwrap_or(0)).collect();
    bars(&ages, 120, 20)
}

fn stacked(good: &[u64], bad: &[u64]) -> Vec<Bar> {
    let sums: Vec<u64> = good.iter().zip(bad).map(|(a, b)| a + b).collect();
    let most = sums.iter().copied().max().unwrap_or(0);
    let mut all = scaled(&sums, most, WIDTH, HEIGHT, false);
    all.extend(scaled(bad, most, WIDTH, HEIGHT, true));
    all
}

fn bars(values: &[u64], width: u64, height: u64) -> Vec<Bar> {
    scaled(values, values.iter().copied().max().unwrap_or(0), width, height, false)
}

#[allow(clippy::cast_precision_loss)] // a picture
fn scaled(values: &[u64], most: u64, width: u64, height: u64, bad: bool) -> Vec<Bar> {
    let step = width as f64 / values.len().max(1) as f64;
    let bar = |(index, value): (usize, &u64)| {
        let tall = height as f64 * *value as f64 / most.max(1) as f64;
        Bar { x: round(index as f64 * step), y: round(height as f64 - tall), width: round(step * 0.85), height: round(tall), bad }
    };
    values.iter().enumerate().filter(|(_, value)| **value > 0).map(bar).collect()
}

fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// Seconds in their two largest units.
fn span(seconds: u64) -> String {
    let (d, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s} s"),
        (0, 0, _) => format!("{m} min {s} s"),
        (0, _, _) => format!("{h} h {m} min"),
        _ => format!("{d} d {h} h"),
    }
}

/// A time to the minute, in UTC.
fn minute(time: &Value) -> String {
    let parsed = time.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    parsed.map_or_else(|| "–".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M").to_string())
}
