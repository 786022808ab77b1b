//! A plot as an SVG that needs nothing else: axes with units, a line and a colour for
//! each series. Pure.

use std::fmt::Write;

use super::{
    html::escaped,
    report::{Axis, Plot, Scale, Series, number},
};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
/// Where the field of the lines is.
const LEFT: f64 = 66.0;
const RIGHT: f64 = WIDTH - 14.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = HEIGHT - 66.0;
/// Ticks of a linear axis, about.
const TICKS: f64 = 5.0;
/// Nines beyond which an axis of shares does not go.
const NINES_MAX: f64 = 6.0;

/// That can be told apart by those who see fewer colours (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// The plot. Empty where there is nothing to draw.
pub(super) fn svg(plot: &Plot) -> String {
    let points = || {
        plot.series
            .iter()
            .flat_map(|series| &series.points)
            .filter(|point| plot.x.shows(point.0) && plot.y.shows(point.1))
    };
    let across = Ruler::over(plot.x.scale, points().map(|point| point.0), (LEFT, RIGHT));
    let up = Ruler::over(plot.y.scale, points().map(|point| point.1), (BOTTOM, TOP));
    let (Some(across), Some(up)) = (across, up) else { return String::new() };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\">\
         <text class=\"title\" x=\"{LEFT}\" y=\"16\">{0}</text>\n",
        escaped(&plot.title)
    );
    // Writing to a string does not fail.
    for (value, label) in across.ticks() {
        let x = across.place(value);
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{x:.1} {TOP}V{BOTTOM}\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            BOTTOM + 16.0
        );
    }
    for (value, label) in up.ticks() {
        let y = up.place(value);
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 6.0,
            y + 4.0
        );
    }
    let middle = f64::midpoint(TOP, BOTTOM);
    let _ = write!(
        svg,
        "\n<text x=\"{RIGHT}\" y=\"{}\" text-anchor=\"end\">{}</text>\
         <text transform=\"translate(12 {middle})rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
        BOTTOM + 34.0,
        named(&plot.x),
        named(&plot.y)
    );
    for (series, colour) in plot.series.iter().zip(COLOURS.iter().cycle()) {
        line(&mut svg, plot, series, (&across, &up), colour);
    }
    legend(&mut svg, &plot.series);
    svg.push_str("</svg>\n");
    svg
}

fn line(svg: &mut String, plot: &Plot, series: &Series, rulers: (&Ruler, &Ruler), colour: &str) {
    let shown = series.points.iter().filter(|it| plot.x.shows(it.0) && plot.y.shows(it.1));
    let places: Vec<(f64, f64)> =
        shown.map(|point| (rulers.0.place(point.0), rulers.1.place(point.1))).collect();
    let joined: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    let _ = write!(
        svg,
        "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        joined.join("L")
    );
    // So many that they would hide the line are left out.
    if places.len() <= 40 {
        for (x, y) in places {
            let _ =
                write!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>");
        }
    }
}

/// The names of the lines, where there are several.
fn legend(svg: &mut String, series: &[Series]) {
    if series.len() < 2 {
        return;
    }
    let width = (RIGHT - LEFT) / series.len() as f64;
    for (place, (series, colour)) in series.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let x = LEFT + place as f64 * width;
        let y = HEIGHT - 8.0;
        let _ = write!(
            svg,
            "<path d=\"M{x:.1} {}h14\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{:.1}\" y=\"{y}\">{}</text>",
            y - 4.0,
            x + 18.0,
            escaped(&series.name)
        );
    }
}

fn named(axis: &Axis) -> String {
    let unit = if axis.unit.is_empty() { String::new() } else { format!(", {}", axis.unit) };
    escaped(&format!("{}{unit}", axis.name))
}

impl Axis {
    /// Whether a value has a place on it.
    fn shows(&self, value: f64) -> bool {
        match self.scale {
            Scale::Linear => value.is_finite(),
            Scale::Log => value.is_finite() && value > 0.0,
            Scale::Nines => (0.0..=1.0).contains(&value),
        }
    }
}

/// Where the values of an axis stand.
struct Ruler {
    scale: Scale,
    /// The ends, as `measure` has them.
    least: f64,
    most: f64,
    /// Where these are drawn.
    from: f64,
    to: f64,
}

impl Ruler {
    /// One that has room for these values. `None` where there is none.
    fn over(
        scale: Scale,
        values: impl Iterator<Item = f64>,
        (from, to): (f64, f64),
    ) -> Option<Self> {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.map(|value| measure(scale, value)) {
            (least, most) = (least.min(value), most.max(value));
        }
        if least > most {
            return None;
        }
        match scale {
            Scale::Linear => {
                (least, most) = (least.min(0.0), if most > 0.0 { most * 1.05 } else { 1.0 })
            }
            // Whole powers of ten, and at least one of them.
            Scale::Log => {
                (least, most) = (least.floor(), most.ceil());
                most = most.max(least + 1.0);
            }
            Scale::Nines => (least, most) = (0.0, most.max(1.0)),
        }
        Some(Self { scale, least, most, from, to })
    }

