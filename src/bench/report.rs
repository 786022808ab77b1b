//! What a bench has measured, as plain data: the JSON is this, and the page is drawn
//! from it.

use std::fmt;

use serde::Serialize;

use super::{machine::Machine, scenarios::Scenario};

/// All that one run measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version of Roost.
    pub version: &'static str,
    /// The command line, without addresses and passwords.
    pub command: String,
    /// When it began, in seconds since 1970.
    pub began_at: u64,
    /// How long all of it took.
    pub seconds: f64,
    /// What it ran on.
    pub machine: Machine,
    /// One for each scenario, in the order in which they ran.
    pub sections: Vec<Section>,
    /// Scenarios that were asked for and have no section: the run goes on, was stopped or has
    /// failed.
    pub missing: Vec<Scenario>,
}

/// What one scenario measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Section {
    /// The scenario, as on the command line.
    pub name: String,
    /// What was measured and how, in a few sentences.
    pub about: String,
    /// How long one access to memory took that no cache has, in nanoseconds, right before.
    /// On a machine that others use too it may be another the next hour, and what a push to
    /// one of many timelines takes is mostly this.
    pub memory_access_ns: f64,
    /// Who was measured, each with its figures.
    pub rows: Vec<Row>,
    /// What the figures come to beside each other.
    pub ratios: Vec<Ratio>,
    /// What is better seen than told.
    pub plots: Vec<Plot>,
}

/// The figures of one thing that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// Its figures. Rows of one section need not have the same ones.
    pub figures: Vec<Figure>,
}

/// One number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What it says, the same in every row that has it.
    pub name: &'static str,
    /// How much it is.
    pub value: f64,
    /// Its unit, empty for a plain number.
    pub unit: &'static str,
}

/// Two figures of one run beside each other.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// What is divided by what.
    pub name: String,
    /// The quotient.
    pub value: f64,
    /// What it is to be, if that was asked for.
    pub goal: Option<Goal>,
}

/// What a ratio is to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
    /// Nothing at all, of what is counted.
    Zero,
}

/// Lines over a pair of axes.
#[derive(Clone, Debug, Serialize)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// What goes to the right.
    pub x: Axis,
    /// What goes up.
    pub y: Axis,
    /// One line each.
    pub series: Vec<Series>,
}

/// One axis of a plot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Axis {
    /// What it measures.
    pub name: &'static str,
    /// Its unit, empty for a plain number.
    pub unit: &'static str,
    /// Where its values stand.
    pub scale: Scale,
}

/// Where values stand on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// From 0, as far apart as they differ.
    Linear,
    /// Each power of ten as far from the next; only what is above 0 shows.
    Log,
    /// Shares from 0 up to 1, each nine as far from the next, as for latencies.
    Nines,
}

/// One line of a plot.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// Whose line it is.
    pub name: String,
    /// In the order in which they are joined.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// A line through these points.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points }
    }

    /// A distribution of `count` values, as far as there are enough to tell: shares, and
    /// what `quantile` says of each.
    pub(super) fn of_quantiles(
        name: impl Into<String>,
        count: u64,
        quantile: impl Fn(f64) -> f64,
    ) -> Self {
        const STEPS_A_NINE: i32 = 10;
        let nines = (count.max(1) as f64).log10();
        let steps = (nines * f64::from(STEPS_A_NINE)).floor() as i32;
        let shares =
            (0..=steps).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / f64::from(STEPS_A_NINE)));
        Self::new(name, shares.map(|share| (share, quantile(share))).collect())
    }
}

impl Plot {
    /// Distributions of latencies, in seconds.
    pub(super) fn of_latencies(
        title: impl Into<String>,
        share_of: &'static str,
        series: Vec<Series>,
    ) -> Self {
        Self {
            title: title.into(),
            x: Axis { name: share_of, unit: "", scale: Scale::Nines },
            y: Axis { name: "latency", unit: "s", scale: Scale::Log },
            series,
        }
    }
}

impl Section {
    /// A scenario that there is nothing to say of, and why.
    pub(super) fn not_measured(name: &str, why: &str) -> Self {
        Self { name: name.to_owned(), about: format!("Not measured: {why}."), ..Self::default() }
    }

    /// How long an access to memory took, in a sentence.
    pub(super) fn memory(&self) -> String {
        format!("An access to memory took {:.0} ns before this scenario.", self.memory_access_ns)
    }

    /// Leaves out what ratios are to be, but for what must never be.
    pub(super) fn forget_goals(&mut self) {
        for ratio in &mut self.ratios {
            ratio.goal = ratio.goal.filter(|goal| *goal == Goal::Zero);
        }
    }
}

impl Row {
    /// A row without figures.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), figures: Vec::new() }
    }

    /// The same with one figure more.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: f64, unit: &'static str) -> Self {
        self.figures.push(Figure { name, value, unit });
        self
    }

    /// One of its figures, in the unit in which it was measured.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }
}

impl Goal {
    /// Whether a ratio is what it is to be. One of nothing, or by nothing, is not.
    pub fn is_met(self, value: f64) -> bool {
        let is_number = value.is_finite() && value > 0.0;
        match self {
            Self::AtLeast(least) => is_number && value >= least,
            Self::AtMost(most) => is_number && value <= most,
            Self::Zero => value == 0.0,
        }
    }

    /// The same, where the figure is measured as the goal was set for.
    pub(super) fn only_if(self, is_for_this: bool) -> Option<Self> {
        is_for_this.then_some(self)
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "at least {least}"),
            Self::AtMost(most) => write!(f, "at most {most}"),
            Self::Zero => write!(f, "none"),
        }
    }
}

impl fmt::Display for Section {
    /// A table for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({:.0} ns an access to memory)", self.name, self.memory_access_ns)?;
        if self.rows.is_empty() {
            writeln!(f, "  {}", self.about)?;
        }
        for row in &self.rows {
            let figures: Vec<String> = row.figures.iter().map(ToString::to_string).collect();
            writeln!(f, "  {:<28} {}", row.name, figures.join(", "))?;
        }
        for ratio in &self.ratios {
            write!(f, "  {} = {}", ratio.name, number(ratio.value))?;
            match ratio.goal {
                Some(goal) if goal.is_met(ratio.value) => writeln!(f, " ({goal})")?,
                Some(goal) => writeln!(f, " (NOT {goal})")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.amount())
    }
}

impl Figure {
    /// How much it is, with its unit, or with a larger one where that reads better.
    pub(super) fn amount(&self) -> String {
        const LARGER: [(&str, &str, f64); 3] =
            [("µs", "ms", 1e3), ("ms", "s", 1e3), ("MiB", "GiB", 1024.0)];
        let (mut value, mut unit) = (self.value, self.unit);
        for (small, large, size) in LARGER {
            if unit == small && value >= 10.0 * size {
                (value, unit) = (value / size, large);
            }
        }
        format!("{} {unit}", number(value)).trim_end().to_owned()
    }
}

/// The middle one.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// A number with three figures, or whole where it is large.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e9 => format!("{:.2} G", value / 1e9),
        size if size >= 1e6 => format!("{:.2} M", value / 1e6),
        size if size >= 1e4 => format!("{:.1} k", value / 1e3),
        size if size >= 100.0 || value == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_that_is_missed_is_said_in_capitals() {
        let ratio =
            |value| Ratio { name: "a ÷ b".to_owned(), value, goal: Some(Goal::AtLeast(4.0)) };
        let section = Section {
            name: "drain".to_owned(),
            rows: vec![Row::new("roost").with("Redis CPU", 0.25, "µs")],
            ratios: vec![ratio(4.0), ratio(3.9)],
            ..Section::default()
        };
        let text = section.to_string();
        assert!(text.contains("Redis CPU 0.250 µs"), "{text}");
        assert!(text.contains("4.000 (at least 4)\n"), "{text}");
        assert!(text.contains("3.900 (NOT at least 4)\n"), "{text}");
        assert!(Goal::AtMost(2.0).is_met(2.0) && !Goal::AtMost(2.0).is_met(2.1));
        assert!(Goal::Zero.is_met(0.0) && !Goal::Zero.is_met(1.0) && !Goal::Zero.is_met(f64::NAN));
        for nothing in [0.0, f64::NAN, f64::INFINITY] {
            assert!(!Goal::AtMost(2.0).is_met(nothing), "{nothing}");
            assert!(!Goal::AtLeast(2.0).is_met(nothing), "{nothing}");
        }
    }

    #[test]
    fn what_is_large_has_a_larger_unit() {
        let amount = |value, unit| Figure { name: "it", value, unit }.amount();
        assert_eq!(amount(9_990.0, "µs"), "9990 µs");
        assert_eq!(amount(15_040.0, "µs"), "15.0 ms");
        assert_eq!(amount(29_700.0, "ms"), "29.7 s");
        assert_eq!(amount(2e7, "µs"), "20.0 s");
        assert_eq!(amount(20_480.0, "MiB"), "20.0 GiB");
        assert_eq!(amount(1.5e6, "/s"), "1.50 M /s");
        assert_eq!(amount(12.0, ""), "12.0");
    }

    #[test]
    fn numbers_have_about_three_figures() {
        let numbers = [0.0, 0.1234, 12.34, 123.4, 12_345.0, 1_234_567.0, 2.5e9];
        let texts: Vec<String> = numbers.into_iter().map(number).collect();
        assert_eq!(texts, ["0", "0.123", "12.3", "123", "12.3 k", "1.23 M", "2.50 G"]);
    }
}