    fn place(&self, value: f64) -> f64 {
        let share = (measure(self.scale, value) - self.least) / (self.most - self.least);
        self.from + share * (self.to - self.from)
    }

    /// Values that are named, with their names.
    fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => {
                let step = round_step((self.most - self.least) / TICKS);
                let first = (self.least / step).ceil() as i64;
                let last = (self.most / step).floor() as i64;
                (first..=last).map(|tick| tick as f64 * step).map(|it| (it, short(it))).collect()
            }
            Scale::Log => {
                // Every power, or fewer where there are many.
                let every = ((self.most - self.least) / 8.0).ceil().max(1.0) as usize;
                let powers = (self.least as i32..=self.most as i32).step_by(every);
                powers.map(|power| 10_f64.powi(power)).map(|it| (it, short(it))).collect()
            }
            Scale::Nines => {
                let median = [(0.5, "50 %".to_owned())];
                let nines = (1..=self.most as usize).map(|nines| {
                    let digits = nines.saturating_sub(2);
                    let share = 1.0 - 10_f64.powi(-(nines as i32));
                    (share, format!("{:.digits$} %", share * 100.0))
                });
                median.into_iter().chain(nines).collect()
            }
        }
    }
}

/// A value as far along its axis as it is drawn.
fn measure(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        Scale::Log => value.log10(),
        Scale::Nines => (-(1.0 - value).log10()).min(NINES_MAX),
    }
}

/// 1, 2 or 5 times a power of ten: the least that is not below.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().map(|it| it * power).find(|step| *step >= least);
    step.unwrap_or(10.0 * power)
}

/// A round number, without needless zeros.
fn short(value: f64) -> String {
    let text = number(value);
    let (digits, unit) = text.split_once(' ').unwrap_or((&text, ""));
    let digits =
        if value != 0.0 && value.abs() < 0.01 { format!("{value}") } else { digits.to_owned() };
    let digits = if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        digits
    };
    format!("{digits} {unit}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(x: Scale, y: Scale, points: &[(f64, f64)]) -> Plot {
        Plot {
            title: "a < b".to_owned(),
            x: Axis { name: "time", unit: "s", scale: x },
            y: Axis { name: "rate", unit: "/s", scale: y },
            series: vec![Series::new("one & two", points.to_vec())],
        }
    }

    fn ticks(scale: Scale, values: &[f64]) -> Vec<String> {
        let ruler = Ruler::over(scale, values.iter().copied(), (0.0, 100.0)).expect("values");
        ruler.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn what_is_more_stands_further_up_and_to_the_right() {
        for scale in [Scale::Linear, Scale::Log] {
            let ruler = Ruler::over(scale, [2.0, 40.0].into_iter(), (BOTTOM, TOP)).expect("two");
            assert!(ruler.place(40.0) < ruler.place(2.0));
            assert!(ruler.place(2.0) <= BOTTOM && ruler.place(40.0) >= TOP);
        }
        let nines = Ruler::over(Scale::Nines, [0.0, 0.999].into_iter(), (0.0, 30.0)).expect("two");
        assert_eq!(nines.place(0.9).round(), 10.0);
        assert_eq!(nines.place(0.99).round(), 20.0);
    }

    #[test]
    fn ticks_are_round_and_have_units_of_thousands() {
        assert_eq!(ticks(Scale::Linear, &[0.0, 1.3e6]), ["0", "500 k", "1 M"]);
        assert_eq!(ticks(Scale::Linear, &[0.3, 0.9]), ["0", "0.2", "0.4", "0.6", "0.8"]);
        assert_eq!(ticks(Scale::Log, &[0.002, 0.5]), ["0.001", "0.01", "0.1", "1"]);
        assert_eq!(ticks(Scale::Log, &[10.0, 1e5]), ["10", "100", "1000", "10 k", "100 k"]);
        assert_eq!(
            ticks(Scale::Nines, &[0.5, 0.9999]),
            ["50 %", "90 %", "99 %", "99.9 %", "99.99 %"]
        );
    }

    #[test]
    fn a_plot_is_a_picture_whatever_is_in_it() {
        let drawn = svg(&plot(Scale::Linear, Scale::Log, &[(0.0, 0.0), (1.0, 10.0), (2.0, 20.0)]));
        assert!(drawn.starts_with("<svg") && drawn.ends_with("</svg>\n"), "{drawn}");
        assert!(drawn.contains("a &lt; b") && drawn.contains("rate, /s"), "{drawn}");
        // What a logarithm cannot show is left out, and nothing else is.
        assert_eq!(drawn.matches("<circle").count(), 2);
        for points in [&[][..], &[(1.0, f64::NAN)], &[(1.0, 0.0)]] {
            assert_eq!(svg(&plot(Scale::Linear, Scale::Log, points)), "");
        }
        let one = svg(&plot(Scale::Linear, Scale::Linear, &[(0.0, 0.0)]));
        assert!(!one.contains("NaN") && !one.contains("inf"), "{one}");
    }
}
